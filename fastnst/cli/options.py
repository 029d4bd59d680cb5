"""From parsed options to Settings and to the pictures of a run."""

from __future__ import annotations

import argparse
import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastnst import weights
from fastnst.config import toml
from fastnst.config.description import LAYERS, value_from_text
from fastnst.config.parsing import is_pattern, parse_layers
from fastnst.config.provenance import locate
from fastnst.config.ranges import STARTS
from fastnst.config.settings import Settings
from fastnst.config.toml import StoredSettings
from fastnst.errors import UsageError, nearest
from fastnst.run.clashes import named
from fastnst.run.scene import count_parts, part_names


@dataclass(frozen=True)
class SettingsOptions:
    """The options that settings are made from.

    Args:
        values: the options that are settings, by name, as text; switches as bool.
        preset: ``--preset``.
        default_preset: the preset of the command.
        file: ``--settings``.
        like: ``--like``.
    """

    values: Mapping[str, str | bool]
    preset: str | None = None
    default_preset: str = "default"
    file: str | None = None
    like: str | None = None

    @classmethod
    def from_namespace(cls, options: argparse.Namespace) -> SettingsOptions:
        names = {field.name for field in dataclasses.fields(Settings)} - {"preset"}
        values = {name: value for name, value in vars(options).items() if name in names}
        like = getattr(options, "like", None)
        return cls(values, options.preset, options.default_preset, options.settings, like)


def read_settings(options: SettingsOptions) -> tuple[Settings, StoredSettings | None]:
    """The settings of a run, and what the file of ``--settings`` or the picture of ``--like`` holds.

    Options override the file, and the file overrides the preset. Raises UsageError.
    """
    layers = {name: str(options.values[name]) for name in LAYERS if name in options.values}
    changes: dict[str, Any] = {
        name: value_from_text(name, value) if isinstance(value, str) else value
        for name, value in options.values.items()
        if name not in layers
    }
    start = changes.get("init")
    if start is not None and start not in STARTS and not Path(start).exists():
        raise UsageError(
            f"--init: {start!r} is no file{nearest(start, STARTS)} (expected {', '.join(STARTS)} or a picture)"
        )
    base, stored = _read_base(options)
    layer_changes = _parse_layers(layers, changes.get("weights", base.weights), changes.get("arch", base.arch))
    return base.replace(**changes, **layer_changes), stored


def _parse_layers(given: Mapping[str, str], weights_name: str | None, arch: str) -> dict[str, Any]:
    """Layers from text. Patterns match the layers of the network of the weights."""
    if any(map(is_pattern, given.values())) and weights_name is not None:
        entry = next((entry for entry in weights.catalog() if entry.name == weights_name), None)
        arch = weights.load(weights_name, default_arch=arch).arch if entry is None else entry.arch
    found = {}
    for name, text in given.items():
        try:
            found[name] = parse_layers(text, arch)
        except UsageError as error:
            raise UsageError(f"--{name.replace('_', '-')}: {error}") from None
    return found


def _read_base(options: SettingsOptions) -> tuple[Settings, StoredSettings | None]:
    """The settings that the options change: of a preset or a file, and what the file holds."""
    preset, like = options.preset or options.default_preset, options.like
    if like is not None and options.file is not None:
        raise UsageError(f"--like {like} and --settings {options.file}: give one of the two")
    if like is not None and Path(like).suffix.lower() == toml.SUFFIX:
        raise UsageError(f"--like {like}: expected a picture made by fastnst; for this file use --settings")
    path = like or options.file
    if path is None:
        return Settings.from_preset(preset), None
    stored = toml.read_stored(path, preset)
    if options.preset is not None and stored.settings.preset != options.preset:
        raise UsageError(f"--preset {options.preset}: {path} has the preset {stored.settings.preset}; omit one")
    if Path(path).suffix.lower() == toml.SUFFIX:
        return stored.settings, stored
    return stored.settings.replace(max_pixels=None), stored  # a picture from elsewhere must not raise the limit


@dataclass(frozen=True)
class PictureFiles:
    """The files of the pictures of a run. None and empty tuples stand for pictures that are not given."""

    content: str | None
    styles: tuple[str, ...]
    masks: tuple[str, ...]
    style_masks: tuple[str, ...]
    content_mask: str | None

    @classmethod
    def from_namespace(cls, options: argparse.Namespace) -> PictureFiles:
        masks, style_masks = tuple(options.mask), tuple(options.style_mask)
        return cls(options.content, tuple(options.style or ()), masks, style_masks, options.content_mask)

    def completed(self, like: str, stored: StoredSettings) -> PictureFiles:
        """Fill in what is not given from the picture of ``--like``: content and styles and, if neither is given, masks.

        Raises UsageError for a file that is missing.
        """

        def recorded(part: str) -> tuple[str, ...]:
            return tuple(find_recorded(like, stored, part, "both: CONTENT STYLE"))

        found = dataclasses.replace(
            self, content=self.content or recorded("content")[0], styles=self.styles or recorded("style")
        )
        if self.content or self.styles or self.masks or self.style_masks or self.content_mask:
            return found
        masks, style_masks = recorded("mask"), recorded("style_mask")
        content_mask = next(iter(recorded("content_mask")), None)
        return dataclasses.replace(found, masks=masks, style_masks=style_masks, content_mask=content_mask)

    def require(self) -> None:
        """Raise UsageError if the content or the style is missing."""
        missing = [name for name, given in (("CONTENT", self.content), ("STYLE", self.styles)) if not given]
        if not missing:
            return
        masks = (("--mask", self.masks), ("--style-mask", self.style_masks))
        greedy = [option for option, files in masks if len(files) > 1]
        hint = f"; {' and '.join(greedy)} took all names after it: put CONTENT and STYLE before it" if greedy else ""
        raise UsageError(
            f"the following arguments are required: {', '.join(missing)}{hint} (see fastnst stylize --help)"
        )

    def by_part(self) -> dict[str, Any]:
        """The files by the words that errors name them with."""
        return {
            "content": self.content,
            "style": self.styles,
            "mask": self.masks,
            "style mask": self.style_masks,
            "content mask": self.content_mask,
        }


def find_recorded(like: str, stored: StoredSettings, part: str, to_name: str) -> list[str]:
    """The files of one kind that the picture of ``--like`` was made from; else ``to_name`` says what to name."""
    names = part_names(part, max(count_parts(part, stored.files), part in ("content", "style")))
    found = locate({name: stored.files[name] for name in names if name in stored.files}, Path(like))
    for name in names:
        if name not in found:
            file = stored.files.get(name)
            reason = f"{file['name']}, which is neither beside it nor in the current folder" if file else "not recorded"
            raise UsageError(f"--like {like}: its {name} was {reason}; name {to_name}")
    return [str(found[name]) for name in names]


def refuse_addresses(sources: Mapping[str, Any]) -> None:
    """Raise UsageError if one of the files, by what they are to the run, is a web address."""
    for what, path in named(Settings(), **sources):
        if re.match("[A-Za-z][A-Za-z0-9+.-]+://", str(path)):
            raise UsageError(f"{path}: expected a file for {what}, got an address; download it first")

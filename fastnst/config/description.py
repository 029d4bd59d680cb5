"""What a form needs to know of the settings: groups, kinds of values, ranges and texts. Imports no torch."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fastnst.config.parsing import parse, parse_layers
from fastnst.config.presets import PRESETS
from fastnst.config.ranges import CHOICES, RANGES, STARTS
from fastnst.config.settings import Settings, allows_none
from fastnst.errors import UsageError, nearest, shown

GROUPS: Mapping[str, tuple[str, ...]] = {
    title: tuple(names.split())
    for title, names in {
        "The result": (
            "preset size crop steps scales scale_factor min_scale min_shorter_side init noise seed keep_color "
            "match_color photoreal snapshot_every"
        ),
        "The loss": (
            "content_weight style_weight tv_weight content_layers style_layers style_loss content_loss style_weights "
            "normalize_gradients content_form style_form tv_kind style_fit style_scale style_size"
        ),
        "The network": "arch weights pooling padding tileable edges",
        "The optimizer": "optimizer learning_rate carry average betas epsilon clamp history first_change history_dtype",
        "The machine": "max_pixels device precision convolution tiles memory graph",
    }.items()
}
"""The settings by group, in the order of the help of the command line, the tables of the documents and the studio."""
LAYERS = ("content_layers", "style_layers")
_SEVERAL = ("steps", "history", "scales", "style_weights", "betas")


@dataclass(frozen=True)
class Description:
    """What a form needs to know of a setting.

    Attributes:
        name: the name of the field of :class:`Settings`.
        help: one line; names of other settings are in backticks.
        unit: unit of the number, or ``""``.
        kind: ``"integer"``, ``"number"``, ``"choice"``, ``"switch"``, ``"numbers"`` (one or several) or ``"text"``.
        none: whether the text ``none`` is accepted.
        least, most: range of the number or numbers.
        choices: the only values, for the kind ``"choice"``.
        suggestions: known values of a text that may have others.
        default: the value in the preset ``default``, as text.

    Example:
        >>> found = describe_settings()["size"]
        >>> found.kind, found.unit, found.default
        ('integer', 'pixels', '512')
    """

    name: str
    help: str
    unit: str
    kind: str
    none: bool
    least: float | None
    most: float | None
    choices: tuple[str, ...] | None
    suggestions: tuple[str, ...] | None
    default: str


def describe_settings(
    names: Mapping[str, Sequence[str]] | None = None, suggestions: Mapping[str, Sequence[str]] | None = None
) -> dict[str, Description]:
    """The descriptions of all settings by name, in the order of ``GROUPS``.

    Args:
        names: the values of settings whose names this module does not know, such as those of losses.
        suggestions: known values of settings that accept others too.
    """
    choices = {**CHOICES, "preset": tuple(PRESETS), **(names or {})}
    known = {"init": STARTS, **(suggestions or {})}
    fields = {field.name: field for field in dataclasses.fields(Settings)}
    return {name: _described(fields[name], choices, known) for group in GROUPS.values() for name in group}


def _described(
    field: dataclasses.Field[Any], choices: Mapping[str, Sequence[str]], suggestions: Mapping[str, Sequence[str]]
) -> Description:
    name, allowed = field.name, None if field.name in LAYERS else RANGES.get(field.name)
    if str(field.type) == "bool":
        kind = "switch"
    elif name in choices:
        kind = "choice"
    elif name in _SEVERAL:
        kind = "numbers"
    elif allowed is not None and name not in ("tiles", "memory"):
        kind = "integer" if allowed.whole else "number"
    else:
        kind = "text"
    return Description(
        name=name,
        help=field.metadata["help"],
        unit=field.metadata["unit"],
        kind=kind,
        none=allows_none(name),
        least=None if allowed is None else allowed.least,
        most=None if allowed is None else allowed.most,
        choices=tuple(choices[name]) if kind == "choice" else None,
        suggestions=tuple(suggestions[name]) if kind == "text" and name in suggestions else None,
        default=as_text(name, field.default),
    )


def as_text(name: str, value: Any) -> str:
    """A value of the setting ``name`` as :func:`settings_from_text` reads it.

    Example:
        >>> as_text("style_layers", (("relu1_1", 1.0), ("relu2_1", 0.5)))
        'relu1_1:1,relu2_1:0.5'
    """
    if value is None or value == ():
        return "none"
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, (int, float)):
        return _number(value)
    if isinstance(value, str):
        return value
    if name == "tiles":  # rows by size, which a run has recorded
        return "auto"
    return ",".join(f"{one[0]}:{_number(one[1])}" if isinstance(one, tuple) else _number(one) for one in value)


def _number(value: float) -> str:
    text = repr(value)
    return text.removesuffix(".0")


def value_from_text(name: str, text: str, arch: str = "vgg19") -> Any:
    """The value of the setting ``name`` from text as the command line takes it; ``on`` and ``off`` for switches.

    Raises UsageError for an unknown name, and for text that is no layers or no amount of memory. Other text that is not
    valid is returned as it is, and :class:`Settings` refuses it.
    """
    kinds = {field.name: str(field.type) for field in dataclasses.fields(Settings)}
    if name not in kinds:
        raise UsageError(f"unknown setting {shown(name)}{nearest(name, kinds)}")
    if kinds[name] == "bool":
        if text not in ("on", "off"):
            raise UsageError(f"{name}: expected on or off, got {shown(text)}")
        return text == "on"
    if text == "none" and name in ("weights", "style_weights", *LAYERS):
        return None if name == "weights" else ()
    return parse_layers(text, arch) if name in LAYERS else parse(name, text)


def settings_from_text(values: Mapping[str, str]) -> Settings:
    """Settings from text by name. ``preset`` names the preset to start from.

    Raises UsageError for an unknown name and for a value that is not valid.

    Example:
        >>> settings_from_text({"preset": "gatys", "size": "256", "clamp": "on"}).size
        256
    """
    values = dict(values)
    base = Settings.from_preset(values.pop("preset", "default"))
    arch = values.get("arch", base.arch)
    return base.replace(**{name: value_from_text(name, text, arch) for name, text in values.items()})

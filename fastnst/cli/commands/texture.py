"""``fastnst texture``: a picture with the texture of others, of any size, or with a hole filled."""

from __future__ import annotations

import argparse
import dataclasses
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastnst import images
from fastnst.cli.commands.stylize import StylizeRequest, other_files, stylize
from fastnst.cli.options import PictureFiles, SettingsOptions, find_recorded, read_settings, refuse_addresses
from fastnst.config.toml import StoredSettings
from fastnst.distributed import Ranks
from fastnst.errors import UsageError
from fastnst.images import Picture
from fastnst.run.clashes import Named
from fastnst.run.inpainting import PRESET, for_inpainting, inpaint_scene
from fastnst.run.scene import Scene
from fastnst.run.stylizer import Stylizer
from fastnst.run.texturing import DEFAULT_SIZE, blank, for_textures, parse_size

log = logging.getLogger("fastnst")

LOSSY = (".jpg", ".jpeg", ".webp", ".avif")


@dataclass(frozen=True)
class TextureRequest(StylizeRequest):
    """The options of ``fastnst texture``. ``size`` is width and height; ``hole`` is the mask of ``--inpaint``."""

    size: tuple[int, int]
    hole: str | None

    @classmethod
    def from_namespace(cls, options: argparse.Namespace) -> TextureRequest:
        """Read settings and find the pictures. Raises UsageError."""
        given = SettingsOptions.from_namespace(options)
        if options.inpaint is not None:
            given = dataclasses.replace(given, default_preset=PRESET)
        pictures, hole = PictureFiles.from_namespace(options), options.inpaint
        files = {**pictures.by_part(), **other_files(given.like, given.file), "weights": given.values.get("weights")}
        refuse_addresses({**files, "mask": hole})
        settings, stored = read_settings(given)
        if given.like is not None and stored is not None:
            pictures, hole = _completed(pictures, hole, given.like, stored)
        if not pictures.styles:
            raise UsageError("the following arguments are required: STYLE (see fastnst texture --help)")
        size = DEFAULT_SIZE if given.like is None or hole is not None else images.load(given.like).size[::-1]
        if options.texture_size is not None:
            size = parse_size(options.texture_size)
        if hole is None:
            settings = for_textures(settings, size)
        else:
            _refuse_with_inpaint(options)
            settings = for_inpainting(settings)
        return cls(pictures, settings, given.like, given.file, **cls.shared(options), size=size, hole=hole)

    @property
    def content(self) -> Picture:
        """A blank picture of the size of the result."""
        return blank(self.size)

    def load(self, world: Ranks) -> tuple[Stylizer, Scene]:
        """The network, and the pictures of the run."""
        if self.hole is None:
            return super().load(world)
        stylizer = Stylizer(self.settings, world)
        picture, *others = self.pictures.styles
        return stylizer, inpaint_scene(stylizer, picture, self.hole, others, self.pictures.style_masks)

    def files_read(self) -> list[Named]:
        """The files that the run reads."""
        return super().files_read() + ([] if self.hole is None else [("the mask of --inpaint", self.hole)])

    def default_name(self) -> str:
        """The name of the output if none is given."""
        kind = "texture" if self.hole is None else "filled"
        return "_".join([*(Path(path).stem for path in self.pictures.styles), f"{kind}.png"])

    def output_path(self) -> Path:
        """The file to write."""
        path = super().output_path()
        if self.hole is not None and path.suffix.lower() in LOSSY:
            log.warning("%s: a lossy format changes pixels outside the hole too; .png and .tif keep them", path)
        return path


def _refuse_with_inpaint(options: argparse.Namespace) -> None:
    """Raise UsageError for options that inpainting has no use for."""
    for name, value, reason in (
        ("--size", options.texture_size, "the result has the size of the picture"),
        ("--mask", options.mask, "the mask of --inpaint says where the texture goes"),
        ("--plan", options.plan, "the time of a part of a picture is not estimated"),
    ):
        if value:
            raise UsageError(f"{name} and --inpaint: {reason}; omit {name}")


def _completed(
    pictures: PictureFiles, hole: str | None, like: str, stored: StoredSettings
) -> tuple[PictureFiles, str | None]:
    """Fill in the styles that are not given from the picture of ``--like`` and, with them, the masks."""
    if pictures.styles:
        return pictures, hole

    def recorded(part: str) -> tuple[str, ...]:
        return tuple(find_recorded(like, stored, part, "STYLE"))

    changes: dict[str, Any] = {
        "styles": recorded("style"),
        "style_masks": pictures.style_masks or recorded("style_mask"),
    }
    if "hole" not in stored.files:
        return dataclasses.replace(pictures, masks=pictures.masks or recorded("mask"), **changes), hole
    found = dataclasses.replace(pictures, **changes)
    picture, hole = recorded("content")[0], hole or recorded("hole")[0]
    others = tuple(name for name in found.styles if Path(name) != Path(picture))
    return dataclasses.replace(found, styles=(picture, *others)), hole


def main(options: argparse.Namespace) -> int:
    """Run the command and return the exit code."""
    return stylize(TextureRequest.from_namespace(options))

"""``fastnst texture``: a picture with the texture of others, of any size."""

from __future__ import annotations

import argparse
import dataclasses
from dataclasses import dataclass
from pathlib import Path

from fastnst import images
from fastnst.cli.commands.stylize import StylizeRequest, other_files, stylize
from fastnst.cli.options import PictureFiles, SettingsOptions, find_recorded, read_settings, refuse_addresses
from fastnst.config.toml import StoredSettings
from fastnst.errors import UsageError
from fastnst.images import Picture
from fastnst.run.texture import DEFAULT_SIZE, blank, for_textures, parse_size


@dataclass(frozen=True)
class TextureRequest(StylizeRequest):
    """The options of ``fastnst texture``. ``size`` is width and height."""

    size: tuple[int, int]

    @classmethod
    def from_namespace(cls, options: argparse.Namespace) -> TextureRequest:
        """Read settings and find the pictures. Raises UsageError."""
        given = SettingsOptions.from_namespace(options)
        pictures = PictureFiles.from_namespace(options)
        files = {**pictures.by_part(), **other_files(given.like, given.file), "weights": given.values.get("weights")}
        refuse_addresses(files)
        settings, stored = read_settings(given)
        if given.like is not None and stored is not None:
            pictures = _completed(pictures, given.like, stored)
        if not pictures.styles:
            raise UsageError("the following arguments are required: STYLE (see fastnst texture --help)")
        size = DEFAULT_SIZE if given.like is None else images.load(given.like).size[::-1]
        if options.texture_size is not None:
            size = parse_size(options.texture_size)
        settings = for_textures(settings, size)
        return cls(pictures, settings, given.like, given.file, **cls.shared(options), size=size)

    @property
    def content(self) -> Picture:
        """A blank picture of the size of the result."""
        return blank(self.size)

    def default_name(self) -> str:
        """The name of the output if none is given."""
        return "_".join([*(Path(path).stem for path in self.pictures.styles), "texture.png"])


def _completed(pictures: PictureFiles, like: str, stored: StoredSettings) -> PictureFiles:
    """Fill in the styles that are not given from the picture of ``--like`` and, with them, the masks."""
    if pictures.styles:
        return pictures

    def recorded(part: str) -> tuple[str, ...]:
        return tuple(find_recorded(like, stored, part, "STYLE"))

    masks, style_masks = pictures.masks or recorded("mask"), pictures.style_masks or recorded("style_mask")
    return dataclasses.replace(pictures, styles=recorded("style"), masks=masks, style_masks=style_masks)


def main(options: argparse.Namespace) -> int:
    """Run the command and return the exit code."""
    return stylize(TextureRequest.from_namespace(options))

"""The pictures of a run: content, styles, and masks for where a style goes and which part of it is used."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from fastnst import images, spill
from fastnst.config.ranges import STARTS
from fastnst.config.settings import Settings
from fastnst.digests import digest
from fastnst.errors import UsageError
from fastnst.images import Picture
from fastnst.images.loading import Source
from fastnst.run import memory_limits
from fastnst.run.hole import Hole
from fastnst.run.scales import full_size, style_side
from fastnst.run.sizing import Sizing


@dataclass(frozen=True)
class StylePicture:
    """A style picture at the size it is used in.

    Attributes:
        picture: the style.
        mask: of the content's size: where in the image the style goes. White counts fully, gray partly, black and
            transparent not at all. None for everywhere.
        style_mask: of the style's size: which part of the style is used, in the same way. None for all of it.
    """

    picture: Picture
    mask: Picture | None = None
    style_mask: Picture | None = None

    @cached_property
    def fingerprint(self) -> str:
        """The SHA-256 of what style targets are measured from: the pixels of ``picture`` and ``style_mask``."""
        return digest([self.picture.pixels, *([] if self.style_mask is None else [self.style_mask.pixels])])


@dataclass(frozen=True)
class Temporal:
    """A picture that the image is held to, such as the frame of a film before, warped to this one.

    Attributes:
        pixels: ``[1, 3, H, W]`` in 0..1.
        weight: ``[1, 1, H, W]`` in 0..1: 0 where the picture says nothing.
        factor: the weight of the loss: see :class:`fastnst.objective.pixels.PixelTarget`.
    """

    pixels: Tensor
    weight: Tensor
    factor: float


@dataclass(frozen=True)
class Scene:
    """All pictures of a run.

    Attributes:
        content: the photograph.
        styles: one or several.
        content_mask: of the content's size, factors of the content loss in 0..1; None for 1 everywhere.
        start: the first image, of the content's size; None for what ``settings.init`` names.
        temporal: what the image is held to, of the content's size; None for nothing.
        hole: what the content is a window of, and which of its pixels may change; None: all of them.
        regions: how many of ``styles`` in a row are one style, with a mask each.
    """

    content: Picture
    styles: tuple[StylePicture, ...]
    content_mask: Picture | None = None
    start: Picture | None = None
    temporal: Temporal | None = None
    hole: Hole | None = None
    regions: int = 1

    @property
    def masked(self) -> bool:
        """Whether a style has a mask."""
        return any(style.mask is not None for style in self.styles)

    def pictures(self) -> dict[str, Picture]:
        """The pictures by part: content, style, style_2, ..., mask, ..., style_mask, ..., content_mask, start, hole."""
        found: dict[str, Picture | None] = {"content": self.content}
        count = len(self.styles)
        for name, kind in (("style", "picture"), ("mask", "mask"), ("style_mask", "style_mask")):
            found |= zip(part_names(name, count), (getattr(style, kind) for style in self.styles), strict=True)
        hole = None if self.hole is None else self.hole.weight
        found |= {"content_mask": self.content_mask, "start": self.start, "hole": hole}
        return {part: picture for part, picture in found.items() if picture is not None}

    def files(self) -> dict[str, Path | None]:
        """The files of the pictures by part, without ``start``, which a setting names."""
        return {part: picture.path for part, picture in self.pictures().items() if part != "start"}

    def shares(self, weights: Sequence[float]) -> list[float]:
        """The weight of each style, normalized to sum 1, or to mean 1 with masks, which keep styles apart.

        Raises UsageError for another number of weights than of styles, unless there are none.
        """
        count = len(self.styles) // self.regions
        if weights and len(weights) != count:
            raise UsageError(f"style_weights: {len(weights)} for {count} style{'s' * (count > 1)}; give one for each")
        given = list(weights) or [1.0] * count
        whole = sum(given) / count if self.masked else sum(given)
        return [weight / whole for weight in given for _ in range(self.regions)]


def on_disk(picture: Picture) -> Picture:
    """The picture, with large tensors in temporary files: see :func:`fastnst.spill.on_disk`."""
    alpha = None if picture.alpha is None else spill.on_disk(picture.alpha)
    return replace(picture, pixels=spill.on_disk(picture.pixels), alpha=alpha)


class SceneLoader:
    """Loads the pictures of a run at the sizes they are used in, large ones into temporary files.

    Args:
        settings: sizes, crop and limits.
        sizing: checks sizes before a picture is resized.
    """

    def __init__(self, settings: Settings, sizing: Sizing) -> None:
        self.settings, self.sizing = settings, sizing

    def content(self, source: Source) -> Picture:
        """A content picture at the settings' size or crop."""
        picture = self.read(source)
        try:
            self.sizing.check(*full_size(*picture.size, self.settings))
        except UsageError as error:
            raise UsageError(f"{picture.path}: {error}" if picture.path else str(error)) from None
        return on_disk(images.load(picture, size=self.settings.size, crop=self.settings.crop))

    def style(self, source: Source, content: Picture) -> Picture:
        """A style picture at the settings' style size, or style scale and fit, relative to the content."""
        picture = self.read(source)
        side, crop = style_side(picture.size, content.size, self.settings), self.settings.crop is not None
        size = (side, side) if crop else images.fit(*picture.size, side)
        memory_limits.check_style(*size, self.settings, self.sizing.network.device)
        return on_disk(images.load(picture, crop=side) if crop else images.load(picture, size=side))

    def start(self, content: Picture) -> Picture | None:
        """The picture that ``settings.init`` names, at the content's size; None if it names none."""
        if self.settings.init in STARTS:
            return None
        start = self.read(self.settings.init)
        return on_disk(replace(start, pixels=images.resize(start.pixels, *content.size)))

    def scene(
        self,
        content: Source,
        style: Source | Sequence[Source],
        masks: Sequence[Source | None] = (),
        style_masks: Sequence[Source | None] = (),
        content_mask: Source | None = None,
    ) -> Scene:
        """All pictures of a run: arguments and errors as for :func:`fastnst.stylize`."""
        styles = listed(style)
        check_counts(len(styles), masks, style_masks)
        whole = self.read(content)
        fitted = self.content(whole)
        found = []
        for i, source in enumerate(styles):
            picture = self.read(source)
            mask = self.mask("mask", masks[i], whole, self.content) if masks else None
            style_mask = None
            if style_masks:
                style_mask = self.mask("style mask", style_masks[i], picture, lambda x: self.style(x, fitted))
            found.append(StylePicture(self.style(picture, fitted), mask, style_mask))
        weights = self.mask("content mask", content_mask, whole, self.content)
        return Scene(fitted, tuple(found), weights, self.start(fitted))

    def read(self, source: Source) -> Picture:
        """A picture at its own size."""
        return images.load(source, max_pixels=self.settings.max_pixels)

    def mask(
        self,
        name: str,
        source: Source | None,
        whole: Picture,
        resize: Callable[[Picture], Picture],
        white: str = "what counts",
    ) -> Picture | None:
        """A mask for the picture ``whole``, resized as that is; transparent pixels are black.

        Raises UsageError for other proportions, and for one that is black, with what ``white`` stands for.
        """
        if source is None:
            return None
        fitted = self.fitted_mask(name, source, whole, resize)
        if not bool((fitted.pixels > 0).any()):
            title = f"{name} {fitted.path}" if fitted.path else name
            raise UsageError(f"{title}: has no pixel above zero; paint white {white}")
        return fitted

    def fitted_mask(self, name: str, source: Source, whole: Picture, resize: Callable[[Picture], Picture]) -> Picture:
        """As :meth:`mask`, for one that may be black."""
        mask = self.read(source)
        title = f"{name} {mask.path}" if mask.path else name
        pixels = mask.pixels if mask.alpha is None else mask.pixels * mask.alpha
        if pixels.shape != whole.pixels.shape:
            if not _same_aspect(mask.size, whole.size):
                (height, width), (full_height, full_width) = mask.size, whole.size
                raise UsageError(
                    f"{title}: is {width}x{height} pixels, but its picture {full_width}x{full_height}; "
                    "draw it in these proportions"
                )
            pixels = images.resize(pixels, *whole.size)
        fitted = resize(Picture(pixels))
        return on_disk(replace(fitted, pixels=fitted.pixels.clamp(0, 1), path=mask.path))


def listed(style: Source | Sequence[Source]) -> Sequence[Source]:
    """Several styles, or one, as a list."""
    return style if isinstance(style, (list, tuple)) else [style]  # type: ignore[list-item]


def mask_values(mask: Picture | None, size: tuple[int, int] | None = None) -> Tensor | None:
    """A mask as ``[1, 1, H, W]`` in 0..1, reduced to ``size`` by averaging if given; None for None."""
    if mask is None:
        return None
    gray = mask.pixels.mean(1, keepdim=True)
    return gray if size is None or gray.shape[2:] == size else F.adaptive_avg_pool2d(gray, size)


def check_counts(styles: int, masks: Sequence[object], style_masks: Sequence[object]) -> None:
    """Raise UsageError for no style, or for another number of masks than of styles."""
    if not styles:
        raise UsageError("expected a style picture at least")
    for name, given in (("mask", masks), ("style mask", style_masks)):
        if given and len(given) != styles:
            counts = [f"{len(given)} {name}{'s' * (len(given) != 1)}", f"{styles} style{'s' * (styles != 1)}"]
            raise UsageError(f"{' for '.join(counts)}; give one for each")


def _same_aspect(size: tuple[int, int], other: tuple[int, int]) -> bool:
    """Whether the sides differ by at most one pixel, as they are or with one picture scaled to a side of the other."""
    near = all(abs(side - wanted) <= 1 for side, wanted in zip(size, other, strict=True))
    return near or abs(size[0] * other[1] - size[1] * other[0]) <= max(*size, *other)


def part_names(name: str, count: int) -> list[str]:
    """The parts of ``count`` pictures of a kind: ``style``, ``style_2`` and so on."""
    return [name if i == 0 else f"{name}_{i + 1}" for i in range(count)]


def count_parts(part: str, files: Mapping[str, Any]) -> int:
    """The number of pictures of a kind in ``files``."""
    return sum(name == part or name.removeprefix(f"{part}_").isdigit() for name in files)

"""The pictures of a run: the content, the styles, and masks that say where each style goes and where it comes from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from fastnst import images
from fastnst.digests import digest
from fastnst.errors import UsageError
from fastnst.images import Picture


@dataclass(frozen=True)
class Painting:
    """A style picture as it is used. ``mask``, of the content's size, says where in the image it goes, and ``source``,
    of the style's size, where in the picture it comes from: white counts, black and what is transparent do not, grey
    counts in part."""

    picture: Picture
    mask: Picture | None = None
    source: Picture | None = None

    @cached_property
    def fingerprint(self) -> str:
        """The SHA-256 of what a style target is measured from: the picture's pixels and ``source``."""
        return digest([self.picture.pixels, *([] if self.source is None else [self.source.pixels])])


@dataclass(frozen=True)
class Scene:
    """All pictures of a run. ``content_mask``, of the content's size, holds factors of the content loss, 0 to 1."""

    content: Picture
    paintings: tuple[Painting, ...]
    content_mask: Picture | None = None
    start: Picture | None = None

    @property
    def masked(self) -> bool:
        return any(painting.mask is not None for painting in self.paintings)

    def pictures(self) -> dict[str, Picture]:
        """Each by its part in the run: content, style, style_2, mask, mask_2, style_mask, content_mask, start."""
        found: dict[str, Picture | None] = {"content": self.content}
        count = len(self.paintings)
        for name, kind in (("style", "picture"), ("mask", "mask"), ("style_mask", "source")):
            found |= zip(parts(name, count), (getattr(painting, kind) for painting in self.paintings), strict=True)
        found |= {"content_mask": self.content_mask, "start": self.start}
        return {part: picture for part, picture in found.items() if picture is not None}

    def files(self) -> dict[str, Path | None]:
        """The files of the pictures by part; ``start`` is known by the setting that names it."""
        return {part: picture.path for part, picture in self.pictures().items() if part != "start"}

    def shares(self, weights: Sequence[float]) -> list[float]:
        """The weight of each style: of sum 1, or with masks, which keep styles apart, of mean 1.

        Raises UsageError where there are as many weights neither as styles nor none.
        """
        count = len(self.paintings)
        if weights and len(weights) != count:
            raise UsageError(f"style_weights: {len(weights)} for {count} style{'s' * (count > 1)}; give one for each")
        given = list(weights) or [1.0] * count
        whole = sum(given) / count if self.masked else sum(given)
        return [weight / whole for weight in given]

    def coloured(self, content: Picture, recolour: Callable[[Picture], Picture]) -> Scene:
        """The scene with another content and its styles changed."""
        paintings = tuple(replace(painting, picture=recolour(painting.picture)) for painting in self.paintings)
        return replace(self, content=content, paintings=paintings)


def read(
    content: Any,
    style: Any,
    *,
    fit: Callable[[Picture], Picture],
    fit_style: Callable[[Picture, Picture], Picture],
    load_start: Callable[[Picture], Picture | None],
    masks: Sequence[Any] = (),
    style_masks: Sequence[Any] = (),
    content_mask: Any = None,
    max_pixels: int | None = None,
) -> Scene:
    """Load the pictures of a run.

    Args:
        content, content_mask: anything :func:`fastnst.images.load` takes.
        style: the same, or a list of several.
        fit: brings a content picture to the size it is used in; ``fit_style`` the same for a style and that content.
        load_start: the picture that the run starts from, given the content.
        masks, style_masks: none, or one for each style, None among them for no mask.
        max_pixels: as for :func:`fastnst.images.load`.

    Raises:
        UsageError: another number of masks than of styles, no style, a mask of other proportions than its picture (by
            more than a pixel), or one with no pixel above zero. ImageError: a picture that cannot be read.
    """
    styles = style if isinstance(style, (list, tuple)) else [style]
    if not styles:
        raise UsageError("expected a style picture at least")
    for name, given in (("mask", masks), ("style mask", style_masks)):
        if given and len(given) != len(styles):
            counts = [f"{len(given)} {name}{'s' * (len(given) != 1)}", f"{len(styles)} style{'s' * (len(styles) != 1)}"]
            raise UsageError(f"{' for '.join(counts)}; give one for each")
    whole = images.load(content, max_pixels=max_pixels)
    fitted = fit(whole)
    paintings = []
    for i, source in enumerate(styles):
        picture = images.load(source, max_pixels=max_pixels)
        mask = _mask("mask", masks[i], whole, fit, max_pixels) if masks else None
        chosen = None
        if style_masks:
            chosen = _mask("style mask", style_masks[i], picture, lambda x: fit_style(x, fitted), max_pixels)
        paintings.append(Painting(fit_style(picture, fitted), mask, chosen))
    content_weights = _mask("content mask", content_mask, whole, fit, max_pixels)
    return Scene(fitted, tuple(paintings), content_weights, load_start(fitted))


def values(mask: Picture | None, size: tuple[int, int] | None = None) -> Tensor | None:
    """A mask as ``[1, 1, H, W]`` in 0..1, at ``size`` by the mean over areas if given; None for none."""
    if mask is None:
        return None
    grey = mask.pixels.mean(1, keepdim=True)
    return grey if size is None or grey.shape[2:] == size else F.adaptive_avg_pool2d(grey, size)


def _mask(
    name: str, source: Any, whole: Picture, fit: Callable[[Picture], Picture], max_pixels: int | None
) -> Picture | None:
    """A mask of the picture ``whole``, brought to the size in which that is used; what is transparent is black."""
    if source is None:
        return None
    mask = images.load(source, max_pixels=max_pixels)
    called = f"{name} {mask.path}" if mask.path else name
    pixels = mask.pixels if mask.alpha is None else mask.pixels * mask.alpha
    if pixels.shape != whole.pixels.shape:
        sizes = [tuple(x.shape[2:]) for x in (pixels, whole.pixels)]
        if not _same_aspect(*sizes):
            told = [f"{width}x{height}" for height, width in sizes]
            raise UsageError(f"{called}: is {told[0]} pixels, but its picture {told[1]}; draw it in these proportions")
        pixels = images.resize(pixels, *sizes[1])
    fitted = fit(Picture(pixels))
    fitted = replace(fitted, pixels=fitted.pixels.clamp(0, 1), path=mask.path)
    if not bool((fitted.pixels > 0).any()):
        raise UsageError(f"{called}: has no pixel above zero; paint white what counts")
    return fitted


def _same_aspect(size: tuple[int, ...], other: tuple[int, ...]) -> bool:
    """Whether the sides differ by a pixel at most, as they are or with one picture scaled to a side of the other."""
    near = all(abs(side - wanted) <= 1 for side, wanted in zip(size, other, strict=True))
    return near or abs(size[0] * other[1] - size[1] * other[0]) <= max(*size, *other)


def parts(name: str, count: int) -> list[str]:
    """The parts of ``count`` pictures of a kind: ``style``, ``style_2`` and so on."""
    return [name if i == 0 else f"{name}_{i + 1}" for i in range(count)]


def listed(part: str, files: Mapping[str, Any]) -> int:
    """How many pictures of a kind ``files`` names."""
    return sum(name == part or name.removeprefix(f"{part}_").isdigit() for name in files)

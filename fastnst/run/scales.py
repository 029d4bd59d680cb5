"""The sizes of the scales of a run, coarse to fine."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from fastnst.config.settings import Settings
from fastnst.errors import UsageError
from fastnst.images import fit

MUCH_LARGER = 1.1  # "shorter_shrink" shrinks a style whose shorter side exceeds the content's by this factor


def full_size(height: int, width: int, settings: Settings) -> tuple[int, int]:
    """Height and width of the result for a content picture of this size: by the settings' size or crop."""
    if settings.crop is not None:
        return settings.crop, settings.crop
    return (height, width) if settings.size is None else fit(height, width, settings.size)


def shrinks(height: int, width: int, settings: Settings) -> tuple[float, ...]:
    """The factor by which each scale is smaller than a picture of this size, coarse to fine; the last is 1.

    Sides given in ``settings.scales`` are used as they are. Otherwise each scale is ``scale_factor`` times smaller than
    the next; scales with a longer side below ``min_scale`` or a shorter side below ``min_shorter_side`` are omitted.
    """
    longest = max(height, width)
    if isinstance(settings.scales, tuple):
        return tuple(longest / side for side in settings.scales)
    most = None if settings.scales == "auto" else int(settings.scales)
    smaller = itertools.takewhile(lambda shrink: _serves(height, width, shrink, settings), _factors(settings))
    return tuple(reversed([1.0, *itertools.islice(smaller, None if most is None else most - 1)]))


def scale_sizes(height: int, width: int, settings: Settings) -> tuple[tuple[int, int], ...]:
    """Height and width of each scale, coarse to fine, for a content picture of this size.

    The sides along which a tileable picture continues are rounded to multiples of the stride of the deepest layer.
    """
    sizes = [shrunk(height, width, shrink) for shrink in shrinks(height, width, settings)]
    if not any(settings.wraps):
        return tuple(sizes)
    *smaller, last = sizes
    return (*(_tiled(size, settings) for size in smaller), last)


def check_tile(height: int, width: int, settings: Settings) -> None:
    """Raise UsageError for a tileable picture of a size that pools would shorten where it continues."""
    if any(side % settings.stride for side, wraps in zip((height, width), settings.wraps, strict=True) if wraps):
        tiled_height, tiled_width = _tiled((height, width), settings)
        raise UsageError(
            f"tileable {settings.tileable}: a size of {width}x{height} pixels is no multiple of {settings.stride}, the "
            f"stride of the deepest layer, where the picture continues; the nearest is {tiled_width}x{tiled_height}"
        )


def _tiled(size: tuple[int, int], settings: Settings) -> tuple[int, int]:
    """The nearest size of a tileable picture."""
    stride = settings.stride
    height, width = (
        max(stride, round(side / stride) * stride) if wraps else side
        for side, wraps in zip(size, settings.wraps, strict=True)
    )
    return height, width


def shrunk(height: int, width: int, shrink: float) -> tuple[int, int]:
    """The size ``shrink`` times smaller, of the same proportions.

    The longer side is rounded half to even, as in the programs of the presets ``crowson`` and ``spst``.
    """
    return fit(height, width, max(1, round(max(height, width) / shrink))) if shrink != 1 else (height, width)


def style_side(style: tuple[int, int], content: tuple[int, int], settings: Settings) -> int:
    """The longer side at which a style picture is used, given the sizes of style and content: see the setting
    ``style_fit``."""
    longest = max(style)
    if settings.style_size is not None:
        return settings.style_size
    if settings.style_fit == "none":
        return max(1, round(longest * settings.style_scale))
    if settings.style_fit == "shorter_shrink":
        wanted = min(content) * settings.style_scale
        much_larger = min(style) > MUCH_LARGER * wanted
        return max(1, round(longest * wanted / min(style))) if much_larger else longest
    side = max(1, round(max(content) * settings.style_scale))
    return min(side, longest) if settings.style_fit == "longest_shrink" else side


def style_at(style: tuple[int, int], content: tuple[int, int], shrink: float, settings: Settings) -> tuple[int, int]:
    """Height and width of a style picture at a scale ``shrink`` times smaller, where the content has that size.

    It shrinks as the content does. With ``longest_shrink`` one that is smaller than the content does not shrink before
    the content has come down to its size.
    """
    if settings.style_fit == "longest_shrink" and settings.style_size is None and settings.crop is None:
        side = style_side(style, content, settings)
        return style if side == max(style) else fit(*style, side)
    return shrunk(*style, shrink)


def _factors(settings: Settings) -> Iterator[float]:
    # Rounded, so that two factors of the square root of two halve an odd side exactly.
    return (round(settings.scale_factor**i, 12) for i in itertools.count(1))


def _serves(height: int, width: int, shrink: float, settings: Settings) -> bool:
    # style-transfer-pytorch rounds the longer side, Scaling Painting Style Transfer rounds half of an odd shorter side
    # down.
    longest = max(shrunk(height, width, shrink))
    return longest >= settings.min_scale and min(height, width) / shrink >= settings.min_shorter_side

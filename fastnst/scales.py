"""The sizes of a run from coarse to fine."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from fastnst.images import fit
from fastnst.settings import Settings

MUCH_LARGER = 1.1  # a style whose shorter side is more times the content's is shrunk by "shorter_shrink"


def full_size(height: int, width: int, settings: Settings) -> tuple[int, int]:
    """Height and width of the result for a content picture of this size: by the settings' size or crop."""
    if settings.crop is not None:
        return settings.crop, settings.crop
    return (height, width) if settings.size is None else fit(height, width, settings.size)


def shrinks(height: int, width: int, settings: Settings) -> tuple[float, ...]:
    """How many times smaller than a picture of this size each scale is, coarse to fine; the last is 1.

    Given sides are taken as they are. Otherwise each scale is ``scale_factor`` times smaller than the next, and those
    whose longest side would be below ``min_scale``, or their shorter one below ``min_shorter_side``, are left out.
    """
    longest = max(height, width)
    if isinstance(settings.scales, tuple):
        return tuple(longest / side for side in settings.scales)
    most = None if settings.scales == "auto" else int(settings.scales)
    smaller = itertools.takewhile(lambda shrink: _serves(height, width, shrink, settings), _factors(settings))
    return tuple(reversed([1.0, *itertools.islice(smaller, None if most is None else most - 1)]))


def shrunk(height: int, width: int, shrink: float) -> tuple[int, int]:
    """The size ``shrink`` times smaller, of the same proportions. The longest side is rounded, half a pixel to the even
    number, as the programs that ``crowson`` and ``spst`` follow have it."""
    return fit(height, width, max(1, round(max(height, width) / shrink))) if shrink != 1 else (height, width)


def style_side(style: tuple[int, int], content: tuple[int, int], settings: Settings) -> int:
    """The longest side in which a style picture of a height and width is used beside such a content: see
    ``style_fit`` of :class:`fastnst.settings.Settings`."""
    longest = max(style)
    if settings.style_size is not None:
        return settings.style_size
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
    # The longest side is rounded, as style-transfer-pytorch has it; half of an odd shorter side is rounded down, as
    # Scaling Painting Style Transfer has it.
    longest = max(shrunk(height, width, shrink))
    return longest >= settings.min_scale and min(height, width) / shrink >= settings.min_shorter_side

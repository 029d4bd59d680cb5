"""The sizes of a run from coarse to fine."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

from fastnst.images import fit
from fastnst.settings import SMALLEST_SCALE, Settings


def full_size(height: int, width: int, settings: Settings) -> tuple[int, int]:
    """Height and width of the result for a content picture of this size: by the settings' size or crop."""
    if settings.crop is not None:
        return settings.crop, settings.crop
    return (height, width) if settings.size is None else fit(height, width, settings.size)


def shrinks(height: int, width: int, settings: Settings) -> tuple[float, ...]:
    """How many times smaller than a picture of this size each scale is, coarse to fine; the last is 1.

    Given sides are taken as they are. Otherwise each scale is ``scale_factor`` times smaller than the next, and those
    whose longest side would be below ``min_scale``, or their shortest below ``SMALLEST_SCALE``, are left out.
    """
    longest = max(height, width)
    if isinstance(settings.scales, tuple):
        return tuple(longest / side for side in settings.scales)
    most = None if settings.scales == "auto" else int(settings.scales)
    smaller = itertools.takewhile(lambda shrink: _serves(height, width, shrink, settings.min_scale), _factors(settings))
    return tuple(reversed([1.0, *itertools.islice(smaller, None if most is None else most - 1)]))


def shrunk(height: int, width: int, shrink: float) -> tuple[int, int]:
    """The size ``shrink`` times smaller, of the same proportions. Half a pixel of the longest side is left off."""
    return fit(height, width, max(1, math.ceil(max(height, width) / shrink - 0.5))) if shrink != 1 else (height, width)


def _factors(settings: Settings) -> Iterator[float]:
    return (settings.scale_factor**i for i in itertools.count(1))


def _serves(height: int, width: int, shrink: float, least: int) -> bool:
    height, width = shrunk(height, width, shrink)
    return max(height, width) >= least and min(height, width) >= SMALLEST_SCALE

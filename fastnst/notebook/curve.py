"""The curve of the loss, as an image that notebooks show even where they take SVG out of a page."""

from __future__ import annotations

import math
from collections.abc import Sequence

from fastnst.run import showing

POINTS = 240
"""The most points of a curve, so that a long run costs no more to draw than a short one."""
_EDGE = 2
"""Pixels above and below the curve."""
_GRAY = "#808080"
"""Seen on light and on dark pages: an image does not know the color of the page."""


def curve(losses: Sequence[float], scales: Sequence[int], width: int, height: int = 72) -> str:
    """The HTML of the losses by step, between their largest and their smallest; empty for fewer than two finite losses.

    The axis of the loss is logarithmic unless a loss is not above zero.

    Args:
        losses: the loss of each step; those that are not finite are left out.
        scales: index of the first step of each scale after the first, where a line is drawn.
        width, height: size of the image in pixels.
    """
    finite = [value for value in losses if math.isfinite(value)]
    if len(finite) < 2:
        return ""
    name = f"curve of the loss over {len(losses)} steps, from {losses[0]:.4g} to {losses[-1]:.4g}"
    image = showing.img("image/svg+xml", _svg(losses, scales, width, height).encode(), name, (height, width))
    return f"{showing.small(f'{max(finite):.3g}')}{image}{showing.small(f'{min(finite):.3g}')}"


def _svg(losses: Sequence[float], scales: Sequence[int], width: int, height: int) -> str:
    finite = [value for value in losses if math.isfinite(value)]
    low, high = min(finite), max(finite)
    unit = max(abs(low), abs(high)) or 1.0  # so that no difference overflows

    def level(value: float) -> float:
        return math.log10(value) if low > 0 else value / unit

    top, inner = level(high), height - 2 * _EDGE
    span = (top - level(low)) or 1.0
    across = (width - 2) / max(len(losses) - 1, 1)
    points = " ".join(
        f"{1 + i * across:.1f},{_EDGE + inner * (top - level(losses[i])) / span:.1f}"
        for i in _picked(len(losses))
        if math.isfinite(losses[i])
    )
    marks = "".join(
        f'<path d="M{1 + i * across:.1f} {_EDGE}v{inner}" stroke-dasharray="3 3" opacity="0.6"/>' for i in scales
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        f'fill="none" stroke="{_GRAY}">{marks}'
        f'<polyline points="{points}" stroke-width="1.5" stroke-linejoin="round"/></svg>'
    )


def _picked(count: int) -> list[int]:
    """At most ``POINTS`` indices of ``count``, evenly spaced, with the first and the last."""
    number = min(count, POINTS)
    return [i * (count - 1) // (number - 1) for i in range(number)]

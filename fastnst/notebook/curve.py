"""The curve of the loss as SVG, which takes the colors of the page that shows it."""

from __future__ import annotations

import math
from collections.abc import Sequence

POINTS = 240
"""The most points of a curve, so that a long run costs no more to draw than a short one."""
_TOP, _BOTTOM = 14, 14
"""Pixels above and below the curve, for the labels."""


def curve(losses: Sequence[float], scales: Sequence[int], width: int, height: int = 96) -> str:
    """An ``<svg>`` of the losses by step; an empty string for fewer than two finite losses.

    The axis of the loss is logarithmic unless a loss is not above zero.

    Args:
        losses: the loss of each step; those that are not finite are left out.
        scales: index of the first step of each scale after the first, where a line is drawn.
        width, height: size in pixels.
    """
    finite = [value for value in losses if math.isfinite(value)]
    if len(finite) < 2:
        return ""
    low, high = min(finite), max(finite)
    unit = max(abs(low), abs(high)) or 1.0  # so that no difference overflows

    def level(value: float) -> float:
        return math.log10(value) if low > 0 else value / unit

    top, inner = level(high), height - _TOP - _BOTTOM
    span = (top - level(low)) or 1.0
    across = (width - 2) / max(len(losses) - 1, 1)
    points = " ".join(
        f"{1 + i * across:.1f},{_TOP + inner * (top - level(losses[i])) / span:.1f}"
        for i in _picked(len(losses))
        if math.isfinite(losses[i])
    )
    lines = "".join(
        f'<path d="M{1 + i * across:.1f} {_TOP}v{inner}" stroke-dasharray="3 3" opacity="0.5"/>' for i in scales
    )
    name = f"loss over {len(losses)} steps, from {losses[0]:.4g} to {losses[-1]:.4g}"
    return (
        f'<svg role="img" aria-label="{name}" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        'style="max-width:100%;height:auto;display:block;margin-top:6px" fill="none" stroke="currentColor">'
        f'{lines}<polyline points="{points}" stroke-width="1.5" stroke-linejoin="round"/>'
        '<g fill="currentColor" stroke="none" font-size="11" font-family="sans-serif">'
        f'<text x="{width - 1}" y="10" text-anchor="end">{high:.3g}</text>'
        f'<text x="1" y="{height - 3}">{low:.3g}</text></g></svg>'
    )


def _picked(count: int) -> list[int]:
    """At most ``POINTS`` indices of ``count``, evenly spaced, with the first and the last."""
    number = min(count, POINTS)
    return [i * (count - 1) // (number - 1) for i in range(number)]

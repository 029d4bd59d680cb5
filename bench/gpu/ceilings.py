"""What the card at hand can do at most, measured: copies, and matrix products of the library."""

from __future__ import annotations

import torch
from problems import DTYPES, multiplied
from roofline import Card
from timing import Spread, Timer, Turn

COPIED = 2**30  # bytes, far above any cache
SIDE = 8192


def copy_bandwidth(device: torch.device, timer: Timer, size: int = COPIED) -> float:
    """Bytes per second, read and written, of a copy."""
    source, target = (torch.zeros(size, dtype=torch.uint8, device=device) for _ in range(2))
    seconds = timer.seconds([Turn(lambda: target.copy_(source))], 8)[0][3:]
    return 2 * size / Spread.of(seconds).median


def product_rate(device: torch.device, timer: Timer, precision: str, side: int = SIDE) -> float:
    """Operations per second of a square product."""
    a, b = (torch.randn(side, side, device=device).to(DTYPES[precision]) for _ in range(2))
    out = torch.empty_like(a)
    with multiplied(precision):
        seconds = timer.seconds([Turn(lambda: torch.mm(a, b, out=out))], 8)[0][3:]
    return 2.0 * side**3 / Spread.of(seconds).median


def measure_card(name: str, device: torch.device, timer: Timer, size: int = COPIED, side: int = SIDE) -> Card:
    """The card as measured, in the form of the published ones."""
    rates = {precision: product_rate(device, timer, precision, side) for precision in DTYPES}
    return Card(name, copy_bandwidth(device, timer, size), rates["float32"], *(rates[p] for p in list(DTYPES)[1:]))

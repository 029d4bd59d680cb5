"""Measured peaks of the card: memory bandwidth by copies, and matrix products of the library."""

from __future__ import annotations

import torch

from bench.common.contest import Contender, Spread, Timer
from bench.gpu.problems import DTYPES, matmul_precision
from bench.gpu.roofline import Card

COPIED = 2**30  # bytes, far above any cache
SIDE = 8192
ROUNDS, WARM_UP = 8, 3


def _median(timer: Timer, contender: Contender) -> float:
    return Spread.of(timer.seconds([contender], ROUNDS)[0][WARM_UP:]).median


def copy_bandwidth(device: torch.device, timer: Timer, size: int = COPIED) -> float:
    """Bytes per second, read and written, of a copy."""
    source, target = (torch.zeros(size, dtype=torch.uint8, device=device) for _ in range(2))
    return 2 * size / _median(timer, Contender("copy", lambda: target.copy_(source)))


def product_rate(device: torch.device, timer: Timer, precision: str, side: int = SIDE) -> float:
    """Operations per second of a square product."""
    a, b = (torch.randn(side, side, device=device).to(DTYPES[precision]) for _ in range(2))
    out = torch.empty_like(a)
    with matmul_precision(precision):
        return 2.0 * side**3 / _median(timer, Contender("product", lambda: torch.mm(a, b, out=out)))


def measure_card(name: str, device: torch.device, timer: Timer, size: int = COPIED, side: int = SIDE) -> Card:
    """The measured peaks of the card."""
    rates = {precision: product_rate(device, timer, precision, side) for precision in DTYPES}
    return Card(name, copy_bandwidth(device, timer, size), rates["float32"], *(rates[p] for p in list(DTYPES)[1:]))

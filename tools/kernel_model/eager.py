"""The same layers in eager PyTorch over cuBLAS, on the generous side: no kernel takes longer here than on a card.

`seconds` is autograd. The forward is a product, and three kernels for its split-K sums, the difference and the mean of
its squares. The backward is a kernel for the residual, a product for each of the two factors, the sum of both, its sum
with the incoming gradient, and the mask of ReLU. `by_hand` knows that both factors are the same map: one product that
adds to the incoming gradient (`baddbmm`), and the mask.
"""

from __future__ import annotations

import math

from tools.kernel_model import cards
from tools.kernel_model.cases import Case

EFFICIENCY = 0.8
"""Of the dense peak: large bfloat16 products of cuBLAS reach 75 to 80 % on H100, whose power limit lowers the clock."""
SMALL = 1.0e-6
"""Seconds of a kernel over a matrix of C^2 values without the gap: two round trips to L2, and its blocks start."""
RAMP = 1.5e-6
"""Seconds of a product besides its operations: the first copies arrive, the tile is written."""
TILE = 128


def product(chip: cards.Chip, case: Case, moved: float, split: bool) -> float:
    """A product of cuBLAS that moves so many bytes: C x C over positions, ``split`` evenly, or C x positions over C."""
    rate = chip.peaks.library_products(case.precision) * EFFICIENCY
    seconds = 2.0 * case.channels**2 * case.positions / rate
    if not split:
        tiles = math.ceil(case.channels / TILE) * math.ceil(case.positions / TILE)
        seconds = max(seconds, math.ceil(tiles / chip.sms) * 2.0 * TILE**2 * case.channels / (rate / chip.sms))
    return cards.GAP + RAMP + max(seconds, moved / chip.bandwidth)


def _pass(chip: cards.Chip, moved: float) -> float:
    """An elementwise kernel."""
    return cards.GAP + max(moved / chip.bandwidth, SMALL)


def seconds(chip: cards.Chip, case: Case) -> float:
    """Of the op of a case, by autograd."""
    one, small = case.features, _pass(chip, 0)
    if case.op == "style_loss":
        return product(chip, case, one, split=True) + 3 * small
    back = small + 2 * product(chip, case, 2 * one, split=False) + _pass(chip, 3 * one)
    return back + 2 * _pass(chip, 3 * one) if case.op == "layer_backward_" else back


def by_hand(chip: cards.Chip, case: Case) -> float:
    """Of the op of a case, with the fewest calls of PyTorch."""
    one = case.features
    if case.op == "layer_backward_":
        return product(chip, case, 3 * one, split=False) + _pass(chip, 3 * one)
    if case.op == "gram_backward":
        return product(chip, case, 2 * one, split=False) + _pass(chip, 0)
    return seconds(chip, case)

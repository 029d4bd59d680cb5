"""Which layers are computed together.

A convolution can apply the ReLU and the max pool after it, so that the maps in between are never stored; or the pool
computes the bias and the ReLU before it. In the backward pass, the step above a ReLU can apply the ReLU's mask. All are
only possible where no loss observes the layers in between. The engines, the strips,
:meth:`fastnst.network.vgg.VGG.iter_features` and the memory model use this plan.
"""

from __future__ import annotations

from dataclasses import dataclass

from fastnst.network.layer import Layer

TILE_ROWS = 4
"""Rows of one tile of fastnst's convolutions of few channels. A strip that begins at a multiple of this has the tiles
of the whole map, and with them its bits. It is also more than the one row that a window reads beyond a tile."""
LARGE_TILE_ROWS, MANY_CHANNELS = 6, 256
"""The rows of a larger tile, and from how many input channels its rounding errors are small enough."""


def tile_rows(inputs: int, width: int) -> int:
    """The rows of a tile of a convolution, by its input channels and the width of the map; see csrc/cpu/conv3x3.cpp."""
    small, large = -(-width // TILE_ROWS), -(-width // LARGE_TILE_ROWS)
    fewer = large**2 * (LARGE_TILE_ROWS + 2) ** 2 < small**2 * (TILE_ROWS + 2) ** 2
    return LARGE_TILE_ROWS if inputs >= MANY_CHANNELS and fewer else TILE_ROWS


@dataclass(frozen=True)
class FusionPlan:
    """How the layers of a chain are combined. Layers are given by their index in the chain.

    Args:
        chain: conv, relu and pool layers, first layer first.
        observed: the names of the layers with a loss, whose features must exist.
        pooling: ``"max"``, ``"average"`` or ``"l2"``.
        winograd: whether the convolutions are fastnst's, which can apply a max pool.
        conv_masks: whether the backward of a convolution applies the mask of the ReLU below it.
        whole_gradients: whether the gradient at an observed layer needs the whole map, as its norm does.
        wraps_rows: whether the first row of a map follows its last.
    """

    chain: tuple[Layer, ...]
    observed: frozenset[str]
    pooling: str
    winograd: bool
    conv_masks: bool = True
    whole_gradients: bool = False
    wraps_rows: bool = False

    def fuses_relu(self, i: int) -> bool:
        """Whether the convolution ``i`` applies the ReLU after it."""
        return self._is(i, "conv") and not self._observes(i) and i + 1 < len(self.chain)

    def fuses_pool(self, i: int) -> bool:
        """Whether the convolution ``i`` applies the ReLU and the max pool after it."""
        return self.winograd and self.fuses_relu(i) and self.releases_relu(i + 2)

    def pools_relu(self, i: int) -> bool:
        """Whether the pool after the convolution ``i`` and its ReLU can compute both: no loss observes the ReLU."""
        return self.fuses_relu(i) and self._is(i + 2, "pool") and not self._observes(i + 1)

    def releases_relu(self, i: int) -> bool:
        """Whether ``i`` is a pool that keeps the argmax in place of the ReLU's output below it.

        Where a maximum is zero, so is the ReLU's output, so that the pool's backward can apply the mask.
        """
        return self._is(i, "pool") and self.pooling == "max" and not self._observes(i - 1)

    def masks_relu(self, i: int) -> bool:
        """Whether the backward of layer ``i`` applies the mask of the ReLU below it."""
        if self._is(i, "conv"):
            return self.conv_masks and self._is(i - 1, "relu") and not self._observes(i - 1)
        return self.releases_relu(i)

    def masks_itself(self, i: int) -> bool:
        """Whether ``i`` is a ReLU whose mask no other layer applies, so that its output must be kept."""
        return self._is(i, "relu") and not self.masks_relu(i + 1)

    def is_window(self, i: int) -> bool:
        """Whether layer ``i`` is a step that reads a window of its input: a convolution, or a pool of its own."""
        return self._is(i, "conv") or (self._is(i, "pool") and not self.fuses_pool(i - 2))

    def recomputes_first(self) -> bool:
        """Whether the first ReLU's output is released once it is read, and recomputed in the backward pass.

        It is the largest map and the cheapest to compute. Its gradient is then computed in strips.
        """
        if not self.winograd or self.wraps_rows or len(self.chain) <= 2 or self._observes(0):
            return False
        return not (self.whole_gradients and self._observes(1))

    def _is(self, i: int, kind: str) -> bool:
        return 0 <= i < len(self.chain) and self.chain[i].kind == kind

    def _observes(self, i: int) -> bool:
        return self.chain[i].name in self.observed

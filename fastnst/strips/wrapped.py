"""Strips of a picture whose first row follows its last.

The first strip would need features of the last, and the last those of the first. The picture is therefore swept with
rows of its other end above and below, as many as the receptive field reaches. Features of these rows are not used,
those of the picture's own rows are exact, and the gradient of a repeated row is added to that of the row. This is the
only place where strips compute a pixel twice.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

import torch
from torch import Tensor

from fastnst import ops
from fastnst.distributed import SINGLE, Ranks
from fastnst.errors import UsageError
from fastnst.network.layer import Layer
from fastnst.network.vgg import VGG, smallest_side
from fastnst.objective.terms import add_gradient_
from fastnst.strips.sweep import AddGradients, OnFeatures, StripSweep


class WrappedSweep:
    """As :class:`fastnst.strips.sweep.StripSweep`, for a network whose padding of rows is ``"circular"``.

    Raises UsageError for a height that pools would shorten, since rows of deep layers would then not wrap around.
    """

    def __init__(
        self,
        network: VGG,
        chain: tuple[Layer, ...],
        observed: Collection[str],
        size: tuple[int, int],
        rows: int,
        ranks: Ranks = SINGLE,
    ) -> None:
        height, width = size
        stride = smallest_side(chain)
        if height % stride:
            raise UsageError(
                f"circular padding along strips of a picture of {height} rows: expected a multiple of {stride}, "
                f"the stride of layer {chain[-1].name}; use another size or --tiles off"
            )
        _, columns = ops.reference.sides(network.padding)
        self.margin, self._height, self._ranks = margin_rows(chain), height, ranks
        self._sweep = StripSweep(
            network.padded(ops.reference.joined("zeros", columns)),
            chain,
            observed,
            (height + 2 * self.margin, width),
            rows,
            ranks,
        )
        self.bands = ranks.bands(height, 0)
        self.band = self.bands[ranks.rank]
        self._strides = {layer.name: layer.stride for layer in chain}

    @property
    def count(self) -> int:
        """The number of strips."""
        return self._sweep.count

    def forward(self, image: Tensor, on_features: OnFeatures, *, keep: bool = True) -> None:
        """As :meth:`fastnst.strips.sweep.StripSweep.forward`."""
        without_rows: dict[str, tuple[slice, Tensor]] = {}
        passed: set[str] = set()

        def on_own_features(name: str, rows: slice, x: Tensor) -> None:
            inside, own = self._own(name, rows)
            if inside.stop > inside.start:
                passed.add(name)
                on_features(name, own, x[:, :, inside])
            else:
                without_rows[name] = (slice(0, 0), x.new_empty((1, x.shape[1], 0, x.shape[3])))

        self._sweep.forward(wrapped(image, self.margin), on_own_features, keep=keep)
        for name, (rows, x) in without_rows.items():
            if name not in passed:
                on_features(name, rows, x)

    def backward(self, image: Tensor, add_gradients: AddGradients, gradient: Tensor) -> None:
        """As :meth:`fastnst.strips.sweep.StripSweep.backward`, but all rows of ``gradient`` are written."""

        def add_own_gradients(name: str, rows: slice, grad: Tensor, x: Tensor, relu: bool) -> None:
            inside, own = self._own(name, rows)
            if inside == slice(0, x.shape[2]):
                add_gradients(name, own, grad, x, relu)
                return
            for part in (slice(0, inside.start), inside, slice(inside.stop, x.shape[2])):
                if part.stop <= part.start:
                    continue
                some, features = (ops.reference.channels_last(one[:, :, part]) for one in (grad, x))
                if part is inside:
                    add_gradients(name, own, some, features, relu)
                else:
                    add_gradient_(some, features, None, (), relu=relu)
                grad[:, :, part] = some

        extended = wrapped(image, self.margin)
        found = torch.zeros_like(extended)
        self._sweep.backward(extended, add_own_gradients, found)
        self._ranks.gather_bands(found, self._sweep.bands)
        for own, repeated in _periods(self._height, self.margin):
            gradient[:, :, own] += found[:, :, repeated]

    def _own(self, name: str, rows: slice) -> tuple[slice, slice]:
        """The picture's own among ``rows`` of a layer: counted from the first of them, and as rows of the layer."""
        stride = self._strides[name]
        first, count = rows.start - self.margin // stride, rows.stop - rows.start
        low = min(max(-first, 0), count)
        high = max(min(self._height // stride - first, count), low)
        return slice(low, high), slice(first + low, first + high)


def margin_rows(chain: tuple[Layer, ...]) -> int:
    """The rows of the image that the deepest features read above or below their own, in whole strides."""
    reach, step = 0, 1
    for layer in chain:
        reach += step if layer.kind != "relu" else 0
        step *= 2 if layer.kind == "pool" else 1
    stride = smallest_side(chain)
    return -(-reach // stride) * stride


def wrapped(x: Tensor, margin: int) -> Tensor:
    """``x [B, C, H, W]`` with ``margin`` rows of its other end above and below."""
    rows = torch.arange(-margin, x.shape[2] + margin, device=x.device) % x.shape[2]
    return x.index_select(2, rows)


def _periods(height: int, margin: int) -> Iterator[tuple[slice, slice]]:
    """Rows of a picture, and the rows of the picture with margins that repeat them."""
    for first in range(-(-(margin) // height) * -height, height + margin, height):
        low, high = max(first, -margin), min(first + height, height + margin)
        yield slice(low - first, high - first), slice(low + margin, high + margin)

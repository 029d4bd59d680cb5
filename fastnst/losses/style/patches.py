"""The patch loss of CNNMRF: patches of a layer near those of the style that they resemble."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from fastnst.devices import wide_dtype
from fastnst.errors import UsageError
from fastnst.losses.base import Target
from fastnst.losses.joint.nearest import LIMIT, best_matches, unit_rows
from fastnst.losses.style.base import KnownGradientLoss
from fastnst.ops.dtypes import accumulate_dtype


class NearestPatch(KnownGradientLoss):
    """The mean squared difference between patches and their nearest of the style.

    ``1 / (9 C n) * sum_i |P_i - S_k(i)|^2`` for patches P of 3 x 3 positions of the image, n in number, and the patch
    S of the style with the largest normalized cross-correlation ``P S / (|P| |S|)``. Both are taken at every second
    position. The derivative treats the choice k as constant, which is exact where no two are equally near.

    Li and Wand, "Combining Markov random fields and convolutional neural networks for image synthesis", 2016, eq. 2,
    which has the sum instead of the mean. Numbers are those of the authors' program, whose gradient is divided at each
    position by the number of patches that contain it.

    Patches are made and matched a block at a time, so that only the layer and its gradient exist as a whole. The time
    grows with the product of the positions of image and style.

    Args:
        size: positions of a patch on a side.
        stride: positions from one patch to the next.
    """

    def __init__(self, size: int = 3, stride: int = 2) -> None:
        for name, value in (("size", size), ("stride", stride)):
            if value < 1:
                raise UsageError(f"NearestPatch: expected {name} of at least 1, got {value}")
        self.size, self.stride = size, stride

    def target(self, x: Tensor, weight: Tensor | None = None) -> Target:
        """Return the features, and with a weight the positions where it is above zero, for each style."""
        self._grid(x)
        return (x,) if weight is None else (x, (weight > 0).to(x.dtype)[:, None])

    def blend(self, targets: Sequence[Target], weights: Sequence[float]) -> Target:
        """Return the union of the styles; each patch takes the nearest of all."""
        if max(weights) - min(weights) > 1e-6 * max(weights):
            raise UsageError("style_loss 'cnnmrf' matches the union of the styles and takes no style_weights")
        return tuple(tensor for target in targets for tensor in target)

    def value_and_gradient(self, x: Tensor, target: Target, weight: Tensor | None) -> tuple[Tensor, Tensor]:
        dtype, width = accumulate_dtype(x.dtype), x.shape[1] * self.size**2
        places = self._grid(x)
        styles = self._style_places(target)
        find, keys = self._rows(x, places), self._union(styles)
        count, total = len(places), sum(len(at) for _, at in styles)
        index, _ = best_matches(
            lambda rows: unit_rows(find(rows)), lambda rows: unit_rows(keys(rows)), (count, total), width
        )
        shares = torch.full((count,), 1 / count, dtype=dtype, device=x.device)
        if weight is not None:
            shares = self._middles(weight, places)
            shares = shares / shares.sum()
        gradient = torch.zeros(x.shape[1], x.shape[2] * x.shape[3], dtype=dtype, device=x.device)
        value = torch.zeros((), dtype=wide_dtype(x.device), device=x.device)
        for begin in range(0, count, step := max(LIMIT // width, 1)):
            rows = slice(begin, min(begin + step, count))
            apart = find(rows) - self._chosen(styles, index[rows])
            by_row = apart * shares[rows, None]
            value += (by_row * apart).sum(dtype=value.dtype)
            by_position = by_row.reshape(len(by_row), x.shape[1], -1).transpose(0, 1)
            # One place of the patches at a time: no position occurs twice, so that the order of the sum is fixed.
            for i, offset in enumerate(self._offsets(x.shape[3])):
                gradient[:, places[rows] + offset] += by_position[:, :, i]
        return (value / width).to(dtype), (gradient * (2 / width)).to(x.dtype).reshape(x.shape)

    def _grid(self, x: Tensor) -> Tensor:
        """The flat index of the first position of each patch of features ``[1, C, h, w]``."""
        height, width = x.shape[2:]
        if min(height, width) < self.size:
            raise UsageError(
                f"style_loss 'cnnmrf' needs layers of {self.size} x {self.size} positions, got {height} x {width}; "
                "use larger pictures or shallower layers"
            )
        rows, columns = (
            torch.arange(0, side - self.size + 1, self.stride, device=x.device) for side in (height, width)
        )
        return (rows[:, None] * width + columns).flatten()

    def _offsets(self, width: int) -> list[int]:
        """The flat distance of each position of a patch from its first, in a layer of this width."""
        return [y * width + x for y in range(self.size) for x in range(self.size)]

    def _rows(self, x: Tensor, places: Tensor) -> Callable[[slice], Tensor]:
        """Returns the patches at some of ``places`` as rows ``[n, C size^2]`` in the accumulate dtype."""
        flat, dtype = x.flatten(2)[0], accumulate_dtype(x.dtype)
        offsets = torch.tensor(self._offsets(x.shape[3]), device=x.device)

        def rows(some: slice) -> Tensor:
            at = places[some, None] + offsets
            return flat[:, at].transpose(0, 1).flatten(1).to(dtype)

        return rows

    def _style_places(self, target: Target) -> list[tuple[Tensor, Tensor]]:
        """The features of each style and the places of its patches, which lie in its mask with their middle."""
        found: list[tuple[Tensor, Tensor]] = []
        for tensor in target:
            if tensor.shape[1] == 1 and found and tensor.shape[2:] == found[-1][0].shape[2:]:
                x, places = found.pop()
                inside = self._middles(tensor[0], places) > 0
                found.append((x, places[inside] if bool(inside.any()) else places))
            else:
                found.append((tensor, self._grid(tensor)))
        return found

    def _middles(self, weight: Tensor, places: Tensor) -> Tensor:
        """The weight ``[1, h, w]`` of the middle of each patch."""
        half = self.size // 2
        found: Tensor = weight.flatten()[places + half * weight.shape[2] + half]
        return found

    def _union(self, styles: Sequence[tuple[Tensor, Tensor]]) -> Callable[[slice], Tensor]:
        """Returns some patches of all styles, one style after the other."""
        readers = [(self._rows(x, places), len(places)) for x, places in styles]

        def rows(some: slice) -> Tensor:
            found: list[Tensor] = []
            first = 0
            for read, count in readers:
                begin, end = max(some.start - first, 0), min(some.stop - first, count)
                if begin < end or (not found and read is readers[-1][0]):
                    found.append(read(slice(begin, max(end, begin))))
                first += count
            return found[0] if len(found) == 1 else torch.cat(found)

        return rows

    def _chosen(self, styles: Sequence[tuple[Tensor, Tensor]], index: Tensor) -> Tensor:
        """The patches of all styles at ``index``."""
        found, first = None, 0
        for x, places in styles:
            here = (index >= first) & (index < first + len(places))
            at = places[torch.where(here, index - first, 0)]
            rows = self._rows(x, at)(slice(None))
            found = rows if found is None else torch.where(here[:, None], rows, found)
            first += len(places)
        assert found is not None
        return found

"""What two bands of a picture share: at every layer the first rows of its input in the lower one.

The lower band makes them; the upper one looks at them for its last rows, and finds a part of the gradient by them. So
features go up and gradients come down, one message a sweep, sent as soon as it is complete and waited for where it is
needed: the lower band begins with these rows and the upper one ends with them, so that neither waits for the other.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor


class Edge:
    """Some rows of the inputs of layers, one after the other in one tensor ``flat``; zero at first.

    Args:
        rows: by the layer they go into.
        shapes: channels and width of each.
        like: of the dtype and on the device of the features.
    """

    def __init__(self, rows: Mapping[int, slice], shapes: Mapping[int, tuple[int, int]], like: Tensor) -> None:
        self._rows = rows
        laid = {i: (one.stop - one.start, shapes[i][1], shapes[i][0]) for i, one in rows.items()}
        sizes = [math.prod(shape) for shape in laid.values()]
        self.flat = torch.zeros(sum(sizes), dtype=like.dtype, device=like.device)
        parts = zip(laid.items(), self.flat.split(sizes), strict=True)
        self.maps = {i: part.view(1, *shape).permute(0, 3, 1, 2) for (i, shape), part in parts}

    def take(self, i: int, first: int, x: Tensor) -> None:
        """Keep those of the rows of ``x``, which begin at ``first``, that belong here."""
        own, there = self._common(i, first, x)
        self.maps[i][:, :, own] = x[:, :, there]

    def add(self, i: int, first: int, x: Tensor) -> None:
        """Add ``x``, whose rows begin at ``first``."""
        own, there = self._common(i, first, x)
        self.maps[i][:, :, own] += x[:, :, there]

    def add_to(self, x: Tensor, i: int, first: int) -> None:
        """Add what is here to ``x``, whose rows begin at ``first``."""
        own, there = self._common(i, first, x)
        x[:, :, there] += self.maps[i][:, :, own]

    def reached(self, ends: Sequence[int]) -> bool:
        """Whether rows up to ``ends``, by layer, are all that belong here."""
        return all(ends[i] >= rows.stop for i, rows in self._rows.items())

    def _common(self, i: int, first: int, x: Tensor) -> tuple[slice, slice]:
        """The rows that ``x`` has as well, as rows here and there."""
        rows = self._rows[i]
        low = max(rows.start, first)
        high = max(min(rows.stop, first + x.shape[2]), low)
        return slice(low - rows.start, high - rows.start), slice(low - first, high - first)

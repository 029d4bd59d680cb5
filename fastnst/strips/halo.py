"""The halo between two bands of a picture: the rows of each step's input that both ranks need.

A band's first rows of a layer's input are also read by the windows of the band above. The lower band computes these
features and sends them up; the upper band finds a part of their gradient and sends it down. Each pass sends one message
as soon as it is complete. The lower band computes these rows first and the upper band needs them last, so that neither
waits for the other.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor


class Halo:
    """Rows of the inputs of several layers, or their gradients, in one flat tensor to send. Zero at first.

    Args:
        rows: by the index of the layer that reads them.
        shapes: channels and width of each input.
        like: a tensor of the dtype and on the device of the features.
    """

    def __init__(self, rows: Mapping[int, slice], shapes: Mapping[int, tuple[int, int]], like: Tensor) -> None:
        self._rows = rows
        stored = {i: (part.stop - part.start, shapes[i][1], shapes[i][0]) for i, part in rows.items()}  # channels_last
        sizes = [math.prod(shape) for shape in stored.values()]
        self.flat = torch.zeros(sum(sizes), dtype=like.dtype, device=like.device)
        parts = zip(stored.items(), self.flat.split(sizes), strict=True)
        self.maps = {i: part.view(1, *shape).permute(0, 3, 1, 2) for (i, shape), part in parts}

    def copy_from(self, i: int, first: int, x: Tensor) -> None:
        """Copy the rows of ``x`` that belong to the halo of layer ``i``; ``first`` is the number of its first row."""
        here, there = self._common(i, first, x)
        self.maps[i][:, :, here] = x[:, :, there]

    def add(self, i: int, first: int, x: Tensor) -> None:
        """Add the rows of ``x`` that belong to the halo of layer ``i``."""
        here, there = self._common(i, first, x)
        self.maps[i][:, :, here] += x[:, :, there]

    def add_to(self, x: Tensor, i: int, first: int) -> None:
        """Add the halo of layer ``i`` to those rows of ``x`` that it has in common with it."""
        here, there = self._common(i, first, x)
        x[:, :, there] += self.maps[i][:, :, here]

    def is_complete(self, ends: Sequence[int]) -> bool:
        """Whether the halo is complete once each layer's input is known up to row ``ends``."""
        return all(ends[i] >= rows.stop for i, rows in self._rows.items())

    def _common(self, i: int, first: int, x: Tensor) -> tuple[slice, slice]:
        """The rows that the halo and ``x`` have in common, as rows of the halo and of ``x``."""
        rows = self._rows[i]
        low = max(rows.start, first)
        high = max(min(rows.stop, first + x.shape[2]), low)
        return slice(low - rows.start, high - rows.start), slice(low - first, high - first)

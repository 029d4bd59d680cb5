"""The scalar product of two vectors, summed in float64, with the same bits for any number of threads.

``torch.ops.fastnst.dot(x, y)`` takes vectors ``[N]`` of one dtype, float32 or float64, and returns ``[]`` in float64.
``torch.dot`` has other bits with other numbers of threads. The kernel is for the CPU; other devices run the reference.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fastnst.ops import _library, reference


def _fake(x: Tensor, y: Tensor) -> Tensor:
    return x.new_empty((), dtype=torch.float64)


_library.define("dot", reference.dot, _fake)

"""The Wasserstein-2 distance of rows to quantiles, with its gradient in place of the rows.

``torch.ops.fastnst.quantile_residual_(x, quantiles, weight, factor)`` takes rows x ``[K, N]`` and the sorted values of
other rows, ``[K, n]`` with n > 0, both float32 or both float64. A weight w ``[N]`` of their dtype, nonnegative with sum
1, belongs to the positions; None stands for ``1 / N``. With the quantile function q of a row, interpolated linearly
between values at the centers of n equal intervals, and with ``t_i`` in 0..1 the rank of ``x_i``, which is the weight of
what is below it and half of its own, x becomes ``factor * w_i * (x_i - q(t_i))``, and ``sum_i w_i (x_i - q(t_i))^2`` is
returned, ``[K]`` in float64. Equal values rank by position, and nan above all others, as in a stable ``torch.sort``.

The kernel is for the CPU: a radix sort of each row with 32-bit positions, whose last pass compares and writes. Each
thread needs memory for ``4 N`` values. Where positions are not contiguous, as in channels_last features, rows are
copied in groups of at most ``2^22`` values, or 16 rows. Other devices run the reference.
"""

from __future__ import annotations

from torch import Tensor

from fastnst.devices import wide_dtype
from fastnst.ops import _library, reference


def _fake(x: Tensor, quantiles: Tensor, weight: Tensor | None, factor: float) -> Tensor:
    return x.new_empty(x.shape[:1], dtype=wide_dtype(x.device))


_library.define("quantile_residual_", reference.quantile_residual_, _fake)

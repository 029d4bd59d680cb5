"""The two-loop recursion of L-BFGS, in place, with the same bits for any number of threads.

``torch.ops.fastnst.lbfgs_direction_(direction, pairs, slots, curvatures, scale)`` multiplies ``direction [N]``, float32
or float64, by the inverse Hessian of L-BFGS: Nocedal and Wright, "Numerical Optimization", 2006, algorithm 7.4, with
``scale`` times the identity as the initial one. ``pairs [history, 2, N]`` are the changes s of the image and y of the
gradient, in any floating dtype; ``slots`` (int64, on the CPU) are the rows to use, newest first, and ``curvatures``
(float64, on the CPU) their products ``s.y``.

The kernel is for the CPU. Products are summed in float64. Each pass adds one vector of the history and multiplies by
the next, so that the direction is read half as often; a history in bfloat16 is read as it is. Other devices run the
reference.
"""

from __future__ import annotations

from torch import Tensor

from fastnst.ops import _library, reference


def _fake(direction: Tensor, pairs: Tensor, slots: Tensor, curvatures: Tensor, scale: float) -> None:
    return None


_library.define("lbfgs_direction_", reference.lbfgs_direction_, _fake)

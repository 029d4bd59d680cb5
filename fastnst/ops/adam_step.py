"""A guarded step of Adam for one image, entirely on the device; :mod:`fastnst.optim.cuda_graph` captures it.

``torch.ops.fastnst.adam_step_(image, good, mean, square, count, values, losses, gradient, factors, rate, first, second,
epsilon, unit, clamp)`` writes ``losses [P]`` and 1 or 0 for finite to ``values [P + 1]``, float64. If the sum of the
losses and the gradient are finite, it then

- copies ``image [B, C, H, W]``, float32 or float64, contiguous, to ``good``,
- adds 1 to ``count [1]``, int32, up to the last row of ``factors``,
- takes a step of Adam (Kingma and Ba, "Adam", 2015, algorithm 1) with the moments ``mean`` and ``square``, the decay
  rates ``first`` and ``second``, ``epsilon``, and the factor ``unit`` of the gradient. Row ``count`` of
  ``factors [N, 2]``, float64, has the learning rate divided by the bias of the first moment, and the root of the bias
  of the second; the learning rate is also multiplied by ``rate []``, float64,
- with ``clamp`` limits the image to 0..255.

Otherwise only ``values`` changes.
"""

from __future__ import annotations

from typing import Any

from fastnst.ops import _library, reference


def _fake(*args: Any) -> None:
    return None


_library.define("adam_step_", reference.adam_step_, _fake)

"""What ``torch.vmap`` does with an op: one run over a larger batch where the op allows it, else a run for each slice.

A rule gets the tensors with their mapped axes; ``dims`` are the positions of these, None where ``vmap`` does not map. A
string states, for each parameter of an op's schema, what becomes of it in a larger batch:

- ``m``: a feature map. Its batch grows if ``vmap`` maps over it. Otherwise it would have to be copied, so the op runs
  for each slice.
- ``s``: a small tensor with the batch first, such as a Gram matrix; repeated if ``vmap`` does not map over it.
- ``w``: a parameter that the whole batch shares. The op runs for each slice if ``vmap`` maps over it.
- ``g``: the gradient of a scalar, which the result is proportional to.
- ``-``: no tensor.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from fastnst.ops.dtypes import accumulate_dtype

Dims = tuple[int | None, ...]
Rule = Callable[..., tuple[Any, Any]]


def batching_rule(op: Any, kinds: str) -> Rule:
    """The rule that ``torch.library.register_vmap`` takes for ``op``; see this module for ``kinds``."""
    name = op._schema.name.removeprefix("fastnst::")
    written = [i for i, each in enumerate(op._schema.arguments) if each.alias_info is not None]

    def rule(info: Any, dims: Dims, *args: Any) -> tuple[Any, Any]:
        size = info.batch_size
        for i in written:
            d, written_to = dims[i], op._schema.arguments[i].name
            if d is None or (size > 1 and args[i].stride(d) == 0):
                raise RuntimeError(
                    f"{name}: expected vmap to map over {written_to}, which is written in place, with memory for each "
                    "slice"
                )
        args = tuple(x if d is None else x.movedim(d, 0) for x, d in zip(args, dims, strict=True))
        batched = [d is not None for d in dims]
        if not _grows(kinds, args, batched, bool(written)):
            if size == 0:
                raise RuntimeError(f"{name}: expected vmap to map over at least one slice, got 0")
            return _each(op, size, args, batched)
        return _scaled(op, args) if kinds[0] == "g" else _grown(op, size, args, batched, kinds)

    return rule


def _grows(kinds: str, args: Sequence[Any], batched: Sequence[bool], in_place: bool) -> bool:
    """Whether one run over a larger batch serves, without copying a feature map that ``vmap`` does not map over."""
    for kind, x, mapped in zip(kinds, args, batched, strict=False):
        if not isinstance(x, Tensor):
            continue
        if (kind == "m" and not mapped) or (kind == "w" and mapped):
            return False
        if in_place and kind == "m" and not _first_two_merge(x):
            return False
    return "m" in kinds


def _first_two_merge(x: Tensor) -> bool:
    """Whether the first two axes can be one without a copy."""
    return x.shape[0] == 1 or x.shape[1] == 1 or x.stride(0) == x.stride(1) * x.shape[1]


def _grown(op: Any, size: int, args: Sequence[Any], batched: Sequence[bool], kinds: str) -> tuple[Any, Any]:
    batch = next(x.shape[1] for x, kind in zip(args, kinds, strict=True) if kind == "m")

    def grow(x: Any, kind: str, mapped: bool) -> Any:
        if not isinstance(x, Tensor) or kind == "w":
            return x
        return (x if mapped else x.expand(size, *x.shape)).flatten(0, 1)

    found = op(*map(grow, args, kinds, batched))
    if found is None:
        return None, None
    outputs = found if isinstance(found, tuple) else (found,)

    def shrink(y: Tensor) -> Tensor:
        if y.dim() == 1:  # no argmax
            return y.expand(size, *y.shape)
        # A scalar is the style loss of all slices, and the last output the residual whose squares it adds.
        whole: Tensor = (y if y.dim() else outputs[-1]).unflatten(0, (size, batch))
        return whole if y.dim() else whole.square().flatten(1).sum(1)

    shrunk = tuple(shrink(y) for y in outputs)
    return (shrunk, (0,) * len(shrunk)) if isinstance(found, tuple) else (shrunk[0], 0)


def _scaled(op: Any, args: Sequence[Any]) -> tuple[Tensor, int]:
    """The gradient for 1, times the gradients of the slices."""
    grad, x, *rest = args
    wide = [
        y.to(accumulate_dtype(x.dtype)).flatten(0, min(1, y.dim() - 1)) if isinstance(y, Tensor) else y
        for y in (x, *rest)
    ]
    found = op(grad.new_ones(()), *wide).reshape(x.shape)
    return (grad.reshape(-1, *(1,) * (x.dim() - 1)) * found).to(x.dtype), 0


def _each(op: Any, size: int, args: Sequence[Any], batched: Sequence[bool]) -> tuple[Any, Any]:
    found = [op(*(x[i] if mapped else x for x, mapped in zip(args, batched, strict=True))) for i in range(size)]
    if found[0] is None:
        return None, None
    if isinstance(found[0], Tensor):
        return torch.stack(found), 0
    return tuple(map(torch.stack, zip(*found, strict=True))), (0,) * len(found[0])

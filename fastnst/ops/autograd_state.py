"""Whether a tensor takes part in differentiation, and how autograd learns of a write in place."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad


def is_transformed(x: Tensor) -> bool:
    """Whether ``x`` wraps another tensor inside ``torch.func`` or ``vmap``; a wrapper has no storage of its own."""
    return torch._C._functorch.is_functorch_wrapped_tensor(x)


def any_tangent(args: tuple[Any, ...]) -> bool:
    """Whether any tensor among ``args`` is a dual tensor of forward-mode differentiation."""
    return any(forward_ad.unpack_dual(x).tangent is not None for x in _tensors(args))


def any_requires_grad(args: tuple[Any, ...]) -> bool:
    """Whether autograd is enabled and any tensor among ``args`` requires a gradient."""
    return torch.is_grad_enabled() and any(x.requires_grad for x in _tensors(args))


def mark_written(x: Tensor) -> None:
    """Increment the version of ``x`` after an op wrote to it in place: the dispatcher skips autograd for these ops."""
    if not torch.compiler.is_compiling() and not x.is_inference():
        torch.autograd.graph.increment_version(x)


def _tensors(args: tuple[Any, ...]) -> list[Tensor]:
    return [value for value in args if isinstance(value, Tensor)]

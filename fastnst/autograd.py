"""Autograd inside a function that must not depend on the mode it is called in: no_grad, inference mode or neither."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


@contextmanager
def recording(grad: bool = True) -> Iterator[None]:
    """Within, autograd records, and tensors are made that it can save; ``grad=False``: tensors alone."""
    with torch.inference_mode(False), torch.set_grad_enabled(grad):
        yield


def constant(x: Tensor) -> Tensor:
    """``x`` without its graph; in :func:`recording` a copy of a tensor of inference mode, which cannot be saved."""
    return x.clone() if x.is_inference() else x.detach()


def leaf(x: Tensor) -> Tensor:
    """As :func:`constant`; autograd differentiates with respect to it. ``x`` itself is left as it is."""
    return constant(x).requires_grad_()

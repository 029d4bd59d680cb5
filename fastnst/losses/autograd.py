"""Autograd inside functions that must work under ``no_grad`` and in inference mode alike."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


@contextmanager
def recording(grad: bool = True) -> Iterator[None]:
    """Disable inference mode, and enable autograd unless ``grad`` is False: new tensors can be saved for a backward."""
    with torch.inference_mode(False), torch.set_grad_enabled(grad):
        yield


def constant(x: Tensor) -> Tensor:
    """``x`` detached; a copy if it is an inference tensor, which cannot be saved for a backward."""
    return x.clone() if x.is_inference() else x.detach()


def leaf(x: Tensor) -> Tensor:
    """As :func:`constant`, requiring a gradient. ``x`` itself is not modified."""
    return constant(x).requires_grad_()

"""The dtypes that features may have, and the dtype in which the ops accumulate."""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TypeVar

import torch
from torch import Tensor

FEATURE_DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)

Function = TypeVar("Function", bound=Callable[..., object])


def accumulate_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype of losses, Gram matrices and targets for features of ``dtype``: float64 for float64, else float32."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def autocast_disabled(device: torch.device) -> AbstractContextManager[object]:
    """A context without autocast on ``device``. Backends without autocast have no context for it."""
    if torch.amp.is_autocast_available(device.type) and torch.is_autocast_enabled(device.type):
        return torch.autocast(device.type, enabled=False)
    return nullcontext()


def without_autocast(function: Function) -> Function:
    """Decorate ``function`` to run with autocast disabled, so that its matrix products keep the accumulate dtype."""

    @functools.wraps(function)
    def wrapper(x: Tensor, *args: object) -> object:
        with autocast_disabled(x.device):
            return function(x, *args)

    return wrapper  # type: ignore[return-value]

"""The dtypes that features may have, and the dtype in which the ops accumulate."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor

FEATURE_DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)

Function = TypeVar("Function", bound=Callable[..., object])


def accumulate_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype of losses, Gram matrices and targets for features of ``dtype``: float64 for float64, else float32."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def without_autocast(function: Function) -> Function:
    """Decorate ``function`` to run with autocast disabled, so that its matrix products keep the accumulate dtype."""

    @functools.wraps(function)
    def wrapper(x: Tensor, *args: object) -> object:
        with torch.autocast(x.device.type, enabled=False):
            return function(x, *args)

    return wrapper  # type: ignore[return-value]

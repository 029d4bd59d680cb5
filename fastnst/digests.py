"""SHA-256 of tensors."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor


def digest(tensors: Sequence[Tensor], text: str = "") -> str:
    """The SHA-256, in hexadecimal digits, of a text and of dtype, shape and values of tensors of any kind."""
    found = hashlib.sha256(text.encode())
    for tensor in tensors:
        found.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
        found.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return found.hexdigest()

"""``.pth`` and ``.pt``, as ``torch.save`` writes them, read with ``weights_only=True`` so that no pickle runs code."""

from __future__ import annotations

import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from fastnst.errors import WeightsError
from fastnst.weights.readers import state_dict
from fastnst.weights.readers.common import Content, is_zip_with, parsing

_WANTED = "fastnst reads plain tensors only, as torch.save(model.state_dict(), ...) writes them"


def read(path: Path) -> Content:
    """Read a state dict, or a checkpoint that keeps one under ``state_dict`` or ``model``."""
    # files older than torch 1.6 are no zip and cannot be mapped; mapping leaves 400 MB of classifier on disk
    mapped = zipfile.is_zipfile(path)
    if mapped and is_zip_with(path, "constants.pkl"):
        raise WeightsError(f"{path}: refused, a TorchScript program; {_WANTED}")
    with parsing(path, "PyTorch"):
        state = _state(path, _load(path, mapped))
        return state_dict.content(path, state, state.__getitem__)


def _load(path: Path, mapped: bool) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about pickle protocols: what matters is whether the file can be read
        try:
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
        except pickle.UnpicklingError as error:
            code = re.search(r"GLOBAL ([\w.]+)", str(error))
            what = f"reading it would run code ({code[1]})" if code else "a pickle that torch.save did not write"
            raise WeightsError(f"{path}: refused, {what}; {_WANTED}") from error


def _state(path: Path, loaded: Any) -> Mapping[str, torch.Tensor]:
    for key in ("state_dict", "model"):
        if isinstance(loaded, Mapping) and isinstance(loaded.get(key), Mapping):
            loaded = loaded[key]
    if not isinstance(loaded, Mapping):
        raise WeightsError(f"{path}: holds a {type(loaded).__name__}, not tensors by name (a state dict)")
    return {key: value for key, value in loaded.items() if isinstance(key, str) and _is_dense(value)}


def _is_dense(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.layout == torch.strided

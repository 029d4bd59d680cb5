"""The precision of float32 products on CUDA follows torch's setting."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from fastnst import ops
from fastnst.ops import _library


@pytest.fixture
def calls_made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The precisions that the CUDA module is set to, as if it were loaded."""
    calls: list[str] = []
    monkeypatch.setattr(_library, "cuda_error", None)
    monkeypatch.setattr(_library, "_followed", "highest")
    namespace = SimpleNamespace(cuda_float32_precision=calls.append)
    monkeypatch.setattr(torch, "ops", SimpleNamespace(fastnst=namespace))
    return calls


def test_the_cuda_module_is_set_once_per_change(calls_made: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for wanted in ("highest", "high", "high", "medium", "highest", "highest"):
        monkeypatch.setattr(torch, "get_float32_matmul_precision", lambda wanted=wanted: wanted)
        ops.follow_matmul_precision()
    assert calls_made == ["tf32", "tf32", "ieee"]


def test_without_the_cuda_module_nothing_is_set(calls_made: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_library, "cuda_error", "built for CPU only")
    monkeypatch.setattr(torch, "get_float32_matmul_precision", lambda: "high")
    ops.follow_matmul_precision()
    assert calls_made == []

"""How float32 features are multiplied on CUDA follows torch's own setting."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from fastnst import ops
from fastnst.ops import _library


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the CUDA module is told, as if it were loaded."""
    calls: list[str] = []
    monkeypatch.setattr(_library, "cuda_error", None)
    monkeypatch.setattr(_library, "_followed", "highest")
    namespace = SimpleNamespace(cuda_float32_precision=calls.append)
    monkeypatch.setattr(torch, "ops", SimpleNamespace(fastnst=namespace))
    return calls


def test_cuda_is_told_of_a_change_once(told: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for wanted in ("highest", "high", "high", "medium", "highest", "highest"):
        monkeypatch.setattr(torch, "get_float32_matmul_precision", lambda wanted=wanted: wanted)
        ops.follow_matmul_precision()
    assert told == ["tf32", "tf32", "ieee"]


def test_without_the_cuda_module_nothing_is_asked(told: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_library, "cuda_error", "built for CPU only")
    monkeypatch.setattr(torch, "get_float32_matmul_precision", lambda: "high")
    ops.follow_matmul_precision()
    assert told == []

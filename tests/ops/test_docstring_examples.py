"""The examples in docstrings give the output that they show."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
from types import ModuleType

import pytest

from fastnst import images, losses, ops, weights


def modules(package: ModuleType) -> list[str]:
    found = pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
    return [package.__name__, *(module.name for module in found)]


@pytest.mark.parametrize("name", [name for package in (ops, losses, images, weights) for name in modules(package)])
def test_docstring_examples(name: str) -> None:
    assert doctest.testmod(importlib.import_module(name)).failed == 0


@pytest.mark.parametrize("name", [name for name in ops.__all__ if name not in ("CUDA_REMEDY", "reference")])
def test_every_public_op_has_an_example(name: str) -> None:
    documentation = getattr(ops, name).__doc__
    assert name == "follow_matmul_precision" or ">>> " in documentation

"""The examples in docstrings give the output that they show."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import fastnst

MODULES = ["fastnst", *(module.name for module in pkgutil.walk_packages(fastnst.__path__, "fastnst."))]


@pytest.mark.parametrize("name", MODULES)
def test_docstring_examples(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastnst.losses.style.registry._registered", {})  # what an example registers ends with it
    assert doctest.testmod(importlib.import_module(name)).failed == 0


def test_the_examples_are_found() -> None:
    finder = doctest.DocTestFinder()
    found = [test for name in MODULES for test in finder.find(importlib.import_module(name)) if test.examples]
    assert len(found) > 60

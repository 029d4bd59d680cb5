from __future__ import annotations

import importlib
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import fastnst


def in_a_new_process(code: str, folder: Path) -> str:
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def test_import_alone_imports_neither_torch_nor_numpy(tmp_path: Path) -> None:
    code = "import sys, fastnst; fastnst.__version__, dir(fastnst), fastnst.Settings.from_preset('gatys')"
    code += "; print({'torch', 'numpy', 'PIL'} & set(sys.modules) or 'none')"
    assert in_a_new_process(code, tmp_path) == "none"


@pytest.mark.parametrize("name", fastnst.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(fastnst, name) is not None
    assert name in dir(fastnst)


def test_names_are_the_objects_of_their_modules() -> None:
    from fastnst import errors
    from fastnst.config import settings
    from fastnst.network import vgg
    from fastnst.objective import whole
    from fastnst.optim import progress
    from fastnst.run import stylizer

    assert fastnst.stylize is stylizer.stylize
    assert (fastnst.Step, fastnst.Settings, fastnst.VGG) == (progress.Step, settings.Settings, vgg.VGG)
    assert (fastnst.Losses, fastnst.UsageError) == (whole.Losses, errors.UsageError)


def test_dir_lists_the_public_names_alone() -> None:
    assert dir(fastnst) == sorted(fastnst.__all__)
    assert len(set(fastnst.__all__)) == len(fastnst.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'fastnst' has no attribute 'stylise'"):
        fastnst.stylise  # noqa: B018
    assert not hasattr(fastnst, "nonsense")


def test_star_import_gives_the_public_names(tmp_path: Path) -> None:
    assert in_a_new_process("from fastnst import *; print(stylize.__module__)", tmp_path) == "fastnst.run.stylizer"


PUBLIC = (
    "fastnst",
    "fastnst.config",
    "fastnst.film",
    "fastnst.gallery",
    "fastnst.images",
    "fastnst.losses",
    "fastnst.losses.joint",
    "fastnst.losses.style",
    "fastnst.network",
    "fastnst.objective",
    "fastnst.ops",
    "fastnst.optim",
    "fastnst.studio",
    "fastnst.weights",
)


@pytest.mark.parametrize("module", PUBLIC)
def test_every_public_function_and_class_has_an_example(module: str) -> None:
    """In its docstring, where `make docs-check` runs it; the kinds of errors share that of their base class."""
    loaded = importlib.import_module(module)
    found = {name: getattr(loaded, name) for name in loaded.__all__}
    bare = [
        name
        for name, value in found.items()
        if (inspect.isclass(value) or inspect.isfunction(value))
        and not (inspect.isclass(value) and issubclass(value, fastnst.FastnstError))
        and not any(mark in (inspect.getdoc(value) or "") for mark in (">>>", "::"))
    ]
    assert bare == []

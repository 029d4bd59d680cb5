"""``fastnst demo``: three pictures, offline."""

from __future__ import annotations

import builtins
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from support.picture_files import save_picture

from fastnst import images
from fastnst.cli import demo
from fastnst.objective.whole import Objective

Run = Callable[..., tuple[int, str, str]]
QUICK = ("--size", "48", "--steps", "2")


@pytest.fixture
def pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small pictures in place of the shipped ones."""
    monkeypatch.setattr(demo, "PHOTO", save_picture(tmp_path / "photo.jpg", 60, 80, seed=1))
    monkeypatch.setattr(demo, "PAINTING", save_picture(tmp_path / "painting.jpg", 60, 60, seed=2))


def test_the_shipped_pictures_make_three_new_ones_without_network(
    run: Run, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_network(*_: Any) -> None:
        raise AssertionError("the demo is offline")

    monkeypatch.setattr(socket.socket, "connect", no_network)
    code, out, err = run("demo", *QUICK)
    assert (code, out.split()) == (0, ["demo/styled.png", "demo/sheet.png", "demo/loss.png"])
    assert "step 2/2  loss" in err
    assert "left" in err
    for name in out.split():
        with Image.open(here / name) as image:
            image.load()
    assert max(images.load(here / "demo/styled.png").pixels.shape) == 48


def test_the_demo_is_384_pixels_by_the_default_preset(
    run: Run, pictures: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def stylizer(settings: Any) -> Any:
        seen.append(settings)
        raise KeyboardInterrupt

    monkeypatch.setattr(demo, "Stylizer", stylizer)
    assert run("demo")[0] == 130
    assert (seen[0].preset, seen[0].size, seen[0].weights) == ("default", 384, None)


def test_without_matplotlib_there_is_no_plot_and_a_warning(
    run: Run, here: Path, pictures: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def absent(name: str, *rest: Any) -> Any:
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", absent)
    for name in [name for name in sys.modules if name.startswith("matplotlib")]:
        monkeypatch.delitem(sys.modules, name)
    code, out, err = run("demo", *QUICK, "-o", here)
    assert (code, out.split()) == (0, [f"{here}/styled.png", f"{here}/sheet.png"])
    assert 'pip install "fastnst[plot]"' in err


def test_ctrl_c_saves_the_result_so_far(run: Run, here: Path, pictures: None, monkeypatch: pytest.MonkeyPatch) -> None:
    real, calls = Objective.value_and_grad, []

    def third_interrupts(self: Any, image: Any) -> Any:
        calls.append(image)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(self, image)

    monkeypatch.setattr(Objective, "value_and_grad", third_interrupts)
    code, out, err = run("demo", "--size", "48", "--steps", "100")
    assert (code, len(out.split())) == (130, 3)
    assert err.endswith("fastnst: interrupted; the result so far has been saved\n")


@pytest.mark.parametrize(("lack", "words"), [("asset", "reinstall fastnst"), ("folder", "is a file")])
def test_an_obstacle_is_one_line(
    run: Run, here: Path, pictures: None, monkeypatch: pytest.MonkeyPatch, lack: str, words: str
) -> None:
    if lack == "asset":
        monkeypatch.setattr(demo, "PHOTO", here / "gone.jpg")
    else:
        (here / "demo").touch()
    code, out, err = run("demo", *QUICK)
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert words in err

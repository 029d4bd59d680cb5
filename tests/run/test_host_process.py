"""Runs do not depend on the global settings of the host process and do not change them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from support.pictures import samples, tiny

from fastnst import cli
from fastnst.losses.style import style_losses
from fastnst.run.stylizer import Result, Stylizer, stylize

pytestmark = pytest.mark.usefixtures("weights_read_once")

RUNS: dict[str, dict[str, Any]] = {
    "default": {},
    "noise": {"init": "noise", "noise": 20.0, "seed": 3},
    "adam": {"optimizer": "adam", "average": 0.9, "scales": 2, "size": 128},
    "nine point": {"tv_kind": "nine_point", "tv_weight": 1e-3},
    "direct": {"convolution": "direct"},
    "strips": {"tiles": 16},
    "histogram matched": {"match_color": "histogram"},
    "lab": {"keep_color": "lab", "match_color": "monge-kantorovich", "photoreal": 1.0},
    **{name: {"style_loss": name} for name in style_losses() if name != "gram"},
}


def run(changes: dict[str, Any]) -> Result:
    return stylize(samples(), samples(seed=2), settings=tiny(**{"steps": 2, **changes}))


@pytest.fixture(params=["meta", "float64", "float16", "bfloat16"])
def host(request: pytest.FixtureRequest) -> Iterator[None]:
    """A default device or default dtype that runs do not use."""
    dtype = torch.get_default_dtype()
    if request.param == "meta":
        torch.set_default_device("meta")
    else:
        torch.set_default_dtype(getattr(torch, request.param))
    try:
        yield
    finally:
        torch.set_default_device(None)
        torch.set_default_dtype(dtype)


@pytest.fixture(scope="module")
def plain() -> Callable[[str], Result]:
    """Results of a process with default settings."""
    results: dict[str, Result] = {}

    def made(name: str) -> Result:
        return results[name]

    device, dtype = torch.get_default_device(), torch.get_default_dtype()
    assert device.type == "cpu"
    assert dtype == torch.float32
    results.update({name: run(changes) for name, changes in RUNS.items()})
    return made


@pytest.mark.parametrize("name", RUNS)
@pytest.mark.sweep(5)
def test_default_device_and_dtype_give_the_same_pixels(name: str, plain: Callable[[str], Result], host: None) -> None:
    del host
    assert torch.equal(run(RUNS[name]).image, plain(name).image)


def test_a_stylizer_built_in_inference_mode_works_outside() -> None:
    with torch.inference_mode():
        stylizer = Stylizer(tiny())
        scene = stylizer.load_scene(samples(), samples(seed=2))
    found = stylizer.run(scene)
    assert torch.equal(found.image, run({"steps": 3}).image)
    image = scene.content.pixels.clone().requires_grad_()
    (features,) = stylizer.network.features(image * 255).values()
    features.sum().backward()
    assert image.grad is not None


class Library:
    """A stand-in for the C library that records what is called."""

    def __init__(self, calls: list[str]) -> None:
        self._calls = calls

    def __getattr__(self, name: str) -> Callable[..., int]:
        self._calls.append(name)
        return lambda *_: 0


def test_a_run_frees_memory_but_changes_no_setting_of_the_allocator(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    monkeypatch.setattr("fastnst.process.ctypes.CDLL", lambda _: Library(calls))
    run(RUNS["strips"])
    assert set(calls) == {"malloc_trim"}


def test_the_command_line_limits_what_the_allocator_keeps(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    monkeypatch.setattr("fastnst.process.ctypes.CDLL", lambda _: Library(calls))
    assert cli.main(["weights", "list"]) == 0
    assert calls == ["mallopt", "mallopt"]

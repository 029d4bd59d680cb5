"""Repeatability, precisions and devices, cached targets, and early stops."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from support.pictures import fail_at, samples, tiny
from torch import Tensor
from torch.nn import functional

from fastnst import images
from fastnst.config import resolve
from fastnst.errors import UsageError
from fastnst.network.vgg import VGG
from fastnst.objective.targets import style_targets
from fastnst.optim.loop import ScaleResult, optimize
from fastnst.optim.progress import Step
from fastnst.run.scene import Scene, StylePicture
from fastnst.run.stylizer import Stylizer, stylize
from fastnst.weights import Weights

pytestmark = pytest.mark.usefixtures("weights_read_once")


# Repeatability.


@pytest.mark.parametrize("optimizer", ["lbfgs", "adam"])
def test_a_run_repeats_bit_for_bit(optimizer: str) -> None:
    settings = tiny(optimizer=optimizer, init="noise", seed=5, noise=10.0)
    first, second = (stylize(samples(), samples(seed=2), settings=settings) for _ in range(2))
    assert torch.equal(first.image, second.image)
    assert first.trace == second.trace


def with_one_thread_and_two(function: Callable[[], Any]) -> list[Any]:
    found = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        try:
            found.append(function())
        finally:
            torch.set_num_threads(1)
    return found


def convolutions_differ(given: Weights) -> bool:
    """Whether PyTorch's own convolutions depend on the number of threads, at the sizes and layouts of these tests."""
    network = VGG(given, ["relu2_1"])
    image = images.load(samples(), size=64).pixels * 255

    def all_of_them() -> list[Tensor]:
        found = list(network.features(image, ["conv1_1", "conv1_2", "conv2_1"]).values())
        return found + [
            functional.conv_transpose2d(x, network.convs[name][0], padding=1)
            for x, name in zip(found, network.convs, strict=True)
        ]

    one, two = with_one_thread_and_two(all_of_them)
    return any(not torch.equal(a, b) for a, b in zip(one, two, strict=True))


def test_a_float32_run_is_the_same_for_any_number_of_threads(bundled: Weights) -> None:
    """Bit for bit with Adam. L-BFGS adds up scalar products over the image, which PyTorch splits among threads."""
    if convolutions_differ(bundled):
        pytest.skip("PyTorch's convolutions depend on the number of threads on this processor")
    one, two = with_one_thread_and_two(lambda: stylize(samples(), samples(seed=2), settings=tiny(optimizer="adam")))
    assert torch.equal(one.image, two.image)
    assert one.trace == two.trace
    one, two = with_one_thread_and_two(lambda: stylize(samples(), samples(seed=2), settings=tiny(optimizer="lbfgs")))
    assert one.trace[0][0] == two.trace[0][0]
    assert (one.image - two.image).abs().max() < 1e-3


# Precision and device.


def test_precisions_agree_on_the_picture() -> None:
    found = {
        name: stylize(samples(), samples(seed=2), settings=tiny(precision=name, optimizer="adam", steps=4))
        for name in ("float64", "float32", "bfloat16")
    }
    exact = found["float64"]
    assert (found["float32"].image - exact.image).abs().mean() < 1e-4
    assert (found["bfloat16"].image - exact.image).abs().mean() < 2 / 255
    assert found["bfloat16"].trace[0][0].total == pytest.approx(exact.trace[0][0].total, rel=0.02)
    assert all(result.image.dtype == torch.float32 for result in found.values())


@pytest.mark.parametrize(("native", "dtype"), [(True, torch.bfloat16), (False, torch.float32)])
def test_auto_is_bfloat16_where_it_is_stored_or_the_processor_multiplies_it(
    monkeypatch: pytest.MonkeyPatch, native: bool, dtype: torch.dtype
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: native)
    assert resolve.choose_precision("auto", torch.device("cpu")) == torch.bfloat16
    assert resolve.choose_precision("auto", torch.device("cpu"), "direct") == dtype
    assert resolve.choose_precision("float32", torch.device("cpu")) == torch.float32
    assert resolve.choose_precision("auto", torch.device("mps")) == torch.float32


@pytest.mark.parametrize(("capability", "dtype"), [((7, 5), torch.float32), ((8, 0), torch.bfloat16)])
def test_auto_is_bfloat16_from_ampere_on(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], dtype: torch.dtype
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert resolve.choose_precision("auto", torch.device("cuda")) == dtype


ABSENT = [
    pytest.param("cuda", marks=pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")),
    pytest.param("mps", marks=pytest.mark.skipif(torch.backends.mps.is_available(), reason="there is an MPS device")),
    "cuda:99",
    "gpu",
    "hpu",
    "meta",
    "",
]


@pytest.mark.parametrize("device", ABSENT)
def test_an_absent_device_is_refused_in_one_short_line(device: str) -> None:
    with pytest.raises(UsageError, match=re.escape(f"device {device!r} cannot be used (")) as caught:
        stylize(samples(), samples(), settings=tiny(device=device))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300
    assert str(caught.value).endswith("try --device cpu")
    assert "aten::" not in str(caught.value)


def test_auto_uses_the_cpu_without_another_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda check_available: None)
    assert resolve.choose_device("auto") == torch.device("cpu")


# Cached targets.


def test_style_targets_are_computed_once_per_style_and_scale(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[tuple[int, ...]] = []

    def counted(network: Any, style: Tensor, *rest: Any) -> Any:
        sizes.append(tuple(style.shape[-2:]))
        return style_targets(network, style, *rest)

    monkeypatch.setattr("fastnst.run.targets.style_targets", counted)
    stylizer = Stylizer(tiny(size=170, scales=2, steps=1))
    contents = [stylizer.loader.content(samples(seed=seed)) for seed in range(3)]
    one, other = (StylePicture(stylizer.loader.style(samples(seed=seed), contents[0])) for seed in (7, 8))
    results = [stylizer.run(Scene(content, (one,))) for content in contents]
    assert sizes == [(64, 86), (128, 170)]  # an odd side is continued by a column
    stylizer.run(Scene(contents[0], (other,)))
    assert sizes == [(64, 86), (128, 170)] * 2
    assert torch.equal(stylizer.run(Scene(contents[0], (one,))).image, results[0].image)
    assert len(sizes) == 4


# Stopping.


@pytest.mark.parametrize("scale", [1, 2])
def test_a_callback_stops_the_run_at_any_scale(scale: int) -> None:
    settings = tiny(size=170, scales=2, steps=3)
    result = stylize(samples(), samples(seed=2), settings=settings, callback=lambda s: (s.scale, s.step) == (scale, 2))
    assert result.stopped == "callback"
    assert result.image.shape[-2:] == (128, 170)
    assert [len(part) for part in result.trace] == [3] * (scale - 1) + [2]


@pytest.mark.parametrize("scale", [1, 2])
def test_ctrl_c_returns_the_current_picture_at_any_scale(scale: int) -> None:
    def callback(step: Step) -> None:
        if (step.scale, step.step) == (scale, 2):
            raise KeyboardInterrupt

    settings = tiny(size=170, scales=2, steps=3)
    result = stylize(samples(), samples(seed=2), settings=settings, callback=callback)
    assert result.stopped == "interrupt"
    assert result.image.shape[-2:] == (128, 170)
    assert result.image.isfinite().all()
    assert [len(part) for part in result.trace] == [3] * (scale - 1) + [2]


def test_ctrl_c_between_scales_returns_the_coarse_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    fail_at(monkeypatch, 2, KeyboardInterrupt())
    result = stylize(samples(), samples(seed=2), settings=tiny(size=170, scales=2, steps=3))
    assert result.stopped == "interrupt"
    assert [len(part) for part in result.trace] == [3]
    assert result.image.shape[-2:] == (128, 170)


def test_ctrl_c_before_the_first_scale_propagates(monkeypatch: pytest.MonkeyPatch) -> None:
    fail_at(monkeypatch, 1, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        stylize(samples(), samples(seed=2), settings=tiny())


def test_a_stalled_coarse_scale_does_not_stop_the_fine_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def stalls(*arguments: Any, **named: Any) -> ScaleResult:
        run = optimize(*arguments, **named)
        run.stopped = "stalled" if arguments[3].scale == 1 else run.stopped
        return run

    monkeypatch.setattr("fastnst.run.scene_run.optimize", stalls)
    result = stylize(samples(), samples(seed=2), settings=tiny(size=170, scales=2, steps=2))
    assert [len(part) for part in result.trace] == [2, 2]
    assert result.stopped is None

"""Invalid input and insufficient memory."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from support.pictures import fail_at, samples, tiny
from torch import Tensor

from fastnst import devices, images
from fastnst.config import resolve
from fastnst.errors import FastnstError, ImageError, OutOfMemoryError, UsageError, WeightsError
from fastnst.losses.style import FeatureLoss, MomentLoss, Target, register, registry
from fastnst.objective.whole import Objective
from fastnst.ops import _library
from fastnst.run import memory_limits, memory_model
from fastnst.run.memory_model import Workload
from fastnst.run.stylizer import Stylizer, stylize

pytestmark = pytest.mark.usefixtures("weights_read_once")


# Invalid input.


@pytest.mark.parametrize("shape", [(40, 1), (1, 40), (1, 1)])
def test_a_picture_one_pixel_wide_or_high_is_refused(shape: tuple[int, int]) -> None:
    line = np.zeros((*shape, 3), np.uint8)
    for content, style in ((line, samples()), (samples(), line)):
        with pytest.raises(ImageError, match=f"{shape[1]} x {shape[0]}|{shape[1]}x{shape[0]}"):
            stylize(content, style, settings=tiny())


def test_a_content_too_narrow_for_the_network_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "narrow.png"
    Image.fromarray(samples(8, 200)).save(path)
    deep = tiny(content_layers=(("relu4_2", 1.0),))
    message = (
        r"narrow\.png: image of 64x3 pixels is too small for layer relu4_2: it needs at least 8 on the shorter side"
    )
    with pytest.raises(UsageError, match=message):
        stylize(path, samples(), settings=deep)


def test_a_style_too_narrow_for_the_network_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "narrow.png"
    Image.fromarray(samples(8, 200)).save(path)
    deep = tiny(style_layers=(("relu4_1", 1.0),))
    with pytest.raises(UsageError, match=r"narrow\.png: image of 64x3 pixels is too small for layer relu4_1"):
        stylize(samples(), path, settings=deep)
    with pytest.raises(UsageError, match="style picture: image of 64x3 pixels is too small"):
        stylize(samples(), samples(8, 200), settings=deep)


def test_a_picture_is_checked_before_it_is_enlarged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "resize", lambda *_: pytest.fail("enlarged"))
    with pytest.raises(OutOfMemoryError):
        Stylizer(tiny(size=10**6)).loader.content(samples())


def test_an_unknown_layer_is_refused_before_any_picture_is_read() -> None:
    with pytest.raises(UsageError, match=r"unknown layer 'relu42' of vgg19, did you mean relu4_2\?"):
        stylize("nowhere.png", "nowhere.png", settings=tiny(content_layers=(("relu42", 1.0),)))


def test_layers_past_the_bundled_weights_are_refused() -> None:
    with pytest.raises(WeightsError, match="lacks conv5_2"):
        stylize(samples(), samples(), settings=tiny(content_layers=(("relu5_2", 1.0),)))


# Memory.


def test_too_large_a_size_is_refused_with_one_that_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    stylizer = Stylizer(tiny(size=1000, tiles="off", edges="drop"))
    monkeypatch.setattr(
        memory_model, "MODEL", {**memory_model.MODEL, "loading": 0}
    )  # which does not depend on the size
    have = Workload(stylizer.network.chain, 225, 300, torch.float32, stylizer.setup.chosen).bytes()
    monkeypatch.setattr(memory_limits, "available", lambda device: have)
    message = r"out of memory at 1000x750: .*; --size \d+( or --.*)? would fit"
    with pytest.raises(OutOfMemoryError, match=message) as caught:
        stylize(samples(), samples(), settings=tiny(size=1000, tiles="off", edges="drop"))
    (found,) = re.findall(r"--size (\d+)(?: or --.*)? would fit", str(caught.value))
    assert 290 <= int(found) <= 300
    Stylizer(tiny(size=int(found), tiles="off", edges="drop")).loader.content(samples())
    memory_limits.choose_rows(
        Workload(stylizer.network.chain, 225, 300, torch.float32, stylizer.setup.chosen),
        torch.device("cpu"),
    )


CANNOT = "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to ..."


@pytest.mark.parametrize(
    "error",
    [RuntimeError(CANNOT), MemoryError(), torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")],
)
@pytest.mark.parametrize("where", ["objective", "step"])
def test_an_allocation_that_fails_names_a_smaller_size(
    monkeypatch: pytest.MonkeyPatch, error: BaseException, where: str
) -> None:
    monkeypatch.setattr(memory_model, "MODEL", {**memory_model.MODEL, "base": 0, "loading": 0})
    monkeypatch.setattr(memory_model, "WORKSPACE", 0)
    monkeypatch.setattr(memory_model, "SHARED", 0)
    if where == "objective":
        fail_at(monkeypatch, 1, error)
    else:
        monkeypatch.setattr(Objective, "value_and_grad", lambda *_: (_ for _ in ()).throw(error))
    with pytest.raises(OutOfMemoryError, match="out of memory at 128x96: an allocation failed; ") as caught:
        stylize(samples(), samples(), settings=tiny(size=128))
    (found,) = re.findall(r"--size (\d+)(?: or --.*)? would fit$", str(caught.value))
    assert 90 < int(found) < 120


def test_other_errors_propagate_unchanged(monkeypatch: pytest.MonkeyPatch) -> None:
    fail_at(monkeypatch, 1, RuntimeError("shapes differ"))
    with pytest.raises(RuntimeError, match="shapes differ"):
        stylize(samples(), samples(), settings=tiny())


def test_errors_of_the_library_propagate_unchanged(monkeypatch: pytest.MonkeyPatch) -> None:
    fail_at(monkeypatch, 1, UsageError("can't allocate memory for sense"))
    with pytest.raises(UsageError, match="can't allocate memory for sense"):
        stylize(samples(), samples(), settings=tiny())


def test_weights_so_large_that_the_loss_overflows_are_an_error() -> None:
    with pytest.raises(FastnstError, match="the loss of the start image is not finite"):
        stylize(
            samples(),
            samples(seed=2),
            settings=tiny(style_weight=1e30, style_layers=(("relu1_1", 1e30),), style_form="raw"),
        )


def test_a_gpu_without_kernels_is_used_with_one_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(_library, "cuda_error", "built for CPU only")
    monkeypatch.setattr(devices, "accelerator", lambda: torch.device("cuda"))
    _library.warn_without_kernels.cache_clear()
    assert resolve.choose_device("auto") == resolve.choose_device("auto") == torch.device("cuda")
    monkeypatch.setattr(torch, "zeros", lambda *sizes, device, dtype: torch.ones(*sizes))
    assert resolve.choose_device("cuda:1") == torch.device("cuda", 1)
    assert caplog.text.count("no fastnst kernels for cuda: ") == 1
    assert "built for CPU only. Compile fastnst where a CUDA build" in caplog.text
    _library.warn_without_kernels.cache_clear()


# User-defined losses.


class Below(MomentLoss):
    """Negative on any realistic picture."""

    def target(self, mean: Tensor, moment: Tensor) -> Target:
        return (mean,)

    def loss(self, mean: Tensor, moment: Tensor, target: Target) -> Tensor:
        return (mean - target[0]).square().mean() - 1e6


class Breaks(FeatureLoss):
    """Not a number for features of more than 64 x 64 positions."""

    def target(self, x: Tensor, weight: Tensor | None = None) -> Target:
        return (x.flatten(2).mean(2),)

    def loss(self, x: Tensor, target: Target, weight: Tensor | None = None) -> Tensor:
        found = (x.flatten(2).mean(2) - target[0]).square().mean()
        return found if x.shape[2:].numel() <= 64 * 64 else found * math.nan


@pytest.fixture
def _losses() -> Iterator[None]:
    register("below", Below)
    register("breaks", Breaks)
    yield
    del registry._registered["below"], registry._registered["breaks"]


@pytest.mark.usefixtures("_losses")
def test_a_negative_loss_is_minimized(caplog: pytest.LogCaptureFixture) -> None:
    result = stylize(samples(), samples(seed=2), settings=tiny(style_loss="below", steps=6))
    assert result.stopped is None
    totals = [losses.total for losses in result.trace[0]]
    assert len(totals) == 6
    assert totals[0] < 0
    assert totals[-1] < totals[0]
    assert not caplog.messages


@pytest.mark.usefixtures("_losses")
@pytest.mark.parametrize("optimizer", ["lbfgs", "adam"])
def test_a_scale_without_a_finite_loss_returns_the_scale_before(
    optimizer: str, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    settings = tiny(style_loss="breaks", size=128, scales=2, steps=3, optimizer=optimizer)
    pictures = samples(144, 144), samples(144, 144, seed=2)
    seen: list[Tensor] = []
    result = stylize(
        *pictures,
        settings=settings,
        checkpoint=tmp_path / "run.ckpt",
        callback=lambda step: seen.append(step.image),  # type: ignore[func-returns-value]
    )
    assert result.stopped == "stalled"
    assert [len(scale) for scale in result.trace] == [3, 0]
    torch.testing.assert_close(result.image, images.resize(seen[-1], 128, 128))
    assert caplog.messages[0].startswith("scale 2: the loss of the start image is not finite")
    resumed = stylize(*pictures, settings=settings, checkpoint=tmp_path / "run.ckpt", resume=True)
    assert torch.equal(resumed.image, result.image)
    assert resumed.trace == result.trace

"""The loop on a CUDA device: captured steps against steps op by op, and the gradient against float64."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import torch

from fastnst.config.settings import Settings
from fastnst.network.vgg import VGG
from fastnst.objective.targets import style_targets
from fastnst.objective.whole import Objective
from fastnst.optim.cuda_graph import StepCapture, choose_backend
from fastnst.optim.loop import LoopContext, ScaleResult, optimize
from fastnst.weights import Weights

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
every_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)


def pixels(seed: int, height: int, width: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(1, 3, height, width, generator=generator, dtype=torch.float64) * 255).to(dtype)


def objective(
    weights: Weights, size: tuple[int, int], dtype: torch.dtype, settings: Settings, device: str = "cuda"
) -> Objective:
    names = settings.layer_names()
    network = VGG(weights, names, pooling=settings.pooling, padding=settings.padding, device=device, dtype=dtype)
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    targets = style_targets(network, pixels(1, *size, wide).to(device), settings)
    return Objective(network, pixels(2, *size, wide).to(device), targets, settings)


def run(
    weights: Weights, size: tuple[int, int], dtype: torch.dtype, graph: str, **changes: Any
) -> tuple[ScaleResult, bool]:
    """A run, and whether its steps stayed in a graph."""
    settings = Settings.from_preset(steps=12, scales=1, graph=graph, **changes)
    capture = StepCapture(choose_backend(graph, torch.device("cuda")))
    found = optimize(
        objective(weights, size, dtype, settings),
        pixels(3, *size).cuda(),
        settings,
        context=LoopContext(capture=capture),
    )
    return found, capture.backend is not None


@pytest.mark.parametrize("pooling", ["max", "average", "l2"])
@pytest.mark.parametrize("padding", ["zeros", "replicate"])
def test_loss_and_gradient_equal_float64_on_the_cpu(bundled: Weights, pooling: str, padding: str) -> None:
    settings, size = Settings.from_preset(pooling=pooling, padding=padding), (67, 50)
    torch.backends.cudnn.allow_tf32, before = False, torch.backends.cudnn.allow_tf32
    try:
        losses, gradient = objective(bundled, size, torch.float32, settings).value_and_grad(pixels(3, *size).cuda())
    finally:
        torch.backends.cudnn.allow_tf32 = before
    exact = objective(bundled, size, torch.float64, settings, "cpu")
    expected, exact_gradient = exact.value_and_grad(pixels(3, *size, torch.float64))
    assert losses.total == pytest.approx(expected.total, rel=1e-5)
    assert float((gradient.cpu().double() - exact_gradient).norm() / exact_gradient.norm()) < 1e-3


@every_dtype
@pytest.mark.parametrize("optimizer", ["adam", "lbfgs"])
def test_captured_steps_agree_with_steps_op_by_op(
    bundled: Weights, optimizer: str, dtype: torch.dtype, caplog: pytest.LogCaptureFixture
) -> None:
    changes = {"optimizer": optimizer, "learning_rate": 1.0}
    with caplog.at_level(logging.WARNING, "fastnst"):
        captured, in_graph = run(bundled, (96, 80), dtype, "on", **changes)
    assert in_graph, caplog.text
    plain, _ = run(bundled, (96, 80), dtype, "off", **changes)
    assert captured.trace[0].total == pytest.approx(plain.trace[0].total, rel=1e-5)
    assert captured.trace[-1].total == pytest.approx(plain.trace[-1].total, rel=2e-2)
    assert captured.trace[-1].total < captured.trace[0].total
    distance = (plain.image - pixels(3, 96, 80).cuda()).norm()
    assert (captured.image - plain.image).norm() < 0.1 * distance


def test_each_size_is_captured_separately(bundled: Weights) -> None:
    settings = Settings.from_preset(steps=4, scales=1, optimizer="adam", learning_rate=1.0, graph="on")
    capture = StepCapture(choose_backend("on", torch.device("cuda")))
    for size in ((64, 64), (80, 48), (64, 64)):
        found = optimize(
            objective(bundled, size, torch.float32, settings),
            pixels(3, *size).cuda(),
            settings,
            context=LoopContext(capture=capture),
        )
        assert found.image.shape[-2:] == size
        assert len(found.trace) == 4
    assert capture.backend is not None


@pytest.mark.parametrize("optimizer", ["adam", "lbfgs"])
def test_a_captured_run_repeats_bit_for_bit(bundled: Weights, optimizer: str) -> None:
    torch.backends.cudnn.deterministic, before = True, torch.backends.cudnn.deterministic
    try:
        first, _ = run(bundled, (64, 64), torch.float32, "on", optimizer=optimizer, learning_rate=1.0)
        second, _ = run(bundled, (64, 64), torch.float32, "on", optimizer=optimizer, learning_rate=1.0)
    finally:
        torch.backends.cudnn.deterministic = before
    assert torch.equal(first.image, second.image)

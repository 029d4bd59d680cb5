"""Steps as CUDA graphs on a CUDA device, and the engine that runs there."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest
import torch
from support.pictures import samples, tiny
from support.toys import adam, newton, noise
from torch import Tensor

from fastnst import ops
from fastnst.config.settings import Settings
from fastnst.network.vgg import VGG
from fastnst.objective.engines import FusedEngine, PlainEngine, choose_engine
from fastnst.objective.targets import style_targets
from fastnst.objective.whole import Objective
from fastnst.optim import loop
from fastnst.optim.cuda_graph import CapturedAdam, CapturedEvaluation, CudaGraphs, StepCapture
from fastnst.optim.loop import LoopContext, ScaleResult
from fastnst.run.stylizer import stylize
from fastnst.weights import Weights

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

BOTH = pytest.mark.parametrize("make", [adam, newton])
LAYERS: dict[str, Any] = {
    "content_layers": (("relu3_1", 1.0),),
    "style_layers": (("relu1_1", 1.0), ("relu2_1", 1.0), ("relu3_1", 0.5)),
}


def objective(
    given: Weights,
    settings: Settings,
    dtype: torch.dtype = torch.float32,
    size: tuple[int, int] = (65, 98),
    kind: type[PlainEngine] | None = None,
    device: str = "cuda",
    make: type[Objective] = Objective,
) -> Objective:
    network = VGG(given, settings.layer_names(), pooling=settings.pooling, device=device, dtype=dtype)
    style = start(size, 2, dtype, device)
    return make(network, start(size, 1, dtype, device), style_targets(network, style, settings), settings, kind)


def start(size: tuple[int, int] = (65, 98), seed: int = 1, dtype: Any = torch.float32, device: str = "cuda") -> Tensor:
    exact = torch.float64 if dtype == torch.float64 else torch.float32
    return (noise(seed, (1, 3, *size)) * 40 + 120).to(device, exact)


def capture() -> StepCapture:
    return StepCapture(CudaGraphs(torch.device("cuda", torch.cuda.current_device())))


def run(given: Weights, settings: Settings, made: StepCapture, dtype: torch.dtype = torch.float32) -> ScaleResult:
    return loop.optimize(
        objective(given, settings, dtype), start(dtype=dtype), settings, context=LoopContext(capture=made)
    )


@BOTH
@pytest.mark.parametrize("pooling", ["max", "average", "l2"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_captured_run_agrees_with_the_run_op_by_op(
    bundled: Weights,
    make: Callable[..., Settings],
    pooling: str,
    dtype: torch.dtype,
    caplog: pytest.LogCaptureFixture,
) -> None:
    settings = make(pooling=pooling, learning_rate=1.0, steps=6, **LAYERS)
    with caplog.at_level(logging.WARNING, "fastnst"):
        captured, plain = (run(bundled, settings, made, dtype) for made in (capture(), StepCapture(None)))
    assert "captured" not in caplog.text
    for one, other in zip(captured.trace, plain.trace, strict=True):
        assert one.total == pytest.approx(other.total, rel=1e-4 if dtype == torch.float32 else 1e-2)
    assert (captured.image - plain.image).abs().mean() < (1e-2 if dtype == torch.float32 else 1.0)


@BOTH
def test_a_captured_run_repeats_bit_for_bit(bundled: Weights, make: Callable[..., Settings]) -> None:
    settings = make(learning_rate=1.0, steps=4, **LAYERS)
    with torch.backends.cudnn.flags(enabled=True, deterministic=True):
        first, second = (run(bundled, settings, capture(), torch.bfloat16) for _ in range(2))
    assert torch.equal(first.image, second.image)
    assert first.trace == second.trace


@BOTH
def test_a_step_waits_for_the_device_once(bundled: Weights, make: Callable[..., Settings]) -> None:
    """The captured part never waits: PyTorch raises on a wait inside a capture, and in this mode also in a replay."""
    settings = make(learning_rate=1.0, steps=4, **LAYERS)
    stepper = capture().make_stepper(objective(bundled, settings), start(), settings)
    assert type(stepper) is (CapturedAdam if make is adam else CapturedEvaluation)
    torch.cuda.set_sync_debug_mode("error")
    try:
        stepper._replay()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    losses, finite = stepper.evaluate()
    assert finite
    assert losses.total > 0


@BOTH
def test_a_captured_step_is_rejected(
    bundled: Weights, make: Callable[..., Settings], caplog: pytest.LogCaptureFixture
) -> None:
    """The image is set to NaN, as after a step that is too long."""
    settings = make(learning_rate=1.0, steps=9, **LAYERS)
    stepper = capture().make_stepper(objective(bundled, settings), start(), settings)
    losses, finite = stepper.evaluate()
    assert finite
    stepper.accept()
    good = stepper.good.clone()
    assert torch.equal(good, start())
    stepper.image.fill_(torch.nan)
    _, finite = stepper.evaluate()
    assert not finite
    assert torch.equal(stepper.good, good)
    stepper.reduce_rate()
    stepper.backtrack()
    assert torch.equal(stepper.image, good)
    retried, finite = stepper.evaluate()
    assert finite
    assert retried.total == pytest.approx(losses.total, rel=1e-5)
    stepper.accept()
    assert stepper.image.isfinite().all()
    assert not torch.equal(stepper.image, good)


@pytest.mark.usefixtures("weights_read_once")
@pytest.mark.parametrize("optimizer", ["adam", "lbfgs"])
def test_every_scale_is_captured_separately(optimizer: str, caplog: pytest.LogCaptureFixture) -> None:
    settings = tiny(optimizer=optimizer, scales=2, size=176, steps=3, device="cuda", graph="on")
    with caplog.at_level(logging.WARNING, "fastnst"):
        captured = stylize(samples(), samples(seed=2), settings=settings)
        plain = stylize(samples(), samples(seed=2), settings=settings.replace(graph="off"))
    assert "captured" not in caplog.text
    assert len(captured.trace) == 2
    assert (captured.image - plain.image).abs().mean() < 1e-3


def test_a_step_that_waits_falls_back_with_a_warning(bundled: Weights, caplog: pytest.LogCaptureFixture) -> None:
    settings = adam(steps=2, **LAYERS)

    class Waits(Objective):
        def evaluate(self, image: Tensor) -> tuple[Tensor, Tensor]:
            assert image.sum().item() != 0
            return super().evaluate(image)

    with caplog.at_level(logging.WARNING, "fastnst"):
        made = objective(bundled, settings, make=Waits)
        found = loop.optimize(made, start(), settings, context=LoopContext(capture=capture()))
    (message,) = caplog.messages
    assert message.startswith("the step cannot be captured as a CUDA graph (")
    assert len(found.trace) == 2
    assert found.image.isfinite().all()


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
def test_a_step_is_captured_on_a_device_that_is_not_the_current_one(bundled: Weights) -> None:
    settings = adam(steps=3, **LAYERS)
    made = objective(bundled, settings, device="cuda:1")
    found = loop.optimize(
        made,
        start(device="cuda:1"),
        settings,
        context=LoopContext(capture=StepCapture(CudaGraphs(made.network.device))),
    )
    torch.testing.assert_close(
        found.image.to("cuda:0"), run(bundled, settings, StepCapture(None)).image, atol=0.1, rtol=0
    )


# The engine.


def test_the_engine_is_fused_where_kernels_exist(bundled: Weights) -> None:
    kernels = ops.kernels("cuda")
    network = VGG(bundled, ["relu1_1"], device="cuda")
    assert choose_engine(network) is (FusedEngine if kernels["bias_relu_"] == "cuda" else PlainEngine)


@pytest.mark.parametrize("pooling", ["max", "average", "l2"])
def test_both_engines_on_cuda_agree_with_float64_on_the_cpu(bundled: Weights, bundled64: Weights, pooling: str) -> None:
    settings = Settings(pooling=pooling, **LAYERS)
    exact = objective(bundled64, settings, torch.float64, device="cpu")
    values, exact_gradient = exact.evaluate(start(seed=3, dtype=torch.float64, device="cpu"))
    for given, dtype, bound in ((bundled64, torch.float64, 1e-11), (bundled, torch.bfloat16, 0.1)):
        for kind in (PlainEngine, FusedEngine):
            made = objective(given, settings, dtype, kind=kind)
            found, gradient = made.evaluate(start(seed=3, dtype=dtype))
            torch.testing.assert_close(found.cpu().double(), values, rtol=bound, atol=0)
            cosine = torch.cosine_similarity(gradient.cpu().double().flatten(), exact_gradient.flatten(), dim=0)
            assert cosine > 1 - bound / 10

"""Steps as CUDA graphs on a CUDA device, and the engine that runs there."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest
import torch
from loop_pictures import samples, tiny
from loop_toys import adam, newton, noise
from torch import Tensor

from fastnst import ops, optimize
from fastnst.engine import Engine, FusedEngine, choose
from fastnst.graph import AdamInGraph, Capturer, CudaGraphs, EvaluationInGraph
from fastnst.objective import Objective, style_targets
from fastnst.optimize import Run
from fastnst.settings import Settings
from fastnst.transfer import stylize
from fastnst.vgg import VGG
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
    kind: type[Engine] | None = None,
    device: str = "cuda",
    make: type[Objective] = Objective,
) -> Objective:
    network = VGG(given, settings.layer_names(), pooling=settings.pooling, device=device, dtype=dtype)
    style = start(size, 2, dtype, device)
    return make(network, start(size, 1, dtype, device), style_targets(network, style, settings), settings, kind)


def start(size: tuple[int, int] = (65, 98), seed: int = 1, dtype: Any = torch.float32, device: str = "cuda") -> Tensor:
    exact = torch.float64 if dtype == torch.float64 else torch.float32
    return (noise(seed, (1, 3, *size)) * 40 + 120).to(device, exact)


def capturer() -> Capturer:
    return Capturer(CudaGraphs(torch.device("cuda", torch.cuda.current_device())))


def run(given: Weights, settings: Settings, made: Capturer, dtype: torch.dtype = torch.float32) -> Run:
    return optimize.optimize(objective(given, settings, dtype), start(dtype=dtype), settings, capturer=made)


@BOTH
@pytest.mark.parametrize("pooling", ["max", "average", "l2"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_captured_run_is_the_run_op_by_op(
    bundled: Weights,
    make: Callable[..., Settings],
    pooling: str,
    dtype: torch.dtype,
    caplog: pytest.LogCaptureFixture,
) -> None:
    settings = make(pooling=pooling, learning_rate=1.0, steps=6, **LAYERS)
    with caplog.at_level(logging.WARNING, "fastnst"):
        captured, plain = (run(bundled, settings, made, dtype) for made in (capturer(), Capturer(None)))
    assert "captured" not in caplog.text
    for one, other in zip(captured.trace, plain.trace, strict=True):
        assert one.total == pytest.approx(other.total, rel=1e-4 if dtype == torch.float32 else 1e-2)
    assert (captured.image - plain.image).abs().mean() < (1e-2 if dtype == torch.float32 else 1.0)


@BOTH
def test_a_captured_run_is_the_same_bit_for_bit_on_repeat(bundled: Weights, make: Callable[..., Settings]) -> None:
    settings = make(learning_rate=1.0, steps=4, **LAYERS)
    with torch.backends.cudnn.flags(enabled=True, deterministic=True):
        first, second = (run(bundled, settings, capturer(), torch.bfloat16) for _ in range(2))
    assert torch.equal(first.image, second.image)
    assert first.trace == second.trace


@BOTH
def test_a_step_makes_no_host_wait_but_one(bundled: Weights, make: Callable[..., Settings]) -> None:
    """The captured part waits for nothing: PyTorch fails on a wait inside a capture, and here on one in a replay."""
    settings = make(learning_rate=1.0, steps=4, **LAYERS)
    walk = capturer().walk(objective(bundled, settings), start(), settings)
    assert type(walk) is (AdamInGraph if make is adam else EvaluationInGraph)
    torch.cuda.set_sync_debug_mode("error")
    try:
        walk._replay()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    losses, finite = walk.look()
    assert finite
    assert losses.total > 0


@BOTH
def test_a_step_is_taken_back_from_a_graph(
    bundled: Weights, make: Callable[..., Settings], caplog: pytest.LogCaptureFixture
) -> None:
    """An image is set to what has no finite loss, as a step too long would leave it."""
    settings = make(learning_rate=1.0, steps=9, **LAYERS)
    walk = capturer().walk(objective(bundled, settings), start(), settings)
    losses, finite = walk.look()
    assert finite
    walk.go()
    good = walk.good.clone()
    assert torch.equal(good, start())
    walk.image.fill_(torch.nan)
    _, finite = walk.look()
    assert not finite
    assert torch.equal(walk.good, good)
    walk.calm()
    walk.turn_back()
    assert torch.equal(walk.image, good)
    again, finite = walk.look()
    assert finite
    assert again.total == pytest.approx(losses.total, rel=1e-5)
    walk.go()
    assert walk.image.isfinite().all()
    assert not torch.equal(walk.image, good)


@pytest.mark.usefixtures("weights_read_once")
@pytest.mark.parametrize("optimizer", ["adam", "lbfgs"])
def test_every_scale_is_captured_anew(optimizer: str, caplog: pytest.LogCaptureFixture) -> None:
    settings = tiny(optimizer=optimizer, scales=2, size=176, steps=3, device="cuda", graph="on")
    with caplog.at_level(logging.WARNING, "fastnst"):
        captured = stylize(samples(), samples(seed=2), settings=settings)
        plain = stylize(samples(), samples(seed=2), settings=settings.but(graph="off"))
    assert "captured" not in caplog.text
    assert len(captured.trace) == 2
    assert (captured.image - plain.image).abs().mean() < 1e-3


def test_a_step_that_waits_falls_back_and_says_so(bundled: Weights, caplog: pytest.LogCaptureFixture) -> None:
    settings = adam(steps=2, **LAYERS)

    class Waits(Objective):
        def evaluate(self, image: Tensor) -> tuple[Tensor, Tensor]:
            assert image.sum().item() != 0
            return super().evaluate(image)

    with caplog.at_level(logging.WARNING, "fastnst"):
        made = objective(bundled, settings, make=Waits)
        found = optimize.optimize(made, start(), settings, capturer=capturer())
    (message,) = caplog.messages
    assert message.startswith("the step cannot be captured as a CUDA graph (")
    assert len(found.trace) == 2
    assert found.image.isfinite().all()


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
def test_a_step_is_captured_on_a_device_that_is_not_the_current_one(bundled: Weights) -> None:
    settings = adam(steps=3, **LAYERS)
    made = objective(bundled, settings, device="cuda:1")
    found = optimize.optimize(
        made, start(device="cuda:1"), settings, capturer=Capturer(CudaGraphs(made.network.device))
    )
    torch.testing.assert_close(found.image.to("cuda:0"), run(bundled, settings, Capturer(None)).image, atol=0.1, rtol=0)


# The engine.


def test_the_engine_is_fused_where_its_kernels_are(bundled: Weights) -> None:
    kernels = ops.kernels("cuda")
    network = VGG(bundled, ["relu1_1"], device="cuda")
    assert choose(network) is (FusedEngine if kernels["bias_relu_"] == "cuda" else Engine)


@pytest.mark.parametrize("pooling", ["max", "average", "l2"])
def test_both_engines_give_on_cuda_what_float64_gives_on_the_cpu(
    bundled: Weights, bundled64: Weights, pooling: str
) -> None:
    settings = Settings(pooling=pooling, **LAYERS)
    exact = objective(bundled64, settings, torch.float64, device="cpu")
    values, slope = exact.evaluate(start(seed=3, dtype=torch.float64, device="cpu"))
    for given, dtype, bound in ((bundled64, torch.float64, 1e-11), (bundled, torch.bfloat16, 0.1)):
        for kind in (Engine, FusedEngine):
            made = objective(given, settings, dtype, kind=kind)
            found, gradient = made.evaluate(start(seed=3, dtype=dtype))
            torch.testing.assert_close(found.cpu().double(), values, rtol=bound, atol=0)
            cosine = torch.cosine_similarity(gradient.cpu().double().flatten(), slope.flatten(), dim=0)
            assert cosine > 1 - bound / 10

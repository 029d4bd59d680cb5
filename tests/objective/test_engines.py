"""The fused and the Winograd engine, on the CPU, against the plain one."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from typing import Any

import pytest
import torch
from support.graphs import NoHost
from support.oracles import pixels
from torch.utils._python_dispatch import TorchDispatchMode

from fastnst import ops
from fastnst.config.settings import Settings
from fastnst.network.vgg import VGG
from fastnst.objective.engines import Activations, FusedEngine, PlainEngine, WinogradEngine, choose_engine
from fastnst.objective.targets import style_targets
from fastnst.objective.whole import Objective
from fastnst.weights import Weights

OBSERVED: dict[str, dict[str, Any]] = {
    "on ReLUs": {
        "content_layers": (("relu3_1", 1.0),),
        "style_layers": (("relu1_1", 1.0), ("relu2_1", 0.5), ("relu3_1", 0.25)),
    },
    "on convolutions": {"content_layers": (("conv3_1", 1.0),), "style_layers": (("conv1_2", 1.0), ("conv2_1", 1.0))},
    "on a convolution and on its ReLU": {
        "content_layers": (("relu1_2", 1.0), ("conv2_1", 2.0)),
        "style_layers": (("conv1_2", 1.0), ("relu2_1", 0.25)),
    },
    "on pools": {"content_layers": (("pool2", 1.0),), "style_layers": (("pool1", 1.0), ("pool3", 1.0))},
    "on ReLUs below pools": {
        "content_layers": (("relu1_2", 1.0), ("relu3_1", 1.0)),
        "style_layers": (("relu2_2", 1.0), ("pool2", 1.0)),
    },
}


ENGINES = (FusedEngine, WinogradEngine)


def make(
    given: Weights,
    settings: Settings,
    kind: type[PlainEngine] | None,
    size: tuple[int, int] = (19, 26),
    dtype: torch.dtype = torch.float64,
) -> Objective:
    network = VGG(
        given,
        settings.layer_names(),
        pooling=settings.pooling,
        padding=settings.padding,
        dtype=dtype,
        winograd=kind is WinogradEngine,
    )
    exact = torch.float64 if dtype == torch.float64 else torch.float32
    targets = style_targets(network, pixels(23, 18, 1, exact), settings)
    return Objective(network, pixels(*size, 0, exact), targets, settings, kind)


def check_equal(given: Weights, settings: Settings, other: type[PlainEngine], size: tuple[int, int] = (19, 26)) -> None:
    plain, fused = (make(given, settings, kind, size) for kind in (PlainEngine, other))
    assert fused.parts == plain.parts
    for seed in (2, 3, 4):  # the first evaluation and later ones
        image = pixels(*size, seed)
        (values, gradient), (expected, exact) = fused.evaluate(image), plain.evaluate(image)
        torch.testing.assert_close(values, expected, rtol=1e-12, atol=0)
        assert gradient.is_contiguous()
        assert (gradient - exact).norm() <= 1e-12 * exact.norm()


@pytest.mark.parametrize("other", ENGINES)
@pytest.mark.parametrize("padding", ["zeros", "replicate", "replicate_first", "circular", "reflect,circular"])
@pytest.mark.parametrize("pooling", ["max", "average", "l2"])
@pytest.mark.parametrize("layers", OBSERVED)
@pytest.mark.sweep(7)
def test_engines_agree(bundled64: Weights, layers: str, pooling: str, padding: str, other: type[PlainEngine]) -> None:
    check_equal(bundled64, Settings(pooling=pooling, padding=padding, **OBSERVED[layers]), other)


@pytest.mark.parametrize("other", ENGINES)
@pytest.mark.parametrize("size", [(16, 16), (17, 33), (4 * 9, 16)])
@pytest.mark.parametrize("pooling", ["max", "average", "l2"])
@pytest.mark.sweep(7)
def test_engines_agree_down_to_maps_of_one_pixel(
    bundled64: Weights, pooling: str, size: tuple[int, int], other: type[PlainEngine]
) -> None:
    """A map of one pixel is both contiguous and channels_last."""
    check_equal(bundled64, Settings(pooling=pooling), other, size)


class Calls(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()
        self.biases: list[bool] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.counts[func.name()] += 1
        if func is torch.ops.aten.convolution.default and not args[6]:  # not transposed
            self.biases.append(args[2] is not None)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("pooling", ["max", "average", "l2"])
def test_the_fused_engine_runs_no_unneeded_pass(bundled: Weights, pooling: str) -> None:
    settings = Settings(pooling=pooling, tv_weight=0.0)
    objective = make(bundled, settings, FusedEngine, (32, 32), torch.float32)
    image = pixels(32, 32, 2, torch.float32)
    with Calls() as calls:
        objective.evaluate(image)
    kinds = Counter(layer.kind for layer in objective.chain)
    styled, narrow = len(settings.style_layers), 2  # relu1_1 and relu2_1 have at most 128 channels
    assert calls.biases == [False] * kinds["conv"]
    assert calls.counts["fastnst::bias_relu_style_loss"] == narrow
    assert calls.counts["fastnst::style_loss"] == styled - narrow
    assert calls.counts["fastnst::bias_relu_pool_"] == calls.counts["fastnst::pool_backward"] == kinds["pool"]
    # One for each of the remaining ReLUs where cuDNN has no epilogue, as on CPUs.
    assert calls.counts["fastnst::bias_relu_"] == kinds["relu"] - narrow - kinds["pool"]
    assert calls.counts["fastnst::pool"] == 0
    for unneeded in ("aten::max_pool2d_with_indices_backward", "aten::avg_pool2d_backward", "aten::relu"):
        assert calls.counts[unneeded] == 0


@pytest.mark.parametrize("kind", ENGINES)
def test_argmax_and_features_are_released(bundled: Weights, kind: type[PlainEngine]) -> None:
    objective = make(bundled, Settings(), kind, (32, 32), torch.float32)
    activations = Activations()
    with torch.no_grad():
        objective.engine._forward(pixels(32, 32, 2, torch.float32), activations)
        pooled = [below.name for below, above in pairwise(objective.chain) if above.kind == "pool"]
        assert not set(pooled) & set(activations.features)
        assert ("relu1_1" in activations.features) == (kind is FusedEngine)
        assert {argmax.dtype for argmax in activations.argmax.values()} == {torch.uint8}
        assert len(activations.argmax) == len(pooled)
        objective.engine._backward(activations)
    assert not activations.features
    assert not activations.argmax
    assert not activations.gradients


def test_the_winograd_engine_runs_no_pass_between_convolutions_but_the_losses(bundled: Weights) -> None:
    settings = Settings(tv_weight=0.0)
    objective = make(bundled, settings, WinogradEngine, (32, 32), torch.float32)
    with Calls() as calls:
        objective.evaluate(pixels(32, 32, 2, torch.float32))
    kinds = Counter(layer.kind for layer in objective.chain)
    ours = {name.partition("::")[2]: count for name, count in calls.counts.items() if name.startswith("fastnst::")}
    strips = 3
    assert ours == {
        "conv3x3_out": kinds["conv"] - kinds["pool"] + strips,  # the first is recomputed
        "conv3x3_pool_out": kinds["pool"],
        "conv3x3_backward_out": kinds["conv"] + 2 * (strips - 1),
        "style_loss": len(settings.style_layers),
        "content_loss": 1,
        "layer_backward_": len(set(settings.layer_names())) + strips - 1,
    }
    for unneeded in ("aten::convolution", "aten::relu", "aten::relu_", "aten::threshold_backward"):
        assert calls.counts[unneeded] == 0


def test_later_evaluations_allocate_nothing(bundled: Weights) -> None:
    """Maps are placed in one block, which is hardly larger than the maps that are alive at once."""
    objective = make(bundled, Settings(tv_weight=0.0), WinogradEngine, (64, 64), torch.float32)
    image = pixels(64, 64, 2, torch.float32)
    first = objective.evaluate(image)
    second, third = objective.evaluate(image), objective.evaluate(image)
    for again in (second, third):
        assert torch.equal(first[0], again[0])
        assert torch.equal(first[1], again[1])
    assert isinstance(objective.engine, WinogradEngine)
    arena = objective.engine._arena
    (layout,) = arena._layouts.values()
    spans = layout.spans
    alive = max(sum(span.size for span in spans if span.first <= now <= span.last) for now in range(len(spans)))
    assert arena._block is not None
    assert alive <= arena._block.numel() <= 1.1 * alive


def test_the_engine_follows_from_the_network(bundled: Weights, monkeypatch: pytest.MonkeyPatch) -> None:
    served = {"cuda": dict.fromkeys(ops.NAMES, "cuda"), "cpu": dict.fromkeys(ops.NAMES, "avx512")}
    monkeypatch.setattr(ops, "kernels", lambda device: served[device])
    network = VGG(bundled, ["relu1_1"])
    assert choose_engine(network) is PlainEngine
    assert choose_engine(VGG(bundled, ["relu1_1"], winograd=True)) is WinogradEngine
    network.device = torch.device("cuda:1")
    assert choose_engine(network) is FusedEngine
    served["cuda"]["bias_relu_"] = "reference"
    assert choose_engine(network) is PlainEngine


@pytest.mark.parametrize("pooling", ["max", "average", "l2"])
@pytest.mark.parametrize("kind", [PlainEngine, FusedEngine])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_evaluation_neither_waits_for_the_device_nor_leaves_it(
    bundled: Weights, dtype: torch.dtype, kind: type[PlainEngine], pooling: str
) -> None:
    """On the meta device, which has no values: an op that waits for one fails, and tensors of the CPU are detected."""
    settings = Settings(pooling=pooling, padding="replicate", **OBSERVED["on ReLUs"])
    meta = torch.device("meta")
    network = VGG(bundled, settings.layer_names(), pooling=pooling, padding="replicate", device=meta, dtype=dtype)
    image = pixels(19, 26, 2, torch.float32).to(meta)
    objective = Objective(network, image, style_targets(network, image, settings), settings, kind)
    with NoHost(meta) as watch:
        values, gradient = objective.evaluate(image)
    assert watch.calls > 30
    assert values.shape == (len(objective.parts),)
    assert gradient.shape == image.shape


def test_the_precision_of_matrix_products_is_set_outside_of_steps(
    bundled: Weights, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A graph of a step could not capture it."""
    calls: list[int] = []
    monkeypatch.setattr(ops, "follow_matmul_precision", lambda: calls.append(1))
    objective = make(bundled, Settings(**OBSERVED["on ReLUs"]), FusedEngine, dtype=torch.float32)
    assert calls
    calls.clear()
    objective.value_and_grad(pixels(19, 26, 2, torch.float32))
    assert not calls


def test_bfloat16_features_have_float32_values_and_gradient(bundled: Weights) -> None:
    settings = Settings(**OBSERVED["on ReLUs"])
    exact, half = (make(bundled, settings, FusedEngine, dtype=d) for d in (torch.float32, torch.bfloat16))
    image = pixels(19, 26, 2, torch.float32)
    (values, gradient), (expected, exact_gradient) = half.evaluate(image), exact.evaluate(image)
    assert (values.dtype, gradient.dtype) == (torch.float32, torch.float32)
    torch.testing.assert_close(values, expected, rtol=0.05, atol=0)
    assert torch.cosine_similarity(gradient.flatten(), exact_gradient.flatten(), dim=0) > 0.99

from __future__ import annotations

import dataclasses
import gc
import weakref
from collections import Counter
from itertools import pairwise
from typing import Any

import pytest
import torch
from support.oracles import CONTENT, STYLE, evaluate, pixels, plain_features, plain_network, table
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from fastnst.config.settings import Settings
from fastnst.errors import UsageError
from fastnst.network.layer import Layer
from fastnst.network.vgg import VGG
from fastnst.objective.protocol import Losses
from fastnst.objective.targets import style_targets
from fastnst.objective.whole import Objective
from fastnst.weights import Weights

SHALLOW: dict[str, Any] = {
    "content_layers": (("relu2_1", 1.0),),
    "style_layers": (("relu1_1", 1.0), ("relu2_1", 0.5)),
}


# As the presets, but one or two blocks shallower, so that many cases are quick.
MIDDLE: dict[str, Any] = {
    "content_layers": (("relu3_2", 1.0),),
    "style_layers": (("relu1_1", 0.2), ("relu2_1", 0.2), ("relu3_1", 0.2)),
}


def make(
    given: Weights,
    settings: Settings,
    dtype: torch.dtype = torch.float64,
    size: tuple[int, int] = (19, 26),
    style_size: tuple[int, int] = (23, 18),
) -> Objective:
    network = VGG(given, settings.layer_names(), pooling=settings.pooling, padding=settings.padding, dtype=dtype)
    exact = torch.float64 if dtype == torch.float64 else torch.float32
    targets = style_targets(network, pixels(*style_size, seed=1, dtype=exact), settings)
    return Objective(network, pixels(*size, seed=0, dtype=exact), targets, settings)


def check_against_autograd(
    given: Weights, settings: Settings, size: tuple[int, int] = (19, 26), style_size: tuple[int, int] = (23, 18)
) -> None:
    """Total, every part and gradient in float64, against ordinary modules and autograd."""
    image = pixels(*size, seed=2)
    losses, gradient = make(given, settings, size=size, style_size=style_size).value_and_grad(image)

    order = [name for name, *_ in table(given.arch)]
    deepest = max(settings.layer_names(), key=order.index)
    plain = plain_network(given.convs, given.arch, deepest, settings.pooling, settings.padding)
    terms = [
        (settings.style_weight * weight, name, STYLE[settings.style_form])
        for name, weight in settings.style_layers
        if settings.style_weight * weight
    ]
    terms += [
        (settings.content_weight * weight, name, CONTENT[settings.content_form])
        for name, weight in settings.content_layers
        if settings.content_weight * weight
    ]
    total, parts, exact = evaluate(
        lambda x: plain_features(plain, x, given.mean, given.scale),
        image,
        pixels(*size, seed=0),
        pixels(*style_size, seed=1),
        terms,
        [(settings.tv_weight, settings.tv_kind)] if settings.tv_weight else [],
    )
    assert losses.total == pytest.approx(total, rel=1e-12)
    assert as_parts(losses) == pytest.approx({("tv", ""): 0.0} | parts, rel=1e-11)
    assert gradient.shape == image.shape
    assert gradient.is_contiguous()
    assert (gradient - exact).norm() <= 1e-12 * exact.norm()


def as_parts(losses: Losses) -> dict[tuple[str, str], float]:
    parts = {("style", name): value for name, value in losses.style.items()}
    parts |= {("content", name): value for name, value in losses.content.items()}
    return parts | {("tv", ""): losses.tv}


@pytest.mark.parametrize("preset", ["default", "johnson", "gatys", "tutorial"])
@pytest.mark.parametrize("padding", ["zeros", "replicate", "replicate_first"])
@pytest.mark.parametrize("pooling", ["max", "average", "l2"])
@pytest.mark.sweep(5)
def test_gradient_matches_autograd(bundled64: Weights, pooling: str, padding: str, preset: str) -> None:
    layers = {} if preset == "tutorial" else MIDDLE
    check_against_autograd(
        bundled64, Settings.from_preset(preset, arch="vgg19", pooling=pooling, padding=padding, **layers)
    )


OBSERVED: dict[str, dict[str, Any]] = {
    "on convolutions before their ReLU": {
        "content_layers": (("conv2_1", 1.0),),
        "style_layers": (("conv1_1", 1.0), ("conv2_2", 1.0)),
    },
    "on a convolution and on its ReLU": {
        "content_layers": (("relu1_2", 1.0), ("conv2_1", 2.0)),
        "style_layers": (("conv1_2", 1.0), ("relu2_1", 0.25)),
    },
    "on pools": {"content_layers": (("pool2", 1.0),), "style_layers": (("pool1", 1.0), ("pool3", 1.0))},
    "both on one ReLU": {"content_layers": (("relu2_2", 1.0),), "style_layers": (("relu2_2", 1.0), ("relu1_1", 2.0))},
    "both on one convolution": {"content_layers": (("conv2_2", 1.0),), "style_layers": (("conv2_2", 1.0),)},
    "both on one pool": {"content_layers": (("pool2", 1.0),), "style_layers": (("pool2", 1.0), ("relu1_1", 2.0))},
    "on the first convolution alone": {"content_layers": (("conv1_1", 1.0),), "style_layers": (("conv1_1", 1.0),)},
    "content only": {"content_layers": (("relu3_1", 1.0), ("relu2_1", 0.5)), "style_weight": 0.0},
    "style only": {"style_layers": (("relu3_1", 1.0), ("relu2_1", 0.5)), "content_weight": 0.0},
    "a layer of weight zero has no loss": {
        "content_layers": (("relu2_1", 1.0), ("relu4_1", 0.0)),
        "style_layers": (("relu1_1", 1.0), ("relu5_1", 0.0)),
    },
}


@pytest.mark.parametrize("pooling", ["max", "average", "l2"])
@pytest.mark.parametrize("layers", OBSERVED)
@pytest.mark.sweep(4)
def test_gradient_matches_autograd_for_losses(bundled64: Weights, layers: str, pooling: str) -> None:
    check_against_autograd(bundled64, Settings(pooling=pooling, padding="replicate", **OBSERVED[layers]))
    check_against_autograd(bundled64, Settings(pooling=pooling, **OBSERVED[layers]), size=(18, 17))


@pytest.mark.parametrize(
    ("size", "pooling", "padding"),
    [
        ((16, 16), "max", "replicate"),
        ((16, 16), "l2", "zeros"),
        ((17, 33), "average", "zeros"),
        ((33, 16), "max", "zeros"),
    ],
)
def test_gradient_matches_autograd_to_the_deepest_layer_at_odd_and_smallest_sizes(
    bundled64: Weights, size: tuple[int, int], pooling: str, padding: str
) -> None:
    settings = Settings(pooling=pooling, padding=padding)
    check_against_autograd(bundled64, settings, size=size, style_size=(16, 21))


@pytest.mark.parametrize("size", [(4, 4), (4, 5), (7, 4), (9, 31), (32, 24)])
@pytest.mark.parametrize("padding", ["zeros", "replicate", "replicate_first"])
@pytest.mark.parametrize("pooling", ["max", "average", "l2"])
@pytest.mark.sweep(4)
def test_gradient_matches_autograd_at_odd_and_smallest_sizes(
    bundled64: Weights, pooling: str, padding: str, size: tuple[int, int]
) -> None:
    check_against_autograd(bundled64, Settings(pooling=pooling, padding=padding, **MIDDLE), size=size)


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (5, 1)])
def test_gradient_matches_autograd_for_an_image_of_one_line(bundled64: Weights, size: tuple[int, int]) -> None:
    layers = {"content_layers": (("relu1_2", 1.0),), "style_layers": (("relu1_1", 1.0),)}
    for padding in ("zeros", "replicate"):
        check_against_autograd(bundled64, Settings(padding=padding, **layers), size=size)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["anisotropic", "isotropic", "squared"])
def test_gradient_matches_autograd_with_total_variation(bundled64: Weights, kind: str) -> None:
    check_against_autograd(bundled64, Settings(tv_weight=3.0, tv_kind=kind, style_weight=1e-4, **SHALLOW))


@pytest.mark.parametrize("content_form", CONTENT)
@pytest.mark.parametrize("style_form", STYLE)
def test_gradient_matches_autograd_for_every_form(bundled64: Weights, style_form: str, content_form: str) -> None:
    check_against_autograd(bundled64, Settings(style_form=style_form, content_form=content_form, **SHALLOW))


def test_gradient_of_vgg16_matches_autograd(vgg16_64: Weights) -> None:
    layers = {**MIDDLE, "content_layers": (("relu4_1", 1.0),)}
    check_against_autograd(vgg16_64, Settings(arch="vgg16", **layers))


def test_gradient_includes_the_scale_of_the_networks_input(bundled64: Weights) -> None:
    torchvision = dataclasses.replace(bundled64, mean=(123.675, 116.28, 103.53), scale=(0.0171, 0.0175, 0.0174))
    check_against_autograd(torchvision, Settings(**MIDDLE))


def relative(found: Tensor, exact: Tensor) -> float:
    return float((found.double() - exact.double()).norm() / exact.double().norm())


# Rounding can change which value is the maximum of a max pool, which moves gradients by a pixel.
@pytest.mark.parametrize(("pooling", "bound"), [("average", 1e-4), ("l2", 1e-4), ("max", 5e-3)])
def test_float32_is_close_to_float64(bundled: Weights, bundled64: Weights, pooling: str, bound: float) -> None:
    settings = Settings(pooling=pooling, tv_weight=0.1, **MIDDLE)
    exact_losses, exact = make(bundled64, settings).value_and_grad(pixels(19, 26, seed=2))
    losses, gradient = make(bundled, settings, torch.float32).value_and_grad(pixels(19, 26, 2, torch.float32))
    assert gradient.dtype == torch.float32
    assert losses.total == pytest.approx(exact_losses.total, rel=1e-5)
    assert relative(gradient, exact) < bound


def test_the_bfloat16_gradient_has_the_same_direction(bundled: Weights, bundled64: Weights) -> None:
    settings = Settings()
    exact_losses, exact = make(bundled64, settings).value_and_grad(pixels(19, 26, seed=2))
    losses, gradient = make(bundled, settings, torch.bfloat16).value_and_grad(pixels(19, 26, 2, torch.float32))
    assert gradient.dtype == torch.float32
    assert losses.total == pytest.approx(exact_losses.total, rel=0.05)
    assert torch.cosine_similarity(gradient.double().flatten(), exact.flatten(), dim=0) > 0.99


def test_float16_would_overflow_in_the_gradient(bundled: Weights) -> None:
    """Why it is not a choice of precision."""
    settings = Settings.from_preset("gatys", **MIDDLE)
    _, gradient = make(bundled, settings, torch.float32).value_and_grad(pixels(19, 26, 2, torch.float32))
    assert gradient.abs().max() > torch.finfo(torch.float16).max


def test_the_image_is_not_modified_and_needs_no_gradient(bundled: Weights) -> None:
    objective = make(bundled, Settings(tv_weight=1.0, **SHALLOW), torch.float32)
    image = pixels(19, 26, 2, torch.float32).requires_grad_(True)
    before = image.detach().clone()
    _, gradient = objective.value_and_grad(image)
    assert torch.equal(image.detach(), before)
    assert image.grad is None
    assert not gradient.requires_grad


def test_an_evaluation_changes_nothing_for_the_next(bundled: Weights) -> None:
    objective = make(bundled, Settings(pooling="l2", tv_weight=1.0, **SHALLOW), torch.float32)
    image, other = pixels(19, 26, 2, torch.float32), pixels(19, 26, 3, torch.float32)
    losses, gradient = objective.value_and_grad(image)
    objective.value_and_grad(other)
    again, gradient_again = objective.value_and_grad(image)
    assert losses == again
    assert torch.equal(gradient, gradient_again)


def test_the_content_picture_itself_has_no_content_loss(bundled: Weights) -> None:
    objective = make(bundled, Settings(style_weight=0.0, tv_weight=0.0, **SHALLOW), torch.float32)
    losses, gradient = objective.value_and_grad(pixels(19, 26, 0, torch.float32))
    assert losses.total == 0
    assert not gradient.any()


def test_the_total_is_the_sum_of_the_parts(bundled: Weights) -> None:
    losses, _ = make(bundled, Settings(tv_weight=1.0, **SHALLOW)).value_and_grad(pixels(19, 26, 2))
    assert losses.total == pytest.approx(sum(as_parts(losses).values()))
    assert (set(losses.content), set(losses.style)) == ({"relu2_1"}, {"relu1_1", "relu2_1"})


def test_without_a_style_loss_there_are_no_style_targets(bundled: Weights) -> None:
    network = VGG(bundled, ["relu1_1"])
    for settings in (Settings(style_weight=0.0), Settings(style_layers=(("relu1_1", 0.0),))):
        assert style_targets(network, pixels(8, 8, dtype=torch.float32), settings) == {}


def test_missing_style_targets_are_refused(bundled: Weights) -> None:
    settings = Settings(**SHALLOW)
    network = VGG(bundled, settings.layer_names())
    image = pixels(16, 16, dtype=torch.float32)
    with pytest.raises(UsageError, match="no style target for layer relu2_1"):
        Objective(network, image, {"relu1_1": torch.zeros(1, 64, 64)}, settings)


@pytest.mark.parametrize("shape", [(1, 3, 26, 19), (2, 3, 19, 26), (3, 19, 26), (1, 4, 19, 26)])
def test_an_image_of_another_shape_is_refused(bundled: Weights, shape: tuple[int, ...]) -> None:
    objective = make(bundled, Settings(content_weight=0.0, **SHALLOW), torch.float32)
    with pytest.raises(UsageError, match=r"expected an image of shape \(1, 3, 19, 26\) like the content"):
        objective.value_and_grad(torch.zeros(shape))


def test_a_content_too_small_is_refused(bundled: Weights) -> None:
    settings = Settings(style_weight=0.0)
    with pytest.raises(UsageError, match="image of 20x7 pixels is too small for layer relu4_2: it needs at least 8"):
        make(bundled, settings, torch.float32, size=(7, 20))


@pytest.mark.parametrize("form", ["style_form", "content_form"])
def test_an_unknown_form_is_refused(bundled: Weights, form: str) -> None:
    changes: dict[str, Any] = {form: "gatsy", **SHALLOW}
    with pytest.raises(UsageError, match=f"unknown {form.replace('_', ' ')} 'gatsy'"):
        make(bundled, Settings(**changes))


class WatchMemory(TorchDispatchMode):
    """Counts ops, and the bytes of all storages made by ops that are still alive."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls: Counter[str] = Counter()
        self.dtypes: set[torch.dtype] = set()
        self.added_to_maps = 0
        self.peak = 0
        self.live_at_last_convolution = 0
        self._tensors: list[weakref.ref[Tensor]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        self.calls[func.name()] += 1
        if func.name().startswith("aten::add") and args[0].dim() == 4:
            self.added_to_maps += 1
        for tensor in out if isinstance(out, (tuple, list)) else (out,):
            if isinstance(tensor, Tensor):
                self._tensors.append(weakref.ref(tensor))
                self.dtypes.add(tensor.dtype)
        self.peak = max(self.peak, self.live())
        if func is torch.ops.aten.convolution.default:
            self.live_at_last_convolution = self.live()
        return out

    def live(self) -> int:
        held = [tensor for tensor in (reference() for reference in self._tensors) if tensor is not None]
        self._tensors = [weakref.ref(tensor) for tensor in held]
        return sum({t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in held}.values())


def kept_relus(objective: Objective) -> list[Layer]:
    """The ReLUs whose output the backward pass needs. For one below a max pool the argmax is enough, unless a loss
    observes it."""
    chain = objective.chain
    pooled = {below.name for below, above in pairwise(chain) if above.kind == "pool"}
    argmax = pooled - set(objective.settings.layer_names()) if objective.network.pooling == "max" else set()
    return [layer for layer in chain if layer.kind == "relu" and layer.name not in argmax]


@pytest.mark.parametrize("pooling", ["max", "average"])
@pytest.mark.parametrize(
    "layers", [MIDDLE, OBSERVED["on a convolution and on its ReLU"], {**MIDDLE, "content_layers": (("relu2_2", 1.0),)}]
)
def test_the_backward_pass_uses_the_fused_op(bundled: Weights, layers: dict[str, Any], pooling: str) -> None:
    settings = Settings(tv_weight=1.0, pooling=pooling, **layers)
    objective = make(bundled, settings, torch.float32)
    image = pixels(19, 26, 2, torch.float32)
    with WatchMemory() as watch:
        objective.value_and_grad(image)
    kinds = Counter(layer.kind for layer in objective.chain)
    observed_before_relu = sum(not name.startswith("relu") for name in settings.layer_names())
    assert watch.calls["fastnst::layer_backward_"] == len(kept_relus(objective)) + observed_before_relu
    assert watch.calls["fastnst::style_loss"] == len(settings.style_layers)
    assert watch.calls["fastnst::content_loss"] == len(settings.content_layers)
    assert watch.calls["fastnst::total_variation_backward"] == 1
    assert watch.calls["aten::convolution"] == 2 * kinds["conv"]


def test_no_gradient_of_weights_and_no_matrix_product_is_computed(bundled: Weights) -> None:
    objective = make(bundled, Settings(**MIDDLE), torch.float32)
    image = pixels(19, 26, 2, torch.float32)
    with WatchMemory() as watch:
        objective.value_and_grad(image)
    unwanted = ("convolution_backward", "aten::mm", "aten::bmm", "threshold_backward", "aten::sub.Tensor")
    assert not [name for name in watch.calls if name.startswith(unwanted) and watch.calls[name] > 1]


@pytest.mark.parametrize("loss", ["mean_std", "covariance", "gram_mean_std", "wasserstein"])
def test_the_gradient_of_means_takes_no_pass_of_its_own(bundled: Weights, loss: str) -> None:
    image, added = pixels(19, 26, 2, torch.float32), []
    for each in ("gram", loss):
        objective = make(bundled, Settings(style_loss=each, tv_weight=1.0, **MIDDLE), torch.float32)
        with WatchMemory() as watch:
            objective.value_and_grad(image)
        added.append(watch.added_to_maps)
    assert added[0] == added[1]


def test_a_float32_run_makes_no_float64_tensor(bundled: Weights) -> None:
    """Some devices (MPS) have no float64."""
    objective = make(bundled, Settings(tv_weight=1.0, pooling="l2", **SHALLOW), torch.float32)
    image = pixels(19, 26, 2, torch.float32)
    with WatchMemory() as watch:
        objective.value_and_grad(image)
    assert watch.dtypes <= {torch.float32, torch.int64, torch.uint8, torch.bool}


@pytest.mark.parametrize("pooling", ["max", "average", "l2"])
def test_activations_are_released_in_the_backward_pass(bundled: Weights, pooling: str) -> None:
    settings = Settings(pooling=pooling, **MIDDLE)
    objective = make(bundled, settings, torch.float32, size=(64, 64))
    image = pixels(64, 64, 2, torch.float32)
    with WatchMemory() as watch:
        objective.value_and_grad(image)

    def size(layer: Layer) -> int:
        return layer.channels * (64 // layer.stride) ** 2 * 4

    # Kept of each pool: its argmax, nothing, or its output.
    pools = [layer for layer in objective.chain if layer.kind == "pool" and pooling != "average"]
    kept = sum(map(size, [*kept_relus(objective), *pools]))
    first = size(objective.chain[0])
    # In addition the gradient, the gradient below it, and half a map for what lies between; workspaces are not seen.
    assert kept < watch.peak <= kept + 2.5 * first
    assert watch.live_at_last_convolution < 1.5 * first


def test_an_evaluation_leaves_nothing_but_the_gradient(bundled: Weights) -> None:
    objective = make(bundled, Settings(pooling="l2", tv_weight=1.0, **SHALLOW), torch.float32)
    image = pixels(19, 26, 2, torch.float32)
    gc.collect()
    gc.disable()
    try:
        with WatchMemory() as watch:
            for _ in range(3):
                losses, gradient = objective.value_and_grad(image)
                assert watch.live() == gradient.nbytes
    finally:
        gc.enable()
    assert losses.total > 0

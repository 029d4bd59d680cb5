"""A module of the user's as network: against VGG where it is one, and against autograd through the whole module."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from support.oracles import CAFFE_MEAN, pixels, plain_network, raw_gram
from torch import Tensor, nn

from fastnst.config.settings import Settings
from fastnst.errors import UsageError
from fastnst.network import VGG, ModuleEncoder
from fastnst.objective.engines import ModuleEngine
from fastnst.objective.targets import Region, style_targets
from fastnst.objective.whole import Objective
from fastnst.optim.loop import optimize
from fastnst.run.stylizer import Stylizer
from fastnst.strips.objective import StripObjective
from fastnst.weights import Weights

LAYERS: dict[str, Any] = {
    "content_layers": (("relu2_1", 1.0), ("pool2", 0.5)),
    "style_layers": (("relu1_1", 1.0), ("conv2_1", 0.5), ("relu3_1", 0.25)),
}
SIZE, STYLE_SIZE = (22, 29), (17, 24)


def as_module(given: Weights) -> ModuleEncoder:
    """The same network as :class:`VGG`, of ordinary modules; its ReLUs overwrite their input."""
    module = plain_network(given.convs, "vgg19", "relu3_1").eval()
    for one in module.modules():
        if isinstance(one, nn.ReLU):
            one.inplace = True
    names = [name for name, _ in module.named_children()]
    return ModuleEncoder(module, names, mean=CAFFE_MEAN, deviation=(1.0, 1.0, 1.0), dtype=torch.float64)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"style_loss": "mean_std", "tv_weight": 0.0},
        {"style_loss": "sliced"},
        {"style_loss": "nnst"},
        {"style_loss": "strotss", "content_loss": "self_similarity"},
        {"normalize_gradients": True},
    ],
    ids=lambda changes: changes.get("style_loss", " ".join(changes) or "gram"),
)
def test_a_vgg_of_modules_has_the_losses_and_gradient_of_vgg(bundled64: Weights, changes: dict[str, Any]) -> None:
    settings = Settings.from_preset(**{**LAYERS, **changes})
    masks: list[Tensor | None] = [None, torch.rand(1, 1, *SIZE, generator=torch.Generator().manual_seed(0)) + 0.1]
    networks = (VGG(bundled64, settings.layer_names(), dtype=torch.float64), as_module(bundled64))
    several = "content_loss" in changes or settings.style_loss == "nnst"
    for mask in masks[: 1 if several else 2]:
        found = []
        for network in networks:
            targets = style_targets(network, pixels(*STYLE_SIZE, seed=1), settings)
            objective = Objective(network, pixels(*SIZE), [Region(targets, mask)], settings, content_mask=mask)
            found.append(objective.value_and_grad(pixels(*SIZE, seed=2)))
        (losses, gradient), (wanted, exact) = found[1], found[0]
        assert losses.style == pytest.approx(wanted.style, rel=1e-9)
        assert losses.content == pytest.approx(wanted.content, rel=1e-9)
        assert (gradient - exact).norm() <= 1e-8 * exact.norm()


class Strange(nn.Module):
    """Strides of 2 that round up, a residual, a normalization, and no ReLU."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 5, stride=2, padding=2)
        self.norm = nn.BatchNorm2d(8)
        self.body = nn.Sequential(nn.Conv2d(8, 12, 3, stride=2, padding=1), nn.GELU())
        self.skip = nn.Conv2d(8, 12, 1, stride=2)
        self.unused = nn.Conv2d(3, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.stem(x)).relu_()
        found: Tensor = self.body(x) + self.skip(x)
        return found.mean((2, 3))


def strange() -> Strange:
    torch.manual_seed(0)
    return Strange().double().eval()


def test_any_module_has_the_gradient_of_autograd() -> None:
    module, settings = (
        strange(),
        Settings.from_preset(
            content_layers=(("body", 1.0),),
            style_layers=(("norm", 2.0), ("skip", 1.0)),
            style_form="johnson",
            content_weight=3.0,
            style_weight=5.0,
            tv_weight=0.0,
        ),
    )
    network = ModuleEncoder(module, settings.layer_names(), dtype=torch.float64)
    assert [(layer.name, layer.channels, layer.stride) for layer in network.chain] == [
        ("norm", 8, 2),
        ("body", 12, 4),
        ("skip", 12, 4),
    ]
    assert network.map_size(network.chain[1], (21, 30)) == (6, 8)
    content, style, image = pixels(21, 30), pixels(25, 18, seed=1), pixels(21, 30, seed=2)
    objective = Objective(network, content, style_targets(network, style, settings), settings)
    assert isinstance(objective.engine, ModuleEngine)
    losses, gradient = objective.value_and_grad(image)

    def layers(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mean = torch.tensor([123.675, 116.28, 103.53], dtype=torch.float64).view(1, 3, 1, 1)
        deviation = torch.tensor([58.395, 57.12, 57.375], dtype=torch.float64).view(1, 3, 1, 1)
        norm = module.norm(module.stem((x - mean) / deviation))
        return norm, module.body(norm.relu()), module.skip(norm.relu())

    free = image.clone().requires_grad_()
    (norm, body, skip), (norm_s, _, skip_s), (_, body_c, _) = layers(free), layers(style), layers(content)
    total = 3 * F.mse_loss(body, body_c)
    for weight, x, y in ((10, norm, norm_s), (5, skip, skip_s)):
        total = total + weight * F.mse_loss(raw_gram(x) / x.numel(), raw_gram(y) / y.numel())
    (exact,) = torch.autograd.grad(total, free)
    assert losses.total == pytest.approx(total.item(), rel=1e-6)  # mean and deviation are float32 in the encoder
    assert (gradient - exact).norm() <= 1e-5 * exact.norm()
    assert all(parameter.grad is None for parameter in module.parameters())
    assert not any(child._forward_hooks for child in module.modules())


def test_a_run_lowers_the_loss_under_inference_mode_too() -> None:
    settings = Settings.from_preset(
        content_layers=(("body", 1.0),), style_layers=(("norm", 1.0),), optimizer="adam", steps=5, learning_rate=2.0
    ).at(1)
    network = ModuleEncoder(strange().float(), settings.layer_names())
    content, style = (pixels(32, 32, seed, torch.float32) for seed in (0, 1))
    objective = Objective(network, content, style_targets(network, style, settings), settings)
    result = optimize(objective, content, settings)
    assert result.trace[-1].total < result.trace[0].total
    with torch.inference_mode():
        losses, _ = objective.value_and_grad(content)
    assert losses.total == pytest.approx(result.trace[0].total)


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Conv2d(3, 3, 1)
        self.flat = nn.Flatten()

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.flat(self.one(self.one(x)))
        return found


@pytest.mark.parametrize(
    ("module", "names", "message"),
    [
        (strange(), ["bodi"], "Strange has no submodule 'bodi', did you mean body?"),
        (strange(), [""], "Strange has no submodule ''"),
        (strange(), [], "expected the name of a submodule at least"),
        (strange(), ["unused"], "submodule 'unused' of Strange is not called"),
        (strange().train(), ["body"], "Strange is in training mode, in which it changes: call .eval() first"),
        (Twice().eval(), ["one"], "submodule 'one' of Twice is called more than once"),
        (
            Twice().eval(),
            ["flat"],
            "submodule 'flat' of Twice: expected features of shape (1, C, h, w), got (1, 49152)",
        ),
        (nn.Sequential(nn.Conv2d(4, 4, 1)).eval(), ["0"], "Sequential does not take an image of 128x128 pixels: Given"),
    ],
)
def test_a_module_that_is_no_network_is_refused(module: nn.Module, names: list[str], message: str) -> None:
    dtype = next((parameter.dtype for parameter in module.parameters()), torch.float32)
    with pytest.raises(UsageError) as caught:
        ModuleEncoder(module, names, dtype=dtype)
    assert str(caught.value).startswith(message)


def test_what_it_cannot_do_is_refused() -> None:
    settings = Settings.from_preset(content_layers=(("body", 1.0),), style_layers=(("body", 1.0),))
    network = ModuleEncoder(strange(), ["body"], dtype=torch.float64)
    with pytest.raises(UsageError, match="layer 'stem' is not among the layers this network was built for"):
        network.features(pixels(32, 32), ["stem"])
    with pytest.raises(UsageError, match="a module has no strips, since its receptive fields are not known"):
        StripObjective(network, pixels(32, 32), {}, settings, 16)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="tileable 'x': a module pads its inputs itself"):
        Stylizer(settings.replace(tileable="x"), network=network)

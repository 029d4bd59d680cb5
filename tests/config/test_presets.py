"""Each preset against the published definition, written down from its source and not from the settings."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from typing import Any

import pytest
import torch
from support.oracles import (
    CAFFE_MEAN,
    GATYS_STYLE,
    TUTORIAL_STYLE,
    Term,
    evaluate,
    gatys_style,
    gram_mean_std,
    half_mean_content,
    half_sum_content,
    johnson_style,
    mean_content,
    pixels,
    plain_features,
    plain_network,
    raw_style,
    table,
    wasserstein,
)
from torch import Tensor

from fastnst import weights
from fastnst.config.presets import PRESETS
from fastnst.config.settings import Settings
from fastnst.errors import WeightsError
from fastnst.network.vgg import VGG
from fastnst.objective.targets import style_targets
from fastnst.objective.whole import Objective
from fastnst.run.stylizer import Stylizer
from fastnst.weights import Weights

Terms = list[tuple[float, str, Term]]
# The programs name layers by their place in torchvision's vgg16.features: convolutions, ReLUs and pools in order.
PLACES = [name for name, *_ in table("vgg16")]
NNST_LAYERS = [PLACES[i] for i in (1, 3, 6, 8, 11, 13, 15, 18, 20, 22)]
STROTSS_LAYERS = [PLACES[i] for i in (1, 3, 6, 8, 11, 13, 15, 22, 29)]


def gatys() -> Terms:
    """alpha L_content + beta L_style with alpha / beta = 1e-3, w_l = 1/5 (Gatys, Ecker and Bethge 2015)."""
    return [(1.0, "relu4_2", half_sum_content), *((1e3 / 5, name, gatys_style) for name in GATYS_STYLE)]


def johnson() -> Terms:
    """-content_weight 5, -style_weight 100; the total variation of 1e-3 is added by the caller."""
    return [(5.0, "relu4_2", mean_content), *((100.0, name, johnson_style) for name in GATYS_STYLE)]


def tutorial() -> Terms:
    """1e3 mean(1/2 d^2) on conv3_3 after its ReLU, 1e-3 sum over nine maps of 1/7 mean((Gs - Gg)^2)."""
    return [(1e3, "relu3_3", half_mean_content), *((1e-3 / 7, name, raw_style) for name in TUTORIAL_STYLE)]


def crowson() -> Terms:
    """style-transfer-pytorch's defaults: content 0.015, style layers 256, 64, 16, 4, 1 over their sum.

    Its total variation of 2 is of pixels in 0..1.
    """
    weights = dict(zip(GATYS_STYLE, (256, 64, 16, 4, 1), strict=True))
    return [(0.015, "relu4_2", mean_content), *((weights[name] / 341, name, wasserstein) for name in GATYS_STYLE)]


def spst() -> Terms:
    """spst.py: content weight 1, 1000 / C^2 for Gram matrices, 1000 * 1000 / 100 for means and deviations."""
    return [(1.0, "relu4_2", mean_content), *((1000.0, name, gram_mean_std) for name in GATYS_STYLE)]


def texture() -> Terms:
    """Gatys, Ecker and Bethge, "Texture synthesis using convolutional neural networks", 2015, eqs. 2 to 4, at conv1_1
    after its ReLU and at pool1 to pool4, as DeepTextures has them. Their layers weigh the same, in a network whose mean
    activations are 1; the weights here are those of the preset, 1000 times its own."""
    weights = {"relu1_1": 1e3, "pool1": 2.4, "pool2": 2.7, "pool3": 5.3e-2, "pool4": 7.4e3}
    return [(weight, name, gatys_style) for name, weight in weights.items()]


DEFINITIONS: dict[str, tuple[str, str, str, Callable[[], Terms], float]] = {
    "gatys": ("vgg19", "relu5_1", "average", gatys, 0.0),
    "johnson": ("vgg19", "relu5_1", "max", johnson, 1e-3),
    "tutorial": ("vgg16", "relu3_3", "average", tutorial, 0.0),
    "crowson": ("vgg19", "relu5_1", "max", crowson, 2 / 255**2),
    "spst": ("vgg19", "relu5_1", "max", spst, 0.0),
    "texture": ("vgg19", "pool4", "average", texture, 0.0),
}
VARIATION = {"crowson": "nine_point"}
PADDING = {"crowson": "replicate_first"}
# Spectra of deep layers with few positions span what float64 holds, and roots of them lose half of it.
SIZE = {"crowson": (52, 60)}
ERROR = {"crowson": 1e-7, "spst": 1e-9}


def faint(given: Weights) -> Weights:
    """A network whose features are 200 times smaller, as those of torchvision's are: what crowson adds to covariances
    would be lost in the rounding of larger ones."""
    convs = {name: (weight, bias / 200) for name, (weight, bias) in given.convs.items()}
    return dataclasses.replace(given, convs=convs, scale=(1 / 200,) * 3)


@pytest.fixture(scope="module", params=DEFINITIONS)
def both(request: pytest.FixtureRequest, bundled64: Weights, vgg16_64: Weights) -> tuple[Any, Any, Any]:
    """The preset's losses and gradient, and those of its definition: total, parts, gradient."""
    arch, deepest, pooling, terms, tv = DEFINITIONS[request.param]
    given = vgg16_64 if arch == "vgg16" else bundled64
    content, style, image = (pixels(*SIZE.get(request.param, (18, 25)), seed) for seed in range(3))

    settings = Settings.from_preset(request.param)
    if request.param == "crowson":
        given = faint(given)
    network = VGG(
        given, settings.layer_names(), pooling=settings.pooling, padding=settings.padding, dtype=torch.float64
    )
    objective = Objective(network, content, style_targets(network, style, settings), settings)

    plain = plain_network(given.convs, arch, deepest, pooling, PADDING.get(request.param, "zeros"))

    def features(x: Tensor) -> dict[str, Tensor]:
        return plain_features(plain, x, CAFFE_MEAN, given.scale)

    variations = [(tv, VARIATION.get(request.param, "anisotropic"))] if tv else []
    return objective.value_and_grad(image), evaluate(features, image, content, style, terms(), variations), settings


def test_the_total_loss_is_the_published_one(both: Any) -> None:
    (losses, _), (total, _, _), settings = both
    assert losses.total == pytest.approx(total, rel=ERROR.get(settings.preset, 1e-12))


def test_every_part_is_the_published_one(both: Any) -> None:
    (losses, _), (_, parts, _), settings = both
    found = {("style", name): value for name, value in losses.style.items()}
    found |= {("content", name): value for name, value in losses.content.items()}
    found |= {("tv", ""): losses.tv} if losses.tv else {}
    assert found == pytest.approx(parts, rel=ERROR.get(settings.preset, 1e-11))


def test_the_gradient_is_that_of_the_published_loss(both: Any) -> None:
    (_, gradient), (_, _, exact), settings = both
    assert (gradient - exact).norm() <= ERROR.get(settings.preset, 1e-12) * exact.norm()


@pytest.mark.parametrize(
    ("preset", "loop"),
    [
        # Gatys et al.: L-BFGS from white noise; "the images shown were generated with average pooling" (2015, methods).
        (
            "gatys",
            {
                "optimizer": "lbfgs",
                "init": "noise",
                "scales": 1,
                "steps": 500,
                "padding": "zeros",
                "pooling": "average",
            },
        ),
        # The options of neural_style.lua: -num_iterations 1000, -init random (0.001 randn), -image_size 512.
        (
            "johnson",
            {
                "optimizer": "lbfgs",
                "learning_rate": 1.0,
                "history": 100,
                "init": "noise",
                "noise": 0.001,
                "scales": 1,
                "steps": 1000,
                "size": 512,
                "style_scale": 1.0,
                "padding": "zeros",
            },
        ),
        (
            "tutorial",
            {
                "arch": "vgg16",
                "optimizer": "adam",
                "learning_rate": 5.0,
                "init": "content",
                "scales": 1,
                "steps": 500,
                "snapshot_every": 50,
                "size": None,
                "crop": 224,
                "tv_weight": 0.0,
                "padding": "zeros",
                "pooling": "average",
            },
        ),
        # Its command line: 1000 steps at the first scale and 500 after, a step size of 0.02 for pixels in 0..1.
        (
            "crowson",
            {
                "weights": "vgg19-torchvision",
                "optimizer": "adam",
                "learning_rate": 0.02 * 255,
                "betas": (0.9, 0.99),
                "clamp": True,
                "carry": True,
                "average": 0.99,
                "init": "content",
                "steps": (1000, 500),
                "scales": "auto",
                "scale_factor": 2**0.5,
                "min_scale": 128,
                "size": 512,
                "min_shorter_side": 16,
                "style_fit": "longest_shrink",
                "padding": "replicate_first",
                "pooling": "max",
            },
        ),
        # spst-fast asks for 600 evaluations at the first scale, a third of that at each that follows, at least 30, and
        # ends after the first whole call of torch's L-BFGS, of 20 evaluations each, that goes beyond. It remembers 100
        # pairs at the first scale and 10 after, and halves while the shorter side is above 1023.
        (
            "spst",
            {
                "weights": None,
                "optimizer": "lbfgs",
                "history": (100, 10),
                "init": "content",
                "steps": (620, 220, 80, 40),
                "scales": "auto",
                "scale_factor": 2.0,
                "min_scale": 64,
                "min_shorter_side": 512,
                "style_fit": "shorter_shrink",
                "size": None,
                "padding": "zeros",
            },
        ),
        # NNST's styleTransfer.py and utils/stylize.py: VGG-16 of torchvision, four scales of 200 steps up to 512, 200
        # more at the last with layers apart, Adam with a rate of 2e-3 for pixels in 0..1, made anew at each scale.
        (
            "nnst",
            {
                "arch": "vgg16",
                "weights": "vgg16-torchvision",
                "style_loss": "nnst",
                "style_layers": tuple((name, 1.0) for name in NNST_LAYERS),
                "content_weight": 0.0,
                "tv_weight": 0.0,
                "optimizer": "adam_pyramid",
                "learning_rate": 2e-3 * 255,
                "betas": (0.9, 0.999),
                "carry": False,
                "init": "content",
                "steps": (200, 200, 200, 400),
                "scales": 4,
                "scale_factor": 2.0,
                "size": 512,
                "style_scale": 1.0,
                "pooling": "max",
                "padding": "zeros",
            },
        ),
        # STROTSS's styleTransfer.py and st_helper.py: nine layers of VGG-16 of torchvision, scales 64, 128, 256, 512 of
        # 250 steps each, RMSprop with torch's decay of 0.99, a rate of 2e-3, a content weight of 16 at the first scale.
        (
            "strotss",
            {
                "arch": "vgg16",
                "weights": "vgg16-torchvision",
                "style_loss": "strotss",
                "content_loss": "self_similarity",
                "style_layers": tuple((name, 1.0) for name in STROTSS_LAYERS),
                "content_layers": tuple((name, 1.0) for name in STROTSS_LAYERS),
                "content_weight": 16.0,
                "style_weight": 1.0,
                "tv_weight": 0.0,
                "optimizer": "adam_pyramid",
                "learning_rate": 2e-3 * 255,
                "betas": (0.0, 0.99),
                "carry": False,
                "steps": 250,
                "scales": 4,
                "scale_factor": 2.0,
                "size": 512,
                "pooling": "max",
                "padding": "zeros",
            },
        ),
    ],
)
def test_the_loop_is_the_published_one(preset: str, loop: dict[str, object]) -> None:
    settings = Settings.from_preset(preset)
    assert {name: getattr(settings, name) for name in loop} == loop


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_runs_on_the_bundled_weights(preset: str, monkeypatch: Any, bundled: Weights) -> None:
    # STROTSS reads two convolutions more than are bundled, of the shape of conv5_1.
    deeper = dict.fromkeys(("conv5_2", "conv5_3"), bundled.convs["conv5_1"]) if preset == "strotss" else {}
    bundled = dataclasses.replace(bundled, convs={**bundled.convs, **deeper})
    monkeypatch.setattr(weights, "load", lambda spec=None, **_: bundled)
    stylizer = Stylizer(Settings.from_preset(preset, device="cpu"))
    assert set(stylizer.network.convs) <= set(bundled.convs)


def test_tutorial_runs_offline_on_the_first_seven_convolutions_and_says_so(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fastnst.weights.download.pip_download", lambda *_, **__: pytest.fail("downloads"))
    with caplog.at_level(logging.WARNING, "fastnst"):
        stylizer = Stylizer(Settings.from_preset("tutorial", device="cpu"))
    (record,) = caplog.records
    assert record.name == "fastnst"
    assert "no VGG-16 weights given: using the same layers of the bundled VGG-19" in record.getMessage()
    first_seven = ["conv1_1", "conv1_2", "conv2_1", "conv2_2", "conv3_1", "conv3_2", "conv3_3"]
    assert list(stylizer.network.convs) == first_seven
    bundled = weights.load()
    assert all(torch.equal(stylizer.network.convs[n][0].float(), bundled.convs[n][0]) for n in first_seven) or (
        stylizer.network.dtype == torch.bfloat16
    )


def test_presets_on_given_vgg16_weights_warn_of_nothing(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, vgg16: Weights
) -> None:
    monkeypatch.setattr(weights, "load", lambda spec=None, **_: vgg16)
    with caplog.at_level(logging.WARNING, "fastnst"):
        assert Stylizer(Settings.from_preset("tutorial", weights="mine.pth", device="cpu")).network.arch == "vgg16"
    assert not caplog.records


@pytest.mark.parametrize("layer", ["pool3", "relu4_1"])
def test_layers_where_the_two_networks_part_need_vgg16_weights(layer: str) -> None:
    with pytest.raises(WeightsError, match=f"layer {layer} of VGG-16 has no equal in the bundled VGG-19"):
        Stylizer(Settings.from_preset("tutorial", device="cpu", content_layers=((layer, 1.0),)))

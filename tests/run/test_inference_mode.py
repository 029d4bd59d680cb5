"""Runs inside ``torch.inference_mode``, as in plugins of other programs, give the same pixels as outside."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from support.pictures import as_tensor, samples, tiny

import fastnst
from fastnst import images
from fastnst.config.presets import PRESETS
from fastnst.config.settings import Settings
from fastnst.losses.style import FeatureLoss, Target, registry, style_losses
from fastnst.run.stylizer import Stylizer, stylize

pytestmark = pytest.mark.usefixtures("weights_read_once")

SMALL: dict[str, Any] = {"size": 48, "crop": None, "steps": 3, "history": 3, "scales": 1, "device": "cpu"}
CHANGES: dict[str, dict[str, Any]] = {
    **{f"style_loss {name}": {"style_loss": name} for name in style_losses()},
    "nine_point": {"tv_kind": "nine_point", "tv_weight": 1.0},
    "adam": {"optimizer": "adam"},
    "two scales": {"scales": 2, "style_loss": "mean_std"},
    "strips": {"tiles": 64, "size": 96, "style_loss": "covariance"},
    "strips of whole maps": {"tiles": 64, "size": 96, "style_loss": "sliced"},
    "average": {"average": 0.9},
    "bfloat16": {"precision": "bfloat16", "style_loss": "wasserstein"},
    "direct convolutions": {"convolution": "direct", "style_loss": "mean_std"},
    "colors": {"match_color": "histogram", "keep_color": "lab", "photoreal": 1.0},
}


def preset(name: str) -> Settings:
    """With the bundled network, since only the losses are tested."""
    change: dict[str, Any] = {"arch": "vgg19", "weights": None, **SMALL}
    if name == "strotss":  # it reads one layer more than are bundled
        layers = tuple((layer, 1.0) for layer in ("relu1_1", "relu2_1", "relu4_1"))
        change |= {"content_layers": layers, "style_layers": layers}
    return dataclasses.replace(Settings.from_preset(name), **change)


RUNS = {
    **{name: tiny(**change) for name, change in CHANGES.items()},
    **{f"preset {name}": preset(name) for name in PRESETS},
}


@pytest.mark.parametrize("settings", RUNS.values(), ids=RUNS)
@pytest.mark.sweep(3)
def test_a_run_gives_the_same_pixels(settings: Settings) -> None:
    wanted = stylize(samples(), [samples(seed=2), samples(seed=3)], settings=settings)
    with torch.inference_mode():
        got = stylize(samples(), [samples(seed=2), samples(seed=3)], settings=settings)
    assert torch.equal(got.image, wanted.image)
    assert got.trace == wanted.trace


def test_masks_and_a_stylizer_used_inside_and_outside() -> None:
    settings, mask = tiny(style_loss="wasserstein"), samples()
    one, other = Stylizer(settings), Stylizer(settings)

    def run(stylizer: Stylizer) -> torch.Tensor:
        pictures = [samples(seed=2), samples(seed=3)]
        return stylizer.run(stylizer.load_scene(samples(), pictures, masks=[mask, 255 - mask])).image

    wanted = run(one)
    with torch.inference_mode():
        inside = run(other)
    assert torch.equal(inside, wanted)
    assert torch.equal(run(other), wanted)


def test_a_user_defined_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    class Product(FeatureLoss):
        def target(self, x: torch.Tensor, weight: torch.Tensor | None = None) -> Target:
            return (x.flatten(2).float().mean(2),)

        def loss(self, x: torch.Tensor, target: Target, weight: torch.Tensor | None = None) -> torch.Tensor:
            return (x.flatten(2).float().mean(2) - target[0]).mul(target[0]).square().mean()

    monkeypatch.setitem(registry._registered, "product", Product())
    settings = tiny(style_loss="product")
    wanted = stylize(samples(), samples(seed=2), settings=settings)
    with torch.inference_mode():
        got = stylize(samples(), samples(seed=2), settings=settings)
    assert torch.equal(got.image, wanted.image)


@pytest.mark.parametrize("name", ["gram", "wasserstein"])
def test_a_plan_has_the_same_sizes(name: str) -> None:
    settings = tiny(style_loss=name, tv_kind="nine_point", tv_weight=1.0)
    wanted = fastnst.plan(samples(), samples(seed=2), settings=settings)
    with torch.inference_mode():
        got = fastnst.plan(samples(), samples(seed=2), settings=settings)
    sizes, expected = ([(scale.height, scale.width) for scale in plan.scales] for plan in (got, wanted))
    assert sizes == expected


def test_pictures_that_were_made_inside() -> None:
    """Tensors of inference mode, as other programs hand over, and pictures that were loaded in it."""
    settings = tiny(style_loss="wasserstein", tv_kind="nine_point", tv_weight=1.0)
    content, style = (as_tensor(samples(seed=seed)) for seed in (0, 2))
    wanted = stylize(content, style, settings=settings)
    with torch.inference_mode():
        tensors = [content * 1, style * 1]
        loaded = [images.load(tensor) for tensor in tensors]
        assert all(picture.pixels.is_inference() for picture in loaded)
        inside = [stylize(*tensors, settings=settings), stylize(*loaded, settings=settings)]
    outside = [stylize(*tensors, settings=settings), stylize(*loaded, settings=settings)]
    for found in (*inside, *outside):
        assert torch.equal(found.image, wanted.image)
        assert not found.image.is_inference()


@pytest.mark.parametrize("kind", ["texture", "inpaint"])
def test_textures_and_holes(kind: str) -> None:
    settings = dataclasses.replace(tiny(), content_layers=(), content_weight=0.0, size=None)
    picture = as_tensor(samples(64, 64))
    mask = torch.zeros(1, 64, 64)
    mask[:, 20:30, 24:40] = 1

    def run() -> torch.Tensor:
        if kind == "texture":
            return fastnst.texture(picture * 1, size=(48, 48), settings=settings).image
        return fastnst.inpaint(picture * 1, mask * 1, settings=settings).image

    wanted = run()
    with torch.inference_mode():
        assert torch.equal(run(), wanted)

"""Losses of several layers in an objective, against plain networks and autograd in float64."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from support import joint_cases as plain
from support.oracles import mean_content, pixels, plain_features, plain_network
from torch import Tensor

from fastnst.config.settings import Settings
from fastnst.errors import UsageError
from fastnst.losses.joint import strotss
from fastnst.network.vgg import VGG
from fastnst.objective.engines import FusedEngine, PlainEngine, WinogradEngine
from fastnst.objective.joint import OXFORD_FEATURES
from fastnst.objective.targets import Region, blend, style_targets
from fastnst.objective.whole import Objective
from fastnst.strips.objective import StripObjective, strip_targets
from fastnst.weights import Weights

STYLE = {"relu1_1": 1.0, "relu1_2": 0.5, "relu2_1": 2.0, "relu3_1": 1.0}
CONTENT = {"relu1_2": 1.0, "relu2_2": 0.5}
NNST: dict[str, Any] = {
    "style_loss": "nnst",
    "style_layers": tuple(STYLE.items()),
    "content_layers": (("relu2_1", 1.0), ("conv3_1", 0.0)),
    "content_weight": 1e-4,
    "style_weight": 3.0,
    "tv_weight": 0.0,
}
STROTSS: dict[str, Any] = {
    **NNST,
    "style_loss": "strotss",
    "content_loss": "self_similarity",
    "content_layers": tuple(CONTENT.items()),
    "content_weight": 16.0,
}
SIZE, STYLE_SIZE = (20, 27), (24, 18)


def make(
    given: Weights,
    settings: Settings,
    kind: type[PlainEngine] | None = PlainEngine,
    size: tuple[int, int] = SIZE,
) -> Objective:
    network = VGG(
        given, settings.layer_names(), pooling=settings.pooling, dtype=torch.float64, winograd=kind is WinogradEngine
    )
    targets = style_targets(network, pixels(*STYLE_SIZE, seed=1), settings)
    return Objective(network, pixels(*size, seed=0), targets, settings, kind)


class Plain:
    """The features of ordinary modules."""

    def __init__(self, given: Weights) -> None:
        self.network = plain_network(given.convs, "vgg19", "relu3_1")

    def __call__(self, picture: Tensor) -> dict[str, Tensor]:
        return plain_features(self.network, picture)


def check(objective: Objective, parts: Mapping[tuple[str, str], Tensor], image: Tensor) -> None:
    (wanted,) = torch.autograd.grad(torch.stack(list(parts.values())).sum(), image)
    losses, gradient = objective.value_and_grad(image.detach())
    found = {("style", name): value for name, value in losses.style.items()}
    found |= {("content", name): value for name, value in losses.content.items()}
    assert found == pytest.approx({name: value.item() for name, value in parts.items()}, rel=1e-10)
    assert losses.total == pytest.approx(sum(found.values()))
    assert (gradient - wanted).norm() <= 1e-9 * wanted.norm()


def test_nnst_and_its_gradient_by_the_image(bundled64: Weights) -> None:
    objective, features = make(bundled64, Settings.from_preset(**NNST)), Plain(bundled64)
    content, style = pixels(*SIZE, seed=0), pixels(*STYLE_SIZE, seed=1)
    start = pixels(*SIZE, seed=5)
    views = [style, style.rot90(1, (2, 3)), style.rot90(2, (2, 3)), style.rot90(3, (2, 3))]
    assert objective.stages is not None
    for scale in (1, 2):
        objective.stages.begin(start, scale=scale, scales=2, steps=10)
        half = torch.nn.functional.interpolate(content, (10, 13), mode="bilinear")
        details = content - torch.nn.functional.interpolate(half, SIZE, mode="bilinear")
        source = content if scale == 1 else 0.75 * content + 0.25 * (start + details)
        with torch.no_grad():
            columns = plain.nnst_columns(features(source), SIZE, STYLE)
            sizes = [(view.shape[2], view.shape[3]) for view in views]
            pairs = zip(views, sizes, strict=True)
            keys = torch.cat([plain.nnst_columns(features(view), size, STYLE) for view, size in pairs])
            wanted = plain.nnst_replacements(columns, keys)
            layers = [features(view) for view in views]
            styles = [torch.cat([plain.rows_of(one[name]) for one in layers]) for name in STYLE]
            target = features(content)["relu2_1"]
        for step in (3, 8):
            objective.stages.set_step(step)
            image = pixels(*SIZE, seed=step).requires_grad_()
            x = features(image)
            if scale == 2 and step == 8:
                value = plain.nnst_split([plain.rows_of(x[name]) for name in STYLE], styles, list(STYLE.values()))
            else:
                value = plain.nnst_matched(plain.nnst_columns(x, SIZE, STYLE), wanted)
            content_value = 1e-4 * mean_content(x["relu2_1"], target)
            check(objective, {("content", "relu2_1"): content_value, ("style", "nnst"): 3 * value}, image)


def test_strotss_with_its_content_and_their_gradient_by_the_image(bundled64: Weights) -> None:
    """Both read the pixels too."""
    settings = Settings.from_preset(**STROTSS)
    size = (11, 14)
    objective, features, unit = make(bundled64, settings, size=size), Plain(bundled64), 1 / OXFORD_FEATURES
    content, style = pixels(*size, seed=0), pixels(*STYLE_SIZE, seed=1)
    stages = objective.stages
    assert stages is not None
    stages.begin(content, scale=2, scales=3, steps=10)
    targets = style_targets(objective.network, style, settings)["joint"]
    for step in (1, 4):
        stages.set_step(step)
        stage = stages.terms[0].stage
        image = pixels(*size, seed=step).requires_grad_()
        places = strotss._positions({"image": image}, 1024, stage)
        assert len(places[0]) == 11 * 14  # all of a picture so small
        x = features(image)
        columns = plain.strotss_columns(image / 255 - 0.5, x, STYLE, places, unit)
        value = plain.strotss(columns, targets[0], 1 / 8)
        with torch.no_grad():
            wanted = plain.strotss_columns(content / 255 - 0.5, features(content), CONTENT, places, unit)
        own = plain.strotss_columns(image / 255 - 0.5, x, CONTENT, places, unit)
        similarity = plain.self_similarity(own, wanted) / 2
        parts = {("style", "strotss"): 3 * value, ("content", "self_similarity"): 16 * similarity}
        check(objective, parts, image)


@pytest.mark.parametrize("kind", [FusedEngine, WinogradEngine])
@pytest.mark.parametrize("changes", [NNST, STROTSS], ids=["nnst", "strotss"])
@pytest.mark.parametrize("pooling", ["max", "average"])
def test_engines_agree(bundled64: Weights, changes: dict[str, Any], pooling: str, kind: type[PlainEngine]) -> None:
    settings = Settings.from_preset(**changes, pooling=pooling)
    one, other = (make(bundled64, settings, engine) for engine in (PlainEngine, kind))
    for seed in (2, 3):
        image = pixels(*SIZE, seed)
        (values, gradient), (expected, exact) = other.evaluate(image), one.evaluate(image)
        torch.testing.assert_close(values, expected, rtol=1e-10, atol=0)
        assert (gradient - exact).norm() <= 1e-9 * exact.norm()


def test_a_layer_of_weight_zero_is_not_part_of_the_loss(bundled64: Weights) -> None:
    layers = (*STYLE.items(), ("relu2_2", 0.0))
    one, other = (
        make(bundled64, Settings.from_preset(**{**NNST, "style_layers": given}))
        for given in (NNST["style_layers"], layers)
    )
    image = pixels(*SIZE, 2)
    assert one.value_and_grad(image)[0] == other.value_and_grad(image)[0]
    assert other.stages is not None
    assert list(other.stages.terms[0].stage.weights) == list(STYLE)


def test_layers_are_ordered_as_in_the_network(bundled64: Weights) -> None:
    turned = {**NNST, "style_layers": tuple(reversed(NNST["style_layers"]))}
    one, other = (make(bundled64, Settings.from_preset(**given)) for given in (NNST, turned))
    image = pixels(*SIZE, 2)
    assert one.value_and_grad(image)[0] == other.value_and_grad(image)[0]


def test_several_styles_are_one_union(bundled64: Weights) -> None:
    settings = Settings.from_preset(**NNST)
    network = VGG(bundled64, settings.layer_names(), dtype=torch.float64)
    targets = [style_targets(network, pixels(16, 16, seed=seed), settings) for seed in (1, 2)]
    joined = blend(targets, [0.5, 0.5], settings)
    values = []
    for given in (*targets, joined):
        objective = Objective(network, pixels(*SIZE), given, settings)
        assert objective.stages is not None
        objective.stages.begin(pixels(*SIZE), steps=2)
        objective.stages.set_step(3)  # matched anew: the distance to more vectors is not larger
        values.append(objective.value_and_grad(pixels(*SIZE))[0].style["nnst"])
    assert values[2] <= min(values[:2])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"normalize_gradients": True}, "style_loss 'nnst' has one gradient for several layers: use it without norm"),
        ({"tiles": "on"}, "style_loss 'nnst' needs the whole picture at once, not strips; use tiles 'auto' or 'off'"),
        ({"tiles": 64}, "style_loss 'nnst' needs the whole picture at once"),
        (
            {"content_loss": "gram"},
            "content_loss 'gram' is a loss of one layer (expected features",
        ),
        (
            {"content_loss": "sliced"},
            "content_loss 'sliced' is a loss of one layer (expected features",
        ),
        (
            {"content_loss": "self_similar"},
            "unknown content loss 'self_similar', did you mean self_similarity?",
        ),
        ({"style_loss": "self_similarity"}, "unknown style loss 'self_similarity'"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(
    bundled64: Weights, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError) as caught:
        make(bundled64, Settings.from_preset(**{**NNST, **changes})).value_and_grad(pixels(*SIZE))
    assert str(caught.value).startswith(message)


def test_masks_and_strips_are_refused(bundled64: Weights) -> None:
    settings, mask = Settings.from_preset(**STROTSS), torch.ones(1, 1, *SIZE)
    network = VGG(bundled64, settings.layer_names(), dtype=torch.float64)
    picture = pixels(*SIZE)
    with pytest.raises(UsageError, match="style_loss 'strotss' compares whole pictures: use it without style masks"):
        style_targets(network, picture, settings, mask)
    targets = style_targets(network, picture, settings)
    with pytest.raises(UsageError, match="style_loss 'strotss' compares whole pictures: use it without masks"):
        Objective(network, picture, [Region(targets, mask)], settings)
    with pytest.raises(UsageError, match="content_loss 'self_similarity' compares whole pictures: use no content mask"):
        Objective(network, picture, targets, settings, content_mask=mask)
    with pytest.raises(UsageError, match="no style target for style_loss 'strotss'"):
        Objective(network, picture, {"relu1_1": (torch.ones(1, 64, 64),)}, settings)
    for build in (
        lambda: StripObjective(network, picture, targets, settings, 16),
        lambda: strip_targets(network, picture, settings, 16),
    ):
        with pytest.raises(UsageError, match="style_loss 'strotss' needs the whole picture at once, not strips"):
            build()

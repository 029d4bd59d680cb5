"""Presets compared with figures that the original programs printed, on reproducible inputs.

``crowson``: the loss classes of crowsonkb/style-transfer-pytorch (style_transfer.py: VGGFeatures, ContentLossMSE,
StyleLossW2, TVLoss) in float64 on the CPU, with an exact matrix root in place of its Newton-Schulz iteration. Network:
the bundled VGG-19 converted to torchvision's convention, as that program expects it.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fastnst.config.settings import Settings
from fastnst.network.vgg import VGG
from fastnst.objective.protocol import Losses
from fastnst.objective.targets import style_targets
from fastnst.objective.whole import Objective
from fastnst.run.scales import shrinks, shrunk, style_at, style_side
from fastnst.strips.objective import StripObjective, strip_targets
from fastnst.weights import Weights

MEAN, DEVIATION, CAFFE = (
    torch.tensor(values, dtype=torch.float64)
    for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), (123.68, 116.779, 103.939))
)
CROWSON = {
    "relu4_2": 5026.94030139428,
    "relu1_1": 10.69439335354234,
    "relu2_1": 141.81335133450884,
    "relu3_1": 376.3818593093625,
    "relu4_1": 1989.5032973853151,
    "relu5_1": 10.231431125004201,
}
CROWSON_VARIATION = 0.03590946084289404


def pictures() -> tuple[Tensor, Tensor, Tensor]:
    """Content, style and image in 0..255: a coarse grid enlarged, with a fifth of noise."""
    generator = np.random.default_rng(5)

    def picture(height: int, width: int) -> Tensor:
        x = torch.from_numpy(generator.random((1, 3, height, width)))
        coarse = F.interpolate(x[:, :, ::4, ::4], (height, width), mode="bilinear", align_corners=False)
        return (0.8 * coarse + 0.2 * x) * 255

    return picture(96, 128), picture(80, 112), picture(96, 128)


@pytest.fixture(scope="module")
def folded(bundled: Weights) -> Weights:
    """The bundled network with torchvision's mean and deviation folded into its first layer, which stays float32."""
    weight, bias = (x.double() for x in bundled.convs["conv1_1"])
    shift = (weight.sum((2, 3)) * (255 * MEAN - CAFFE)).sum(1)
    first = ((weight * 255 * DEVIATION.view(1, 3, 1, 1)).float(), (bias + shift).float())
    convs = {**bundled.convs, "conv1_1": first}
    scale = tuple((1 / (255 * DEVIATION)).tolist())
    return dataclasses.replace(
        bundled,
        convs={name: (weight.double(), bias.double()) for name, (weight, bias) in convs.items()},
        mean=tuple((255 * MEAN).tolist()),
        scale=scale,
    )


def losses_of(given: Weights, settings: Settings, *, winograd: bool = False, rows: int | None = None) -> Losses:
    content, style, image = pictures()
    network = VGG(given, settings.layer_names(), padding=settings.padding, dtype=torch.float64, winograd=winograd)
    if rows is None:
        objective = Objective(network, content, style_targets(network, style, settings), settings)
        return objective.value_and_grad(image)[0]
    targets = strip_targets(network, style, settings, rows)
    return StripObjective(network, content, targets, settings, rows).value_and_grad(image)[0]


@pytest.mark.parametrize(("winograd", "rows"), [(False, None), (True, None), (False, 32), (True, 32)], ids=str)
def test_every_term_of_crowson_equals_the_programs(folded: Weights, winograd: bool, rows: int | None) -> None:
    losses = losses_of(folded, Settings.from_preset("crowson"), winograd=winograd, rows=rows)
    assert {**losses.content, **losses.style} == pytest.approx(CROWSON, rel=1e-7)
    assert losses.tv == pytest.approx(CROWSON_VARIATION, rel=1e-12)


@pytest.mark.parametrize("padding", ["zeros", "replicate"])
def test_other_paddings_give_another_loss(folded: Weights, padding: str) -> None:
    """The figures distinguish the paddings: by 4 % in the content loss, by 37 % at relu5_1."""
    losses = losses_of(folded, Settings.from_preset("crowson", padding=padding))
    assert losses.content["relu4_2"] != pytest.approx(CROWSON["relu4_2"], rel=1e-2)


# Sizes, from the programs' files: gen_scales and size_to_fit of style_transfer.py, the loops of spst.py.


def program_scales_of_crowson(end: int) -> list[int]:
    """gen_scales(128, end): round(end / 2^(i / 2)) down to 128."""
    found, i = [end], 1
    while round(end / 2 ** (i / 2)) >= 128:
        found.append(round(end / 2 ** (i / 2)))
        i += 1
    return sorted(set(found))


@pytest.mark.parametrize("end", [128, 180, 181, 182, 255, 256, 511, 512, 700, 1024, 2896])
def test_the_scales_of_crowson_equal_the_programs(end: int) -> None:
    settings = Settings.from_preset("crowson", size=end)
    found = [max(shrunk(end // 2, end, shrink)) for shrink in shrinks(end // 2, end, settings)]
    assert found == program_scales_of_crowson(end)


def program_scales_of_spst(shorter: int) -> list[int]:
    """The shorter side is halved, rounded down, while it is above 1023."""
    found = [shorter]
    while found[0] > 1023:
        found.insert(0, found[0] // 2)
    return found


@pytest.mark.parametrize("shorter", [100, 512, 1023, 1024, 1025, 2046, 2047, 2048, 3000, 4095, 8192])
def test_the_scales_of_spst_agree_with_the_programs(shorter: int) -> None:
    settings, longer = Settings.from_preset("spst"), shorter * 3 // 2
    found = [min(shrunk(shorter, longer, shrink)) for shrink in shrinks(shorter, longer, settings)]
    expected = program_scales_of_spst(shorter)
    assert len(found) == len(expected)
    assert found == pytest.approx(expected, abs=1)  # the program rounds each side, fastnst the longest


def test_spst_uses_the_programs_steps_and_history() -> None:
    """n evaluations are requested; the loop ends at the first multiple of 20 above n, 20 being LBFGS's max_iter."""
    settings = Settings.from_preset("spst")
    asked = [max(600 // 3**scale, 30) for scale in range(6)]
    assert [settings.steps_at(scale + 1) for scale in range(6)] == [20 * (count // 20 + 1) for count in asked]
    assert [settings.at(scale + 1).history for scale in range(4)] == [100, 10, 10, 10]


@pytest.mark.parametrize(
    ("style", "content", "expected"),
    [
        ((1200, 1600), (1000, 1400), 1333),  # 1.2 times the shorter side: shrunk to it
        ((1100, 1600), (1000, 1400), 1600),  # 1.1 times: unchanged
        ((300, 200), (1000, 1400), 300),  # smaller: unchanged
        ((3000, 2000), (1000, 500), 750),
    ],
)
def test_spst_shrinks_a_style_whose_shorter_side_is_much_larger(
    style: tuple[int, int], content: tuple[int, int], expected: int
) -> None:
    assert style_side(style, content, Settings.from_preset("spst")) == expected


@pytest.mark.parametrize("shrink", [1.0, 2**0.5, 2.0, 4.0])
@pytest.mark.parametrize("style", [(300, 400), (100, 150), (900, 1300)])
def test_crowson_never_enlarges_a_style(style: tuple[int, int], shrink: float) -> None:
    """size_to_fit without scale_up: the longest side is the smaller of the scale's and its own."""
    settings, content = Settings.from_preset("crowson"), (384, 512)
    loaded = style_side(style, content, settings)
    height, width = (round(side * loaded / max(style)) for side in style)
    at_scale = shrunk(*content, shrink)
    assert max(style_at((height, width), at_scale, shrink, settings)) == min(max(style), max(at_scale))


def test_other_presets_enlarge_a_style_to_the_content() -> None:
    assert style_side((100, 150), (384, 512), Settings.from_preset("johnson")) == 512
    assert style_at((341, 512), (192, 256), 2.0, Settings.from_preset("johnson")) == shrunk(341, 512, 2.0)

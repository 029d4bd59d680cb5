"""Styles and masks: their effect on the result, and invalid combinations."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from support.pictures import samples, tiny

from fastnst.errors import UsageError
from fastnst.run.scene import mask_values
from fastnst.run.stylizer import Stylizer, stylize

pytestmark = pytest.mark.usefixtures("weights_read_once")

LEVEL = 1 / 255


def half(left: bool, height: int = 72, width: int = 96) -> Any:
    mask = np.zeros((height, width), np.uint8)
    mask[:, : width // 2] = 255
    return mask if left else 255 - mask


def test_each_style_is_applied_inside_its_mask() -> None:
    """A red style and a blue one: swapping the masks swaps the colors of the halves."""
    red, blue = samples(seed=3), samples(seed=3)
    red[..., 1:] //= 4
    blue[..., :2] //= 4
    settings = tiny(steps=12, content_weight=0.5, optimizer="adam", learning_rate=10.0)

    def redness(*masks: Any) -> tuple[float, float]:
        image = stylize(samples(), [red, blue], masks=masks, settings=settings).image
        warm = (image[0, 0] - image[0, 2]).mean(0)
        return float(warm[:24].mean()), float(warm[-24:].mean())

    left, right = redness(half(True), half(False))
    other_left, other_right = redness(half(False), half(True))
    assert left > other_left + 0.2
    assert other_right > right + 0.2


def test_only_the_masked_part_of_a_style_counts() -> None:
    """The style picture outside its style mask is ignored."""
    settings = tiny(style_layers=(("relu1_1", 1.0),), content_layers=(("relu1_1", 1.0),))
    style, altered = samples(seed=3), samples(seed=3)
    altered[:, 60:] = 0
    results = [
        stylize(samples(), picture, style_masks=[half(True)], settings=settings).image for picture in (style, altered)
    ]
    assert (results[0] - results[1]).abs().max() < LEVEL
    assert (results[0] - stylize(samples(), altered, settings=settings).image).abs().max() > 2 * LEVEL


def test_content_is_preserved_where_its_mask_is_white() -> None:
    settings = tiny(steps=12, content_weight=3e4)
    image = stylize(samples(), samples(seed=3), content_mask=half(True), settings=settings).image
    original = stylize(samples(), samples(), settings=tiny(steps=1, learning_rate=1e-9)).image
    changed = (image - original).abs().mean((0, 1, 2))
    assert changed[:24].mean() < 0.7 * changed[-24:].mean()


def test_only_the_ratios_of_style_weights_count() -> None:
    styles = [samples(seed=3), samples(seed=5)]
    even, double, scaled, alone = (
        stylize(samples(), chosen, settings=tiny(style_weights=weights)).image
        for chosen, weights in ((styles, ()), (styles, (2.0, 1.0)), (styles, (6.0, 3.0)), (styles, (0.0, 1.0)))
    )
    assert torch.equal(double, scaled)
    assert (even - double).abs().max() > LEVEL
    torch.testing.assert_close(alone, stylize(samples(), styles[1], settings=tiny()).image, atol=1e-4, rtol=0)


def test_masks_follow_a_crop_and_scales() -> None:
    settings = tiny(crop=64, scales=2, min_scale=64, steps=2)
    stylizer = Stylizer(settings)
    scene = stylizer.load_scene(samples(), [samples(seed=2)], [half(True)], [half(False)], half(True))
    masks = [scene.styles[0].mask, scene.styles[0].style_mask, scene.content_mask]
    for mask in masks:
        assert mask is not None
        assert mask.pixels.shape == (1, 3, 64, 64)
        assert ((mask.pixels >= 0) & (mask.pixels <= 1)).all()
    assert stylizer.run(scene).image.shape == (1, 3, 64, 64)


def with_alpha() -> dict[str, Any]:
    """Masks white on the left and transparent on the right, and half transparent in the middle column."""
    opacity = half(True)
    opacity[:, 48] = 128
    gray, rgba = (
        np.dstack([np.full_like(opacity, 255), opacity]),
        np.dstack([np.full((72, 96, 3), 255, np.uint8), opacity]),
    )
    keyed = Image.fromarray(opacity // 128).convert("P")
    keyed.putpalette([255] * 6)
    keyed.info["transparency"] = bytes([0, 255])
    return {
        "LA": gray,
        "RGBA": rgba,
        "Pillow": Image.fromarray(rgba),
        "tensor": torch.from_numpy(rgba).permute(2, 0, 1),
        "P": keyed,
    }


@pytest.mark.parametrize("kind", with_alpha())
def test_transparent_pixels_of_a_mask_count_as_zero(kind: str, tmp_path: Path) -> None:
    mask = with_alpha()[kind]
    stylizer = Stylizer(tiny(size=96))
    if kind == "P":
        mask.save(tmp_path / "mask.png", transparency=mask.info["transparency"])
        mask = tmp_path / "mask.png"
    scene = stylizer.load_scene(samples(), [samples(seed=2)], [mask], [mask], mask)
    for found in (scene.styles[0].mask, scene.styles[0].style_mask, scene.content_mask):
        gray = mask_values(found)
        assert gray is not None
        assert (gray[..., :48] == 1).all()
        assert (gray[..., 49:] == 0).all()
        assert abs(float(gray[0, 0, 5, 48]) - (1 if kind == "P" else 128 / 255)) < 1e-6


@pytest.mark.parametrize(
    "mask",
    [
        torch.from_numpy(half(True)),
        torch.from_numpy(half(True))[None],
        torch.from_numpy(half(True) > 0),
        half(True) > 0,
        half(True).astype(np.float64) / 255,
        half(True).astype(np.uint16) * 257,
    ],
    ids=["[H, W]", "[1, H, W]", "bool tensor", "bool array", "float64", "uint16"],
)
def test_masks_of_all_types_are_equal(mask: Any) -> None:
    stylizer = Stylizer(tiny(size=96))
    scene = stylizer.load_scene(samples(), [samples(seed=2)], [mask])
    gray = mask_values(scene.styles[0].mask)
    assert gray is not None
    assert torch.equal(gray[0, 0], torch.from_numpy(half(True)) / 255)


@pytest.mark.parametrize(
    ("height", "width"), [(72, 97), (73, 96), (71, 96), (73, 95), (36, 48), (36, 49), (144, 190), (289, 384), (3, 4)]
)
def test_a_mask_of_the_same_proportions_is_resized(height: int, width: int) -> None:
    stylizer = Stylizer(tiny(size=96))
    mask = half(True, height, width)
    scene = stylizer.load_scene(samples(), [samples(seed=2)], [mask], [mask], mask)
    for found in (scene.styles[0].mask, scene.styles[0].style_mask, scene.content_mask):
        gray = mask_values(found)
        assert gray is not None
        assert gray.shape == (1, 1, 72, 96)
        middle = 96 * (width // 2) / width
        pixel = 96 / width + 1  # of the given mask
        assert (gray[..., : max(0, int(middle - 3 * pixel))] > 0.9).all()
        assert (gray[..., int(middle + 3 * pixel) :] < 0.1).all()
        assert abs(float(gray.mean()) - middle / 96) < 0.02


@pytest.mark.parametrize(("height", "width"), [(72, 94), (75, 96), (96, 72), (36, 51), (144, 188)])
def test_a_mask_of_other_proportions_is_refused(height: int, width: int) -> None:
    with pytest.raises(UsageError, match=f"mask: is {width}x{height} pixels, but its picture 96x72") as caught:
        Stylizer(tiny()).load_scene(samples(), [samples(seed=2)], [half(True, height, width)])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"masks": [half(True)]}, "1 mask for 2 styles; give one for each"),
        ({"style_masks": [half(True)] * 3}, "3 style masks for 2 styles; give one for each"),
        (
            {"masks": [half(True, 72, 90), None]},
            "mask: is 90x72 pixels, but its picture 96x72; draw it in these proportions",
        ),
        ({"masks": [half(True), half(True) * 0]}, "mask: has no pixel above zero; paint white what counts"),
        ({"content_mask": half(True) * 0}, "content mask: has no pixel above zero; paint white what counts"),
        ({"style_weights": (1.0,)}, "style_weights: 1 for 2 styles; give one for each"),
        ({"style_weights": (0.0, 0.0)}, "style_weights (0.0, 0.0): expected at least one above zero"),
        (
            {"style_weights": (1.0, -1.0)},
            "style_weights: expected a finite number of at least 0 and at most 1e+30, got -1.0",
        ),
        ({"style_loss": "wassertein"}, "unknown style loss 'wassertein', did you mean wasserstein?"),
        ({"normalize_gradients": 1}, "normalize_gradients: expected True or False, got 1"),
    ],
)
def test_invalid_arguments_are_one_line_errors(arguments: dict[str, Any], message: str) -> None:
    pictures = {name: arguments.pop(name) for name in ("masks", "style_masks", "content_mask") if name in arguments}
    with pytest.raises(UsageError, match=re.escape(message)) as caught:
        stylize(samples(), [samples(seed=1), samples(seed=2)], settings=tiny().replace(**arguments), **pictures)
    assert "\n" not in str(caught.value)


def test_no_style_is_refused() -> None:
    with pytest.raises(UsageError, match="expected a style picture at least"):
        stylize(samples(), [], settings=tiny())

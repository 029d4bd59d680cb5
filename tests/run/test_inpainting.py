"""Inpainting: a hole is filled, and nothing else changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import grey_dilation
from support.pictures import as_tensor, samples

import fastnst
from fastnst import images
from fastnst.errors import UsageError
from fastnst.run.hole import dilated, smooth_fill

SMALL: dict[str, Any] = {
    "style_layers": (("relu1_1", 1.0), ("pool1", 1.0)),
    "steps": 3,
    "scales": 1,
    "device": "cpu",
    "precision": "float32",
}
HEIGHT, WIDTH = 96, 112


def mask(value: float = 1.0) -> torch.Tensor:
    found = torch.zeros(1, HEIGHT, WIDTH)
    found[:, 30:60, 41:70] = value
    return found


def fill(picture: Any = None, hole: Any = None, **changes: Any) -> fastnst.Result:
    picture = samples(HEIGHT, WIDTH) if picture is None else picture
    return fastnst.inpaint(picture, mask() if hole is None else hole, **{**SMALL, **changes})


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_files_have_the_same_levels_outside(tmp_path: Path, bits: int, suffix: str) -> None:
    """Read as in tests/images, where the reader is held to others; the depth is in the header."""
    levels = torch.randint(0, 2**bits, (1, 3, HEIGHT, WIDTH), generator=torch.Generator().manual_seed(0))
    images.save(tmp_path / f"in{suffix}", levels / (2**bits - 1), bits=bits)
    images.save(tmp_path / "mask.png", mask().expand(3, -1, -1))
    fill(tmp_path / f"in{suffix}", tmp_path / "mask.png", steps=2).save(tmp_path / f"out{suffix}")
    depths = [depth(tmp_path / f"{name}{suffix}") for name in ("in", "out")]
    assert depths == [bits, bits]
    found = (images.load(tmp_path / f"out{suffix}").pixels.double() * (2**bits - 1)).round()
    outside = (mask() == 0).expand(3, -1, -1)
    assert torch.equal(found[0][outside], levels[0][outside].double())
    assert float((found[0][~outside] != levels[0][~outside]).float().mean()) > 0.9


def depth(path: Path) -> int:
    """Bits per channel, from the header of a PNG or the tag BitsPerSample of a TIFF."""
    if path.suffix == ".png":
        return path.read_bytes()[24]
    with Image.open(path) as tiff:
        return int(tiff.tag_v2[258][0])  # type: ignore[attr-defined]


@pytest.mark.parametrize("change", [{}, {"scales": 2}, {"optimizer": "adam", "average": 0.9}, {"init": "noise"}])
def test_every_step_shows_the_known_pixels_outside(change: dict[str, Any]) -> None:
    picture, outside = as_tensor(samples(160, 176)), torch.zeros(1, 160, 176)
    outside[:, 60:100, 61:130] = 1
    kept = (outside == 0)[None].expand_as(picture)
    shown = []
    result = fastnst.inpaint(
        picture, outside, callback=lambda step: shown.append((step.scale, step.image)) or False, **{**SMALL, **change}
    )
    assert torch.equal(result.image[kept], picture[kept])
    assert len(shown) == len(result.trace) * 3
    for scale, image in shown:  # the window around the hole
        if scale < len(result.trace):
            continue
        reach = (image.shape[2] - 40) // 2
        assert image.shape[2:] == (40 + 2 * reach, 69 + 2 * reach)
        window = (..., slice(60 - reach, 100 + reach), slice(61 - reach, 130 + reach))
        known = kept[window]
        torch.testing.assert_close(image[known], picture[window][known], rtol=0, atol=1e-6)


def test_a_gray_mask_mixes_linearly(monkeypatch: pytest.MonkeyPatch) -> None:
    """The values of the filling, before it is mixed, are what a mask of 1 would show there."""
    hole = mask()
    hole[:, 30:60, 41:45] = 0.25
    picture = as_tensor(samples(HEIGHT, WIDTH))
    image = fill(picture, hole, steps=8).image
    edge, inside = (slice(30, 60), slice(41, 45)), (slice(30, 60), slice(45, 70))
    moved = (image - picture).abs()
    assert 0 < float(moved[..., edge[0], edge[1]].mean()) < float(moved[..., inside[0], inside[1]].mean())
    assert torch.equal(image[..., :41], picture[..., :41])


def test_the_texture_is_that_of_the_surroundings_or_of_another_picture() -> None:
    """A gray picture's hole becomes gray, or as dark as the other picture, whatever was in the hole."""
    picture, dark = torch.full((3, HEIGHT, WIDTH), 0.6), torch.full((3, 64, 64), 0.1)
    picture[:, 30:60, 41:70] = torch.tensor([1.0, 0.0, 0.0])[:, None, None]
    own = fill(picture, steps=20).image[0, :, 35:55, 46:65]
    assert float((own - 0.6).abs().max()) < 0.1
    other = fill(picture, style=dark, steps=40).image[0, :, 35:55, 46:65]
    assert float(other.mean()) < 0.3


def test_a_style_mask_says_which_part_is_the_source() -> None:
    picture = torch.full((3, HEIGHT, WIDTH), 0.6)
    picture[:, :, :20] = 0.1
    left = torch.zeros(1, HEIGHT, WIDTH)
    left[..., :16] = 1
    filled = fill(picture, style_masks=[left], steps=40).image[0, :, 35:55, 46:65]
    assert float(filled.mean()) < 0.4


def test_a_resumed_run_has_the_bits_of_an_uninterrupted_one(tmp_path: Path) -> None:
    whole, file = fill(steps=6).image, tmp_path / "run.ckpt"
    assert fill(steps=6, checkpoint=file, callback=lambda step: step.count == 4).stopped == "callback"
    assert torch.equal(fill(steps=6, checkpoint=file, resume=True).image, whole)
    again = fill(steps=6, checkpoint=file, resume=True)  # finished
    assert torch.equal(again.image, whole)


def test_alpha_is_kept(tmp_path: Path) -> None:
    levels = np.dstack([samples(HEIGHT, WIDTH), np.full((HEIGHT, WIDTH), 200, np.uint8)])
    Image.fromarray(levels).save(tmp_path / "in.png")
    fill(tmp_path / "in.png").save(tmp_path / "out.png")
    found, outside = np.asarray(Image.open(tmp_path / "out.png")), mask()[0].numpy() == 0
    assert np.array_equal(found[outside], levels[outside])


@pytest.mark.parametrize(
    ("hole", "changes", "message"),
    [
        (torch.zeros(1, HEIGHT, WIDTH), {}, "inpainting mask: has no pixel above zero; paint white what is filled"),
        (torch.ones(1, HEIGHT, WIDTH), {}, "inpainting mask: has no black pixel; leave black what is kept"),
        (torch.ones(1, 40, 112), {}, "inpainting mask: is 112x40 pixels, but its picture 112x96"),
        (mask(), {"keep_color": "lab"}, "keep_color 'lab': inpainting has no colors to keep"),
        (mask(), {"tileable": "x"}, "tileable 'x': inpainting keeps the picture outside the hole"),
        (mask(), {"style_masks": [None, None]}, "2 style masks for 1 pictures; give one for each"),
        (mask(), {"style_masks": [mask()]}, "style mask: is black everywhere outside the hole"),
    ],
)
def test_bad_input_is_one_line(hole: torch.Tensor, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        fill(hole=hole, **changes)
    assert "\n" not in str(caught.value)


def test_a_smooth_fill_continues_its_surroundings() -> None:
    """Of a constant it is the constant, of a ramp nearly the ramp, and known pixels are not touched."""
    hole = mask()[None] > 0
    ramp = torch.linspace(0, 1, WIDTH).expand(1, 3, HEIGHT, WIDTH)
    filled = smooth_fill(torch.where(hole, torch.rand(1, 3, HEIGHT, WIDTH), ramp), hole)
    known = (~hole).expand_as(filled)
    assert torch.equal(filled[known], ramp[known])
    assert float((filled - ramp).abs().max()) < 0.1
    flat = smooth_fill(torch.where(hole, 0.0, 0.3 * torch.ones(1, 3, HEIGHT, WIDTH)), hole)
    torch.testing.assert_close(flat, torch.full_like(flat, 0.3))


def test_dilation_is_that_of_scipy() -> None:
    weight = torch.zeros(1, 1, 30, 40)
    weight[..., 5, 6], weight[..., 20:22, 30:39] = 0.5, 1
    assert np.array_equal(dilated(weight, 3)[0, 0].numpy(), grey_dilation(weight[0, 0].numpy(), (7, 7)))


def test_a_small_hole_of_a_large_picture_costs_a_window() -> None:
    """The evaluated image is the part around the hole."""
    picture = images.load(as_tensor(samples(400, 600)))
    hole, sizes = torch.zeros(1, 400, 600), []
    hole[:, 200:210, 300:320] = 1
    result = fastnst.inpaint(
        picture, hole, callback=lambda step: sizes.append(tuple(step.image.shape[2:])) or False, **SMALL
    )
    assert result.image.shape == (1, 3, 400, 600)
    assert sizes[-1] == (10 + 2 * 6, 20 + 2 * 6)  # the receptive field of pool1 in strides, and a stride, on each side

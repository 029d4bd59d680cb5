"""Several styles, masks, layers by pattern and other controls, from the command line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from support.commands import settings_from
from support.picture_files import FAST, save_picture

from fastnst import images

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def other(here: Path) -> Path:
    return save_picture(here / "other.png", 50, 60, seed=5)


def half(path: Path, like: Path, left: bool) -> Path:
    with Image.open(like) as image:
        width, height = image.size
    mask = np.zeros((height, width), np.uint8)
    mask[:, : width // 2] = 255
    Image.fromarray(mask if left else 255 - mask).save(path)
    return path


def pixels(path: str | Path) -> torch.Tensor:
    return images.load(path).pixels


def test_several_styles_name_the_result_and_contribute_to_it(
    run: Run, here: Path, content: Path, style: Path, other: Path
) -> None:
    name = f"{content.stem}_{style.stem}_{other.stem}.png"
    assert run("stylize", content, style, other, *FAST, "-q")[:2] == (0, f"{name}\n")
    assert run("stylize", content, style, other, *FAST, "-q", "--style-weights", "1,3", "-o", "b.png")[0] == 0
    assert run("stylize", content, style, *FAST, "-q", "-o", "c.png")[0] == 0
    results = [pixels(here / file) for file in (name, "b.png", "c.png")]
    assert not torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])


def test_masks_are_used_recorded_and_found_again(run: Run, here: Path, content: Path, style: Path, other: Path) -> None:
    left, right = half(here / "left.png", content, True), half(here / "right.png", content, False)
    source = [half(here / f"source{i}.png", picture, True) for i, picture in enumerate((style, other))]
    masks = ("--mask", left, right, "--style-mask", *source, "--content-mask", left)
    assert run("stylize", content, style, other, "-o", "a.png", *FAST, "-q", *masks)[0] == 0
    assert run("stylize", content, style, other, "-o", "plain.png", *FAST, "-q")[0] == 0
    assert run("stylize", "--like", "a.png", "-q")[:2] == (0, "a_again.png\n")
    assert torch.equal(pixels(here / "a.png"), pixels(here / "a_again.png"))
    assert not torch.equal(pixels(here / "a.png"), pixels(here / "plain.png"))
    out = run("settings", "a.png")[1]
    for part in ("style", "style_2", "mask", "mask_2", "style_mask", "style_mask_2", "content_mask"):
        assert f"# {part}: " in out


def test_a_missing_mask_stops_a_repetition(run: Run, here: Path, content: Path, style: Path) -> None:
    left = half(here / "left.png", content, True)
    assert run("stylize", content, style, "-o", "a.png", *FAST, "-q", "--mask", left)[0] == 0
    left.unlink()
    code, out, err = run("stylize", "--like", "a.png")
    assert (code, out) == (2, "")
    assert err == (
        "fastnst: error: --like a.png: its mask was left.png, which is neither beside it nor in the current folder; "
        "name both: CONTENT STYLE\n"
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--mask", "left.png", "left.png"), "2 masks for 1 style; give one for each"),
        (("--mask", "small.png"), "mask small.png: is 9x8 pixels, but its picture"),
        (("--content-mask", "black.png"), "content mask black.png: has no pixel above zero; paint white what counts"),
        (("--mask", "nowhere.png"), "nowhere.png"),
        (("--style-weights", "1,x"), "style_weights: expected numbers like (2.0, 1.0), got '1,x'"),
        (("--style-weights", "0"), "style_weights (0.0,): expected at least one above zero"),
        (("--betas", "0.9"), "betas: expected two numbers like (0.9, 0.999), got (0.9,)"),
        (("--style-layers", "rleu*"), "--style-layers: layers 'rleu*': rleu* matches no layer of vgg19"),
        (
            ("--style-layers", "relu1_1:2*x"),
            "the weight of relu1_1 is '2*x', expected a number, or a series like 256*0.25",
        ),
        (("--style-loss", "gramm"), "unknown style loss 'gramm', did you mean gram?"),
        (("--tv-kind", "nine"), "unrecognized argument '--tv-kind'"),
    ],
)
def test_invalid_options_are_one_line(
    run: Run, here: Path, content: Path, style: Path, options: tuple[str, ...], message: str
) -> None:
    half(here / "left.png", content, True)
    save_picture(here / "small.png", 8, 9)
    Image.fromarray(np.zeros_like(np.asarray(Image.open(here / "left.png")))).save(here / "black.png")
    code, out, err = run("stylize", content, style, "-o", "a.png", *FAST, *options)
    assert (out, err.count("\n")) == ("", 1), err
    assert code in (1, 2)
    assert message in err
    assert not (here / "a.png").exists()


def test_no_result_is_written_over_a_mask(run: Run, here: Path, content: Path, style: Path) -> None:
    left = half(here / "left.png", content, True)
    code, _, err = run("stylize", content, style, "-o", left, *FAST, "--mask", left)
    assert code == 2
    assert "is the mask as well" in err


def test_layers_by_pattern_and_series_of_weights() -> None:
    settings = settings_from("--style-layers", "relu?_1:256*0.25", "--content-layers", "relu4_2:0.5,conv5_1")
    names = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1")
    assert settings.style_layers == tuple(zip(names, (256.0, 64.0, 16.0, 4.0, 1.0), strict=True))
    assert settings.content_layers == (("relu4_2", 0.5), ("conv5_1", 1.0))
    assert settings_from("--style-layers", "pool[12]").style_layers == (("pool1", 1.0), ("pool2", 1.0))


def test_options_reach_their_settings() -> None:
    settings = settings_from(
        *("--style-loss", "wasserstein", "--style-weights", "2,1", "--normalize-gradients", "--clamp"),
        *("--betas", "0.8,0.99", "--epsilon", "1e-6", "--keep-color", "lab", "--match-color", "pca"),
    )
    assert (settings.style_loss, settings.style_weights, settings.normalize_gradients) == ("wasserstein", (2, 1), True)
    assert (settings.clamp, settings.betas, settings.epsilon) == (True, (0.8, 0.99), 1e-6)
    assert (settings.keep_color, settings.match_color) == ("lab", "pca")

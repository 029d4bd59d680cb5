"""``fastnst texture``: its options, files and messages."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.picture_files import save_picture

from fastnst import images
from fastnst.cli.arguments import parse_arguments

Run = Callable[..., tuple[int, str, str]]
FAST = ("--steps", 2, "--scales", 1, "--style-layers", "relu1_1,pool1", "--device", "cpu", "-q")


@pytest.fixture
def hole(tmp_path: Path) -> Path:
    levels = np.zeros((64, 64), np.uint8)
    levels[20:40, 24:50] = 255
    Image.fromarray(levels).save(tmp_path / "hole.png")
    return tmp_path / "hole.png"


def test_a_texture_of_any_size_and_the_same_again(run: Run, style: Path, tmp_path: Path) -> None:
    out = tmp_path / "wall.png"
    code, printed, err = run("texture", style, "-o", out, "--size", "80x48", "--seed", 3, *FAST)
    assert (code, printed, err) == (0, f"{out}\n", "")
    assert images.load(out).size == (48, 80)
    again = tmp_path / "again.png"
    assert run("texture", "--like", out, "-o", again, "-q")[0] == 0
    assert again.read_bytes() == out.read_bytes()


def test_the_output_has_a_name_and_is_not_replaced(run: Run, style: Path, here: Path) -> None:
    assert run("texture", style, "--size", 48, *FAST)[1] == "painting_texture.png\n"
    code, _, err = run("texture", style, "--size", 48, *FAST)
    assert (code, err.count("\n")) == (2, 1)
    assert "painting_texture.png" in err
    assert run("texture", style, "--size", 48, "--force", *FAST)[0] == 0


def test_json_and_plan(run: Run, style: Path, tmp_path: Path) -> None:
    code, printed, _ = run("texture", style, "-o", tmp_path / "a.png", "--size", "48x64", "--json", *FAST)
    facts = json.loads(printed)
    assert (code, facts["size"], facts["settings"]["preset"]) == (0, [48, 64], "texture")
    code, printed, _ = run("texture", style, "--size", "48x64", "--plan", "--json", *FAST)
    assert (code, json.loads(printed)["scales"][0]["width"]) == (0, 48)
    assert sorted(path.name for path in tmp_path.iterdir() if path.suffix == ".png") == ["a.png", "painting.png"]


@pytest.mark.parametrize(
    ("options", "value"),
    [((), "none"), (("--tileable",), "both"), (("--tileable", "x"), "x"), (("--tileable", "y"), "y")],
)
def test_tileable_takes_an_axis_or_nothing(options: tuple[str, ...], value: str) -> None:
    for arguments in ((*options, "a.png"), ("a.png", *options)):
        parsed = parse_arguments(["texture", *arguments])
        assert (parsed.style, getattr(parsed, "tileable", "none")) == (["a.png"], value)


def test_inpainting_keeps_the_pixels_outside(run: Run, style: Path, hole: Path, tmp_path: Path) -> None:
    out, again = tmp_path / "filled.png", tmp_path / "again.png"
    assert run("texture", style, "--inpaint", hole, "-o", out, "--snapshot-every", 1, *FAST)[0] == 0
    outside = np.asarray(Image.open(hole)) == 0
    before = np.asarray(Image.open(style))
    for path in (out, tmp_path / "filled_0001.png"):
        assert np.array_equal(np.asarray(Image.open(path))[outside], before[outside])
    assert run("texture", "--like", out, "-o", again, "-q")[0] == 0
    assert again.read_bytes() == out.read_bytes()


def test_a_hole_with_the_texture_of_another_picture(run: Run, style: Path, hole: Path, tmp_path: Path) -> None:
    other, out, again = save_picture(tmp_path / "other.png", 48, 48, seed=9), tmp_path / "b.png", tmp_path / "c.png"
    assert run("texture", style, other, "--inpaint", hole, "-o", out, *FAST)[0] == 0
    assert run("texture", "--like", out, "-o", again, "-q")[0] == 0
    assert again.read_bytes() == out.read_bytes()


def test_a_lossy_format_is_warned_of(run: Run, style: Path, hole: Path, tmp_path: Path) -> None:
    fast = [option for option in FAST if option != "-q"]
    code, _, err = run("texture", style, "--inpaint", hole, "-o", tmp_path / "a.jpg", *fast)
    assert code == 0
    assert "a lossy format changes pixels outside the hole too" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "the following arguments are required: STYLE"),
        (("{style}", "--size", "8x90"), "is too small for layer pool4: it needs at least 16"),
        (("{style}", "--size", "90 by 8"), "size: expected width and height like 1024x512, or one side"),
        (("{style}", "--size", "100x96", "--tileable"), "the nearest is 96x96"),
        (("{style}", "--crop", "64"), "unrecognized argument '--crop'"),
        (("{style}", "--inpaint", "nothing.png"), "nothing.png: no such file"),
        (("{style}", "--inpaint", "{style}", "--size", "64"), "--size and --inpaint: the result has the size of"),
        (("{style}", "--inpaint", "{style}", "--mask", "{style}"), "--mask and --inpaint: the mask of --inpaint says"),
        (("{style}", "--inpaint", "{hole}", "-o", "{hole}"), "is the mask of --inpaint as well, and would replace it"),
        (("{style}", "--inpaint", "https://example.org/a.png"), "expected a file for the mask, got an address"),
    ],
)
def test_bad_input_is_one_line(
    run: Run, style: Path, hole: Path, arguments: tuple[str, ...], message: str, here: Path
) -> None:
    given = [text.format(style=style, hole=hole) for text in arguments]
    code, printed, err = run("texture", *given)
    assert code in (1, 2)
    assert printed == ""
    assert err.count("\n") == 1
    assert message in err
    assert list(here.iterdir()) == []

"""Settings in files and pictures, from the command line: written, read, and a run repeated by its picture alone."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from support.commands import settings_from
from support.picture_files import FAST, LAYERS, save_picture

import fastnst
from fastnst import images
from fastnst.config import load_settings
from fastnst.config.provenance import relative_name
from fastnst.config.settings import Settings
from fastnst.errors import UsageError

Run = Callable[..., tuple[int, str, str]]
SMALL = ("--size", "64", "--steps", "3", *LAYERS, "-q")


def same_pixels(first: Path, second: Path) -> bool:
    return torch.equal(images.load(first).pixels, images.load(second).pixels)


def refused(run: Run, *arguments: object, code: int = 2) -> str:
    found, out, err = run(*arguments)
    assert (found, out, err.count("\n")) == (code, "", 1), err
    assert err.startswith("fastnst: error: ")
    return err


def carrying(path: Path, **changes: Any) -> Path:
    """A picture that carries what a run writes, with changes."""
    facts: dict[str, Any] = {"fastnst": fastnst.__version__, **Settings().to_dict(), "files": {}}
    return images.save(path, torch.rand(1, 3, 8, 8), settings={**facts, **changes})


@pytest.mark.parametrize("suffix", ["png", "tif", "webp"])
def test_a_run_is_repeated_to_the_pixel(run: Run, here: Path, content: Path, style: Path, suffix: str) -> None:
    options = (*SMALL, "--init", "noise", "--seed", "5", "--style-weight", "300", "--tv-weight", "0.2")
    assert run("stylize", content, style, "-o", f"a.{suffix}", *options)[:2] == (0, f"a.{suffix}\n")
    assert run("stylize", "--like", f"a.{suffix}", "-q")[:2] == (0, f"a_again.{suffix}\n")
    assert same_pixels(here / f"a.{suffix}", here / f"a_again.{suffix}")
    assert run("stylize", "--like", f"a.{suffix}", "-q", "--seed", "6", "-o", f"b.{suffix}")[0] == 0
    assert not same_pixels(here / f"a.{suffix}", here / f"b.{suffix}")


def test_a_run_is_repeated_from_another_folder_by_names_relative_to_the_picture(
    run: Run, here: Path, tmp_path: Path, content: Path, style: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "out").mkdir()
    start = save_picture(here / "start.png", 30, 90, seed=5)
    assert run("stylize", content, style, "-o", "../out/a.png", *SMALL, "--init", start.name)[0] == 0
    facts = images.read_settings(tmp_path / "out" / "a.png")
    assert facts is not None
    assert facts["fastnst"] == fastnst.__version__
    assert facts["init"] == "../here/start.png"
    assert facts["files"] == {
        part: {"name": name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
        for part, name, path in (
            ("content", "../photo.png", content),
            ("style", "../painting.png", style),
            ("init", "../here/start.png", start),
        )
    }
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    code, out, err = run("stylize", "--like", "../out/a.png", *SMALL[-1:])
    assert (code, out, err) == (0, "a_again.png\n", "")
    assert same_pixels(tmp_path / "out" / "a.png", tmp_path / "elsewhere" / "a_again.png")
    assert load_settings("../out/a.png").init == "../out/../here/start.png"


def test_names_given_replace_the_recorded_ones(
    run: Run, here: Path, tmp_path: Path, content: Path, style: Path
) -> None:
    run("stylize", content, style, "-o", "a.png", *SMALL)
    other = save_picture(tmp_path / "other.png", 64, 64, seed=7)
    style.unlink()
    assert run("stylize", content, other, "--like", "a.png", "-q")[0] == 0
    assert run("stylize", content, other, "-o", "b.png", *SMALL)[0] == 0
    assert same_pixels(here / "a_again.png", here / "b.png")


def test_a_missing_input_is_named(run: Run, here: Path, content: Path, style: Path) -> None:
    run("stylize", content, style, "-o", "a.png", *SMALL)
    style.unlink()
    line = refused(run, "stylize", "--like", "a.png")
    assert "--like a.png: its style was ../painting.png, which is neither beside it nor in the current folder" in line
    assert sorted(path.name for path in here.iterdir()) == ["a.png"]


def test_an_input_with_other_bytes_is_used_with_a_warning(run: Run, here: Path, content: Path, style: Path) -> None:
    run("stylize", content, style, "-o", "a.png", *SMALL)
    save_picture(style, 64, 64, seed=9)
    code, _, err = run("stylize", "--like", "a.png")
    assert code == 0
    assert err.startswith("fastnst: warning: ../painting.png: has changed since a.png was made from it")
    assert not same_pixels(here / "a.png", here / "a_again.png")


def test_of_two_files_the_one_with_the_recorded_bytes_is_taken(
    run: Run, here: Path, tmp_path: Path, content: Path, style: Path
) -> None:
    for path in (content, style):
        shutil.copy(path, here / path.name)
    run("stylize", content.name, style.name, "-o", "a.png", *SMALL)
    shutil.move(here / "a.png", tmp_path / "a.png")
    save_picture(style, 64, 64, seed=9)  # now beside the picture; the one it was made from is here
    code, _, err = run("stylize", "--like", "../a.png", "-q")
    assert (code, err) == (0, "")
    assert same_pixels(tmp_path / "a.png", here / "a_again.png")


def test_the_picture_that_is_repeated_is_never_replaced(run: Run, here: Path, content: Path, style: Path) -> None:
    run("stylize", content, style, "-o", "a.png", *SMALL)
    before = (here / "a.png").read_bytes()
    assert "is the picture of --like as well" in refused(run, "stylize", "--like", "a.png", "-o", "a.png", "--force")
    assert run("stylize", "--like", "a.png", "-q")[0] == 0
    assert "a_again.png exists already" in refused(run, "stylize", "--like", "a.png")
    assert run("stylize", "--like", "a.png", "-q", "--force")[0] == 0
    assert (here / "a.png").read_bytes() == before


def test_names_of_folders_above_the_home_are_not_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home, elsewhere = tmp_path / "home" / "me", tmp_path / "disk"
    monkeypatch.setenv("HOME", str(home))
    assert relative_name(home / "photos" / "a.jpg", home / "out") == "../photos/a.jpg"
    assert relative_name(home / "a.jpg", home) == "a.jpg"
    assert relative_name(elsewhere / "in" / "a.jpg", elsewhere / "out") == "../in/a.jpg"
    assert relative_name(home / "photos" / "a.jpg", elsewhere) == "a.jpg"
    assert relative_name(home / "photos" / "a.jpg", tmp_path / "home" / "you") == "a.jpg"
    monkeypatch.setenv("HOME", "/nowhere/else")
    assert relative_name(Path("/opt/photos/a.jpg"), Path("/srv")) == "a.jpg"


def test_a_result_may_be_saved_without_its_settings(here: Path, content: Path, style: Path) -> None:
    layers = (("relu1_1", 1.0),)
    result = fastnst.stylize(content, style, size=48, steps=1, content_layers=layers, style_layers=layers)
    assert set(result.inputs) == {"content", "style"}
    assert images.read_settings(result.save(here / "a.png", with_settings=False)) is None
    again = fastnst.stylize(content, style, settings=load_settings(result.save(here / "b.png")))
    assert torch.equal(again.image, result.image)


def test_options_override_the_file_and_the_file_overrides_the_preset(here: Path) -> None:
    (here / "a.toml").write_text('preset = "johnson"\nsteps = 7\ncrop = 96\nstyle_scale = 0.5\n')
    found = settings_from("--settings", "a.toml", "--steps", "9")
    assert found == Settings.from_preset("johnson", steps=9, crop=96, style_scale=0.5)
    assert settings_from("--settings", "a.toml", "--size", "64").crop is None
    assert settings_from("--settings", "a.toml", "--style-size", "64").style_scale == 1
    assert settings_from("--settings", "a.toml", "--preset", "johnson").history == 100
    with pytest.raises(UsageError, match=r"--preset gatys: a\.toml has the preset johnson; omit one"):
        settings_from("--settings", "a.toml", "--preset", "gatys")


def test_a_file_without_a_preset_uses_the_preset_of_the_command(here: Path) -> None:
    (here / "a.toml").write_text("steps = 7\n")
    assert settings_from("--settings", "a.toml") == Settings.from_preset(steps=7)
    assert settings_from("--settings", "a.toml", "--preset", "gatys") == Settings.from_preset("gatys", steps=7)
    found = settings_from("--settings", "a.toml", command=("gallery", "pictures"))
    assert found == Settings.from_preset("tutorial", steps=7)


def test_saved_settings_make_the_same_picture(run: Run, here: Path, content: Path, style: Path) -> None:
    options = (*SMALL, "--preset", "johnson", "--content-weight", "3")
    assert run("stylize", content, style, "-o", "a.png", *options, "--save-settings", "a.toml")[0] == 0
    assert load_settings("a.toml") == settings_from(*options) == load_settings("a.png")
    assert run("stylize", content, style, "-o", "b.png", "-q", "--settings", "a.toml")[0] == 0
    assert (here / "a.png").read_bytes() == (here / "b.png").read_bytes()
    assert run("stylize", content, style, "-o", "c.png", "-q", "--settings", "a.png")[0] == 0
    assert (here / "a.png").read_bytes() == (here / "c.png").read_bytes()


def test_the_file_is_there_before_the_first_step(
    run: Run, here: Path, content: Path, style: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object, **__: object) -> None:
        assert (here / "a.toml").is_file()
        raise KeyboardInterrupt

    monkeypatch.setattr("fastnst.run.scene_run.optimize", stop)
    assert run("stylize", content, style, "-o", "a.png", *FAST, "--save-settings", "a.toml")[0] == 130
    assert [path.name for path in here.iterdir()] == ["a.toml"]


def test_an_existing_file_is_replaced_only_with_force(run: Run, here: Path, content: Path, style: Path) -> None:
    (here / "a.toml").write_text("steps = 7\n")
    order = ("stylize", content, style, "-o", "a.png", *FAST, "--save-settings", "a.toml")
    assert "a.toml exists already" in refused(run, *order)
    assert (here / "a.toml").read_text() == "steps = 7\n"
    assert not (here / "a.png").exists()
    assert run(*order, "--force", "-q")[0] == 0
    assert load_settings("a.toml") == settings_from(*FAST)
    assert run(*order, "-q")[0] == 0  # the same settings once more


def test_a_gallery_reads_and_writes_settings_too(run: Run, here: Path, pictures: Path, out: Path) -> None:
    (here / "a.toml").write_text("crop = 32\nsteps = 1\n[content_layers]\nrelu2_1 = 1\n[style_layers]\nrelu1_1 = 1\n")
    order = ("gallery", pictures, "-o", out, "--pairs", "order", "--settings", "a.toml", "-q")
    assert run(*order, "--save-settings", "b.toml")[0] == 0
    assert load_settings("b.toml") == load_settings(out / "gen_0" / "gen_1.jpg")
    record = json.loads((out / "gen_0" / "pair.json").read_text())
    assert record["settings"] == json.loads(json.dumps(load_settings("b.toml").to_dict()))
    assert run("stylize", "--like", out / "gen_0" / "gen_1.jpg", "-q")[:2] == (0, "gen_1_again.jpg\n")


def test_settings_are_shown_as_toml_that_can_be_read(run: Run, here: Path, content: Path, style: Path) -> None:
    run("stylize", content, style, "-o", "a.png", *SMALL)
    code, out, err = run("settings", "a.png")
    assert (code, err) == (0, "")
    digest = hashlib.sha256(content.read_bytes()).hexdigest()
    assert out.startswith(f'# content: "../photo.png", sha256 {digest}\n')
    (here / "b.toml").write_text(out)
    assert load_settings("b.toml") == settings_from(*SMALL)
    facts = json.loads(run("settings", "a.png", "--json")[1])
    assert facts["settings"]["size"] == 64
    assert facts["files"]["style"]["name"] == "../painting.png"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"glow": 3}, "unknown setting 'glow'"),
        ({"fastnst": "99.1", "glow": 3}, "unknown setting 'glow': the file was written by fastnst 99.1, and this is"),
        ({"steps": "many"}, "steps: expected a whole number or names with numbers, or a list, got 'many'"),
        ({"steps": None}, "steps: expected a whole number"),
        ({"optimizer": "sgd"}, "unknown optimizer 'sgd'"),
        ({"files": [1]}, "expected the files it was made from with name and sha256, got [1]"),
        ({"files": {"content": {"name": 3, "sha256": ""}}}, "expected the files it was made from with name and sha256"),
        ({"files": {"content": {"name": "a\0", "sha256": ""}}}, "expected the files it was made from with name"),
    ],
)
def test_a_picture_with_invalid_settings(run: Run, here: Path, changes: dict[str, Any], message: str) -> None:
    carrying(here / "a.png", **changes)
    assert f"a.png: {message}" in refused(run, "stylize", "--like", "a.png")
    assert [path.name for path in here.iterdir()] == ["a.png"]


@pytest.mark.parametrize("name", ["x" * 5000, "", ".", "/dev/null", "none.png"])
def test_a_picture_whose_inputs_are_no_files(run: Run, here: Path, style: Path, name: str) -> None:
    carrying(here / "a.png", files={"content": {"name": name, "sha256": "0" * 64}})
    assert "its content was" in refused(run, "stylize", "--like", "a.png")


def test_invalid_values_of_like_and_settings(run: Run, here: Path, content: Path, style: Path) -> None:
    carrying(here / "a.png")
    (here / "a.toml").write_text("steps = 7\n")
    assert "required: CONTENT, STYLE" in refused(run, "stylize")
    assert "required: STYLE" in refused(run, "stylize", content)
    assert "required: CONTENT, STYLE" in refused(run, "stylize", "--settings", "a.toml")
    assert "its content was not recorded" in refused(run, "stylize", "--like", "a.png")
    assert "for this file use --settings" in refused(run, "stylize", "--like", "a.toml")
    assert "give one of the two" in refused(run, "stylize", "--like", "a.png", "--settings", "a.toml")
    assert "holds no settings of fastnst" in refused(run, "stylize", "--like", content)
    assert "holds no settings of fastnst" in refused(run, "stylize", content, style, "--settings", content)
    assert "none.png" in refused(run, "stylize", "--like", "none.png", code=1)
    assert "none.toml" in refused(run, "stylize", content, style, "--settings", "none.toml", code=1)
    save = ("stylize", content, style, *FAST, "--save-settings")
    assert "expected a name ending in .toml" in refused(run, *save, "a.png", "-q")


def test_options_may_stand_between_content_and_style(run: Run, content: Path, style: Path) -> None:
    assert run("stylize", content, *SMALL, style, "-o", "a.png")[:2] == (0, "a.png\n")


def test_pictures_above_the_limit_are_read_and_written_with_the_option(
    run: Run, here: Path, content: Path, style: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    said = refused(run, "stylize", content, style, "-o", "a.tif", *SMALL, code=1)
    assert "above the limit of 100; raise max_pixels (--max-pixels)" in said
    assert run("stylize", content, style, "-o", "a.tif", *SMALL, "--max-pixels", "1000000")[:2] == (0, "a.tif\n")
    assert load_settings(here / "a.tif").max_pixels == 1_000_000
    assert run("settings", "a.tif")[0] == 0
    assert "--max-pixels" in refused(run, "stylize", "--like", "a.tif", "-q", code=1)  # a file does not raise it
    assert run("stylize", "--like", "a.tif", "-q", "--max-pixels", "1000000")[:2] == (0, "a_again.tif\n")
    first, second = (images.load(here / name, max_pixels=10**6).pixels for name in ("a.tif", "a_again.tif"))
    assert torch.equal(first, second)
    # A picture may be anybody's; a file of settings is one's own.
    assert "--max-pixels" in refused(run, "stylize", content, style, "--settings", "a.tif", "-o", "d.tif", code=1)
    (here / "own.toml").write_text("max_pixels = 1000000\n")
    assert run("stylize", content, style, "-o", "e.tif", *SMALL, "--settings", "own.toml")[0] == 0
    masks = ("--mask", content, "--style-mask", style, "--content-mask", content, "--init", content)
    assert run("stylize", content, style, "-o", "b.tif", *SMALL, *masks, "--max-pixels", "1000000")[0] == 0
    assert run("stylize", content, style, "-o", "c.tif", *SMALL, "--max-pixels", "1000000", "--plan")[0] == 0


@pytest.mark.parametrize("limit", [0, 1, -5, 2.5, True, "all"])
def test_invalid_max_pixels(limit: Any) -> None:
    with pytest.raises(UsageError, match="max_pixels: expected"):
        Settings(max_pixels=limit)

"""``fastnst gallery``: exit codes, what is said and where."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.picture_files import LAYERS

from fastnst.cli.progress import GalleryBar

Run = Callable[..., tuple[int, str, str]]

QUICK = ("--crop", "32", "--steps", "2", "--snapshot-every", "0", *LAYERS)


@pytest.mark.parametrize(
    ("missing", "words"),
    [("content", "no picture named content_"), ("style", "no picture named style_"), ("folder", "no such folder")],
)
def test_nothing_to_pair_is_one_line(run: Run, pictures: Path, out: Path, missing: str, words: str) -> None:
    for picture in pictures.iterdir():
        if picture.name.lower().startswith(missing):
            picture.unlink()
    code, said, err = run("gallery", pictures if missing != "folder" else pictures / "no", "-o", out, *QUICK)
    assert (code, said, err.count("\n")) == (1, "", 1)
    assert words in err
    assert not out.exists()


def test_the_command_prints_results_and_sheet(run: Run, pictures: Path, here: Path) -> None:
    code, said, err = run("gallery", pictures, *QUICK, "--pairs", "order")
    results = ["gallery/gen_0/gen_2.jpg", "gallery/gen_1/gen_2.jpg", "gallery/sheet.jpg"]
    assert (code, said.split()) == (0, results)
    assert "pair 2/2 content_2 + STYLE_2  step 2/2  loss" in err
    assert all((here / name).exists() for name in results)
    code, said, err = run("gallery", pictures, *QUICK, "--pairs", "order", "--quiet")
    assert (code, said.split(), err) == (0, results, "")


def test_the_command_continues_after_a_broken_picture(run: Run, pictures: Path, here: Path) -> None:
    (pictures / "content_1.jpg").write_text("no image")
    code, said, err = run("gallery", pictures, *QUICK, "--json")
    facts = json.loads(said)
    assert code == 0
    assert "fastnst: warning: 2 of 4 pairs could not be made\n" in err
    assert facts["paths"] == ["gallery/gen_2/gen_2.jpg", "gallery/gen_3/gen_2.jpg", "gallery/sheet.jpg"]
    assert [pair["style"]["name"] for pair in facts["pairs"]] == ["style_1.webp", "STYLE_2.TIF"]
    assert [pair["content"] for pair in facts["failed"]] == ["content_1.jpg", "content_1.jpg"]


def test_the_command_fails_where_no_pair_could_be_made(run: Run, pictures: Path, here: Path) -> None:
    for picture in ("content_1.jpg", "content_2.png"):
        (pictures / picture).write_text("no image")
    code, said, err = run("gallery", pictures, *QUICK)
    assert (code, said) == (1, "")
    assert err.splitlines()[-1] == f"fastnst: error: {pictures}: none of its 4 pairs could be made"
    assert list(here.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--crop", "8", "--style-layers", "relu5_1"), "too small"),
        (("--style-layers", "relu1_9"), "relu1_9"),
        (("--preset", "tutoril"), "did you mean tutorial"),
        (("--pairs", "shuffel"), "did you mean shuffle"),
    ],
)
def test_settings_that_fit_no_pair_end_the_run_at_once(
    run: Run, pictures: Path, here: Path, options: tuple[str, ...], words: str
) -> None:
    code, said, err = run("gallery", pictures, *QUICK, "--preset", "default", *options)
    assert (code, said, err.count("\n")) == (2, "", 1)
    assert words in err
    assert list(here.iterdir()) == []


def test_the_command_reports_pairs_with_other_settings_in_one_line(run: Run, pictures: Path) -> None:
    run("gallery", pictures, *QUICK, "--pairs", "order")
    code, said, err = run("gallery", pictures, *QUICK, "--pairs", "order", "--steps", "3")
    assert (code, said, err.count("\n")) == (2, "", 1)
    assert "steps was 2, is 3" in err
    assert run("gallery", pictures, *QUICK, "--pairs", "order", "--steps", "3", "--force")[0] == 0


def test_ctrl_c_ends_the_command_with_130(
    run: Run, pictures: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(self: GalleryBar, name: str, number: int, count: int, step: Any) -> None:
        if number == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(GalleryBar, "show_step", interrupt)
    code, said, err = run("gallery", pictures, *QUICK)
    assert (code, said.split()) == (130, ["gallery/gen_0/gen_2.jpg", "gallery/sheet.jpg"])
    assert err.endswith("fastnst: interrupted; the result so far has been saved\n")
    assert sorted(path.name for path in (here / "gallery").iterdir()) == ["gen_0", "sheet.jpg"]

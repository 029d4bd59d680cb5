"""No file that a run writes replaces one that it reads or another that it writes; this is checked before the run."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.picture_files import FAST, save_picture

from fastnst import gallery, stylize
from fastnst.cli import demo
from fastnst.config.settings import Settings
from fastnst.errors import UsageError
from fastnst.run import clashes

Run = Callable[..., tuple[int, str, str]]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def files(here: Path, content: Path, style: Path) -> Path:
    """Every kind of input, in the current folder."""
    for name, picture in (("q_0002.png", content), ("s.png", style), ("mask.png", content), ("smask.png", style)):
        shutil.copy(picture, here / name)
    shutil.copy(content, here / "start.png")
    (here / "own.toml").write_text("seed = 3\n")
    return here


INPUTS = ("q_0002.png", "s.png")
MORE = (
    *("--mask", "mask.png", "--style-mask", "smask.png", "--content-mask", "mask.png"),
    *("--init", "start.png", "--settings", "own.toml"),
)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("-o", "q.png", "--snapshot-every", "1"), "the snapshot q_0002.png: is the content"),
        (("-o", "s.png"), "-o s.png: is the style"),
        (("-o", "./mask.png"), "-o mask.png: is the content mask"),
        (("-o", "smask.png"), "-o smask.png: is the style mask"),
        (("-o", "start.png"), "-o start.png: is the start picture"),
        (("-o", "../here/q_0002.png"), "-o ../here/q_0002.png: is the content"),
        (
            ("-o", "a.png", "--save-settings", "own.toml", "--force"),
            "--save-settings own.toml: is the file of --settings",
        ),
        (("-o", "a.png", "--checkpoint", "q_0002.png", "--force"), "--checkpoint q_0002.png: is the content"),
        (("-o", "a.png", "--checkpoint", "a.png"), "--checkpoint a.png: is -o"),
        (("-o", "a.png", "--checkpoint", "A.PNG"), "--checkpoint A.PNG: is -o"),
        (
            ("-o", "a.png", "--checkpoint", "a_0004.png", "--snapshot-every", "2"),
            "the snapshot a_0004.png: is --checkpoint",
        ),
        (
            ("-o", "a.png", "--save-settings", "b.toml", "--checkpoint", "b.toml"),
            "--checkpoint b.toml: is --save-settings",
        ),
        (("-o", ".b.lock.png", "--checkpoint", "b.lock.png", "--force"), None),
        (("-o", "a.png", "--save-settings", ".b.toml.toml", "--checkpoint", "b"), None),
    ],
)
def test_a_clash_is_refused_before_the_run(run: Run, files: Path, options: tuple[str, ...], said: str | None) -> None:
    before = contents(files)
    code, out, err = run("stylize", *INPUTS, *FAST, *MORE, *options, "-q")
    if said is None:
        assert code == 0, err
        return
    assert (code, out, err) == (2, "", f"fastnst: error: {said} as well, and would replace it; name another file\n")
    assert contents(files) == before


@pytest.mark.parametrize("way", ["symbolic", "hard", "folder"])
def test_links_do_not_hide_a_clash(run: Run, files: Path, tmp_path: Path, way: str) -> None:
    link = files / "link.png"
    if way == "symbolic":
        link.symlink_to("s.png")
    elif way == "hard":
        os.link(files / "s.png", link)
    else:
        (files / "folder").symlink_to(files)
        link = files / "folder" / "s.png"
    before = contents(files)
    code, _, err = run("stylize", *INPUTS, *FAST, "-o", link)
    assert (code, err.count("is the style as well")) == (2, 1)
    assert contents(files) == before


def test_files_in_a_folder_that_is_removed_are_refused(run: Run, files: Path) -> None:
    (files / ".b.part").mkdir()
    shutil.copy(files / "s.png", files / ".b.part" / "s.png")
    code, _, err = run("stylize", "q_0002.png", ".b.part/s.png", *FAST, "-o", "a.png", "--checkpoint", "b")
    assert (code, ".b.part: is the style as well" in err) == (2, True)
    assert (files / ".b.part" / "s.png").exists()


def test_the_weights_are_not_replaced(run: Run, files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_picture(files / "weights.png", 8, 8)
    code, _, err = run("stylize", *INPUTS, *FAST, "-o", "weights.png", "--weights", "weights.png")
    assert (code, "-o weights.png: is the weights as well" in err) == (2, True)


def test_a_snapshot_replaces_snapshots_and_no_other_picture(run: Run, files: Path) -> None:
    words = ("stylize", *INPUTS, *FAST, "-o", "a.png", "--snapshot-every", "1", "-q")
    assert run(*words)[0] == 0
    assert run(*words)[0] == 0  # over those of the run before
    shutil.copy(files / "s.png", files / "a_0002.png")
    before = contents(files)
    code, _, err = run(*words)
    assert code == 2
    assert "a_0002.png exists already, and fastnst did not make it; replace it by a snapshot with --force" in err
    assert contents(files) == before
    shutil.copy(files / "s.png", files / "a_0003.png")  # of a step that the run does not come to, or is not shown
    assert run(*words, "--force")[0] == 0
    (files / "a_0002.png").write_text("notes")
    assert run(*words[:-3], "--snapshot-every", "3", "-q", "--force")[0] == 0
    assert (files / "a_0002.png").read_text() == "notes"


def test_from_python_a_checkpoint_replaces_no_input(files: Path) -> None:
    before = contents(files)
    for changes in ({}, {"style_masks": ["own.toml"]}, {"init": Path("own.toml")}):
        named = "s.png" if not changes else "own.toml"
        with pytest.raises(UsageError, match=f"--checkpoint {named}: is the "):
            stylize("q_0002.png", "s.png", checkpoint=named, force=True, **changes)  # type: ignore[arg-type]
    assert contents(files) == before


def test_a_gallery_replaces_no_input(pictures: Path, out: Path) -> None:
    settings = Settings.from_preset(
        size=48, steps=1, scales=1, content_layers=(("relu1_1", 1.0),), style_layers=(("relu1_1", 1.0),)
    )
    gallery.run(pictures, out, settings, pairing="order")
    before = contents(out)
    for name in (out / "sheet.jpg", out / "gen_0" / "gen_1.jpg"):
        with pytest.raises(UsageError, match=r"(sheet|folder) .*: is the start picture as well"):
            gallery.run(pictures, out, settings.replace(init=str(name)), pairing="order", force=True)
    assert contents(out) == before


def test_the_demo_does_not_replace_its_pictures(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photo = save_picture(here / "styled.png", 40, 40)
    monkeypatch.setattr(demo, "PHOTO", photo)
    with pytest.raises(UsageError, match=r"the result .*styled\.png: is the photograph as well"):
        demo.run(here, Settings())


@pytest.mark.parametrize(
    ("written", "read", "clash"),
    [
        (["a", "b"], ["c"], False),
        (["a", "a"], [], True),
        (["a", "A"], [], True),  # on some disks one file
        (["a/b", "a"], [], True),  # a folder is replaced whole
        (["a", "a/b"], [], True),
        (["gen_1", "gen_10"], [], False),
        (["é"], [], False),
        (["\u00e9", "e\u0301"], [], True),
        (["there"], ["there"], True),
        (["THERE"], ["there"], True),
        (["there", "other"], ["THIRD"], False),
        (["new"], ["nowhere"], False),
        (["nowhere"], ["nowhere"], False),  # that it is not there is another error
        (["folder/new"], ["folder"], False),
        (["a\0b"], ["c\0d"], False),
        (["x" * 5000], ["y" * 5000], False),
    ],
)
def test_what_counts_as_a_clash(here: Path, written: list[str], read: list[str], clash: bool) -> None:
    for name in ("there", "other", "THIRD"):
        (here / name).touch()
    (here / "folder").mkdir()
    pairs: list[Any] = [[(name, name) for name in names] for names in (written, read)]
    if clash:
        with pytest.raises(UsageError, match="as well, and would replace it"):
            clashes.refuse_clashes(*pairs)
    else:
        clashes.refuse_clashes(*pairs)


def test_two_files_whose_names_differ_in_case_are_two(here: Path) -> None:
    for name in ("A.png", "a.png"):
        (here / name).touch()
    if len(list(here.iterdir())) == 2:
        clashes.refuse_clashes([("output", "A.png")], [("content", "a.png")])

"""A user without a home folder, as in containers that run under any number: everything works and is saved."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from support.picture_files import FAST, environment, save_picture

from fastnst.config.provenance import relative_name
from fastnst.weights.entries import cache_folder

pytestmark = pytest.mark.skipif(os.name != "posix", reason="homes are those of POSIX")

NOBODY = """
import pwd, sys
def unknown(*_):
    raise KeyError("uid not found")
pwd.getpwuid = pwd.getpwnam = unknown
from fastnst.cli import main
sys.exit(main())
"""


@pytest.mark.parametrize(
    "words",
    [
        ("stylize", "a.png", "b.png", "-o", "out.png", *FAST, "--snapshot-every", "1", "--save-settings", "s.toml"),
        ("stylize", "a.png", "b.png", "-o", "out.png", *FAST, "--checkpoint", "run.ckpt"),
        ("gallery", "in", "-o", "out", "--preset", "default", *FAST),
        ("demo", "-o", "out", "--size", "64", "--steps", "1"),
        ("info",),
        ("weights", "list"),
        ("weights", "show", "vgg19"),
    ],
    ids=" ".join,
)
@pytest.mark.sweep(3)
def test_every_command_works_without_a_home(here: Path, words: tuple[str, ...]) -> None:
    (here / "in").mkdir()
    for name in ("a.png", "b.png", "in/content_1.png", "in/style_1.png"):
        save_picture(here / name, 48, 48)
    without = {"HOME", "USER", "LOGNAME", "FASTNST_CACHE", "XDG_CACHE_HOME"}
    env = {name: value for name, value in environment().items() if name not in without}
    command = [sys.executable, "-c", NOBODY, *words]
    ended = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stderr
    assert "Traceback" not in ended.stderr
    assert not (here / "~").exists()
    if "-o" in words:
        assert (here / words[words.index("-o") + 1]).exists()
    if "--like" not in words and words[0] == "stylize":
        again = [sys.executable, "-c", NOBODY, "stylize", "--like", "out.png", "-q"]
        assert subprocess.run(again, env=env, timeout=120).returncode == 0


def test_names_are_relative_without_a_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "home", classmethod(lambda _: (_ for _ in ()).throw(RuntimeError("no home"))))
    assert relative_name(tmp_path / "photos" / "a.jpg", tmp_path / "out") == "../photos/a.jpg"
    assert relative_name(Path("/disk/a.jpg"), Path("/other")) == "a.jpg"


def test_the_cache_of_a_user_without_a_home_is_a_folder_of_that_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FASTNST_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    assert cache_folder() == Path(tempfile.gettempdir()) / f"fastnst-{os.getuid()}"

"""Fixtures of the command line and of folders: pictures in files, and a folder to work in."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from fastnst.cli import main
from fastnst.cli.arguments import parse_arguments
from fastnst.cli.options import SettingsOptions, read_settings
from fastnst.config.settings import Settings
from support.picture_files import save_picture

Outcome = tuple[int, str, str]


def settings_from(*options: object, command: tuple[str, ...] = ("stylize", "a", "b")) -> Settings:
    """The settings that options of the command line make."""
    namespace = parse_arguments([*command, *map(str, options)])
    return read_settings(SettingsOptions.from_namespace(namespace))[0]


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test writes to the current folder or uses the user's cache."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("FASTNST_CACHE", str(tmp_path / "cache"))


@pytest.fixture(autouse=True)
def ended_processes() -> Iterator[None]:
    """Kill the runs that a failed test has left: they would take time from the others for ever."""
    yield
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            if "fastnst" in " ".join(child.cmdline()):
                child.kill()


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """The current folder, empty."""
    return tmp_path / "here"


@pytest.fixture
def content(tmp_path: Path) -> Path:
    return save_picture(tmp_path / "photo.png", 48, 64, seed=1)


@pytest.fixture
def style(tmp_path: Path) -> Path:
    return save_picture(tmp_path / "painting.png", 64, 64, seed=2)


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Run the command line in this process: exit code, stdout, stderr."""

    def call(*arguments: object) -> Outcome:
        capfd.readouterr()
        code = main([str(argument) for argument in arguments])
        captured = capfd.readouterr()
        return code, captured.out, captured.err

    return call


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Two contents and two styles, of several formats and shapes."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    save_picture(folder / "content_1.jpg", 40, 60, seed=1)
    save_picture(folder / "content_2.png", 50, 40, seed=2)
    save_picture(folder / "style_1.webp", 40, 40, seed=3)
    save_picture(folder / "STYLE_2.TIF", 60, 90, seed=4)
    (folder / "notes_content_3.jpg").write_text("neither")
    (folder / "content_4.txt").write_text("no picture")
    return folder


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"

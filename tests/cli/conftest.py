from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from cli_pictures import save_picture

from fastnst import cli

Outcome = tuple[int, str, str]


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> Iterator[None]:
    """Pictures of a few pixels are slower on two threads than on one."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def _own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test writes to the folder it was started in, nor looks into the user's cache."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("FASTNST_CACHE", str(tmp_path / "cache"))


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
        code = cli.main([str(argument) for argument in arguments])
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

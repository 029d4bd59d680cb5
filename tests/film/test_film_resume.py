"""Films that were ended: what remains, what continues, and what is refused."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from made import COUNT, FILM, SETTINGS, frames, request, shot, stored

from fastnst import images
from fastnst.errors import FastnstError, ImageError, UsageError
from fastnst.film import stylize_film


class Stop(Exception):
    pass


@pytest.mark.parametrize("at", [0, 1, 3, 5, 8, 12])
def test_a_film_that_was_ended_continues_with_the_same_bits(here: Path, at: int) -> None:
    film_settings = dataclasses.replace(FILM, lookback=(1, 2))
    stylize_film(request(output="whole.mkv"), SETTINGS, film_settings)
    left = at

    def stop(*_: object) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise Stop

    with pytest.raises(Stop):
        stylize_film(request(), SETTINGS, film_settings, callback=stop)
    assert not Path("out.mkv").exists()
    finished = len(stored("out.mkv.frames"))
    report = stylize_film(request(), SETTINGS, film_settings)
    assert report.made == 2 * COUNT - finished
    assert stored("out.mkv.frames") == stored("whole.mkv.frames")
    assert all(torch.equal(*pair) for pair in zip(frames("out.mkv"), frames("whole.mkv"), strict=True))


CHILD = """
import os, signal, sys
sys.path[:0] = {path!r}
import made as tests
left = {at}
def end(*_):
    global left
    left -= 1
    if left < 0: os.kill(os.getpid(), signal.SIGKILL)
from fastnst.film import stylize_film
stylize_film(tests.request(), tests.SETTINGS, tests.FILM, callback=end)
"""


@pytest.mark.parametrize("at", [4, 9])
def test_a_film_that_was_killed_continues(here: Path, at: int) -> None:
    code = CHILD.format(path=[path for path in sys.path if path], at=at)
    child = subprocess.run([sys.executable, "-c", code], cwd=here, capture_output=True, timeout=300, check=False)
    assert child.returncode == -signal.SIGKILL, child.stderr.decode()
    assert not Path("out.mkv").exists()
    stylize_film(request(), SETTINGS, FILM)
    stylize_film(request(output="whole.mkv"), SETTINGS, FILM)
    assert stored("out.mkv.frames") == stored("whole.mkv.frames")


def test_the_folder_of_frames_is_removed_at_the_end(here: Path) -> None:
    stylize_film(request(keep_frames=False), SETTINGS, FILM)
    assert sorted(path.name for path in here.iterdir()) == [
        "clip.mkv", "left.png", "other.png", "out.mkv", "right.png", "style.png"
    ]  # fmt: skip


def test_frames_of_other_settings_are_refused(here: Path) -> None:
    stylize_film(request(), SETTINGS, FILM)
    before = stored("out.mkv.frames")
    for changed, reason in (
        ({"settings": SETTINGS.replace(style_weight=5.0)}, "style_weight"),
        ({"film_settings": dataclasses.replace(FILM, next_steps=1)}, "next_steps"),
        ({"request": request(styles=("other.png",))}, "style"),
    ):
        given: dict[str, Any] = {"request": request(), "settings": SETTINGS, "film_settings": FILM, **changed}
        with pytest.raises(UsageError, match=rf"out\.mkv\.frames: holds frames .* \({reason}\); .*--force"):
            stylize_film(**given)
        assert stored("out.mkv.frames") == before
    stylize_film(request(styles=("other.png",), force=True), SETTINGS, FILM)
    assert stored("out.mkv.frames") != before


def test_a_folder_of_something_else_is_left_alone(here: Path) -> None:
    Path("out.mkv.frames").mkdir()
    Path("out.mkv.frames/mine.txt").write_text("mine")
    for force in (False, True):
        with pytest.raises(UsageError, match=r"out\.mkv\.frames: exists and holds no frames of fastnst"):
            stylize_film(request(force=force), SETTINGS, FILM)
    assert Path("out.mkv.frames/mine.txt").read_text() == "mine"


def test_a_full_disk_loses_nothing(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("out.mkv").write_bytes(b"the film before")
    save, left = images.save, 8

    def full(path: Any, *arguments: Any, **options: Any) -> Path:
        nonlocal left
        left -= 1
        if left < 0:
            raise ImageError(f"{path}: cannot be written ({os.strerror(errno.ENOSPC)})")
        return save(path, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(images, "save", full)
        with pytest.raises(ImageError, match=r"pass_1/000002\.png: cannot be written \(No space left on device\)"):
            stylize_film(request(), SETTINGS, FILM)
    assert Path("out.mkv").read_bytes() == b"the film before"
    made = stored("out.mkv.frames")
    assert len(made) == 2
    assert stylize_film(request(), SETTINGS, FILM).made == 2 * COUNT - 2
    assert stored("out.mkv.frames")[:2] == made


def test_a_damaged_record_says_what_to_do(here: Path) -> None:
    stylize_film(request(), SETTINGS, FILM)
    record = Path("out.mkv.frames/film.json")
    values = json.loads(record.read_text())
    record.write_text(record.read_text()[:-40])
    with pytest.raises(UsageError, match="exists and holds no frames of fastnst"):
        stylize_film(request(), SETTINGS, FILM)
    values["times"] = 3
    record.write_text(json.dumps(values))
    with pytest.raises(FastnstError, match="--force"):
        stylize_film(request(), SETTINGS, FILM)


def test_a_film_that_was_ended_while_it_was_decoded_continues(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save, left = images.save, 4

    def killed(*arguments: Any, **options: Any) -> Path:
        nonlocal left
        left -= 1
        if left < 0:
            raise Stop
        return save(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(images, "save", killed)
        with pytest.raises(Stop):
            stylize_film(request(), SETTINGS, FILM)
    assert stylize_film(request(), SETTINGS, FILM).made == 2 * COUNT


@pytest.mark.parametrize("kind", ["folder", "memory"])
def test_frames_of_another_source_are_refused(here: Path, kind: str) -> None:
    """A folder is known by its files, a picture in memory by its pixels."""
    Path("in").mkdir()
    for i, frame in enumerate(shot("pan")):
        images.save(f"in/{i}.png", frame)
    style = np.full((48, 64, 3), 90, np.uint8)
    given = request(film="in", styles=(style,))
    stylize_film(given, SETTINGS, FILM)
    if kind == "folder":
        images.save("in/1.png", shot("square")[0])
        part = "content"
    else:
        given = request(film="in", styles=(style + 1,))
        part = "style"
    with pytest.raises(UsageError, match=rf"holds frames of another film or other settings \({part}\)"):
        stylize_film(given, SETTINGS, FILM)

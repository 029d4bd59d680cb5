"""``--film``: the progress of a run as a film, on the command line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import av
import pytest
from support.picture_files import FAST, LAYERS, environment

from fastnst.film import open_film, read_film_settings

Run = Callable[..., tuple[int, str, str]]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--film-every", "5"), "--film-every: expected the film to write as well (--film FILE)"),
        (("--film-fps", "5"), "--film-fps: expected the film to write as well (--film FILE)"),
        (("--film", "p.mpg"), "p.mpg: expected a name ending in .mp4"),
        (("--film", "missing/p.mp4"), "missing/p.mp4: there is no folder missing"),
        (("--film", "p.mp4", "--film-every", "0"), "--film-every: expected a whole number from 1 to 1000000000, got 0"),
        (("--film", "p.mp4", "--film-fps", "fast"), "--film-fps: expected a number from 0.1 to 240, got 'fast'"),
        (("--film", "out.png"), "--film out.png: is -o as well, and would replace it; name another file"),
    ],
)
def test_mistakes_are_one_line_before_the_run(
    run: Run, content: Path, style: Path, here: Path, options: tuple[str, ...], words: str
) -> None:
    code, out, err = run("stylize", content, style, "-o", "out.png", *FAST, *options)
    assert (code != 0, out) == (True, "")
    assert words in err
    assert err.count("\n") == 1
    assert list(here.iterdir()) == []


def test_the_progress_is_filmed(run: Run, content: Path, style: Path, here: Path) -> None:
    options = ("--film", "p.mp4", "--film-every", "2", "--film-fps", "4", "--steps", "4", "--json", *LAYERS)
    code, out, _ = run("stylize", content, style, "-o", "out.png", "--size", "64", "--scales", "1", *options)
    assert code == 0
    assert json.loads(out)["paths"] == ["p.mp4", "out.png"]
    with open_film("p.mp4") as film:
        assert (film.info.width, film.info.height, film.info.frame_rate) == (64, 48, 4)
        assert film.info.count == 3 + 3  # steps 1, 2 and 4, which stays for a second
    settings = read_film_settings("p.mp4")
    assert settings is not None
    assert (settings["steps"], settings["film"]) == (4, {"every": 2, "fps": 4.0})
    files = settings["files"]
    assert isinstance(files, dict)
    assert files["content"]["name"] == "../photo.png"


@pytest.mark.skipif(os.name != "posix", reason="signals are those of POSIX")
def test_an_interrupted_run_leaves_its_film(content: Path, style: Path, here: Path) -> None:
    options = ("--film", "p.mkv", "--film-every", "1", "--size", "48", "--steps", "100000", "--scales", "1", *LAYERS)
    command = [sys.executable, "-m", "fastnst", "stylize", str(content), str(style), "-o", "out.png", *options]
    checkpoint = ("--checkpoint", "run.ckpt", "--checkpoint-every", "1", "--resume")
    child = subprocess.Popen([*command, *checkpoint], cwd=here, env=environment(), stderr=subprocess.PIPE, text=True)
    until = time.monotonic() + 60
    while not (here / "run.ckpt").exists() and time.monotonic() < until:
        time.sleep(0.05)
    time.sleep(0.2)
    child.send_signal(signal.SIGINT)
    _, err = child.communicate(timeout=60)
    assert child.returncode == 130, err
    assert (here / "out.png").exists()
    with av.open(str(here / "p.mkv")) as container:
        assert len(list(container.decode(video=0))) >= 10
    assert [path.name for path in here.iterdir() if "part" in path.name] == []

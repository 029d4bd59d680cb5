"""``fastnst video``: what is written, what is said, and what is refused."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch
from support.commands import Outcome
from support.picture_files import LAYERS, save_picture

from bench.film.films import FILMS
from fastnst.film import FilmInfo, FilmWriter, open_film, read_film_settings

Run = Callable[..., Outcome]
FAST = ("--size", 64, "--steps", 2, "--scales", 1, "--next-steps", 1, *LAYERS)


@pytest.fixture
def film(here: Path) -> Path:
    path = here / "clip.mp4"
    frames = [*FILMS["square"](3, 48, 64).frames, *FILMS["pan"](2, 48, 64).frames]
    with FilmWriter(path, FilmInfo(64, 48, Fraction(10))) as writer:
        for i, frame in enumerate(frames):
            writer.add(frame, time=Fraction(i, 10))
    save_picture(here / "style.png", 48, 64)
    return path


def test_a_film_is_written_and_named(run: Run, here: Path, film: Path) -> None:
    code, out, error = run("video", film, "style.png", *FAST)
    assert (code, out.split()) == (0, ["clip_style.mp4"])
    assert "5 frames in 2 shots" in error
    with open_film(here / "clip_style.mp4") as made:
        assert (made.info.count, made.info.frame_rate) == (5, 10)
    facts = read_film_settings(here / "clip_style.mp4")
    assert facts is not None
    assert facts["steps"] == 2
    assert not (here / "clip_style.mp4.frames").exists()
    code, _, error = run("video", film, "style.png", *FAST)
    assert code == 2
    assert "clip_style.mp4 exists already; name the output with -o, or replace it with --force" in error


def test_json_has_the_facts(run: Run, here: Path, film: Path) -> None:
    code, out, _ = run("video", film, "style.png", "-o", "out.gif", "--json", "--frames", "1:4", *FAST)
    facts = json.loads(out)
    assert (code, facts["paths"], facts["frames"], facts["made"]) == (0, ["out.gif"], 3, 3)
    assert facts["shots"] == [[0, 2], [2, 3]]


def test_options_of_films_reach_the_run(run: Run, here: Path, film: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    def stylize_film(request: Any, settings: Any, film_settings: Any, **_: Any) -> Any:
        seen.append((request, settings, film_settings))
        raise KeyboardInterrupt

    monkeypatch.setattr("fastnst.cli.commands.video.stylize_film", stylize_film)
    options = ("--temporal-weight", 5, "--lookback", "1,10", "--passes", 2, "--blend", 0.5, "--shots", "off")
    output = ("--codec", "hevc", "--quality", 40, "--broken", "skip", "--keep-frames", "--keep-color", "yiq")
    run("video", film, "style.png", "-o", "out.mkv", *options, *output, *FAST)
    ((request, settings, film_settings),) = seen
    assert (film_settings.temporal_weight, film_settings.lookback, film_settings.passes) == (5.0, (1, 10), 2)
    assert (film_settings.blend, film_settings.shots, film_settings.next_steps) == (0.5, "off", 1)
    assert (request.codec, request.quality, request.broken, request.keep_frames) == ("hevc", 40, "skip", True)
    assert settings.keep_color == "yiq"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--next-steps", "0"), "next_steps: expected a whole number of at least 1"),
        (("--next-steps", "x"), "next_steps: expected a whole number of at least 1"),
        (("--temporal-weight", "-1"), "temporal_weight: expected a finite number of at least 0"),
        (("--lookback", "1,,2"), "lookback: expected a whole number"),
        (("--flow", "farneback"), "unknown flow 'farneback' (known: dis, raft)"),
        (("--frames", "5"), "--frames: expected A:B, such as 0:50, got '5'"),
        (("--frames", "4:2"), "frames: expected the first and the one after the last"),
        (("--frames", "a:b"), "frames: expected"),
        (("--codec", "h265"), "codec"),
        (("--quality", "101"), "quality: expected a whole number from 1 to 100"),
        (("--quality", "good"), "quality: expected a whole number from 1 to 100"),
        (("--broken", "ignore"), "broken: expected refuse or skip"),
        (("--shots", "auto.tml"), "unknown shots 'auto.tml'"),
        (("--shots", "none.toml"), "none.toml: cannot be read"),
        (("--mask", "m.png", "n.png"), "2 masks for 1 style; give one for each"),
        (("--init", "noise"), "unrecognized argument '--init'"),
    ],
)
def test_wrong_options_are_one_line(run: Run, here: Path, film: Path, options: tuple[str, ...], message: str) -> None:
    code, out, error = run("video", film, "style.png", "-o", "out.mp4", *FAST, *options)
    assert code in (1, 2)
    assert out == ""
    assert message in error
    assert len(error.splitlines()) == 1
    assert sorted(path.name for path in here.iterdir()) == ["clip.mp4", "style.png"]


def test_a_mask_of_another_length_is_named(run: Run, here: Path, film: Path) -> None:
    with FilmWriter(here / "mask.mkv", FilmInfo(64, 48, Fraction(10))) as writer:
        for i in range(4):
            writer.add(torch.ones(1, 3, 48, 64), time=Fraction(i, 10))
    code, _, error = run("video", film, "style.png", "-o", "out.mp4", "--mask", "mask.mkv", *FAST)
    assert code == 2
    assert error.splitlines()[-1].endswith("mask mask.mkv: has 4 frames, but the film has 5; draw one for each frame")


def test_ctrl_c_says_how_to_continue(here: Path, film: Path) -> None:
    command = ["-m", "fastnst", "video", str(film), "style.png", "-o", "out.mp4", *map(str, FAST), "--steps", "400"]
    child = subprocess.Popen([sys.executable, *command], cwd=here, stderr=subprocess.PIPE, text=True)
    record = here / "out.mp4.frames" / "film.json"
    for _ in range(600):
        if record.exists():
            break
        time.sleep(0.1)
    time.sleep(0.5)
    child.send_signal(signal.SIGINT)
    error = child.communicate(timeout=60)[1]
    assert child.returncode == 130
    assert "the frames so far are in out.mp4.frames; the same command continues" in error
    assert not (here / "out.mp4").exists()


def test_help_names_every_setting_of_films(run: Run) -> None:
    from dataclasses import fields

    from fastnst.config.film import FilmSettings

    with pytest.raises(SystemExit):
        run("video", "--help")
    from fastnst.cli.parser import build_parser

    text = build_parser()[1]["video"].format_help()
    for field in fields(FilmSettings):
        assert f"--{field.name.replace('_', '-')} " in text
    assert "(0 to 1e+30; default: 1000)" in " ".join(text.split())


def test_two_ranks_share_the_shots(run: Run, here: Path, film: Path) -> None:
    """The film of two processes has the frames of the film of one."""
    options = ["video", str(film), "style.png", *map(str, FAST), "--codec", "ffv1", "--keep-frames"]
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "fastnst"]
    child = subprocess.run(
        [sys.executable, *launcher, *options, "-o", "two.mkv"],
        cwd=here,
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert child.returncode == 0, child.stderr
    assert child.stdout.split() == ["two.mkv"]
    assert run(*options, "-o", "one.mkv")[0] == 0
    one, two = (
        [path.read_bytes() for path in sorted((here / f"{name}.mkv.frames" / "pass_1").glob("*.png"))]
        for name in ("one", "two")
    )
    assert len(one) == 5
    assert one == two

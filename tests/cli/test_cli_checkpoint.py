"""Scales and checkpoints on the command line: options become settings, runs resume, and mistakes are one line."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from support.commands import settings_from
from support.picture_files import FAST, LAYERS, environment

from fastnst.config.settings import Settings

Run = Callable[..., tuple[int, str, str]]


@pytest.mark.parametrize(
    ("options", "changes"),
    [
        (("--scales", "auto"), {"scales": "auto"}),
        (("--scales", "128,256,512"), {"scales": (128, 256, 512)}),
        (("--scales", "100,300"), {"scales": (100, 300), "size": 300}),
        (("--scale-factor", "sqrt2"), {"scale_factor": 1.4142135623730951}),
        (("--scale-factor", "1.5"), {"scale_factor": 1.5}),
        (("--min-scale", "128"), {"min_scale": 128}),
        (("--steps", "200,100"), {"steps": (200, 100)}),
        (("--no-carry",), {"carry": False}),
        (("--carry",), {"carry": True}),
        (("--average", "0.99"), {"average": 0.99}),
        (("--style-size", "300"), {"style_size": 300}),
    ],
)
def test_an_option_becomes_a_setting(options: tuple[str, ...], changes: dict[str, object]) -> None:
    assert settings_from(*options) == Settings.from_preset(**changes)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--scales", "some"), "scales: expected a whole number of at least 1"),
        (("--scales", "512,256"), "scales 512,256: expected increasing sides"),
        (
            ("--scale-factor", "root"),
            "scale_factor: expected a finite number of at least 1.1 and at most 1000, got 'root'",
        ),
        (("--steps", "5,,5"), "steps: expected a whole number of at least 1"),
        (("--steps", "1,2,3", "--scales", "2"), "steps 1,2,3: 3 numbers for 2 scales"),
        (("--style-size", "50", "--style-scale", "2"), "style_size 50 and style_scale 2: give one of the two"),
        (("--resume",), "resume: expected the file to continue from as well (--checkpoint FILE)"),
        (("--checkpoint-every", "5"), "--checkpoint-every: expected the file to write as well (--checkpoint FILE)"),
        (("--checkpoint", "a.ckpt", "--checkpoint-every", "0"), "checkpoint_every: expected a whole number"),
        (
            ("--checkpoint", "../photo.png"),
            "--checkpoint ../photo.png: is the content as well, and would replace it; name another file",
        ),
        (
            ("--checkpoint", "../painting.png"),
            "--checkpoint ../painting.png: is the style as well, and would replace it; name another file",
        ),
        (("--checkpoint", "./out.png"), "out.png: is -o as well, and would replace it; name another file"),
        (("--checkpoint", ".."), "..: is a folder, expected the name of a file"),
    ],
)
def test_a_mistake_is_one_line(
    run: Run, here: Path, content: Path, style: Path, options: tuple[str, ...], words: str
) -> None:
    code, out, err = run("stylize", content, style, "-o", "out.png", *FAST, *options)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("fastnst: error: ")
    assert words in err
    assert list(here.iterdir()) == []


def test_a_run_is_resumed_refused_and_forced(run: Run, here: Path, content: Path, style: Path) -> None:
    words = ("stylize", content, style, "-o", "out.png", *FAST, "--checkpoint", "run.ckpt")
    assert run(*words)[0] == 0
    first, kept = (here / "out.png").read_bytes(), (here / "run.ckpt").read_bytes()

    def line(*more: object) -> tuple[int, str]:
        code, out, err = run(*words, *more)
        assert (out, err.count("\n")) == ("", 1)
        assert (here / "run.ckpt").read_bytes() == kept
        return code, err.removeprefix("fastnst: error: run.ckpt").strip()

    there = "exists already; continue from it with --resume, or start over with --force"
    assert line() == (2, there)
    assert line("--resume", "--tv-weight", 3) == (1, ": of a run with other settings: tv_weight was 0.1, is 3.0")
    assert line("--resume", "--init", "style") == (
        1,
        ': of a run with other settings: init was "content", is "style"',
    )
    (here / "out.png").unlink()
    code, out, err = run(*words, "--resume")
    assert (code, out, err) == (0, "out.png\n", "fastnst: run.ckpt: this run is finished; returning its result\n")
    assert (here / "out.png").read_bytes() == first
    assert run(*words, "--force", "--seed", 3)[0] == 0
    assert (here / "run.ckpt").read_bytes() != kept
    (here / "run.ckpt").write_bytes(kept[:1000])
    code, out, err = run(*words, "--resume")
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert "run.ckpt: damaged, or not a checkpoint" in err


@pytest.mark.skipif(os.name != "posix", reason="signals are those of POSIX")
def test_ctrl_c_says_how_to_resume(here: Path, content: Path, style: Path) -> None:
    words = ["stylize", content, style, "-o", "out.png", "--size", 48, "--steps", 10**6, *LAYERS]
    words += ["--checkpoint", "run.ckpt", "--checkpoint-every", 2]
    process = subprocess.Popen(
        # a shell that starts a command in the background lets it ignore SIGINT
        [sys.executable, "-c", START, *map(str, words)],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    while not (here / "run.ckpt").exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "out.png\n")
    assert err.endswith("fastnst: interrupted; the result so far has been saved; --resume continues from run.ckpt\n")
    assert "Traceback" not in err


START = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from fastnst.cli import main
sys.exit(main())
"""

"""Ctrl-C, SIGTERM and SIGHUP save the result so far, once, and set the exit code."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from PIL import Image
from support.picture_files import LAYERS, environment

from fastnst import process
from fastnst.process import Interrupts, handling_signals, signals_held

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals are those of POSIX")

START = """
import os, signal, sys, threading, time
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # a shell may let a command in the background ignore some
    signal.signal(number, signal.SIG_DFL if number != signal.SIGINT else signal.default_int_handler)
{before}
from fastnst.cli import main
sys.argv = ["fastnst", *sys.argv[1:]]
sys.exit(main())
"""
SLOW_SAVING = """
import fastnst
save = fastnst.Result.save
def slow(self, path, **more):
    open("saving", "w").close()
    time.sleep(1)
    return save(self, path, **more)
fastnst.Result.save = slow
"""
LONG = ("--size", "48", "--steps", "1000000", "--scales", "1", *LAYERS)


def start(*words: object, before: str = "") -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", START.format(before=before), *map(str, words)],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    while not path.exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("number", "by"), [(signal.SIGINT, ""), (signal.SIGTERM, " by SIGTERM"), (signal.SIGHUP, " by SIGHUP")]
)
@pytest.mark.sweep(3)
def test_a_signal_saves_the_result_so_far(
    here: Path, content: Path, style: Path, number: signal.Signals, by: str
) -> None:
    process = start("stylize", content, style, "-o", "out.png", *LONG, "--snapshot-every", 3)
    wait_for(here / "out_0003.png", process)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert out.splitlines()[-1] == "out.png"
    assert err.endswith(f"fastnst: interrupted{by}; the result so far has been saved\n")
    assert "Traceback" not in err
    with Image.open(here / "out.png") as image:
        assert image.size == (48, 36)


def test_more_signals_while_saving_change_nothing(here: Path, content: Path, style: Path) -> None:
    words = ("stylize", content, style, "-o", "out.png", *LONG, "--checkpoint", "run.ckpt", "--checkpoint-every", 2)
    process = start(*words, before=SLOW_SAVING)
    wait_for(here / "run.ckpt", process)
    process.send_signal(signal.SIGINT)
    wait_for(here / "saving", process)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        process.send_signal(number)
        time.sleep(0.05)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "out.png\n")
    assert err.endswith("fastnst: interrupted; the result so far has been saved; --resume continues from run.ckpt\n")
    assert "Traceback" not in err
    with Image.open(here / "out.png") as image:
        assert image.size == (48, 36)


def test_signals_until_the_process_ends_give_no_traceback(here: Path, content: Path, style: Path) -> None:
    process = start("stylize", content, style, "-o", "out.png", *LONG, "--snapshot-every", 3)
    wait_for(here / "out_0003.png", process)
    while process.poll() is None:
        process.send_signal(signal.SIGINT)
        time.sleep(0.002)
    _, err = process.communicate()
    assert process.returncode == 130
    assert "Traceback" not in err


def test_what_nohup_ignores_stays_ignored(here: Path, content: Path, style: Path) -> None:
    ignoring = "signal.signal(signal.SIGHUP, signal.SIG_IGN)"
    process = start("stylize", content, style, "-o", "out.png", *LONG, "--snapshot-every", 3, before=ignoring)
    wait_for(here / "out_0003.png", process)
    process.send_signal(signal.SIGHUP)
    time.sleep(0.2)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 143


def test_of_several_ranks_sigterm_ends_each_at_once(here: Path) -> None:
    """A rank that waits for one that has died would not hear it."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    with handling_signals(2):
        assert {number: signal.getsignal(number) for number in before} == before


def test_handlers_are_restored_after_the_block() -> None:
    before = {number: signal.signal(number, signal.SIG_DFL) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        with handling_signals() as caught:
            assert all(signal.getsignal(number) is caught for number in before)
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGHUP)  # the second is not heard
            assert caught.first == signal.SIGTERM
        assert all(signal.getsignal(number) == signal.SIG_DFL for number in before)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_handlers_of_others_and_other_threads_are_left_alone() -> None:
    before = signal.signal(signal.SIGTERM, lambda *_: None)
    try:
        mine = signal.getsignal(signal.SIGTERM)
        with handling_signals(), signals_held():
            assert signal.getsignal(signal.SIGTERM) is mine
    finally:
        signal.signal(signal.SIGTERM, before)
    found: list[object] = []

    def elsewhere() -> None:
        with handling_signals() as caught, signals_held():
            found.extend([caught, signal.getsignal(signal.SIGINT)])

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert isinstance(found[0], Interrupts)
    assert found[1] is signal.getsignal(signal.SIGINT)


def test_held_signals_arrive_after_the_block() -> None:
    came: list[object] = []

    def saving(caught: Interrupts) -> None:
        with signals_held():
            signal.raise_signal(signal.SIGTERM)
            came.append(caught.first)

    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        with handling_signals() as caught, pytest.raises(KeyboardInterrupt):
            saving(caught)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert (came, caught.first) == ([None], signal.SIGTERM)
    assert process.NAMES == ("SIGINT", "SIGTERM", "SIGHUP")

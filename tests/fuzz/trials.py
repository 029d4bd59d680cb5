"""Faulty readers, to test the harness itself."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from .readers import Reader


def _well(path: Path) -> None:
    path.read_bytes()


def _crash(path: Path) -> None:
    if path.read_bytes() != b"first":
        os.kill(os.getpid(), signal.SIGSEGV)


def _hang(path: Path) -> None:
    if path.read_bytes() != b"first":
        time.sleep(3600)


def _fill(path: Path) -> None:
    if path.read_bytes() != b"first":
        bytearray(1 << 33)


def _fail(path: Path) -> None:
    if path.read_bytes() != b"first":
        raise KeyError("name")


def _mumble(path: Path) -> None:
    from fastnst.errors import ImageError

    raise ImageError("two\nlines" if path.read_bytes() != b"first" else "one line")


def _trial(read: object) -> Reader:
    return Reader(".txt", lambda random: str(random.random()).encode(), read, lambda: [b"first"])  # type: ignore[arg-type]


TRIALS = {"well": _well, "crash": _crash, "hang": _hang, "fill": _fill, "fail": _fail, "mumble": _mumble}
TRIAL_READERS = {f"trial-{name}": _trial(read) for name, read in TRIALS.items()}

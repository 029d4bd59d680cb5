"""The standard streams: closed ones, readers that have gone, and the length of a line."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path
from typing import TextIO

LONGEST_LINE = 4000
"""Characters of a line on stderr, at most. Names of files can be this long."""


def prepare() -> None:
    """Replace closed streams by the null device, and write file names that the terminal's encoding does not cover."""
    null = Path(os.devnull)
    sys.stdout = sys.stdout or null.open("w")
    sys.stderr = sys.stderr or null.open("w")
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="surrogateescape")


def flush() -> None:
    """Flush stdout now: at exit, Python would print an error if the reader has gone."""
    try:
        sys.stdout.flush()
    except OSError:
        discard(sys.stdout)


def discard(stream: TextIO) -> None:
    """Redirect a stream, with what it has buffered, to the null device."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, stream.fileno())
    os.close(null)

"""What the command line writes: results on stdout and messages on stderr, on lines of their own beside a bar."""

from __future__ import annotations

import errno
import json
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tqdm import tqdm

from fastnst.cli.streams import LONGEST_LINE, discard
from fastnst.errors import FastnstError, printable


class Messages(logging.Handler):
    """Writes log records to stderr, each on a line above the bar."""

    def emit(self, record: logging.LogRecord) -> None:
        level = "" if record.levelno <= logging.INFO else f"{record.levelname.lower()}: "
        text = " ".join(line.strip() for line in record.getMessage().splitlines() if line.strip())
        try:
            tqdm.write(f"fastnst: {level}{printable(text, LONGEST_LINE)}", file=sys.stderr)
        except Exception:  # a message that cannot be shown must not end the run
            self.handleError(record)


@contextmanager
def messages(quiet: bool) -> Iterator[None]:
    """Show what the library logs during the block; with ``quiet`` only errors."""
    log = logging.getLogger("fastnst")
    before, handler = log.level, Messages()
    log.addHandler(handler)
    log.setLevel(logging.ERROR if quiet else logging.INFO)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(before)


def say(text: str) -> None:
    """Write a line to stdout. A reader that has gone does not end the run: the results are in files."""
    try:
        tqdm.write(text, file=sys.stdout)
        sys.stdout.flush()
    except OSError as error:
        discard(sys.stdout)
        if error.errno not in (errno.EPIPE, errno.EIO):  # EIO: a terminal that was closed
            raise FastnstError(f"stdout: cannot be written ({error.strerror})") from error


def say_json(value: Any) -> None:
    """Write a value to stdout as one line of JSON in printable ASCII."""
    say(json.dumps(value).replace("\x7f", "\\u007f"))


class Results:
    """Writes the path of each result to stdout as it is made, or with ``as_json`` one object at the end."""

    def __init__(self, as_json: bool) -> None:
        self.as_json = as_json
        self.paths: list[str] = []

    def add(self, path: os.PathLike[str]) -> None:
        """Report a file that was written."""
        self.paths.append(os.fspath(path))
        if not self.as_json:
            text = self.paths[-1]
            say(printable(text, None) if sys.stdout.isatty() else text)  # as ls does

    def finish(self, **facts: Any) -> None:
        """Write the JSON object with ``paths`` and ``facts``."""
        if self.as_json:
            say_json({"paths": self.paths, **facts})

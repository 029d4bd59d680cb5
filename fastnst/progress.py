"""What a person sees while it runs: bars and messages on stderr, paths of results on stdout, none tearing the other."""

from __future__ import annotations

import errno
import json
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any, TextIO

from tqdm import tqdm

from fastnst.errors import FastnstError, printable

if TYPE_CHECKING:
    from fastnst.optimize import Step

LONGEST = 4000  # characters of a message at most
_FORMAT = "{percentage:3.0f}%|{bar:24}| {desc}"


class Messages(logging.Handler):
    """Writes log records to stderr as lines of their own, above a bar if there is one."""

    def emit(self, record: logging.LogRecord) -> None:
        level = "" if record.levelno <= logging.INFO else f"{record.levelname.lower()}: "
        try:
            tqdm.write(f"fastnst: {level}{printable(one_line(record.getMessage()), LONGEST)}", file=sys.stderr)
        except Exception:  # a message that cannot be shown must not end the work
            self.handleError(record)


@contextmanager
def messages(quiet: bool) -> Iterator[None]:
    """Show what the library logs for the length of the block; with ``quiet`` errors alone."""
    log = logging.getLogger("fastnst")
    before, handler = log.level, Messages()
    log.addHandler(handler)
    log.setLevel(logging.ERROR if quiet else logging.INFO)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(before)


def one_line(text: str) -> str:
    """The text without line breaks."""
    return " ".join(line.strip() for line in text.splitlines() if line.strip())


def say(text: str) -> None:
    """Write a line to stdout. A reader that has gone does not stop the work: the results are in the files."""
    try:
        tqdm.write(text, file=sys.stdout)
        sys.stdout.flush()
    except OSError as error:
        discard(sys.stdout)
        if error.errno not in (errno.EPIPE, errno.EIO):  # the latter of a terminal that was closed
            raise FastnstError(f"stdout: cannot be written ({error.strerror})") from error


def say_json(value: Any) -> None:
    """Write a value as JSON, in printable characters of ASCII, as a line to stdout."""
    say(json.dumps(value).replace("\x7f", "\\u007f"))


def discard(stream: TextIO) -> None:
    """Send what a stream still holds, and all that follows, nowhere: Python would complain about it at exit."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


class Results:
    """The paths of results on stdout, one a line as they come; with ``as_json`` one object at the end instead."""

    def __init__(self, as_json: bool) -> None:
        self.as_json = as_json
        self.paths: list[str] = []

    def add(self, path: os.PathLike[str]) -> None:
        self.paths.append(os.fspath(path))
        if not self.as_json:
            text = self.paths[-1]
            say(printable(text, None) if sys.stdout.isatty() else text)  # as ls does

    def finish(self, **facts: Any) -> None:
        if self.as_json:
            say_json({"paths": self.paths, **facts})


class _Bar:
    """A bar from 0 to 1 that appears with the first news, so that an early error stands alone."""

    def __init__(self, quiet: bool) -> None:
        self._quiet = quiet
        self._bar: tqdm[Any] | None = None

    def show(self, fraction: float, text: str) -> None:
        try:
            self._show(fraction, text)
        except OSError:  # nobody reads it any more: no reason to stop the work
            self._quiet, self._bar = True, None

    def _show(self, fraction: float, text: str) -> None:
        text = printable(text)
        if self._bar is None:
            # Not on a terminal, each refresh stays in a log: few will do.
            interval = 0.1 if sys.stderr.isatty() else 10.0
            self._bar = tqdm(
                total=1.0,
                desc=text,
                bar_format=_FORMAT,
                dynamic_ncols=True,
                file=sys.stderr,
                disable=self._quiet,
                mininterval=interval,
                miniters=0,
            )
        self._bar.set_description_str(text, refresh=False)
        self._bar.update(min(fraction, 1.0) - self._bar.n)

    def close(self, text: str = "") -> None:
        if self._bar is not None:
            if text:
                self._bar.set_description_str(printable(text), refresh=False)
            self._bar.close()
            self._bar = None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


class StepBar(_Bar):
    """Shows each step: its number, the loss and the time left. A callback of the loop."""

    def __init__(self, quiet: bool) -> None:
        super().__init__(quiet)
        self._last: Step | None = None

    def __enter__(self) -> StepBar:
        return self

    def __call__(self, step: Step) -> None:
        self._last = step
        self.show(fraction_done(step), f"{describe(step)}  {tqdm.format_interval(step.remaining)} left")

    def close(self, text: str = "") -> None:
        if self._last is not None:
            text = f"{describe(self._last)}  {tqdm.format_interval(self._last.seconds)}"
        super().close(text)


class GalleryBar(_Bar):
    """Shows the steps of one pair after the other, and the time left for all of them."""

    def __init__(self, quiet: bool) -> None:
        super().__init__(quiet)
        self._before = 0.0
        self._now = (0, 0.0)

    def __enter__(self) -> GalleryBar:
        return self

    def show_step(self, name: str, number: int, count: int, step: Step) -> None:
        """Step ``step`` of the pair ``number`` of ``count``."""
        if number != self._now[0]:
            self._before += self._now[1]
        self._now = (number, step.seconds)
        fraction = (number - 1 + fraction_done(step)) / count
        left = tqdm.format_interval((self._before + step.seconds) * (1 - fraction) / fraction)
        self.show(fraction, f"pair {number}/{count} {name}  {describe(step)}  {left} left")


class ByteBar(_Bar):
    """Shows a download. The ``progress`` of :func:`fastnst.weights.fetch`."""

    def __init__(self, name: str, quiet: bool) -> None:
        super().__init__(quiet)
        self._name = name

    def __enter__(self) -> ByteBar:
        return self

    def __call__(self, done: int, total: int | None) -> None:
        of = f" of {total / 1e6:.1f}" if total else ""
        self.show(done / total if total else 0.0, f"{self._name}  {done / 1e6:.1f}{of} MB")


def fraction_done(step: Step) -> float:
    """How much of the run is done after ``step``, 0..1."""
    whole = step.seconds + step.remaining
    return step.seconds / whole if whole > 0 else 0.0


def describe(step: Step) -> str:
    """Scale, step and loss in a few words."""
    scale = f"scale {step.scale}/{step.scales} " if step.scales > 1 else ""
    return f"{scale}step {step.step}/{step.steps}  loss {step.losses.total:.4g}"

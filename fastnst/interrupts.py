"""Ctrl-C, SIGTERM and SIGHUP: the command line saves what there is, and nothing is cut off while it is being saved."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

NAMES = ("SIGINT", "SIGTERM", "SIGHUP")  # not every system has all of them


GRACE = 60.0  # seconds in which a run that was interrupted may save what there is


class Interrupts:
    """The handler of signals that end a run: the first raises KeyboardInterrupt, those of the next ``GRACE`` seconds
    are ignored, so that none of them cuts off the saving. ``first`` is the signal that came, None before."""

    def __init__(self) -> None:
        self.first: signal.Signals | None = None
        self._until = -math.inf

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if time.monotonic() < self._until:
            return
        self.first = self.first or signal.Signals(number)
        self._until = time.monotonic() + GRACE
        raise KeyboardInterrupt


@contextmanager
def heeded(ranks: int = 1, *, to_the_end: bool = False) -> Iterator[Interrupts]:
    """Let SIGINT, SIGTERM and SIGHUP interrupt the block; for the command line, not for a library.

    A signal that is ignored, as by nohup, or has a handler of another program, is left alone, and so is every one
    outside the main thread. Of several ranks SIGTERM and SIGHUP end each at once: torchrun sends them where a rank has
    died, for which the others would wait. The handlers of before are back after the block, except that with
    ``to_the_end``, for a process that then ends, signals stay ignored once one has come.
    """
    handler, before = Interrupts(), {}
    if threading.current_thread() is threading.main_thread():
        for number in _signals() if ranks == 1 else [signal.SIGINT]:
            if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
                before[number] = signal.signal(number, handler)
    try:
        yield handler
    finally:
        for number, old in before.items():
            signal.signal(number, signal.SIG_IGN if to_the_end and handler.first is not None else old)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Hold back a Ctrl-C until the block has ended, and the signals that are :func:`heeded`; then they do what they do.

    For moments in which stopping would cost a result. Outside the main thread, where signals do not arrive, and where
    SIGINT is ignored or not Python's, nothing is changed.
    """
    before: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        handlers = {number: signal.getsignal(number) for number in _signals()}
        before = {
            number: handler
            for number, handler in handlers.items()
            if isinstance(handler, Interrupts) or (number == signal.SIGINT and callable(handler))
        }
    caught: list[int] = []

    def hold(number: int, frame: FrameType | None) -> None:
        caught.append(number)

    for number in before:
        signal.signal(number, hold)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    for number in caught:
        before[number](number, None)


def _signals() -> list[signal.Signals]:
    return [getattr(signal, name) for name in NAMES if hasattr(signal, name)]

"""The process: the memory it holds, and the signals that interrupt it."""

from __future__ import annotations

import ctypes
import math
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h


def release_memory() -> None:
    """Return freed memory to the system (glibc only). Settings of the process do not change."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def limit_kept_memory() -> None:
    """From now on return freed blocks of 16 MB and more at once (glibc only). For the command line, not for a library.

    By default glibc keeps freed blocks of up to 32 MB in a fragmented heap, which stays resident. With a threshold
    below 16 MB it would map the workspace of every convolution again, and page faults would cost as much as the work.
    """
    with suppress(OSError, AttributeError):
        library = ctypes.CDLL(None)
        library.mallopt(M_MMAP_THRESHOLD, 16 * 2**20)
        library.mallopt(M_TRIM_THRESHOLD, 16 * 2**20)


def resident() -> int:
    """Bytes this process holds now."""
    import psutil  # late, for the command line: --help does not need it

    return int(psutil.Process(os.getpid()).memory_info().rss)


NAMES = ("SIGINT", "SIGTERM", "SIGHUP")  # not every system has all of them
GRACE = 60.0  # seconds in which an interrupted run may save its results


class Interrupts:
    """A handler of signals that end a run. The first signal raises KeyboardInterrupt; signals in the next ``GRACE``
    seconds are ignored, so that saving is not interrupted. ``first`` is the first signal, None before it."""

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
def handling_signals(ranks: int = 1, *, to_the_end: bool = False) -> Iterator[Interrupts]:
    """Let SIGINT, SIGTERM and SIGHUP interrupt the block. For the command line, not for a library.

    Signals that are ignored, as under nohup, or have another handler are left alone, and so are all signals outside the
    main thread. With several ranks, SIGTERM and SIGHUP end the process at once: torchrun sends them when a rank has
    died, and the others would wait for it. The previous handlers are restored after the block; with ``to_the_end``, for
    a process that then ends, signals are ignored instead once one has arrived.
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
def signals_held() -> Iterator[None]:
    """Delay Ctrl-C, and the signals of :func:`handling_signals`, until the block has ended.

    For moments in which an interrupt would lose a result. Does nothing outside the main thread, where signals do not
    arrive, and if SIGINT is ignored or not handled by Python.
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

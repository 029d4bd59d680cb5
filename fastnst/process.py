"""The process: the memory it holds, the signals that interrupt it, and what a fork leaves of its threads."""

from __future__ import annotations

import ctypes
import math
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

from fastnst.errors import FastnstError

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


class _Fork:
    """Whether this process is a fork whose threads have not been tried yet."""

    untried = False

    @classmethod
    def note(cls) -> None:
        cls.untried = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_Fork.note)
FORK_SECONDS = 10.0  # after which an operation on several threads is taken to hang; it takes milliseconds


def check_threads_after_fork() -> None:
    """Raise FastnstError in a forked process in which operations on several threads hang.

    A fork inherits the state of OpenMP but not its threads, so that PyTorch's own operations wait for them for ever if
    the parent had used them (https://github.com/pytorch/pytorch/issues/17199). Whether they do is tried in a fork of
    this process.
    """
    if not _Fork.untried:
        return
    import torch  # late, for the command line: --help does not need it

    if torch.get_num_threads() == 1:  # it may become more
        return
    child = os.fork()
    if child == 0:
        try:
            torch.ones(2**20, dtype=torch.float32, device="cpu").sum()
        finally:
            os._exit(0)  # also for an exception, which would run the caller's handlers a second time
    if not _ends(child, FORK_SECONDS):
        raise FastnstError(
            "this process is a fork of one that has used PyTorch's threads, in which PyTorch's operations hang; "
            "call torch.set_num_threads(1) in it first, or start it with the method spawn"
        )
    _Fork.untried = False


def _ends(child: int, seconds: float) -> bool:
    """Whether a child process ends in time; otherwise, and where waiting is interrupted, it is killed."""
    until, ended = time.monotonic() + seconds, False
    try:
        while not ended and time.monotonic() < until:
            time.sleep(0.001)
            ended = os.waitpid(child, os.WNOHANG) != (0, 0)
    except ChildProcessError:  # SIGCHLD is ignored, or something else has awaited it
        ended = True
    finally:
        if not ended:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
    return ended


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


@contextmanager
def usual_scheduling() -> Iterator[None]:
    """At the end of the block, give the threads of this process the scheduling policy that they had before it.

    Where it may, as root, SVT-AV1 makes its threads and the one that opens it real-time (SCHED_FIFO, priority 99). They
    and every process that this one starts would run before all others. Threads that are new get the policy of the one
    that runs the block. Does nothing where there is no ``/proc``.
    """
    before = _policies()
    try:
        yield
    finally:
        usual = before.get(threading.get_native_id())
        for thread, found in _policies().items():
            wanted = before.get(thread, usual)
            if wanted is not None and found != wanted:
                with suppress(OSError):  # it has ended
                    os.sched_setscheduler(thread, wanted[0], os.sched_param(wanted[1]))


def _policies() -> dict[int, tuple[int, int]]:
    """Policy and priority of each thread of this process."""
    found: dict[int, tuple[int, int]] = {}
    with suppress(OSError):
        for thread in [int(path.name) for path in Path("/proc/self/task").iterdir()]:
            with suppress(OSError):
                found[thread] = (os.sched_getscheduler(thread), os.sched_getparam(thread).sched_priority)
    return found


def _signals() -> list[signal.Signals]:
    return [getattr(signal, name) for name in NAMES if hasattr(signal, name)]

"""The process that decodes pictures and makes plans for the server."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures import TimeoutError as TooLong  # another class than the built-in one before Python 3.11
from concurrent.futures.process import BrokenProcessPool
from typing import TYPE_CHECKING, Any

from fastnst.errors import ImageError, UsageError

if TYPE_CHECKING:
    from fastnst.studio.inspecting import Names

SECONDS = 120.0


class Superseded(UsageError):
    """A plan that nobody waits for any more."""


class Inspector:
    """One process for untrusted files. A file that ends it twice, or takes too long, is refused; a new one is started.

    Twice, because the process may also have been ended before the file came to it.
    """

    def __init__(self, max_pixels: int | None = None, seconds: float = SECONDS) -> None:
        self._max_pixels, self._seconds = max_pixels, seconds
        self._lock = threading.Lock()
        self._pool: ProcessPoolExecutor | None = None

    def picture(self, path: str, preview: str) -> dict[str, Any]:
        """See :func:`fastnst.studio.inspecting.inspect_picture`. Raises ImageError."""
        try:
            found: dict[str, Any] = self._call("inspect_picture", path, preview, self._max_pixels)
        except (BrokenProcessPool, TooLong):
            raise ImageError("cannot be decoded: it takes more memory or time than there is") from None
        return found

    def plan(self, run: dict[str, Any], measure: bool, wanted: Callable[[], bool] = lambda: True) -> dict[str, Any]:
        """See :func:`fastnst.studio.inspecting.make_plan`.

        Raises FastnstError; Superseded if the plan is not ``wanted`` any more when its turn comes.
        """
        try:
            found: dict[str, Any] = self._call("make_plan", run, measure, wanted=wanted)
        except (BrokenProcessPool, TooLong):
            raise UsageError("the plan takes more memory or time than there is; make the picture smaller") from None
        return found

    def names(self) -> Names:
        """See :class:`fastnst.studio.inspecting.Names`."""
        found: Names = self._call("names")
        return found

    def close(self) -> None:
        with self._lock:
            self._end()

    def _call(self, name: str, *arguments: Any, wanted: Callable[[], bool] = lambda: True) -> Any:
        with self._lock:
            if not wanted():
                raise Superseded("a newer plan has been asked for")
            try:
                return self._attempt(name, *arguments)
            except BrokenProcessPool:
                return self._attempt(name, *arguments)

    def _attempt(self, name: str, *arguments: Any) -> Any:
        if self._pool is None:
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(1, mp_context=context, initializer=_prepare)
        try:
            return self._pool.submit(_do, name, *arguments).result(self._seconds)
        except (BrokenProcessPool, TooLong):
            self._end()
            raise

    def _end(self) -> None:
        pool, self._pool = self._pool, None
        if pool is not None:
            for process in list((pool._processes or {}).values()):
                process.kill()
            pool.shutdown(wait=False, cancel_futures=True)


def _prepare() -> None:
    """Ctrl-C in the terminal is for the server, and warnings of decoders are for nobody."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    warnings.simplefilter("ignore")
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A server that is killed does not end its processes."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _do(name: str, *arguments: Any) -> Any:
    from fastnst.studio import inspecting

    function: Callable[..., Any] = getattr(inspecting, name)
    return function(*arguments)

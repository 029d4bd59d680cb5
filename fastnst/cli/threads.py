"""The threads of the CPU that a command uses."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from fastnst import limits
from fastnst.config.checks import check_number
from fastnst.config.parsing import parse_number
from fastnst.config.ranges import Range

THREADS = Range(1, 4096)


@contextmanager
def limited_threads(given: str | None) -> Iterator[None]:
    """A context in which torch uses ``given`` threads; None: as many as this process has CPUs, at most torch's default.

    A process with more threads than its quota has CPUs is paused for the rest of each period. Nothing happens in a
    command that has not imported torch. Raises UsageError for text that is not a number of threads.
    """
    wanted = None if given is None else check_number("--threads", parse_number(given, int), THREADS)
    torch = sys.modules.get("torch")
    if torch is None:
        yield
        return
    before = torch.get_num_threads()
    count = min(before, limits.cpus()) if wanted is None else int(wanted)
    if count != before:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        if count != before:
            torch.set_num_threads(before)

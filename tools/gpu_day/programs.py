"""Programs with a time limit and a log; a failure is a result and not the end."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tools.gpu_day.options import DayError


@dataclass
class Outcome:
    """How a part ended: ``ok``, ``failed``, ``out of time`` or ``skipped``, and what there is to say about it."""

    part: str
    state: str
    seconds: float = 0.0
    note: str = ""
    lines: list[str] = field(default_factory=list)


class Deadline:
    """The end of the whole command."""

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock, self.end = clock, clock() + seconds

    def left(self, most: float = float("inf")) -> float:
        return max(0.0, min(most, self.end - self.clock()))


@dataclass(frozen=True)
class Ran:
    """The end of a program; ``code`` is None where its time was over."""

    code: int | None
    seconds: float
    log: str

    @property
    def state(self) -> str:
        return "out of time" if self.code is None else "failed" if self.code else "ok"

    def last(self) -> str:
        """The last line that says something."""
        return next((line.strip()[:150] for line in reversed(self.log.splitlines()) if line.strip()), "no output")


def run(
    command: Sequence[str | Path],
    log: Path,
    seconds: float,
    *,
    folder: Path,
    environment: Mapping[str, str] | None = None,
) -> Ran:
    """Run a program in a process group of its own; when its time is over, interrupt the group, then kill it."""
    start = time.monotonic()
    with log.open("wb") as file:
        file.write(f"$ {' '.join(map(str, command))}\n".encode())
        file.flush()
        try:
            child = subprocess.Popen(
                [str(word) for word in command],
                cwd=folder,
                env=dict(environment) if environment is not None else None,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            file.write(f"{command[0]}: {error.strerror}\n".encode())
            child = None
    code: int | None = 127
    if child is not None:
        try:
            code = child.wait(max(0.1, seconds))
        except subprocess.TimeoutExpired:
            code = None
        finally:
            end_group(child)
    return Ran(code, time.monotonic() - start, log.read_text(errors="replace"))


def end_group(child: subprocess.Popen[bytes]) -> None:
    """End the program and all that it started."""
    if child.poll() is None:
        child.send_signal(signal.SIGINT)  # pytest then still prints its summary
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(5)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def guarded(part: str, work: Callable[[], Outcome]) -> Outcome:
    """What ``work`` returns; an exception becomes the outcome of this part and does not stop the others."""
    start = time.monotonic()
    try:
        found = work()
    except DayError as error:
        found = Outcome(part, "skipped", note=str(error))
    except Exception as error:
        found = Outcome(part, "failed", note=f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:150]}")
    found.seconds = time.monotonic() - start
    return found


def joined_logs(logs: Iterable[Path], limit: int) -> str:
    """The logs one after the other; of a long one, its beginning and its end."""
    parts = []
    for path in logs:
        text = path.read_text(errors="replace")
        if len(text) > limit:
            text = f"{text[: limit // 4]}\n... {len(text) - limit} characters left out ...\n{text[-3 * limit // 4 :]}"
        parts.append(f"===== {path.stem}\n{text.rstrip()}\n")
    return "\n".join(parts)

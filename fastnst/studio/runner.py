"""The queue: starts a process for each run, listens to it, and keeps the records."""

from __future__ import annotations

import contextlib
import json
import subprocess
import threading
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from fastnst.errors import UsageError
from fastnst.studio import job as jobs
from fastnst.studio.job import ACTIVE, UNFINISHED, Job, Trace
from fastnst.studio.models import State
from fastnst.studio.processes import launch, record
from fastnst.studio.store import Visitor, remove

MOST_WAITING = 100
STOP_SECONDS = 60.0  # that a process has to save its state when the studio ends


class Conflict(UsageError):
    """A request that makes no sense in the state of a run."""


class Running:
    """A run of a visitor, in memory."""

    def __init__(self, visitor: Visitor, folder: Path, job: Job) -> None:
        self.visitor, self.folder, self.job, self.trace = visitor, folder, job, Trace(folder)
        self.process: subprocess.Popen[str] | None = None
        self.removed = False

    def save(self) -> None:
        """Write the record. On a full disk the old one stays, and the next change tries again."""
        if not self.removed:
            with contextlib.suppress(OSError):
                jobs.save(self.job, self.folder)

    def command(self, word: str) -> None:
        """Tell the process."""
        if self.process is None or self.process.stdin is None:
            return  # it is about to start, and reads the record
        with contextlib.suppress(OSError, ValueError):  # it has just ended
            print(word, file=self.process.stdin, flush=True)


class Runner:
    """Runs the jobs of all visitors, ``parallel`` at a time, in the order in which they were queued.

    Runs that were going on when the studio ended go on, from their checkpoints.
    """

    def __init__(self, visitors: Iterable[Visitor], parallel: int = 1) -> None:
        self._parallel = parallel
        self._changed = threading.Condition()  # of a reentrant lock
        self._known: dict[tuple[Path, str], Running] = {}
        self._closing = False
        self._threads: list[threading.Thread] = []
        for visitor in visitors:
            for folder in visitor.job_folders():
                self._recover(visitor, folder)
        self._loop = threading.Thread(target=self._start_jobs, name="queue", daemon=True)
        self._loop.start()

    def _recover(self, visitor: Visitor, folder: Path) -> None:
        job = jobs.load(folder)
        if job is None:
            return
        if job.state in ACTIVE:
            job.state = "paused" if job.state == "pausing" else "queued"
        self._known[visitor.folder, job.id] = Running(visitor, folder, job)

    def find(self, visitor: Visitor, identifier: str) -> Running | None:
        """A run of a visitor."""
        return self._known.get((visitor.folder, identifier))

    def all(self, visitor: Visitor) -> list[Running]:
        """The runs of a visitor, newest first."""
        found = [run for (folder, _), run in list(self._known.items()) if folder == visitor.folder]
        return sorted(found, key=lambda run: -run.job.created)

    def position(self, run: Running) -> int | None:
        """The place of a run in the queue."""
        waiting = self._waiting()
        return waiting.index(run) if run in waiting else None

    @property
    def busy(self) -> bool:
        """Whether a process is computing."""
        return any(run.job.state in ACTIVE for run in list(self._known.values()))

    def submit(self, visitor: Visitor, job_of: Mapping[str, Any]) -> Running:
        """Queue a new run. Raises UsageError if too many wait."""
        with self._changed:
            if len(self._waiting()) >= MOST_WAITING:
                raise UsageError(f"{MOST_WAITING} runs wait already; wait for one to end, or delete some")
            folder = visitor.new_job()
            run = Running(visitor, folder, Job(id=folder.name, **job_of))
            try:
                jobs.save(run.job, folder)
            except OSError:
                remove(folder)
                raise
            self._known[visitor.folder, run.job.id] = run
            self._changed.notify_all()
        return run

    def pause(self, run: Running) -> None:
        """Save the state of a run, and let others run. One that waits is taken out of the queue."""
        self._ask(run, "pause", "pausing", {"queued": "paused"})

    def keep(self, run: Running) -> None:
        """End a run with the picture that it has."""
        with self._changed:
            if run.job.state == "paused" and run.job.step:
                self._queue(run)
            elif run.job.state == "pausing":
                run.job.state = "stopping"
            else:
                self._ask(run, "keep", "stopping", {})
            run.job.keep = True
            run.save()

    def _ask(self, run: Running, word: str, state: State, at_once: Mapping[str, State]) -> None:
        with self._changed:
            job = run.job
            if job.state == "running":
                run.command(word)
                job.state = state
            elif job.state in at_once:
                job.state = at_once[job.state]
            else:
                raise Conflict(f"{word}: the run is {job.state}; expected one that is going on")
            run.save()

    def resume(self, run: Running) -> None:
        """Continue a run that is paused, or has failed."""
        with self._changed:
            if run.job.state not in ("paused", "failed"):
                raise Conflict(f"resume: the run is {run.job.state}; expected one that is paused or has failed")
            self._queue(run)

    def change(self, run: Running, texts: Mapping[str, str]) -> None:
        """Change settings of a run that waits, is paused, or goes on: that one continues from its picture."""
        with self._changed:
            job = run.job
            if job.state not in ("queued", "running", "pausing", "paused"):
                raise Conflict(f"change: the run is {job.state}; expected one that waits, goes on or is paused")
            job.change(texts)
            if job.state == "running":
                run.command("pause")
            run.save()

    def rename(self, run: Running, title: str) -> None:
        """Give a run another title."""
        with self._changed:
            run.job.title = title
            run.save()

    def delete(self, run: Running) -> None:
        """End a run and remove its files."""
        with self._changed:
            run.removed = True
            del self._known[run.visitor.folder, run.job.id]
            if run.process is not None:
                run.process.kill()
            else:
                remove(run.folder)

    def uses(self, visitor: Visitor, picture: str) -> bool:
        """Whether a run that has not ended reads a picture."""
        return any(run.job.state in UNFINISHED and picture in run.job.pictures for run in self.all(visitor))

    def close(self) -> None:
        """Save the state of what is going on, and end all processes. The next Runner continues."""
        with self._changed:
            self._closing = True
            going = [run for run in self._known.values() if run.process is not None]
            for run in going:
                run.command("pause")
            self._changed.notify_all()
        until = time.monotonic() + STOP_SECONDS
        for run in going:
            process = run.process
            if process is not None:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(max(0.0, until - time.monotonic()))
                process.kill()
        for thread in [self._loop, *self._threads]:
            thread.join(5)

    def _queue(self, run: Running) -> None:
        run.job.state, run.job.error, run.job.queued, run.job.ended = "queued", None, time.time(), None
        run.save()
        self._changed.notify_all()

    def _waiting(self) -> list[Running]:
        """The queue."""
        found = [run for run in list(self._known.values()) if run.job.state == "queued"]
        return sorted(found, key=lambda run: run.job.queued)

    def _start_jobs(self) -> None:
        while True:
            with self._changed:
                while not self._closing and not self._next():
                    self._changed.wait()
                if self._closing:
                    return
                run = self._next()
                assert run is not None
                run.job.state, run.job.started = "running", run.job.started or time.time()
                run.save()
            thread = threading.Thread(target=self._run, args=(run,), name=run.job.id, daemon=True)
            self._threads = [one for one in self._threads if one.is_alive()] + [thread]
            thread.start()

    def _next(self) -> Running | None:
        """The run to start now."""
        active = sum(run.job.state in ACTIVE for run in self._known.values())
        waiting = self._waiting()
        return waiting[0] if waiting and active < self._parallel else None

    def _run(self, run: Running) -> None:
        """Start the process of a run, listen to it, and record how it ended."""
        last: dict[str, Any] = {}
        try:
            with self._changed:
                if run.removed or self._closing:
                    return
                run.process = launch(run.visitor, run.folder, run.job)
                if run.job.keep or run.job.pending or run.job.state != "running":
                    run.command("keep" if run.job.keep or run.job.state == "stopping" else "pause")
                run.save()
            with run.process as process:
                assert process.stdout is not None
                for line in process.stdout:
                    with contextlib.suppress(ValueError):
                        last = json.loads(line)
                        with self._changed:
                            record(run.job, run.trace, last)
                code = process.wait()
            if last.get("event") not in ("end", "error"):
                last = {"event": "error", "message": _why_ended(code)}
        except (OSError, UsageError) as error:
            last = {"event": "error", "message": str(error)}
        finally:
            self._end(run, last)

    def _end(self, run: Running, last: Mapping[str, Any]) -> None:
        with self._changed:
            job, run.process = run.job, None
            if run.removed:
                remove(run.folder)
            elif self._closing and last.get("how") != "done" and job.state != "pausing":
                job.place = last.get("place", job.place)
                job.state = "queued"  # goes on when the studio starts again
            else:
                jobs.finish(job, last)
            with contextlib.suppress(OSError):
                run.trace.save()
                run.save()
            self._changed.notify_all()


def _why_ended(code: int) -> str:
    reason = f"by signal {-code}" if code < 0 else f"with exit code {code}"
    killed = ", as the system does when memory runs out" if code == -9 else ""
    return f"the process of the run ended {reason}{killed}; resume continues from its last checkpoint"

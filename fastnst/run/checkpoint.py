"""Checkpoints: a run that was interrupted by Ctrl-C, ``kill -9`` or a power cut can be resumed with the same result.

A new state is written beside the file, synchronized to the disk and renamed, so that the path always holds a whole
state, the new one or the one before.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from safetensors import SafetensorError

from fastnst.config.checks import check_number
from fastnst.config.ranges import Range
from fastnst.errors import CheckpointError, UsageError, shown
from fastnst.files import destination, obstacle, put
from fastnst.objective.protocol import Losses
from fastnst.optim.loop import LoopState
from fastnst.optim.progress import Clock
from fastnst.run import checkpoint_file
from fastnst.run.checkpoint_file import Identity, SavedRun
from fastnst.run.clashes import Named

log = logging.getLogger("fastnst")

EVERY = 50
_EVERY = Range(1, 10**9)


class Checkpoint:
    """The checkpoint file of one run at a time: a context manager.

    Args:
        path: the file, or a symbolic link to it. A lock ``.NAME.lock`` and, during the run, a folder ``.NAME.part`` are
            created beside the file.
        every: steps, over all scales, between two states; the end of each scale and of the run are written as well.
        resume: continue from the file if it exists.
        force: start over if the file is not to be resumed or cannot be.
        writes: whether this process writes; of several ranks one does, and all read.

    Raises:
        UsageError: ``every`` or ``path`` is not valid, or the file exists without ``resume`` or ``force``.
        CheckpointError: on entering: another run uses the file, or it cannot be written.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        every: int = EVERY,
        resume: bool = False,
        force: bool = False,
        writes: bool = True,
    ):
        self.path = Path(path)
        self.every: int = check_number("checkpoint_every", every, _EVERY)
        self.resume, self.force, self.writes = resume, force, writes
        self._part, lock = (Path(file) for _, file in files(self.path)[1:])
        self._target = destination(self.path)
        self._lock = FileLock(lock, timeout=0)
        self._facts: dict[str, Any] = {}

    def __enter__(self) -> Checkpoint:
        reason = obstacle(self.path)
        if reason is not None:
            raise CheckpointError(f"{self.path}: {reason}")
        try:
            if self.writes:
                Path(self._lock.lock_file).touch()
                self._lock.acquire()
        except Timeout:
            raise CheckpointError(f"{self.path}: another run is using it; give each run a file of its own") from None
        except OSError as error:
            raise CheckpointError(f"{self.path}: cannot be written ({error.strerror})") from error
        if self.path.exists() and not (self.resume or self.force):
            self._lock.release()
            raise UsageError(f"{self.path} exists already; continue from it with --resume, or start over with --force")
        if self.writes:
            shutil.rmtree(self._part, ignore_errors=True)  # left by a run that was killed
        return self

    def __exit__(self, *_: object) -> None:
        if self.writes:
            shutil.rmtree(self._part, ignore_errors=True)
        self._lock.release()

    def begin(self, identity: Identity) -> SavedRun:
        """The state to start from. Raises CheckpointError if the file holds anything but a state of this run."""
        self._facts = identity.facts()
        if not self.path.exists() or not self.resume:
            return SavedRun()
        try:
            saved = checkpoint_file.read(self.path, identity, self._facts)
        except CheckpointError as error:
            if not self.force:
                raise
            log.warning("%s; starting over", error)
            return SavedRun()
        if saved.finished:
            log.info("%s: this run is finished; returning its result", self.path)
        else:
            log.info("%s: continuing after step %d of scale %d", self.path, len(saved.loop.trace), saved.scale)
        return saved

    def writer(
        self, scale: int, before: Sequence[Sequence[Losses]], clock: Clock, strips: Mapping[str, int]
    ) -> ScaleWriter:
        """The writer for :func:`fastnst.optim.loop.optimize` in one scale."""
        return ScaleWriter(self, scale, before, clock, strips)

    def save(self, saved: SavedRun) -> None:
        """Write a state. If that fails, as on a full disk, the file keeps the last one, with a warning.

        A state that is not finite is not written: its last step is about to be rejected.
        """
        if not self.writes:
            return
        part = self._part / "run"  # in a folder of its own, since safetensors writes temporary files beside it
        try:
            self._part.mkdir(exist_ok=True)
            if not checkpoint_file.write(part, self._facts, saved):
                return
            part.chmod(Path(self._lock.lock_file).stat().st_mode)  # as any new file; safetensors is stricter
            _to_disk(part)
            put(part, self._target)
            _to_disk(self._target)
            if os.name == "posix":  # elsewhere a folder cannot be opened
                _to_disk(self._target.parent)
        except (OSError, SafetensorError) as error:
            log.warning("%s: cannot be written (%s); continuing, the file keeps its last state", self.path, error)


@dataclass(frozen=True)
class ScaleWriter:
    """Writes the states of one scale."""

    checkpoint: Checkpoint
    scale: int
    before: Sequence[Sequence[Losses]]
    clock: Clock
    strips: Mapping[str, int]

    @property
    def every(self) -> int:
        """Steps between two states."""
        return self.checkpoint.every

    def write(self, state: LoopState) -> None:
        """Write a state."""
        self.checkpoint.save(SavedRun(self.scale, self.before, state, self.clock.seconds, strips=self.strips))


def open_checkpoint(
    path: str | os.PathLike[str] | None,
    *,
    every: int = EVERY,
    resume: bool = False,
    force: bool = False,
    writes: bool = True,
) -> AbstractContextManager[Checkpoint | None]:
    """A :class:`Checkpoint`, or nothing for no path; raises UsageError where there is nothing to resume from."""
    if path is not None:
        return Checkpoint(path, every=every, resume=resume, force=force, writes=writes)
    if resume:
        raise UsageError("resume: expected the file to continue from as well (--checkpoint FILE)")
    return nullcontext()


def files(path: str | os.PathLike[str]) -> list[Named]:
    """What a checkpoint writes: the file, where a link leads to it, and beside it a folder and a lock.

    Raises UsageError for a path that cannot be that of a file, CheckpointError for one that the system refuses.
    """
    target = Path(os.fsdecode(path))
    if not target.name or "\0" in str(target):
        raise UsageError(f"checkpoint {shown(os.fsdecode(path))}: expected the name of a file")
    try:
        target = target.resolve()
        if target.is_dir():
            raise UsageError(f"{path}: is a folder, expected the name of a file")
    except (OSError, RuntimeError) as error:
        raise CheckpointError(f"{path}: cannot be written ({getattr(error, 'strerror', None) or error})") from error
    beside = (target.with_name(f".{target.name}.{suffix}") for suffix in ("part", "lock"))
    return [
        ("--checkpoint", Path(path)),
        *zip(("the folder of --checkpoint", "the lock of --checkpoint"), beside, strict=True),
    ]


def _to_disk(path: Path) -> None:
    """Wait until a file or folder is on the disk."""
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

"""A run in a file, so that it can be gone on with after anything: Ctrl-C, ``kill -9``, a power cut.

The file is of the safetensors kind: its tensors are the image, the last good one, the optimiser's state, the average;
the rest (settings, losses so far, fingerprints of the pictures) is JSON in its metadata, beside the SHA-256 of it all.
It is written beside its place, brought to the disk and renamed, so that the path holds a whole place of the run or the
one before. No random state is kept: a run draws numbers for its start image alone, which the file then holds.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from fastnst.errors import CheckpointError, UsageError
from fastnst.files import destination, obstacle, put
from fastnst.objective import Losses
from fastnst.optimize import Clock, Place
from fastnst.settings import Settings

log = logging.getLogger("fastnst")

FORMAT = 2  # 1 knew weights by their name alone
EVERY = 50
# Settings that may differ between a checkpoint and the run that goes on from it: where it is computed, what is shown.
FREE = ("preset", "snapshot_every", "max_pixels", "device", "convolution", "graph", "tiles", "memory")


@dataclass(frozen=True)
class Identity:
    """What a run is made of: two of the same identity give the same picture."""

    settings: Settings
    pictures: Mapping[str, Tensor | None]  # as they are used, by what they are to the run
    weights: str  # what they are called
    weights_digest: str  # of what the network uses of them: see :func:`digest`

    def facts(self) -> dict[str, Any]:
        """The same as JSON has it, fingerprints in place of pictures."""
        pictures = {name: digest([picture]) for name, picture in self.pictures.items() if picture is not None}
        weights = {"name": self.weights, "sha256": self.weights_digest}
        facts = {"settings": self.settings.to_dict(), "pictures": pictures, "weights": weights}
        plain: dict[str, Any] = json.loads(json.dumps(facts, default=os.fspath))
        return plain


@dataclass(frozen=True)
class Saved:
    """A place of a run: in scale ``scale``, from 1, with the losses of the scales before. Where the run is
    ``finished``, the place holds the last image alone. ``Saved()`` is the beginning."""

    scale: int = 1
    before: Sequence[Sequence[Losses]] = ()
    place: Place = field(default_factory=Place)
    seconds: float = 0.0
    finished: bool = False
    stopped: str | None = None


class Checkpoint:
    """The file that a run is kept in, and lent to one run at a time: a context manager.

    Args:
        path: the file, or a symbolic link to it. Beside the file lie a lock, ``.NAME.lock``, and for the length of the
            run a folder ``.NAME.part``.
        every: steps, over all scales, from one writing to the next; the end of each scale and of the run come on top.
        resume: go on from what the file holds, or begin if there is none.
        writes: whether this process keeps the run; where several make it together, one does, and all read.
        force: begin anew where there is a file that is not to be resumed, or that cannot be.

    Raises:
        UsageError: ``every`` makes no sense, or there is a file and neither ``resume`` nor ``force`` is given.
        CheckpointError: on entering: another run uses the file, or none can be written there.
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
        if isinstance(every, bool) or not isinstance(every, int) or every < 1:
            raise UsageError(f"checkpoint_every: expected a whole number of at least 1, got {every!r}")
        self.every, self.resume, self.force, self.writes = every, resume, force, writes
        self._file = destination(self.path)
        self._part = self._file.with_name(f".{self._file.name}.part")
        self._lock = FileLock(self._file.with_name(f".{self._file.name}.lock"), timeout=0)
        self._facts: dict[str, Any] = {}

    def __enter__(self) -> Checkpoint:
        if self.path.is_dir():
            raise UsageError(f"{self.path}: is a folder, expected the name of a file")
        reason = obstacle(self.path) if self.writes else None
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
            raise UsageError(f"{self.path} is there already; go on from it with --resume, or begin anew with --force")
        if self.writes:
            shutil.rmtree(self._part, ignore_errors=True)  # of a run that was killed
        return self

    def __exit__(self, *_: object) -> None:
        if self.writes:
            shutil.rmtree(self._part, ignore_errors=True)
        self._lock.release()

    def begin(self, identity: Identity) -> Saved:
        """Where the run that is to be made stands. Raises CheckpointError where the file holds anything else."""
        self._facts = identity.facts()
        if not self.path.exists() or not self.resume:
            return Saved()
        try:
            saved = self._read()
        except CheckpointError as error:
            if not self.force:
                raise
            log.warning("%s; beginning anew", error)
            return Saved()
        if saved.finished:
            log.info("%s: this run is finished, here is its result", self.path)
        else:
            log.info("%s: going on after step %d of scale %d", self.path, len(saved.place.trace), saved.scale)
        return saved

    def keeper(self, scale: int, before: Sequence[Sequence[Losses]], clock: Clock) -> ScaleKeeper:
        """What :func:`fastnst.optimize.optimize` gives the places of a scale to."""
        return ScaleKeeper(self, scale, before, clock)

    def save(self, saved: Saved) -> None:
        """Write a place of the run. Where that fails, as on a full disk, the last one stands, and a warning says so."""
        if not self.writes:
            return
        memory = saved.place.memory
        tensors = {name: x.detach().cpu().contiguous() for name, x in memory.items() if isinstance(x, Tensor)}
        header = {
            **self._facts,
            "numbers": {name: x for name, x in memory.items() if name not in tensors},
            "trace": [[dataclasses.asdict(losses) for losses in scale] for scale in (*saved.before, saved.place.trace)],
            **{name: getattr(saved, name) for name in ("scale", "seconds", "finished", "stopped")},
        }
        text = json.dumps(header)
        metadata = {"fastnst checkpoint": str(FORMAT), "run": text, "sha256": _digest_all(text, tensors)}
        part = self._part / "run"  # a folder of our own, since save_file has temporary files besides
        try:
            self._part.mkdir(exist_ok=True)
            save_file(tensors, part, metadata)
            part.chmod(Path(self._lock.lock_file).stat().st_mode)  # as of any new file; save_file is stricter
            _to_disk(part)
            put(part, self._file)
            _to_disk(self._file)
            if os.name == "posix":  # elsewhere a folder cannot be opened
                _to_disk(self._file.parent)
        except (OSError, SafetensorError) as error:
            log.warning("%s: cannot be written (%s); going on, the last place written stands", self.path, error)

    def _read(self) -> Saved:
        try:
            with safe_open(self.path, framework="pt") as file:
                metadata = file.metadata() or {}
                names = file.keys()
                tensors = {name: file.get_tensor(name).clone() for name in names}  # the file may be written over
        except OSError as error:
            raise CheckpointError(f"{self.path}: cannot be read ({error.strerror})") from error
        except SafetensorError as error:
            raise CheckpointError(f"{self.path}: damaged, or not a checkpoint ({error})") from None
        version = metadata.get("fastnst checkpoint")
        if version is None:
            raise CheckpointError(f"{self.path}: not a checkpoint of fastnst")
        if version != str(FORMAT):
            raise CheckpointError(f"{self.path}: a checkpoint of format {version}; this fastnst reads format {FORMAT}")
        text = metadata.get("run", "")
        if metadata.get("sha256") != _digest_all(text, tensors):
            raise CheckpointError(f"{self.path}: damaged: its SHA-256 is not the one written in it")
        header = json.loads(text)
        self._compare(header)
        *before, trace = ([Losses(**losses) for losses in scale] for scale in header["trace"])
        known = {name: header[name] for name in ("scale", "seconds", "finished", "stopped")}
        return Saved(before=before, place=Place(trace, {**tensors, **header["numbers"]}), **known)

    def _compare(self, header: Mapping[str, Any]) -> None:
        """Raise CheckpointError, naming the first difference, where the file is of another run."""
        was, now = header["settings"], self._facts["settings"]
        usual = json.loads(json.dumps(Settings().to_dict()))  # of settings that the fastnst of then did not have
        for name in dict.fromkeys((*now, *was)):
            old = was.get(name, usual.get(name))
            if name not in FREE and old != now.get(name):
                raise CheckpointError(
                    f"{self.path}: of a run with other settings: {name} was {_short(old)}, is {_short(now.get(name))}"
                )
        old, new = header["weights"], self._facts["weights"]
        if old["sha256"] != new["sha256"]:
            told = [f"{weights['name']} (SHA-256 {weights['sha256'][:12]}...)" for weights in (old, new)]
            raise CheckpointError(f"{self.path}: of a run with other weights: {told[0]}, not {told[1]}")
        for name in dict.fromkeys((*self._facts["pictures"], *header["pictures"])):
            if header["pictures"].get(name) != self._facts["pictures"].get(name):
                raise CheckpointError(f"{self.path}: of a run with another {name} picture")


@dataclass(frozen=True)
class ScaleKeeper:
    """Keeps the places of one scale."""

    checkpoint: Checkpoint
    scale: int
    before: Sequence[Sequence[Losses]]
    clock: Clock

    @property
    def every(self) -> int:
        return self.checkpoint.every

    def keep(self, place: Place) -> None:
        self.checkpoint.save(Saved(self.scale, self.before, place, self.clock.seconds))


def keeping(
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
        raise UsageError("resume: expected the file to go on from as well (--checkpoint FILE)")
    return nullcontext()


def _digest_all(text: str, tensors: Mapping[str, Tensor]) -> str:
    return digest([tensors[name] for name in sorted(tensors)], text)


def digest(tensors: Sequence[Tensor], text: str = "") -> str:
    """The SHA-256, in hexadecimal digits, of a text and of dtype, shape and values of tensors of any kind."""
    found = hashlib.sha256(text.encode())
    for tensor in tensors:
        found.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
        found.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return found.hexdigest()


def _to_disk(path: Path) -> None:
    """Wait until what the file or folder holds is on the disk."""
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."

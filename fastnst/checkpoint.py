"""A run in a file, so that it can be gone on with after anything: Ctrl-C, ``kill -9``, a power cut.

The file is of the safetensors kind: its tensors are the image, the last good one, the optimiser's state, the average;
the rest (settings, losses so far, fingerprints of the pictures) is JSON in its metadata, beside the SHA-256 of it all.
It is written beside its place, brought to the disk and renamed, so that the path holds a whole place of the run or the
one before. No random state is kept: a run draws numbers for its start image alone, which the file then holds.
"""

from __future__ import annotations

import dataclasses
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

from fastnst import schema
from fastnst.digests import digest
from fastnst.errors import CheckpointError, UsageError, printable, shown
from fastnst.files import destination, obstacle, put
from fastnst.inputs import Named
from fastnst.objective import Losses
from fastnst.optimize import Clock, Place
from fastnst.settings import Range, Settings, check_number, recipe
from fastnst.walk import all_finite

log = logging.getLogger("fastnst")

FORMAT = 3  # 1 knew weights by their name alone, 2 did not record strips
EVERY = 50
_EVERY = Range(1, 10**9)
_DTYPES = {"F64": torch.float64, "F32": torch.float32, "BF16": torch.bfloat16}  # as safetensors calls them


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
    strips: Mapping[str, int] = field(default_factory=dict)
    """The rows of strips by width and height, where memory chose them."""


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
        UsageError: ``every`` or ``path`` makes no sense, or there is a file and neither ``resume`` nor ``force`` is
            given.
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
        self.every: int = check_number("checkpoint_every", every, _EVERY)
        self.resume, self.force, self.writes = resume, force, writes
        self._part, lock = (Path(file) for _, file in files(self.path)[1:])
        self._target = destination(self.path)
        self._lock = FileLock(lock, timeout=0)
        self._facts: dict[str, Any] = {}
        self._identity: Identity | None = None

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
        self._identity, self._facts = identity, identity.facts()
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

    def keeper(
        self, scale: int, before: Sequence[Sequence[Losses]], clock: Clock, strips: Mapping[str, int]
    ) -> ScaleKeeper:
        """What :func:`fastnst.optimize.optimize` gives the places of a scale to."""
        return ScaleKeeper(self, scale, before, clock, strips)

    def save(self, saved: Saved) -> None:
        """Write a place of the run. Where that fails, as on a full disk, the last one stands, and a warning says so."""
        if not self.writes:
            return
        memory = saved.place.memory
        tensors = {name: x.detach().cpu().contiguous() for name, x in memory.items() if isinstance(x, Tensor)}
        if not all(map(all_finite, tensors.values())):
            return  # a step too long, which is about to be taken back: the last place stands
        header = {
            **self._facts,
            "numbers": {name: x for name, x in memory.items() if name not in tensors},
            "trace": [[dataclasses.asdict(losses) for losses in scale] for scale in (*saved.before, saved.place.trace)],
            **{name: getattr(saved, name) for name in ("scale", "seconds", "finished", "stopped")},
            "strips": dict(saved.strips),
        }
        text = json.dumps(header)
        metadata = {"fastnst checkpoint": str(FORMAT), "run": text, "sha256": _digest_all(text, tensors)}
        part = self._part / "run"  # a folder of our own, since save_file has temporary files besides
        try:
            self._part.mkdir(exist_ok=True)
            save_file(tensors, part, metadata)
            part.chmod(Path(self._lock.lock_file).stat().st_mode)  # as of any new file; save_file is stricter
            _to_disk(part)
            put(part, self._target)
            _to_disk(self._target)
            if os.name == "posix":  # elsewhere a folder cannot be opened
                _to_disk(self._target.parent)
        except (OSError, SafetensorError) as error:
            log.warning("%s: cannot be written (%s); going on, the last place written stands", self.path, error)

    def _read(self) -> Saved:
        """What the file holds, if all of it is what a run of this identity writes."""
        try:
            with safe_open(self.path, framework="pt") as file:
                metadata = file.metadata() or {}
                self._check_format(metadata)
                kinds = {name: self._kind(name, file.get_slice(name)) for name in file.keys()}  # noqa: SIM118
                # The file is mapped, so none of this takes memory yet.
                tensors = {name: file.get_tensor(name) for name in kinds}
                text = metadata.get("run", "")
                if metadata.get("sha256") != _digest_all(text, tensors):
                    raise CheckpointError(f"{self.path}: damaged: its SHA-256 is not the one written in it")
                return self._checked(text, kinds, tensors)
        except OSError as error:
            raise CheckpointError(f"{self.path}: cannot be read ({error.strerror})") from error
        except SafetensorError as error:
            raise CheckpointError(f"{self.path}: damaged, or not a checkpoint ({error})") from None

    def _check_format(self, metadata: Mapping[str, str]) -> None:
        version = metadata.get("fastnst checkpoint")
        if version is None:
            raise CheckpointError(f"{self.path}: not a checkpoint of fastnst")
        if version != str(FORMAT):
            told = f"a checkpoint of format {printable(version, 40)}; this fastnst reads format {FORMAT}"
            raise CheckpointError(f"{self.path}: {told}")

    def _kind(self, name: str, part: Any) -> tuple[tuple[int, ...], torch.dtype]:
        """Shape and dtype of a tensor, by the header of the file."""
        dtype = part.get_dtype()
        if dtype not in _DTYPES:
            raise CheckpointError(f"{self.path}: not of a run: {shown(name)} is of type {shown(dtype)}")
        return tuple(part.get_shape()), _DTYPES[dtype]

    def _checked(self, text: str, kinds: schema.Tensors, tensors: Mapping[str, Tensor]) -> Saved:
        """The place that the file holds, of a run like this one: checked as :mod:`fastnst.schema` says."""
        assert self._identity is not None
        settings = self._identity.settings
        try:
            header = schema.HEADER(json.loads(text), "header")
            self._compare(header)
            content = self._identity.pictures["content"]
            assert content is not None
            sizes, scale, finished = schema.sizes(content, settings), header["scale"], header["finished"]
            schema.number(len(sizes) if finished else 1, len(sizes), whole=True)(scale, "scale")
            trace = schema.trace(settings, scale)(header["trace"], "trace")
            taken, here = [len(losses) for losses in trace], settings.at(scale)
            numbers = schema.numbers(here, taken, finished)(header["numbers"], "numbers")
        except (ValueError, RecursionError) as error:  # UsageError among them
            raise CheckpointError(f"{self.path}: not of a run: {error}") from None
        expected = schema.tensors(here, sizes[scale - 1], numbers, list(kinds), finished)
        for name in sorted({*expected, *kinds}):
            if kinds.get(name) != expected.get(name):
                told = [
                    f"{kind[1]} {list(kind[0])}" if kind else "not there"
                    for kind in (expected.get(name), kinds.get(name))
                ]
                raise CheckpointError(f"{self.path}: not of a run: {shown(name)}: expected {told[0]}, is {told[1]}")
            if not all_finite(tensors[name]):
                raise CheckpointError(f"{self.path}: not of a run: {name} is not finite")
        *before, last = ([Losses(**losses) for losses in scale] for scale in trace)
        # Copies, since the mapped file may be written over.
        place = Place(last, {**{name: tensor.clone() for name, tensor in tensors.items()}, **numbers})
        return Saved(scale, before, place, header["seconds"], finished, header["stopped"], header["strips"])

    def _compare(self, header: Mapping[str, Any]) -> None:
        """Raise CheckpointError, naming the first difference, where the file is of another run."""
        was, now = header["settings"], self._facts["settings"]
        # Settings that the fastnst of then did not have were as they are by default.
        was, now = (recipe({**json.loads(json.dumps(Settings().to_dict())), **values}) for values in (was, now))
        for name in dict.fromkeys((*now, *was)):
            if name not in now or was.get(name) != now[name]:
                old, new = _short(was.get(name)), _short(now.get(name))
                raise CheckpointError(
                    f"{self.path}: of a run with other settings: {printable(name)} was {old}, is {new}"
                )
        old, new = header["weights"], self._facts["weights"]
        if old["sha256"] != new["sha256"]:
            told = [f"{printable(weights['name'])} (SHA-256 {weights['sha256'][:12]}...)" for weights in (old, new)]
            raise CheckpointError(f"{self.path}: of a run with other weights: {told[0]}, not {told[1]}")
        for name in dict.fromkeys((*self._facts["pictures"], *header["pictures"])):
            if header["pictures"].get(name) != self._facts["pictures"].get(name):
                raise CheckpointError(f"{self.path}: of a run with another {printable(name)} picture")


@dataclass(frozen=True)
class ScaleKeeper:
    """Keeps the places of one scale."""

    checkpoint: Checkpoint
    scale: int
    before: Sequence[Sequence[Losses]]
    clock: Clock
    strips: Mapping[str, int]

    @property
    def every(self) -> int:
        return self.checkpoint.every

    def keep(self, place: Place) -> None:
        self.checkpoint.save(Saved(self.scale, self.before, place, self.clock.seconds, strips=self.strips))


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


def _digest_all(text: str, tensors: Mapping[str, Tensor]) -> str:
    return digest([tensors[name] for name in sorted(tensors)], text)


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

"""A run in the studio: what was asked for, where it is, and its record on disk."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from fastnst.errors import UsageError
from fastnst.studio import models
from fastnst.studio.models import Change, Losses
from fastnst.studio.steering import Place, checked, continuing
from fastnst.studio.store import JOB, read_json, write_json

UNFINISHED = ("queued", "running", "pausing", "paused", "stopping")
ACTIVE = ("running", "pausing", "stopping")
RESULTS = {"png": "result.png", "tiff": "result.tif", "jpeg": "result.jpg"}
LIVE, THUMBNAIL, TRACE = "live.jpg", "thumbnail.jpg", "trace.json"
SAVE_SECONDS = 10.0
PARTS = ("content", "style", "tv", "total")


class Job(models.Record):
    """The record of a run, with what the API does not show.

    A change of settings ends the process of the run, and the next one starts from its picture, with the settings
    ``overrides``. ``first_step``, ``first_scale`` and ``first_in_scale`` count the steps, the scales, and the steps of
    its first scale that were done before.

    Attributes:
        queued: when it was queued, which is its order; 0 for one that goes on before others.
        sides: longest side of each scale.
        place: of a process that was paused: scale, step, and the file of the picture.
        pending: changes for the next process.
        keep: whether the next process ends after a step, with the picture that it has.
    """

    queued: float = Field(default_factory=time.time)
    sides: list[int] = Field(default_factory=list)
    place: dict[str, Any] | None = None
    first_step: int = 0
    first_scale: int = 0
    first_in_scale: int = 0
    seconds_before: float = 0.0
    overrides: dict[str, str] = Field(default_factory=dict)
    pending: dict[str, str] = Field(default_factory=dict)
    keep: bool = False

    @property
    def pictures(self) -> set[str]:
        """The pictures that the run reads."""
        parts = [self.content, *self.styles, *self.masks, *self.style_masks, self.content_mask]
        return {one for one in parts if one is not None}

    @property
    def texts(self) -> dict[str, str]:
        """The settings of the run, with those that were changed while it went on."""
        found = dict(self.settings)
        for change in self.changes:
            found |= change.settings
        return found | self.pending

    def change(self, texts: Mapping[str, str]) -> None:
        """Change settings of a run that waits; one that has begun continues from its picture with them.

        Raises UsageError for settings that do not fit the others.
        """
        checked({**self.texts, **texts})
        if self.step == 0 and self.state in ("queued", "paused"):
            self.settings = {**self.settings, **texts}
        else:
            self.pending = {**self.pending, **texts}

    def next_process(self) -> dict[str, str]:
        """The settings of the next process of the run."""
        if self.pending and self.place is not None:
            if self.place["start"] is None:
                self.pending = {}
                raise UsageError("the picture could not be saved for the change; resume continues without it")
            settings = checked(self.texts)
            self.changes = [*self.changes, Change(step=self.step, settings=self.pending)]
            number = self.first_scale + self.place["scale"]
            done = self.place["step"] + (self.first_in_scale if self.place["scale"] == 1 else 0)
            self.overrides = continuing(settings, Place(number, done, self.sides), self.place["start"])
            self.first_scale = len(self.sides) - len(self.overrides["scales"].split(","))
            self.first_in_scale = done if self.first_scale == number - 1 else 0
            self.first_step, self.seconds_before = self.step, self.seconds
            self.place, self.pending = None, {}
        return {**self.texts, **self.overrides}

    @property
    def checkpoint(self) -> str:
        """The name of the checkpoint of the next process: a change of settings begins another."""
        return f"run_{len(self.changes)}.checkpoint"

    def public(self, position: int | None) -> models.Job:
        """The record as the API returns it."""
        shown = self.model_dump(include=set(models.Record.model_fields), exclude={"settings"})
        return models.Job(**shown, settings=self.texts, position=position)


class Trace:
    """The losses of each step of a run."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / TRACE
        found = read_json(self._path) or {}
        self.columns: dict[str, list[float | None]] = {part: list(found.get(part, [])) for part in PARTS}
        self._saved = time.monotonic()

    def put(self, first: int, rows: Sequence[Sequence[float]]) -> None:
        """Set the losses of the steps from ``first``, counted from 1, and forget those after them."""
        for part, values in zip(PARTS, zip(*rows, strict=True), strict=True):
            column = self.columns[part]
            del column[max(0, first - 1) :]
            column += [None] * (first - 1 - len(column))
            column += [value if math.isfinite(value) else None for value in values]
        if time.monotonic() - self._saved > SAVE_SECONDS:
            with contextlib.suppress(OSError):  # a full disk does not end a run
                self.save()

    def since(self, start: int) -> dict[str, Any]:
        """The losses from the step with index ``start``."""
        return {"start": start, **{part: column[start:] for part, column in self.columns.items()}}

    def last(self) -> Losses:
        """The losses of the last step."""
        return Losses(**{part: column[-1] for part, column in self.columns.items()})

    def save(self) -> None:
        write_json(self._path, self.columns)
        self._saved = time.monotonic()


def save(job: Job, folder: Path) -> None:
    """Write the record of a run."""
    write_json(folder / JOB, job.model_dump(mode="json"))


def load(folder: Path) -> Job | None:
    """The run in a folder; None if its record is damaged or of another version."""
    found = read_json(folder / JOB)
    try:
        return None if found is None or found.get("id") != folder.name else Job(**found)
    except ValidationError:
        return None


def again(job: Job) -> dict[str, Any]:
    """The pictures and settings of a run, for another."""
    names = ("title", "content", "styles", "masks", "style_masks", "content_mask")
    return {"settings": job.texts, **{name: getattr(job, name) for name in names}}


def finish(job: Job, last: Mapping[str, Any]) -> None:
    """Record how the process of a run ended: its last event."""
    how, job.remaining = last.get("how"), None
    job.ended = None if how == "paused" else time.time()
    if how == "paused":
        job.place = last["place"]
        again = job.keep or (job.state == "running" and job.pending)
        job.state = "queued" if again else "paused"
        job.queued = 0.0 if again else job.queued  # before those that have not begun
    elif how in ("done", "kept"):
        job.state, job.has_result, job.keep = "done" if how == "done" else "stopped", True, False
        job.pending = {}
    else:
        job.state, job.error, job.keep = "failed", str(last.get("message", "the run ended")), False

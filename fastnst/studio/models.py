"""What the HTTP API takes and returns."""

from __future__ import annotations

import time
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

MOST_STYLES = 8
Id = Annotated[str, Field(pattern="^[a-z0-9]{16}$", description="identifier of a picture or a run")]
Texts = Annotated[
    dict[Annotated[str, Field(max_length=40)], Annotated[str, Field(max_length=2000)]],
    Field(max_length=80, description="settings by name, as text in the form of the command line"),
]
State = Literal["queued", "running", "pausing", "paused", "stopping", "stopped", "done", "failed"]


class Model(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Problem(Model):
    """Why a request was refused."""

    error: str
    setting: str | None = None


class Picture(Model):
    """An uploaded picture."""

    id: Id
    name: str
    kind: Literal["picture", "mask"]
    width: int
    height: int
    bytes: int
    format: str
    created: float
    notes: list[str] = Field(description="what reading it as fastnst does changes")
    has_alpha: bool
    settings: dict[str, str] | None = Field(description="of a picture that fastnst made")


class Pictures(Model):
    pictures: list[Picture]


class Demo(Model):
    """The pictures that come with fastnst."""

    content: Picture
    styles: list[Picture]


class RunRequest(Model):
    """The pictures and settings of a run."""

    content: Id
    styles: Annotated[list[Id], Field(min_length=1, max_length=MOST_STYLES)]
    masks: Annotated[list[Id | None], Field(max_length=MOST_STYLES)] = []
    style_masks: Annotated[list[Id | None], Field(max_length=MOST_STYLES)] = []
    content_mask: Id | None = None
    settings: Texts = {}
    title: Annotated[str, Field(max_length=200)] = ""


class JobChange(Model):
    """New settings of a run, from its picture on, or a new title."""

    settings: Texts = {}
    title: Annotated[str, Field(max_length=200)] | None = None


class Change(Model):
    """Settings that were changed while a run went on, and the step after which."""

    step: int
    settings: dict[str, str]


class Losses(Model):
    content: float | None
    style: float | None
    tv: float | None
    total: float | None


class Record(Model):
    """A run: waiting, going on, or ended."""

    id: Id
    title: str
    content: Id
    styles: list[Id]
    masks: list[Id | None] = []
    style_masks: list[Id | None] = []
    content_mask: Id | None = None
    settings: dict[str, str]
    state: State = "queued"
    created: float = Field(default_factory=time.time)
    started: float | None = None
    ended: float | None = None
    changes: list[Change] = []
    step: int = 0
    steps: int | None = None
    scale: int = 0
    scales: int | None = None
    scale_starts: list[int] = Field(default=[], description="steps before each scale")
    seconds: float = 0.0
    remaining: float | None = None
    memory: int | None = None
    losses: Losses | None = None
    frame: int = Field(default=0, description="number of the live picture; 0: none yet")
    size: tuple[int, int] | None = Field(default=None, description="width and height of the result")
    error: str | None = None
    has_result: bool = False


class Job(Record):
    """A run, and its place in the queue."""

    position: int | None = Field(description="0 is next; null if it does not wait")


class Jobs(Model):
    jobs: list[Job]


class Trace(Model):
    """The losses of each step from ``start`` on; null where a loss is not finite."""

    start: int
    total: list[float | None]
    content: list[float | None]
    style: list[float | None]
    tv: list[float | None]


class Plan(Model):
    """The expected time and memory of a run."""

    seconds: float | None = Field(description="null where no trial was made")
    memory: int
    free: int | None
    fits: bool
    size: tuple[int, int]
    scales: list[tuple[int, int]]
    text: str
    warnings: list[str]


class Setting(Model):
    """What a form needs to know of a setting."""

    name: str
    help: str
    unit: str
    kind: Literal["integer", "number", "choice", "switch", "numbers", "text"]
    none: bool
    least: float | None
    most: float | None
    choices: list[str] | None
    suggestions: list[str] | None
    default: str
    live: bool = Field(description="whether it can be changed while a run goes on")


class Group(Model):
    title: str
    settings: list[str]


class Limits(Model):
    upload_bytes: int
    styles: int
    formats: list[str]


class SettingsDescription(Model):
    """All settings, in groups, and the presets."""

    version: str
    groups: list[Group]
    settings: dict[str, Setting]
    presets: dict[str, dict[str, str]]
    simple: list[str]
    limits: Limits


class Me(Model):
    """The visitor."""

    link: str = Field(description="opens the same gallery in another browser")

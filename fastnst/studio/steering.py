"""Settings that can be changed while a run goes on, and the settings of the run that continues from its picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fastnst.config.description import as_text, settings_from_text
from fastnst.config.ranges import STARTS
from fastnst.config.settings import Settings
from fastnst.errors import UsageError

LIVE = (
    "content_weight",
    "style_weight",
    "tv_weight",
    "style_weights",
    "content_layers",
    "style_layers",
    "style_loss",
    "content_loss",
    "normalize_gradients",
    "tv_kind",
    "style_scale",
    "steps",
    "optimizer",
    "learning_rate",
    "photoreal",
)
# The mean change of a pixel by the first step of a run that starts from a picture that is half made.
FIRST_CHANGE = 1.0
_FORBIDDEN = {
    "snapshot_every": "the studio shows the picture as it grows",
    "max_pixels": "the limit is the studio's",
}


@dataclass(frozen=True)
class Place:
    """Where a run stopped: after step ``step`` of scale ``scale``, both from 1. ``sides`` are the longest sides of all
    scales."""

    scale: int
    step: int
    sides: Sequence[int]


def checked(texts: Mapping[str, str]) -> Settings:
    """The settings of a run in the studio. Raises UsageError also for what names a file of the machine."""
    for name, why in _FORBIDDEN.items():
        if name in texts:
            raise UsageError(f"{name}: {why}; leave it out")
    settings = settings_from_text(texts)
    if settings.init not in STARTS:
        raise UsageError(f"init: expected {', '.join(STARTS)}; the studio reads no file of this machine")
    return settings


def check_live(texts: Mapping[str, str]) -> None:
    """Raise UsageError for a setting that a run that goes on cannot change."""
    for name in texts:
        if name not in LIVE:
            raise UsageError(f"{name}: cannot be changed while a run goes on; change one of {', '.join(LIVE)}")


def continuing(settings: Settings, place: Place, start: str) -> dict[str, str]:
    """What to change in ``settings`` so that a run continues at ``place`` from the picture ``start``.

    The scales are those that are left, with the steps that are left. A scale whose steps are done is run for one more.
    """
    scale, sides = place.scale, list(place.sides)
    left = [max(1, settings.steps_at(scale) - place.step)]
    if left == [1] and settings.steps_at(scale) <= place.step and scale < len(sides):
        scale, left = scale + 1, [settings.steps_at(scale + 1)]
    left += [settings.steps_at(number) for number in range(scale + 1, len(sides) + 1)]
    changes: dict[str, Any] = {
        "scales": tuple(sides[scale - 1 :]) if scale < len(sides) else 1,  # one number is a number of scales
        "steps": tuple(left),
        "history": tuple(settings.at(number).history for number in range(scale, len(sides) + 1)),
        "init": start,
        "first_change": min(settings.first_change, FIRST_CHANGE),
    }
    if settings.crop is None:
        changes["size"] = sides[-1]
    return {name: as_text(name, value) for name, value in changes.items()}

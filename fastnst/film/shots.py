"""Shots: the parts of a film between cuts. Found by the change of colors from frame to frame, or given in a file."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fastnst.config.toml import convert, read_table
from fastnst.errors import UsageError, shown

LEAST_CHANGE = 15.0
"""The least score of a cut: the mean change of hue, saturation and value, each in 0..255."""
RATIO = 3.0
"""How many times the mean score of its neighbors the score of a cut has at least."""
WINDOW = 2
"""The neighbors on each side."""
SIDE = 128
"""Frames are reduced to this longer side."""


@dataclass(frozen=True)
class Shot:
    """The frames ``first`` to ``last``, without ``last``, and what is different in them.

    Attributes:
        first, last: numbers of frames from 0.
        style, mask: files instead of those of the film; empty for the same.
        settings: changes of the settings.

    Example:
        >>> len(Shot(12, 36))
        24
    """

    first: int
    last: int
    style: tuple[str, ...] = ()
    mask: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return self.last - self.first

    def order(self, *, backward: bool) -> range:
        """The numbers of the frames in the order of a pass."""
        return range(self.last - 1, self.first - 1, -1) if backward else range(self.first, self.last)


class CutDetector:
    """Finds cuts by the adaptive rule of PySceneDetect: a change that is large by itself and beside its neighbors.

    The change from one frame to the next is the mean absolute difference of hue, saturation and value. A pan or a
    flicker changes many consecutive frames alike, and a cut one.

    Example:
        >>> import torch
        >>> detector = CutDetector()
        >>> for level in (0.2, 0.2, 0.2, 0.8, 0.8, 0.8):
        ...     detector.add(torch.full((1, 3, 64, 64), level))
        >>> detector.cuts()
        [3]
    """

    def __init__(self) -> None:
        self._last: Tensor | None = None
        self._scores: list[float] = []

    def add(self, frame: Tensor) -> None:
        """Add the next frame, ``[1, 3, H, W]`` in 0..1."""
        shrink = max(frame.shape[-2:]) / SIDE
        if shrink > 1:
            size = max(1, round(frame.shape[2] / shrink)), max(1, round(frame.shape[3] / shrink))
            frame = F.adaptive_avg_pool2d(frame, size)
        planes = _hsv(frame)
        if self._last is not None:
            self._scores.append(float((planes - self._last).abs().mean()) * 255)
        self._last = planes

    @property
    def count(self) -> int:
        """The number of frames so far."""
        return len(self._scores) + (self._last is not None)

    def cuts(self) -> list[int]:
        """The numbers of the frames that begin a shot, without frame 0."""
        found = []
        for i, score in enumerate(self._scores):
            near = [*self._scores[max(i - WINDOW, 0) : i], *self._scores[i + 1 : i + 1 + WINDOW]]
            usual = sum(near) / len(near) if near else 0.0
            if score >= LEAST_CHANGE and score >= RATIO * usual:
                found.append(i + 1)
        return found


def split(count: int, cuts: Sequence[int]) -> list[Shot]:
    """The shots of a film of ``count`` frames that has ``cuts``."""
    edges = [0, *cuts, count]
    return [Shot(first, last) for first, last in itertools.pairwise(edges)]


def read_shots(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """The tables ``[[shot]]`` of a TOML file: ``first``, and optionally ``style``, ``mask`` and ``settings``.

    Raises UsageError for a file of another form.
    """
    name, table = os.fspath(path), read_table(Path(path))
    shots = table.pop("shot", None)
    if table or not isinstance(shots, list) or not shots:
        raise UsageError(f"{name}: expected tables [[shot]] alone, each with `first`, the number of its first frame")
    last = -1
    for number, shot in enumerate(shots, 1):
        where = f"{name}: shot {number}"
        if unknown := set(shot) - {"first", "style", "mask", "settings"}:
            raise UsageError(f"{where}: unknown {shown(min(unknown))} (known: first, style, mask, settings)")
        first = shot.get("first")
        if not isinstance(first, int) or isinstance(first, bool) or first <= last:
            raise UsageError(f"{where}: expected `first`, a frame after the shot before, got {shown(first)}")
        last = first
        for part in ("style", "mask"):
            if not _are_names(shot.get(part, [])):
                raise UsageError(f"{where}: expected `{part}`, a list of files, got {shown(shot[part])}")
        if not isinstance(shot.get("settings", {}), dict):
            raise UsageError(f"{where}: expected `settings`, a table, got {shown(shot['settings'])}")
        shot["settings"] = convert(Path(path), shot.get("settings", {}))
    if shots[0]["first"] != 0:
        raise UsageError(f"{name}: shot 1: expected first = 0, got {shots[0]['first']}")
    return shots


def shots_of(tables: Iterable[Mapping[str, Any]], count: int, name: str) -> list[Shot]:
    """The shots of :func:`read_shots` in a film of ``count`` frames. Raises UsageError for one after its end."""
    given = list(tables)
    edges = [*(table["first"] for table in given), count]
    if edges[-2] >= count:
        raise UsageError(f"{name}: shot {len(given)} begins at frame {edges[-2]}, but the film has {count} frames")
    return [
        Shot(first, last, tuple(table.get("style", ())), tuple(table.get("mask", ())), table.get("settings", {}))
        for table, first, last in zip(given, edges[:-1], edges[1:], strict=True)
    ]


def _are_names(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) and one for one in value)


def _hsv(frame: Tensor) -> Tensor:
    """Hue, saturation and value, each in 0..1, ``[1, 3, H, W]``."""
    value, which = frame.max(1)
    spread = value - frame.min(1).values
    red, green, blue = frame.unbind(1)
    safe = spread.clamp(min=1e-6)
    sides = torch.stack(((green - blue) / safe % 6, (blue - red) / safe + 2, (red - green) / safe + 4), 1)
    hue = sides.gather(1, which[:, None])[:, 0] / 6
    hue = torch.where(spread > 1e-3, hue, 0.0)
    saturation = torch.where(value > 0, spread / value.clamp(min=1e-6), 0.0)
    return torch.stack((hue, saturation, value), 1)

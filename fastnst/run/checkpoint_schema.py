"""The schema of checkpoints: a check for each field of the header, and shape and dtype of each tensor.

A check takes a JSON value and its position, and returns the plain value or raises UsageError. The digest in a file
protects against damage, not against forgery, so every value is checked before it is used.
"""

from __future__ import annotations

import itertools
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from fastnst.config.checks import check_number
from fastnst.config.ranges import RANGES, SIZE, Range
from fastnst.config.resolve import history_dtype
from fastnst.config.settings import Settings
from fastnst.errors import UsageError, shown
from fastnst.objective.joint import is_joint
from fastnst.optim.pyramid import pyramid_sizes

Check = Callable[[Any, str], Any]
Tensors = Mapping[str, tuple[tuple[int, ...], torch.dtype]]
"""Shape and dtype of each tensor."""


def number(least: float, most: float, *, whole: bool = False, open: str = "") -> Check:
    allowed = Range(least, most, whole, open)
    return lambda value, where: check_number(where, value, allowed)


def one_of(*known: object) -> Check:
    def check(value: Any, where: str) -> Any:
        if not any(type(value) is type(one) and value == one for one in known):
            raise UsageError(f"{where}: expected {' or '.join(map(repr, known))}, got {shown(value)}")
        return value

    return check


def text(pattern: str) -> Check:
    def check(value: Any, where: str) -> Any:
        if not isinstance(value, str) or not re.fullmatch(pattern, value, re.DOTALL):
            raise UsageError(f"{where}: expected a text like {pattern}, got {shown(value)}")
        return value

    return check


def anything(value: Any, where: str) -> Any:
    """Accepts anything: for values that are only compared with known ones."""
    return value


def array(entry: Check, least: int, most: int) -> Check:
    def check(value: Any, where: str) -> Any:
        if not isinstance(value, list) or not least <= len(value) <= most:
            count = f"{least}" if least == most else f"{least} to {most}"
            raise UsageError(f"{where}: expected a list of {count}, got {shown(value)}")
        return [entry(one, f"{where}[{i}]") for i, one in enumerate(value)]

    return check


def table(**fields: Check) -> Check:
    """A table with exactly these fields."""

    def check(value: Any, where: str) -> Any:
        if not isinstance(value, dict) or value.keys() != fields.keys():
            raise UsageError(f"{where}: expected {', '.join(fields) or 'no fields'}, got {shown(value)}")
        return {name: one(value[name], f"{where}.{name}") for name, one in fields.items()}

    return check


def some(names: Sequence[str] | str | None, entry: Check) -> Check:
    """A table with entries of one kind. ``names`` are the names allowed, a pattern for them, or None for any."""
    allowed = "" if names is None else f" of {names}" if isinstance(names, str) else " of " + ", ".join(names)

    def known(name: str) -> bool:
        return names is None or (bool(re.fullmatch(names, name)) if isinstance(names, str) else name in names)

    def check(value: Any, where: str) -> Any:
        if not isinstance(value, dict) or not all(map(known, value)):
            raise UsageError(f"{where}: expected a table{allowed}")
        return {name: entry(one, f"{where}.{shown(name)}") for name, one in value.items()}

    return check


SHA256 = text("[0-9a-f]{64}")
LOSS = number(-sys.float_info.max, sys.float_info.max)
HEADER = table(
    settings=some(None, anything),
    pictures=some(None, SHA256),
    weights=table(name=text(".*"), sha256=SHA256),
    numbers=some(None, anything),  # see `numbers`
    trace=array(array(anything, 0, 10**9), 1, int(RANGES["scales"].most)),  # see `trace`
    scale=number(1, RANGES["scales"].most, whole=True),
    seconds=number(0, 1e12),
    finished=one_of(False, True),
    stopped=one_of(None, "stalled"),
    strips=some(SIZE.pattern, number(RANGES["tiles"].least, RANGES["tiles"].most, whole=True)),
)
"""The header of any checkpoint."""


def trace(settings: Settings, scale: int) -> Check:
    """The losses of the steps taken at each scale, up to ``scale``."""
    content = [settings.content_loss, *(name for name, _ in settings.content_layers)]
    style = [settings.style_loss, *(name for name, _ in settings.style_layers)]
    losses = table(total=LOSS, content=some(content, LOSS), style=some(style, LOSS), tv=LOSS)

    def check(value: Any, where: str) -> Any:
        whole = array(anything, scale, scale)(value, where)
        most = (settings.steps_at(i) for i in itertools.count(1))
        return [
            array(losses, 0, count)(one, f"{where}[{i}]")
            for i, (one, count) in enumerate(zip(whole, most, strict=False))
        ]

    return check


def _history(settings: Settings) -> int:
    assert isinstance(settings.history, int), "expected the settings of one scale"
    return settings.history


def numbers(settings: Settings, taken: Sequence[int], finished: bool) -> Check:
    """The entries of the state that are not tensors, by owner, after ``taken`` steps at each scale.

    ``settings`` are those of the scale: see :meth:`fastnst.config.settings.Settings.at`.
    """
    if finished:
        return table()
    if settings.optimizer != "lbfgs":
        optimizer = table(
            count=number(0, sum(taken), whole=True), learning_rate=number(0, settings.learning_rate, open="least")
        )
    else:
        history = _history(settings)
        optimizer = table(
            curvatures=array(number(0, sys.float_info.max), history, history),
            count=number(0, taken[-1], whole=True),
            scale=number(0, sys.float_info.max, open="least"),
        )
    average = {"average": table(count=number(0, taken[-1], whole=True))} if settings.average else {}
    return table(optimizer=optimizer, **average)


def tensors(
    settings: Settings, size: tuple[int, int], found: Mapping[str, Any], kinds: Tensors, finished: bool
) -> Tensors:
    """The tensors that belong to ``found``, which has passed :func:`numbers`, at a scale of this size and settings.

    L-BFGS has a gradient and a direction after its first step; ``kinds``, the tensors of the file, tell whether. They
    also tell the dtype of its pairs if the settings leave it to the machine that ran.
    """
    wide = torch.float64 if settings.precision == "float64" else torch.float32
    image: tuple[int, ...] = (1, 3, *size)
    if finished:
        return {"loop.image": (image, wide)}
    expected = {"loop.image": (image, wide), "loop.good": (image, wide)}
    if is_joint(settings):
        expected["loop.start"] = (image, wide)
    if settings.optimizer != "lbfgs":
        moments = image
        if settings.optimizer == "adam_pyramid":
            moments = (sum(3 * height * width for height, width in pyramid_sizes(*size)),)
        expected |= {"optimizer.mean": (moments, wide), "optimizer.square": (moments, wide)}
    else:
        expected |= _history_tensors(settings, 3 * size[0] * size[1], wide, found["optimizer"], kinds)
    if settings.average:
        expected["average.sum"] = (image, wide)
    return expected


def _history_tensors(
    settings: Settings, values: int, wide: torch.dtype, found: Mapping[str, Any], kinds: Tensors
) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
    """The tensors of L-BFGS for an image of so many values."""
    count, history = found["count"], _history(settings)
    slots = {i % history for i in range(max(count - history, 0), count)}
    names = [f"optimizer.pair{slot}" for slot in sorted(slots) if found["curvatures"][slot] > 0]
    dtype = history_dtype(settings.history_dtype, wide)
    if settings.history_dtype == "auto" and any(kinds[name][1] == torch.bfloat16 for name in names if name in kinds):
        dtype = torch.bfloat16
    expected: dict[str, tuple[tuple[int, ...], torch.dtype]] = dict.fromkeys(names, ((2, values), dtype))
    vectors = {"optimizer.gradient", "optimizer.direction"}
    if slots or vectors & set(kinds):
        expected |= dict.fromkeys(vectors, ((values,), wide))
    return expected

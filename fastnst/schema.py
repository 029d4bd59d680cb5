"""What a checkpoint may hold, as data: a check for each field of its header, and for each tensor its shape and dtype.

A check takes a value of JSON and where it stands, and returns it in plain form or raises UsageError. Anybody can write
the right digest into a file, so nothing of one is used that has not passed here.
"""

from __future__ import annotations

import itertools
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from fastnst.errors import UsageError, shown
from fastnst.scales import shrinks, shrunk
from fastnst.settings import RANGES, SIZE, Range, Settings, check_number

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
    """For values that are compared with known ones, and not used."""
    return value


def array(entry: Check, least: int, most: int) -> Check:
    def check(value: Any, where: str) -> Any:
        if not isinstance(value, list) or not least <= len(value) <= most:
            count = f"{least}" if least == most else f"{least} to {most}"
            raise UsageError(f"{where}: expected a list of {count}, got {shown(value)}")
        return [entry(one, f"{where}[{i}]") for i, one in enumerate(value)]

    return check


def table(**fields: Check) -> Check:
    """These fields, all of them and no other."""

    def check(value: Any, where: str) -> Any:
        if not isinstance(value, dict) or value.keys() != fields.keys():
            raise UsageError(f"{where}: expected {', '.join(fields) or 'no fields'}, got {shown(value)}")
        return {name: one(value[name], f"{where}.{name}") for name, one in fields.items()}

    return check


def some(names: Sequence[str] | str | None, entry: Check) -> Check:
    """Any of the names, of a table with entries of one kind; a text: names that match it; None: any names."""
    told = "" if names is None else f" of {names}" if isinstance(names, str) else " of " + ", ".join(names)

    def known(name: str) -> bool:
        return names is None or (bool(re.fullmatch(names, name)) if isinstance(names, str) else name in names)

    def check(value: Any, where: str) -> Any:
        if not isinstance(value, dict) or not all(map(known, value)):
            raise UsageError(f"{where}: expected a table{told}")
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


def sizes(content: torch.Tensor, settings: Settings) -> list[tuple[int, int]]:
    """Height and width of each scale."""
    height, width = content.shape[-2:]
    return [shrunk(height, width, shrink) for shrink in shrinks(height, width, settings)]


def trace(settings: Settings, scale: int) -> Check:
    """The losses of the steps taken at each scale, up to ``scale``."""
    content, style = ([name for name, _ in layers] for layers in (settings.content_layers, settings.style_layers))
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
    """What is not a tensor of the state of the optimiser and the average, after so many steps at each scale.

    ``settings`` are those of the scale, see :meth:`fastnst.settings.Settings.at`.
    """
    fields: dict[str, Check] = {}
    if not finished and settings.optimizer == "adam":
        fields["count"] = number(0, sum(taken), whole=True)
        fields["learning_rate"] = number(0, settings.learning_rate, open="least")
    elif not finished:
        positive = number(0, sys.float_info.max)
        fields["curvatures"] = array(positive, _history(settings), _history(settings))
        fields["count"] = number(0, taken[-1], whole=True)
        fields["scale"] = number(0, sys.float_info.max, open="least")
    if not finished and settings.average:
        fields["averaged"] = number(0, taken[-1], whole=True)
    return table(**fields)


def tensors(
    settings: Settings, size: tuple[int, int], found: Mapping[str, Any], names: Sequence[str], finished: bool
) -> Tensors:
    """The tensors that belong to ``found``, which has passed :func:`numbers`, at a scale of this size and settings.

    L-BFGS has a gradient and a direction from its first step on, so ``names``, those that there are, say whether.
    """
    wide = torch.float64 if settings.precision == "float64" else torch.float32
    image: tuple[int, ...] = (1, 3, *size)
    flat = 3 * size[0] * size[1]
    if finished:
        return {"image": (image, wide)}
    expected = {"image": (image, wide), "good": (image, wide)}
    if settings.optimizer == "adam":
        expected |= {"mean": (image, wide), "square": (image, wide)}
    else:
        kept = torch.bfloat16 if settings.history_dtype == "bfloat16" else wide
        count, curvatures = found["count"], found["curvatures"]
        history = _history(settings)
        slots = {i % history for i in range(max(count - history, 0), count)}
        expected |= {f"pair{slot}": ((2, flat), kept) for slot in slots if curvatures[slot] > 0}
        if slots or {"gradient", "direction"} & set(names):
            expected |= {"gradient": ((flat,), wide), "direction": ((flat,), wide)}
    if settings.average:
        expected["average"] = (image, wide)
    return expected

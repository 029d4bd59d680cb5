"""Settings from text, as the command line accepts them.

A function here returns text that is not a number unchanged, and the checks of Settings refuse it with the accepted
range.
"""

from __future__ import annotations

import fnmatch
import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from fastnst.config.checks import check_number
from fastnst.config.encoders import network_layers
from fastnst.config.presets import Layers
from fastnst.config.ranges import RANGES, WEIGHT
from fastnst.config.settings import allows_none
from fastnst.errors import UsageError, shown


def parse(name: str, text: str) -> Any:
    """The value of the setting ``name``. Layers have their own function, :func:`parse_layers`.

    ``"none"`` becomes None where the setting is an optional number.
    """
    allowed = RANGES.get(name)
    if text == "none" and allowed is not None and allows_none(name):
        return None
    if name in _PARSERS:
        return _PARSERS[name](text)
    return text if allowed is None else parse_number(text, int if allowed.whole else float)


def parse_layers(text: str, arch: str = "vgg19") -> Layers:
    """Layers and their weights from text such as ``"relu1_1,relu2_1:0.5"``.

    Args:
        text: names separated by commas, each with an optional weight after a colon (default: 1). A name may be a
            pattern: ``relu?_1`` matches relu1_1 to relu5_1. A weight may be a geometric series over the layers that
            the pattern matches: ``relu?_1:256*0.25`` gives 256, 64, 16, 4, 1.
        arch: the network whose layers a pattern matches, as the setting ``arch``.

    Raises:
        UsageError: a weight that is not a number in ``RANGES["style_layers"]``, or a pattern that matches no layer.

    Example:
        >>> parse_layers("relu1_1,relu2_1:0.5")
        (('relu1_1', 1.0), ('relu2_1', 0.5))
    """
    where = f"layers {shown(text)}"
    layers: list[tuple[str, float]] = []
    for part in text.split(","):
        name, colon, weight = part.strip().partition(":")
        if not name:
            raise UsageError(f"{where}: expected names like relu1_1,relu2_1:0.5")
        first, star, factor = weight.partition("*")
        value, step = (parse_number(first) if colon else 1.0), (parse_number(factor) if star else 1.0)
        if isinstance(value, str) or isinstance(step, str):
            raise UsageError(
                f"{where}: the weight of {name} is {shown(weight)}, expected a number, or a series like 256*0.25"
            )
        names = fnmatch.filter(network_layers(arch), name) if is_pattern(name) else [name]
        if not names:
            raise UsageError(f"{where}: {name} matches no layer of {arch}; expected a pattern like relu?_1")
        for one in names:
            layers.append((one, check_number(f"{where}: weight of {one}", value, WEIGHT)))
            value *= step
    return tuple(layers)


def is_pattern(text: str) -> bool:
    """Whether layers are named by a pattern, which matches other layers in another network."""
    return bool(set(text) & set("*?["))


def parse_number(text: str, kind: type[int] | type[float] = float) -> Any:
    """A number; other text, and more digits than Python reads, is returned unchanged."""
    try:
        return kind(text)
    except ValueError:
        return text


def parse_numbers(text: str, kind: type[int] | type[float] = float) -> Any:
    """A tuple of numbers from ``"2,1"``; other text is returned unchanged."""
    found = tuple(parse_number(part, kind) for part in text.split(","))
    return text if any(isinstance(part, str) for part in found) else found


def parse_counts(text: str) -> int | str | tuple[int, ...]:
    """A number from ``"300"``, a tuple from ``"300,100"``; other text is returned unchanged."""
    found: int | str | tuple[int, ...] = parse_numbers(text, int)
    return found[0] if isinstance(found, tuple) and len(found) == 1 else found


def parse_bytes(text: str) -> int:
    """A number of bytes from ``"4GB"``, ``"500 MB"`` or ``"1048576"``. One GB is 2^30 bytes.

    Raises UsageError for other text and for more than ``RANGES["memory"]`` allows.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?)(?:I?B)?\s*", text.upper())
    if found is None:
        raise UsageError(f"memory {shown(text)}: expected an amount like 4GB or 500MB")
    size = float(found[1]) * 1024.0 ** (" KMGT".index(found[2]) if found[2] else 0)
    if not size <= RANGES["memory"].most:
        raise UsageError(f"memory {shown(text)}: expected {RANGES['memory']}")
    return int(size)


def parse_factor(text: str) -> Any:
    """A number from ``"1.5"``, the square root of two from ``"sqrt2"``; other text is returned unchanged."""
    return math.sqrt(2) if text == "sqrt2" else parse_number(text)


_PARSERS: Mapping[str, Callable[[str], Any]] = {
    "steps": parse_counts,
    "history": parse_counts,
    "scales": parse_counts,
    "scale_factor": parse_factor,
    "style_weights": parse_numbers,
    "betas": parse_numbers,
    "memory": parse_bytes,
}

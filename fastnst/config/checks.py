"""Checks of settings. Each check returns the value in plain form or raises UsageError."""

from __future__ import annotations

import itertools
import math
import numbers
import operator
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fastnst.config.presets import Layers
from fastnst.config.ranges import CHOICES, MAX_ENTRIES, RANGES, SIDE, SIZE, STARTS, TILES, Range
from fastnst.errors import UsageError, nearest, shown


def check_number(name: str, value: object, allowed: Range) -> Any:
    """Return ``value`` as an int or a float in ``allowed``. Accepts numbers of any type, such as NumPy scalars."""
    found: int | float | None = None
    if isinstance(value, numbers.Integral) and not isinstance(value, bool):
        found = operator.index(value)
    elif isinstance(value, numbers.Real) and not isinstance(value, bool) and not allowed.whole:
        found = _float(value)
    if found is None or found not in allowed:
        raise UsageError(f"{name}: expected {allowed}, got {shown(value)}")
    return found if allowed.whole else float(found)


def _float(value: numbers.Real) -> float | None:
    try:
        return float(value)
    except OverflowError:  # a fraction of large integers
        return None


def check_choice(name: str, value: object, known: Sequence[str], more: str = "") -> str:
    """Return ``value`` as a plain string that is one of ``known``."""
    if not isinstance(value, str) or value not in known:
        hint = nearest(value, known) if isinstance(value, str) else ""
        raise UsageError(f"unknown {name} {shown(value)}{hint} (known: {', '.join(known)}{more})")
    return str(value)


def check_setting(name: str, value: object) -> Any:
    """Return the value of the setting ``name`` in plain form: int, float, bool, str, or tuples of these."""
    return _CHECKS[name](name, value)


def check_together(values: Mapping[str, Any]) -> None:
    """Check settings whose values depend on each other."""
    if values["size"] is not None and values["crop"] is not None:
        raise UsageError(f"size {values['size']} and crop {values['crop']}: give one of the two")
    if values["style_size"] is not None and values["style_scale"] != 1:
        raise UsageError(
            f"style_size {values['style_size']} and style_scale {values['style_scale']:g}: give one of the two"
        )
    _check_scales(values)
    if values["style_weights"] and not sum(values["style_weights"]) > 0:
        raise UsageError(f"style_weights {values['style_weights']}: expected at least one above zero")
    if values["keep_color"] == "luminance" and values["match_color"] != "none":
        raise UsageError(
            f"keep_color 'luminance' leaves no colors for match_color {values['match_color']!r}: give one of the two"
        )
    if values["tileable"] != "none" and values["tv_kind"] == "nine_point" and values["tv_weight"]:
        raise UsageError("tileable: tv_kind 'nine_point' repeats the border; use another, or tv_weight 0")
    if values["tileable"] != "none" and values["photoreal"]:
        raise UsageError(f"photoreal {values['photoreal']:g}: the content that it restores does not continue in a tile")
    content = values["content_weight"] * sum(weight for _, weight in values["content_layers"])
    style = values["style_weight"] * sum(weight for _, weight in values["style_layers"])
    if content == 0 and style == 0:
        raise UsageError("content and style weights are all zero: there is nothing to optimize")


def _check_scales(values: Mapping[str, Any]) -> None:
    scales = values["scales"]
    if isinstance(scales, tuple):
        sides = ",".join(map(str, scales))
        if any(a >= b for a, b in itertools.pairwise(scales)):
            raise UsageError(f"scales {sides}: expected increasing sides, the last of them the size of the result")
        if scales[-1] != (values["size"] or values["crop"]):
            raise UsageError(
                f"scales {sides}: expected the last to be the size or crop, which is "
                f"{values['size'] or values['crop'] or 'that of the content'}"
            )
    count = len(scales) if isinstance(scales, tuple) else scales if isinstance(scales, int) else math.inf
    for name in ("steps", "history"):
        counts = values[name]
        if isinstance(counts, tuple) and len(counts) > count:
            raise UsageError(f"{name} {','.join(map(str, counts))}: {len(counts)} numbers for {count} scales")


def _number(name: str, value: object) -> Any:
    return check_number(name, value, RANGES[name])


def _choice(name: str, value: object) -> str:
    return check_choice(name, value, CHOICES[name])


def _flag(name: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise UsageError(f"{name}: expected True or False, got {shown(value)}")
    return value


def _name(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise UsageError(f"{name}: expected a name, got {shown(value)}")
    return str(value)


def _device(name: str, value: object) -> str:
    torch = sys.modules.get("torch")  # a value can only be a torch.device if torch is imported already
    return str(value) if torch is not None and isinstance(value, torch.device) else _name(name, value)


def _file(name: str, value: object) -> str:
    """A name or a path as a string. A path that equals a name of ``init`` is kept apart from the name by ``./``."""
    if isinstance(value, os.PathLike):
        path = os.fsdecode(value)
        value = f"./{path}" if path in STARTS else path
    text = _name(name, value)
    if "\0" in text:
        raise UsageError(f"{name}: expected a name or a path, got {shown(text)}, which contains a null character")
    return text


def _tiles(name: str, value: object) -> int | str | tuple[tuple[str, int], ...]:
    if isinstance(value, str) or value is None:
        return check_choice(name, value, TILES, f", or {RANGES[name]}")
    if isinstance(value, (list, tuple)):
        pairs = _entries(name, value)
        for pair in pairs:
            if not isinstance(pair, (list, tuple)) or len(pair) != 2 or not SIZE.fullmatch(str(pair[0])):
                raise UsageError(f'{name}: expected pairs of size and rows like ("1024x768", 256), got {shown(pair)}')
        return tuple((str(size), _number(name, rows)) for size, rows in pairs)
    rows: int = _number(name, value)
    return rows


def _entries(name: str, value: object) -> tuple[Any, ...]:
    """The entries of a tuple or list; an empty tuple for any other value."""
    if not isinstance(value, (list, tuple)):
        return ()
    if len(value) > MAX_ENTRIES:
        raise UsageError(f"{name}: expected at most {MAX_ENTRIES} entries, got {len(value)}")
    return tuple(value)


def _counts(name: str, value: object) -> Any:
    return tuple(_number(name, one) for one in _entries(name, value)) or _number(name, value)


def _scales(name: str, value: object) -> Any:
    if isinstance(value, str) and value == "auto":
        return "auto"
    return tuple(check_number(name, side, SIDE) for side in _entries(name, value)) or _number(name, value)


def _weights(name: str, value: object) -> tuple[float, ...]:
    if not isinstance(value, (list, tuple)):
        raise UsageError(f"{name}: expected numbers like (2.0, 1.0), got {shown(value)}")
    return tuple(_number(name, one) for one in _entries(name, value))


def _betas(name: str, value: object) -> tuple[float, ...]:
    if len(entries := _entries(name, value)) != 2:
        raise UsageError(f"{name}: expected two numbers like (0.9, 0.999), got {shown(value)}")
    return tuple(_number(name, one) for one in entries)


def _layers(name: str, value: object) -> Layers:
    pairs = _entries(name, value)
    valid = [isinstance(pair, (tuple, list)) and len(pair) == 2 and isinstance(pair[0], str) for pair in pairs]
    if not isinstance(value, (list, tuple)) or not all(valid):
        raise UsageError(f'{name}: expected pairs of name and weight like (("relu4_2", 1.0),), got {shown(value)}')
    layers: dict[str, float] = {}
    for layer, weight in pairs:
        if layer in layers:
            raise UsageError(f"{name}: {layer} is named twice")
        layers[str(layer)] = check_number(f"{name}: weight of {layer}", weight, RANGES[name])
    return tuple(layers.items())


_CHECKS: Mapping[str, Callable[[str, Any], Any]] = {
    **dict.fromkeys(RANGES, _number),
    **dict.fromkeys(CHOICES, _choice),
    **dict.fromkeys(
        ("preset", "arch", "content_form", "style_form", "content_loss", "style_loss", "pooling", "padding"), _name
    ),
    **dict.fromkeys(("normalize_gradients", "clamp", "carry"), _flag),
    **dict.fromkeys(("weights", "init"), _file),
    **dict.fromkeys(("content_layers", "style_layers"), _layers),
    **dict.fromkeys(("steps", "history"), _counts),
    "device": _device,
    "tiles": _tiles,
    "scales": _scales,
    "style_weights": _weights,
    "betas": _betas,
}
"""The check of each setting."""

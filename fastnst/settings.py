"""Every choice of a run in one frozen record, checked once, and the presets that fill it.

This module imports neither torch nor numpy: the command line reads its defaults from here.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from fastnst.errors import UsageError, nearest

OPTIMIZERS = ("lbfgs", "adam")
STARTS = ("content", "noise", "style")  # of `init`; anything else is the path of a picture
GRAPHS = ("auto", "on", "off")
CONVOLUTIONS = ("auto", "winograd", "direct")
PRECISIONS = ("auto", "float32", "bfloat16", "float64")
HISTORY_DTYPES = ("auto", "bfloat16")
TV_KINDS = ("anisotropic", "isotropic", "squared")
STYLE_LAYERS = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1")

Layers = tuple[tuple[str, float], ...]


def _layers(*names: str, weight: float = 1.0) -> Layers:
    return tuple((name, weight) for name in names)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a run does. ``Settings.of("johnson", steps=200)`` starts from a preset.

    The loss is ``content_weight * content + style_weight * style + tv_weight * total variation``, where content and
    style are sums over layers of layer weight times the loss in the named form (see :mod:`fastnst.losses`). Images are
    optimised in pixel units 0..255, in which published learning rates and weights are stated.
    """

    preset: str = "default"
    arch: str = "vgg19"
    weights: str | None = None  # a name of the catalogue or a file; None: the bundled VGG-19
    content_layers: Layers = (("relu4_2", 1.0),)
    # Shallow layers raised, deep ones lowered: strokes and palette come through, and shapes of the style stay out.
    style_layers: Layers = tuple(zip(STYLE_LAYERS, (15.0, 5.0, 1.0, 0.3, 0.3), strict=True))
    content_weight: float = 8.0
    style_weight: float = 1000.0
    tv_weight: float = 0.1
    content_form: str = "mean"
    style_form: str = "channels"
    tv_kind: str = "anisotropic"
    pooling: str = "max"
    padding: str = "zeros"
    optimizer: str = "lbfgs"
    learning_rate: float = 1.0
    history: int = 20  # pairs that L-BFGS remembers; each takes two images
    history_dtype: str = "auto"  # of these pairs; auto: the image's, which is float32, or float64 with its precision
    steps: int = 100  # evaluations of loss and gradient, at each scale
    scales: int = 2  # coarse to fine: each scale has half the side of the next
    size: int | None = 512  # longest side; None keeps the content's own
    crop: int | None = None  # side of a square centre crop, instead of `size`
    style_scale: float = 1.0  # longest side of the style picture, relative to the content's
    init: str = "content"  # content, noise, style, or the path of a picture
    noise: float = 1.0  # standard deviation of `init = noise` about the network's mean colour
    seed: int = 0
    snapshot_every: int = 0  # 0: none
    device: str = "auto"
    precision: str = "auto"
    convolution: str = "auto"  # winograd: ours, on the CPU; direct: PyTorch's; auto: what is fastest
    graph: str = "auto"  # whether a step runs as one CUDA graph; auto: where there is CUDA

    @classmethod
    def of(cls, preset: str = "default", **changes: Any) -> Settings:
        """A preset with ``changes`` applied; None leaves the preset's value. Raises UsageError."""
        if preset not in PRESETS:
            raise UsageError(f"unknown preset {preset!r}{nearest(preset, PRESETS)} (known: {', '.join(PRESETS)})")
        _check_names(changes)
        given = {name: value for name, value in changes.items() if value is not None}
        # The two exclude each other, so naming one takes back the preset's other.
        if "size" in given and "crop" not in given:
            given["crop"] = None
        elif "crop" in given and "size" not in given:
            given["size"] = None
        return cls(**{**PRESETS[preset], "preset": preset, **given})

    def but(self, **changes: Any) -> Settings:
        """This record with ``changes``, checked anew. Raises UsageError."""
        if "preset" in changes:
            raise UsageError(f"preset {changes['preset']!r}: start from it with Settings.of, or give settings alone")
        _check_names(changes)
        return dataclasses.replace(self, **changes)

    def __post_init__(self) -> None:
        for name in ("content_weight", "style_weight", "tv_weight", "noise"):
            _check_number(name, getattr(self, name), least=0.0)
        for name in ("learning_rate", "style_scale"):
            _check_number(name, getattr(self, name), least=0.0, open_end=True)
        for name, least in (("history", 1), ("steps", 1), ("scales", 1), ("snapshot_every", 0), ("seed", 0)):
            _check_integer(name, getattr(self, name), least)
        for name in ("size", "crop"):
            if getattr(self, name) is not None:
                _check_integer(name, getattr(self, name), 2)
        if self.size is not None and self.crop is not None:
            raise UsageError(f"size {self.size} and crop {self.crop}: give one of the two")
        for name in ("arch", "content_form", "style_form", "pooling", "padding", "device"):
            if not isinstance(getattr(self, name), str):
                raise UsageError(f"{name}: expected a name, got {getattr(self, name)!r}")
        choices = {
            "optimizer": OPTIMIZERS,
            "history_dtype": HISTORY_DTYPES,
            "precision": PRECISIONS,
            "convolution": CONVOLUTIONS,
            "graph": GRAPHS,
            "tv_kind": TV_KINDS,
        }
        for name, known in choices.items():
            if getattr(self, name) not in known:
                value = getattr(self, name)
                raise UsageError(f"unknown {name} {value!r}{nearest(str(value), known)} (known: {', '.join(known)})")
        for name in ("content_layers", "style_layers"):
            _check_layers(name, getattr(self, name))
        content = self.content_weight * sum(weight for _, weight in self.content_layers)
        style = self.style_weight * sum(weight for _, weight in self.style_layers)
        if content == 0 and style == 0:
            raise UsageError("content and style weights are all zero: there is nothing to optimise")

    def layer_names(self) -> tuple[str, ...]:
        """The layers that the content and style losses look at."""
        return tuple(dict.fromkeys(name for name, _ in (*self.content_layers, *self.style_layers)))

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return dataclasses.asdict(self)


def parse_layers(text: str) -> Layers:
    """``"relu1_1,relu2_1:0.5"`` to names and weights; a weight that is not a number raises UsageError."""
    layers = []
    for part in text.split(","):
        name, colon, weight = part.strip().partition(":")
        if not name:
            raise UsageError(f"layers {text!r}: expected names like relu1_1,relu2_1:0.5")
        try:
            layers.append((name, float(weight) if colon else 1.0))
        except ValueError:
            raise UsageError(f"layers {text!r}: the weight of {name} is {weight!r}, expected a number") from None
    return tuple(layers)


def _check_names(changes: Iterable[str]) -> None:
    known = {field.name for field in dataclasses.fields(Settings)}
    for name in changes:
        if name not in known:
            raise UsageError(f"unknown setting {name!r}{nearest(name, known)}")


def _check_layers(name: str, layers: object) -> None:
    if not isinstance(layers, (tuple, list)) or not all(_is_pair(pair) for pair in layers):
        raise UsageError(f'{name}: expected pairs of name and weight like (("relu4_2", 1.0),), got {layers!r}')
    for layer, weight in layers:
        _check_number(f"{name}: weight of {layer}", weight, least=0.0)
    named = [layer for layer, _ in layers]
    for layer in named:
        if named.count(layer) > 1:
            raise UsageError(f"{name}: {layer} is named twice")


def _is_pair(pair: object) -> bool:
    return isinstance(pair, (tuple, list)) and len(pair) == 2 and isinstance(pair[0], str)


def _check_number(name: str, value: object, *, least: float, open_end: bool = False) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise UsageError(f"{name}: expected a number, got {value!r}")
    if not math.isfinite(value) or value < least or (open_end and value == least):
        raise UsageError(
            f"{name}: expected a finite number {'above' if open_end else 'of at least'} {least:g}, got {value}"
        )


def _check_integer(name: str, value: object, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value < 2**63:
        raise UsageError(f"{name}: expected a whole number of at least {least} (and below 2^63), got {value!r}")


# What differs from the defaults of Settings. Sources: see docs/design.md.
PRESETS: Mapping[str, Mapping[str, Any]] = {
    "default": {},
    "gatys": {
        "content_weight": 1.0,
        "tv_weight": 0.0,
        "style_layers": _layers(*STYLE_LAYERS, weight=1 / 5),
        "content_form": "half_sum",
        "style_form": "gatys",
        "steps": 500,
        "scales": 1,
        "init": "noise",
    },
    "johnson": {
        "style_layers": _layers(*STYLE_LAYERS),
        "content_weight": 5.0,
        "style_weight": 100.0,
        "tv_weight": 1e-3,
        "style_form": "johnson",
        "history": 100,
        "steps": 1000,
        "scales": 1,
        "init": "noise",
        "noise": 1e-3,
    },
    "tutorial": {
        "arch": "vgg16",
        # In the TensorFlow networks these weights come from, conv3_3 names the rectified output, our relu3_3.
        "content_layers": _layers("relu3_3"),
        "style_layers": _layers(
            "relu1_1", "relu1_2", "pool1", "relu2_1", "relu2_2", "pool2", "relu3_1", "relu3_2", "relu3_3", weight=1 / 7
        ),
        "content_weight": 1e3,
        "style_weight": 1e-3,
        "tv_weight": 0.0,
        "content_form": "half_mean",
        "style_form": "raw",
        "pooling": "average",
        "optimizer": "adam",
        "learning_rate": 5.0,
        "steps": 500,
        "scales": 1,
        "size": None,
        "crop": 224,
        "snapshot_every": 50,
    },
}

"""Every choice of a run in one frozen record, checked once, and the presets that fill it.

This module imports neither torch nor numpy: the command line reads its defaults from here.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import itertools
import math
import numbers
import operator
import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from fastnst.errors import UsageError, nearest, shown
from fastnst.names import layer_names
from fastnst.presets import PRESETS, STYLE_LAYERS, Layers

OPTIMIZERS = ("lbfgs", "adam")
STARTS = ("content", "noise", "style")  # of `init`; anything else is the path of a picture
GRAPHS = ("auto", "on", "off")
TILES = ("auto", "on", "off")  # of `tiles`, which may also be a number of rows, or that number by size
CONVOLUTIONS = ("auto", "winograd", "direct")
PRECISIONS = ("auto", "float32", "bfloat16", "float64")
HISTORY_DTYPES = ("auto", "bfloat16")
TV_KINDS = ("anisotropic", "isotropic", "squared", "nine_point")
KEEP_COLOURS = ("none", "yiq", "lab", "luminance")
MATCH_COLOURS = ("none", "cholesky", "pca", "monge-kantorovich", "histogram")
# Below this a scale has too few positions at the deep layers to say anything about a style.
SMALLEST_SCALE = 64
STYLE_FITS = ("longest", "longest_shrink", "shorter_shrink")
SIZE = re.compile(r"[0-9]{1,7}x[0-9]{1,7}")  # width and height
MOST_ENTRIES = 100  # of a setting with several: steps, scales, layers, weights of styles


@dataclass(frozen=True)
class Range:
    """The numbers that a setting takes: from ``least`` to ``most``, whole or not; ``open`` names the ends left out."""

    least: float
    most: float
    whole: bool = True
    open: str = ""

    def __contains__(self, value: Any) -> bool:
        """Whether a number, not a NaN, is among them."""
        above = value > self.least if "least" in self.open else value >= self.least
        return bool(above and (value < self.most if "most" in self.open else value <= self.most))

    def __str__(self) -> str:
        kind, form = ("a whole number", "d") if self.whole else ("a finite number", "g")
        above = "above" if "least" in self.open else "of at least"
        below = "below" if "most" in self.open else "at most"
        return f"{kind} {above} {self.least:{form}} and {below} {self.most:{form}}"


_WEIGHT = Range(0, 1e30, whole=False)
_SIDE = Range(2, 10**6)
RANGES: Mapping[str, Range] = {
    "content_weight": _WEIGHT,
    "style_weight": _WEIGHT,
    "tv_weight": _WEIGHT,
    "content_layers": _WEIGHT,
    "style_layers": _WEIGHT,
    "style_weights": _WEIGHT,
    "learning_rate": Range(0, 1e40, whole=False, open="least"),
    "betas": Range(0, 1, whole=False, open="most"),
    "epsilon": Range(0, 1e6, whole=False, open="least"),
    "history": Range(1, 1000),
    "steps": Range(1, 10**6),
    "scales": Range(1, 1000),  # how many; the side of one: see `size`
    "scale_factor": Range(1.1, 1000, whole=False),
    "min_scale": Range(SMALLEST_SCALE, 10**6),
    "min_shorter_side": Range(1, 10**6),
    "average": Range(0, 1, whole=False, open="most"),
    "size": _SIDE,
    "crop": _SIDE,
    "style_scale": Range(0, 100, whole=False, open="least"),
    "style_size": _SIDE,
    "noise": Range(0, 1e6, whole=False),
    "seed": Range(0, 2**63 - 1),
    "snapshot_every": Range(0, 10**9),
    "max_pixels": Range(2, 10**12),
    "tiles": Range(16, 10**6),  # rows
    "memory": Range(2**20, 2**60),
}
"""The numbers that each setting takes; of one with several numbers, each of them."""

# The first takes back the second, which then has the third value.
_EXCLUSIVE = (
    ("size", "crop", None),
    ("crop", "size", None),
    ("style_size", "style_scale", 1.0),
    ("style_scale", "style_size", None),
)

_T = TypeVar("_T")


def _free(default: _T) -> _T:
    """A field whose value does not change the picture: it says where a run is computed and what is shown of it."""
    field: _T = dataclasses.field(default=default, metadata={"changes_picture": False})
    return field


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a run does. ``Settings.of("johnson", steps=200)`` starts from a preset.

    The loss is ``content_weight * content + style_weight * style + tv_weight * total variation``, where content and
    style are sums over layers of layer weight times the loss in the named form (see :mod:`fastnst.losses`). Images are
    optimised in pixel units 0..255, in which published learning rates and weights are stated.

    ``RANGES`` has the numbers that each setting takes. Numbers may be of any type that counts as one, NumPy's too,
    ``device`` may be a ``torch.device``, ``init`` and ``weights`` may be paths; the record holds plain values.
    """

    preset: str = _free("default")
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
    style_loss: str = "gram"  # or a name of fastnst.styles, whose losses have forms of their own
    style_weights: tuple[float, ...] = ()  # of several styles, in their order; none: all alike
    normalise_gradients: bool = False  # of each layer's losses, as neural-style does: see fastnst.taps
    tv_kind: str = "anisotropic"
    pooling: str = "max"
    padding: str = "zeros"
    optimizer: str = "lbfgs"
    learning_rate: float = 1.0
    betas: tuple[float, float] = (0.9, 0.999)  # Adam's decays of the gradient and of its square
    epsilon: float = 1e-8  # beside Adam's root of the squares
    clamp: bool = False  # hold every pixel in 0..255 after each step
    # Pairs that L-BFGS remembers, each of which takes two images; several numbers: at the first scale and so on.
    history: int | tuple[int, ...] = 20
    history_dtype: str = "auto"  # of these pairs; auto: the image's, which is float32, or float64 with its precision
    # Evaluations of loss and gradient at each scale; several numbers: at the first and so on, the last for all others.
    steps: int | tuple[int, ...] = 100
    # Coarse to fine: how many; "auto": as many as there are down to `min_scale`; several numbers: their longest sides.
    scales: int | str | tuple[int, ...] = 2
    scale_factor: float = 2.0  # of the sides of one scale and the next
    min_scale: int = SMALLEST_SCALE  # longest side of the coarsest scale, at least
    min_shorter_side: int = SMALLEST_SCALE  # shorter side of the coarsest scale, at least
    carry: bool = True  # Adam's moments from one scale to the next; L-BFGS begins anew
    average: float = 0.0  # decay of a moving average of the images, which becomes the result; 0: the last image does
    size: int | None = 512  # longest side; None keeps the content's own
    crop: int | None = None  # side of a square centre crop, instead of `size`
    # Which side of the style picture becomes `style_scale` times the content's: "longest"; "longest_shrink" and
    # "shorter_shrink" never enlarge it, the latter leaves it as it is up to 1.1 times the content's shorter side.
    style_fit: str = "longest"
    style_scale: float = 1.0  # that side of the style picture, relative to the content's
    style_size: int | None = None  # the longest side of the style picture in pixels, instead of `style_scale`
    init: str = "content"  # content, noise, style, or the path of a picture
    keep_colour: str = "none"  # of the content: its chroma is put back at the end; luminance: nothing else is styled
    match_colour: str = "none"  # of the style, to the content's, before the transfer
    noise: float = 1.0  # standard deviation of `init = noise` about the network's mean colour
    seed: int = 0
    snapshot_every: int = _free(0)  # 0: none
    # Of a picture that is read; None: Pillow's limit, against files made to fill memory.
    max_pixels: int | None = _free(None)
    device: str = _free("auto")
    precision: str = "auto"
    convolution: str = _free("auto")  # winograd: ours, on the CPU; direct: PyTorch's; auto: what is fastest
    # The picture a strip of rows at a time: auto: where it does not fit into memory whole; a number: of so many rows;
    # pairs like ("1024x768", 256): at that width and height, auto at all others, as a run by strips records it.
    tiles: int | str | tuple[tuple[str, int], ...] = _free("auto")
    memory: int | None = _free(None)  # bytes that the run may hold; None: what is free
    graph: str = _free("auto")  # whether a step runs as one CUDA graph; auto: where there is CUDA

    @classmethod
    def of(cls, preset: str = "default", **changes: Any) -> Settings:
        """A preset with ``changes`` applied, of which None is a value like others. Raises UsageError."""
        if not isinstance(preset, str) or preset not in PRESETS:
            raise UsageError(
                f"unknown preset {shown(preset)}{nearest(str(preset), PRESETS)} (known: {', '.join(PRESETS)})"
            )
        _check_names(changes)
        return cls(**{**PRESETS[preset], "preset": preset, **_completed(changes)})

    @classmethod
    def from_file(cls, path: str | os.PathLike[str]) -> Settings:
        """The settings in a ``.toml`` file, or those that a picture made by fastnst carries.

        Raises UsageError for a file that holds none or some that make no sense, FastnstError for one that cannot be
        read.
        """
        from fastnst import settings_file

        return settings_file.read(Path(path)).settings

    def but(self, **changes: Any) -> Settings:
        """This record with ``changes``, checked anew; ``size`` takes the place of ``crop`` and the other way round.

        Raises UsageError.
        """
        if "preset" in changes:
            raise UsageError(f"preset {changes['preset']!r}: start from it with Settings.of, or give settings alone")
        _check_names(changes)
        return dataclasses.replace(self, **_completed(changes))

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if value is not None or "None" not in str(field.type):
                object.__setattr__(self, field.name, _CHECKS[field.name](field.name, value))
        if self.size is not None and self.crop is not None:
            raise UsageError(f"size {self.size} and crop {self.crop}: give one of the two")
        if self.style_size is not None and self.style_scale != 1:
            raise UsageError(f"style_size {self.style_size} and style_scale {self.style_scale:g}: give one of the two")
        _check_scales(self)
        if self.style_weights and not sum(self.style_weights) > 0:
            raise UsageError(f"style_weights {self.style_weights}: expected one above zero at least")
        if self.keep_colour == "luminance" and self.match_colour != "none":
            raise UsageError(
                f"keep_colour 'luminance' leaves no colours for match_colour {self.match_colour!r}: give one of the two"
            )
        content = self.content_weight * sum(weight for _, weight in self.content_layers)
        style = self.style_weight * sum(weight for _, weight in self.style_layers)
        if content == 0 and style == 0:
            raise UsageError("content and style weights are all zero: there is nothing to optimise")

    def layer_names(self) -> tuple[str, ...]:
        """The layers that the content and style losses look at."""
        return tuple(dict.fromkeys(name for name, _ in (*self.content_layers, *self.style_layers)))

    def steps_at(self, scale: int) -> int:
        """The number of steps at a scale, from 1."""
        return _at(self.steps, scale)

    def at(self, scale: int) -> Settings:
        """The settings of one scale, from 1: ``steps`` and ``history`` are those of that scale."""
        return self.but(steps=self.steps_at(scale), history=_at(self.history, scale))

    def gradient_unit(self) -> float:
        """The power of two that brings the largest weight of the losses into (2^13, 2^14].

        Optimisers multiply gradients by it, so that squares and scalar products of gradients stay within float32
        whatever the weights are. A factor before all weights that is a power of two changes no bit of a picture.
        """
        largest = max(
            *(self.content_weight * weight for _, weight in self.content_layers),
            *(self.style_weight * weight for _, weight in self.style_layers),
            self.tv_weight,
        )
        return 2.0 ** min(max(14 - math.ceil(math.log2(largest)), -126), 126)  # a number of float32

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return dataclasses.asdict(self)


def _at(counts: int | tuple[int, ...], scale: int) -> int:
    return counts[min(scale, len(counts)) - 1] if isinstance(counts, tuple) else counts


def recipe(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Of plain values by name those that change the picture: two runs that have these in common make the same one."""
    unused = {field.name for field in dataclasses.fields(Settings) if not field.metadata.get("changes_picture", True)}
    if settings.get("init", "content") != "noise":
        unused.add("seed")
    return {name: value for name, value in settings.items() if name not in unused}


def check_number(name: str, value: object, allowed: Range) -> Any:
    """The value as an int or a float; raises UsageError, which says what is allowed, for another value."""
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
    except OverflowError:  # of a fraction
        return None


def check_choice(name: str, value: object, known: Sequence[str], more: str = "") -> str:
    """The value as a plain text; raises UsageError, which names the known values, for one that is not among them."""
    if not isinstance(value, str) or value not in known:
        hint = nearest(value, known) if isinstance(value, str) else ""
        raise UsageError(f"unknown {name} {shown(value)}{hint} (known: {', '.join(known)}{more})")
    return str(value)


def parse_layers(text: str, arch: str = "vgg19") -> Layers:
    """``"relu1_1,relu2_1:0.5"`` to names and weights.

    A name may be a pattern: ``relu?_1`` stands for relu1_1 to relu5_1. It fits layers of ``arch``, which is that of the
    settings the layers are for: VGG-16 has no relu3_4. A weight may be a curve over its layers: ``relu?_1:256*0.25`` is
    256 at the first and a quarter of the one before at each that is deeper. Raises UsageError for a weight that is not
    a number in the range of ``RANGES`` and a pattern that fits no layer.
    """
    told = f"layers {shown(text)}"
    layers: list[tuple[str, float]] = []
    for part in text.split(","):
        name, colon, weight = part.strip().partition(":")
        if not name:
            raise UsageError(f"{told}: expected names like relu1_1,relu2_1:0.5")
        first, star, factor = weight.partition("*")
        value, step = (parse_number(first) if colon else 1.0), (parse_number(factor) if star else 1.0)
        if isinstance(value, str) or isinstance(step, str):
            raise UsageError(
                f"{told}: the weight of {name} is {shown(weight)}, expected a number, or a curve like 256*0.25"
            )
        names = fnmatch.filter(layer_names(arch), name) if is_pattern(name) else [name]
        if not names:
            raise UsageError(f"{told}: {name} fits no layer of {arch}; expected a pattern like relu?_1")
        for one in names:
            layers.append((one, check_number(f"{told}: weight of {one}", value, _WEIGHT)))
            value *= step
    return tuple(layers)


def is_pattern(text: str) -> bool:
    """Whether layers are named by a pattern, which stands for other layers in another network."""
    return bool(set(text) & set("*?["))


def parse_number(text: str, kind: type[int] | type[float] = float) -> Any:
    """A number; other text is left for Settings to refuse, and so are more digits than Python reads."""
    try:
        return kind(text)
    except ValueError:
        return text


def parse_numbers(text: str, kind: type[int] | type[float] = float) -> Any:
    """``"2,1"`` to numbers; other text is left for Settings to refuse."""
    found = tuple(parse_number(part, kind) for part in text.split(","))
    return text if any(isinstance(part, str) for part in found) else found


def parse_counts(text: str) -> int | str | tuple[int, ...]:
    """``"300"`` to a number, ``"300,100"`` to several; other text is left as it is, for Settings to refuse or know."""
    found: int | str | tuple[int, ...] = parse_numbers(text, int)
    return found[0] if isinstance(found, tuple) and len(found) == 1 else found


def parse_bytes(text: str) -> int:
    """``"4GB"``, ``"500 MB"`` or a number of bytes; a GB are 2^30. Raises UsageError for other text."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?)(?:I?B)?\s*", text.upper())
    if found is None:
        raise UsageError(f"memory {shown(text)}: expected an amount like 4GB or 500MB")
    size = float(found[1]) * 1024.0 ** (" KMGT".index(found[2]) if found[2] else 0)
    if not size <= RANGES["memory"].most:
        raise UsageError(f"memory {shown(text)}: expected {RANGES['memory']}")
    return int(size)


def parse_factor(text: str) -> Any:
    """``"1.5"`` to a number, ``"sqrt2"`` to the square root of two; other text is left for Settings to refuse."""
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


def parse(name: str, text: str) -> Any:
    """A setting as the command line reads it, but for layers: see :func:`parse_layers`.

    ``none`` is None for a number that may be None. What makes no sense is left for Settings to refuse, or a UsageError.
    """
    allowed = RANGES.get(name)
    if text == "none" and allowed is not None and "None" in str(Settings.__dataclass_fields__[name].type):
        return None
    if name in _PARSERS:
        return _PARSERS[name](text)
    return text if allowed is None else parse_number(text, int if allowed.whole else float)


def _check_scales(settings: Settings) -> None:
    scales = settings.scales
    if isinstance(scales, tuple):
        named = ",".join(map(str, scales))
        if any(a >= b for a, b in itertools.pairwise(scales)):
            raise UsageError(f"scales {named}: expected sides that grow, the picture's own last")
        if scales[-1] != (settings.size or settings.crop):
            raise UsageError(
                f"scales {named}: expected the last to be the size or crop, which is "
                f"{settings.size or settings.crop or 'that of the content'}"
            )
    known = len(scales) if isinstance(scales, tuple) else scales if isinstance(scales, int) else math.inf
    for name in ("steps", "history"):
        counts = getattr(settings, name)
        if isinstance(counts, tuple) and len(counts) > known:
            raise UsageError(f"{name} {','.join(map(str, counts))}: {len(counts)} numbers for {known} scales")


def _completed(changes: Mapping[str, Any]) -> dict[str, Any]:
    """Of two settings that exclude each other, naming one takes back the other; sides of scales name the size too.

    ``size=None`` takes back a crop: it asks for the content's own size. Other Nones ask for nothing.
    """
    given = dict(changes)
    for name, other, unused in _EXCLUSIVE:
        if name in changes and (changes[name] is not None or name == "size"):
            given.setdefault(other, unused)
    if isinstance(sides := given.get("scales"), (tuple, list)) and sides and not {"size", "crop"} & set(given):
        given |= {"size": sides[-1], "crop": None}
    return given


def _check_names(changes: Iterable[str]) -> None:
    known = {field.name for field in dataclasses.fields(Settings)}
    for name in changes:
        if name not in known:
            raise UsageError(f"unknown setting {shown(name)}{nearest(name, known)}")


def _number(name: str, value: object) -> Any:
    return check_number(name, value, RANGES[name])


def _choice(known: Sequence[str]) -> Callable[[str, object], str]:
    return lambda name, value: check_choice(name, value, known)


def _flag(name: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise UsageError(f"{name}: expected True or False, got {shown(value)}")
    return value


def _name(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise UsageError(f"{name}: expected a name, got {shown(value)}")
    return str(value)


def _device(name: str, value: object) -> str:
    torch = sys.modules.get("torch")
    return str(value) if torch is not None and isinstance(value, torch.device) else _name(name, value)


def _file(name: str, value: object) -> str:
    """A name or a path, as text. A path called like a start of ``init`` stays a path."""
    if isinstance(value, os.PathLike):
        path = os.fsdecode(value)
        value = f"./{path}" if path in STARTS else path
    text = _name(name, value)
    if "\0" in text:
        raise UsageError(f"{name}: expected a name or a path, got {shown(text)}, which no file can be called")
    return text


def _tiles(name: str, value: object) -> int | str | tuple[tuple[str, int], ...]:
    if isinstance(value, str) or value is None:
        return check_choice(name, value, TILES, f", or {RANGES[name]}")
    if isinstance(value, (list, tuple)):
        pairs = _several(name, value)
        for pair in pairs:
            if not isinstance(pair, (list, tuple)) or len(pair) != 2 or not SIZE.fullmatch(str(pair[0])):
                raise UsageError(f'{name}: expected pairs of size and rows like ("1024x768", 256), got {shown(pair)}')
        return tuple((str(size), _number(name, rows)) for size, rows in pairs)
    rows: int = _number(name, value)
    return rows


def _several(name: str, value: object) -> tuple[Any, ...]:
    """The entries of a tuple or list, plain; none for anything else."""
    if not isinstance(value, (list, tuple)):
        return ()
    if len(value) > MOST_ENTRIES:
        raise UsageError(f"{name}: expected at most {MOST_ENTRIES} entries, got {len(value)}")
    return tuple(value)


def _counts(name: str, value: object) -> Any:
    return tuple(_number(name, one) for one in _several(name, value)) or _number(name, value)


def _scales(name: str, value: object) -> Any:
    if isinstance(value, str) and value == "auto":
        return "auto"
    return tuple(check_number(name, one, _SIDE) for one in _several(name, value)) or _number(name, value)


def _weights(name: str, value: object) -> tuple[float, ...]:
    if not isinstance(value, (list, tuple)):
        raise UsageError(f"{name}: expected numbers like (2.0, 1.0), got {shown(value)}")
    return tuple(_number(name, one) for one in _several(name, value))


def _betas(name: str, value: object) -> tuple[float, ...]:
    if len(several := _several(name, value)) != 2:
        raise UsageError(f"{name}: expected two numbers like (0.9, 0.999), got {shown(value)}")
    return tuple(_number(name, one) for one in several)


def _layers(name: str, value: object) -> Layers:
    pairs = _several(name, value)
    known = [isinstance(pair, (tuple, list)) and len(pair) == 2 and isinstance(pair[0], str) for pair in pairs]
    if not isinstance(value, (list, tuple)) or not all(known):
        raise UsageError(f'{name}: expected pairs of name and weight like (("relu4_2", 1.0),), got {shown(value)}')
    layers: dict[str, float] = {}
    for layer, weight in pairs:
        if layer in layers:
            raise UsageError(f"{name}: {layer} is named twice")
        layers[str(layer)] = check_number(f"{name}: weight of {layer}", weight, RANGES[name])
    return tuple(layers.items())


_CHECKS: Mapping[str, Callable[[str, Any], Any]] = {
    **dict.fromkeys(RANGES, _number),
    **dict.fromkeys(("arch", "content_form", "style_form", "style_loss", "pooling", "padding"), _name),
    **dict.fromkeys(("normalise_gradients", "clamp", "carry"), _flag),
    "preset": _name,
    "weights": _file,
    "init": _file,
    "device": _device,
    "tiles": _tiles,
    "steps": _counts,
    "history": _counts,
    "scales": _scales,
    "style_weights": _weights,
    "betas": _betas,
    "content_layers": _layers,
    "style_layers": _layers,
    "optimizer": _choice(OPTIMIZERS),
    "history_dtype": _choice(HISTORY_DTYPES),
    "precision": _choice(PRECISIONS),
    "convolution": _choice(CONVOLUTIONS),
    "graph": _choice(GRAPHS),
    "tv_kind": _choice(TV_KINDS),
    "style_fit": _choice(STYLE_FITS),
    "keep_colour": _choice(KEEP_COLOURS),
    "match_colour": _choice(MATCH_COLOURS),
}
"""For each setting what gives its value in plain form, or refuses it."""

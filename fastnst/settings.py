"""Every choice of a run in one frozen record, checked once, and the presets that fill it.

This module imports neither torch nor numpy: the command line reads its defaults from here.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import itertools
import math
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastnst.errors import UsageError, nearest
from fastnst.names import layer_names
from fastnst.presets import PRESETS, STYLE_LAYERS, Layers

OPTIMIZERS = ("lbfgs", "adam")
STARTS = ("content", "noise", "style")  # of `init`; anything else is the path of a picture
GRAPHS = ("auto", "on", "off")
TILES = ("auto", "on", "off")  # of `tiles`, which may also be a number of rows
CONVOLUTIONS = ("auto", "winograd", "direct")
PRECISIONS = ("auto", "float32", "bfloat16", "float64")
HISTORY_DTYPES = ("auto", "bfloat16")
TV_KINDS = ("anisotropic", "isotropic", "squared", "nine_point")
KEEP_COLOURS = ("none", "yiq", "lab", "luminance")
MATCH_COLOURS = ("none", "cholesky", "pca", "monge-kantorovich", "histogram")
# Below this a scale has too few positions at the deep layers to say anything about a style.
SMALLEST_SCALE = 64
STYLE_FITS = ("longest", "longest_shrink", "shorter_shrink")
MUCH_LARGER = 1.1  # a style whose shorter side is so many times the content's is shrunk by "shorter_shrink"
LEAST_TILE = 16  # rows
LEAST_FACTOR = 1.1  # between one scale and the next

# The first takes back the second, which then has the third value.
_EXCLUSIVE = (
    ("size", "crop", None),
    ("crop", "size", None),
    ("style_size", "style_scale", 1.0),
    ("style_scale", "style_size", None),
)


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
    snapshot_every: int = 0  # 0: none
    max_pixels: int | None = None  # of a picture that is read; None: Pillow's limit, against files made to fill memory
    device: str = "auto"
    precision: str = "auto"
    convolution: str = "auto"  # winograd: ours, on the CPU; direct: PyTorch's; auto: what is fastest
    # The picture a strip of rows at a time: auto: where it does not fit into memory whole; a number: of so many rows.
    tiles: int | str = "auto"
    memory: int | None = None  # bytes that the run may hold; None: what is free
    graph: str = "auto"  # whether a step runs as one CUDA graph; auto: where there is CUDA

    @classmethod
    def of(cls, preset: str = "default", **changes: Any) -> Settings:
        """A preset with ``changes`` applied; None leaves the preset's value. Raises UsageError."""
        if preset not in PRESETS:
            raise UsageError(f"unknown preset {preset!r}{nearest(preset, PRESETS)} (known: {', '.join(PRESETS)})")
        _check_names(changes)
        given = {name: value for name, value in changes.items() if value is not None}
        return cls(**{**PRESETS[preset], "preset": preset, **_completed(given)})

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
        for name in ("content_layers", "style_layers", "style_weights", "betas", "steps", "scales", "history"):
            object.__setattr__(self, name, _tuples(getattr(self, name)))  # of lists, as JSON has them
        for name in ("content_weight", "style_weight", "tv_weight", "noise"):
            _check_number(name, getattr(self, name), least=0.0)
        for name in ("learning_rate", "epsilon", "style_scale"):
            _check_number(name, getattr(self, name), least=0.0, open_end=True)
        _check_number("scale_factor", self.scale_factor, least=LEAST_FACTOR)
        for name, least in (("min_scale", SMALLEST_SCALE), ("min_shorter_side", 1), ("snapshot_every", 0), ("seed", 0)):
            _check_integer(name, getattr(self, name), least)
        if self.memory is not None:
            _check_integer("memory", self.memory, 2**20)
        if isinstance(self.tiles, int):
            _check_integer("tiles", self.tiles, LEAST_TILE)
        else:
            check_choice("tiles", self.tiles, TILES)
        for name in ("size", "crop", "style_size", "max_pixels"):
            if getattr(self, name) is not None:
                _check_integer(name, getattr(self, name), 2)
        if self.size is not None and self.crop is not None:
            raise UsageError(f"size {self.size} and crop {self.crop}: give one of the two")
        if self.style_size is not None and self.style_scale != 1:
            raise UsageError(f"style_size {self.style_size} and style_scale {self.style_scale:g}: give one of the two")
        _check_scales(self)
        if not isinstance(self.style_weights, tuple):
            raise UsageError(f"style_weights: expected numbers like (2.0, 1.0), got {self.style_weights!r}")
        for weight in self.style_weights:
            _check_number("style_weights", weight, least=0.0)
        if self.style_weights and not sum(self.style_weights) > 0:
            raise UsageError(f"style_weights {self.style_weights}: expected one above zero at least")
        for name in ("normalise_gradients", "clamp", "carry"):
            if not isinstance(getattr(self, name), bool):
                raise UsageError(f"{name}: expected True or False, got {getattr(self, name)!r}")
        if not isinstance(self.betas, tuple) or len(self.betas) != 2:
            raise UsageError(f"betas: expected two numbers like (0.9, 0.999), got {self.betas!r}")
        for beta in self.betas:
            _check_number("betas", beta, least=0.0)
            if beta >= 1:
                raise UsageError(f"betas: expected decays of at least 0 and below 1, got {beta}")
        for name in ("arch", "content_form", "style_form", "style_loss", "pooling", "padding", "device"):
            if not isinstance(getattr(self, name), str):
                raise UsageError(f"{name}: expected a name, got {getattr(self, name)!r}")
        choices = {
            "optimizer": OPTIMIZERS,
            "history_dtype": HISTORY_DTYPES,
            "precision": PRECISIONS,
            "convolution": CONVOLUTIONS,
            "graph": GRAPHS,
            "tv_kind": TV_KINDS,
            "style_fit": STYLE_FITS,
            "keep_colour": KEEP_COLOURS,
            "match_colour": MATCH_COLOURS,
        }
        for name, known in choices.items():
            check_choice(name, getattr(self, name), known)
        if self.keep_colour == "luminance" and self.match_colour != "none":
            raise UsageError(
                f"keep_colour 'luminance' leaves no colours for match_colour {self.match_colour!r}: give one of the two"
            )
        for name in ("content_layers", "style_layers"):
            _check_layers(name, getattr(self, name))
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


def _at(numbers: int | tuple[int, ...], scale: int) -> int:
    return numbers[min(scale, len(numbers)) - 1] if isinstance(numbers, tuple) else numbers


def check_choice(name: str, value: object, known: Sequence[str]) -> None:
    """Raise UsageError, which names the known values, for one that is not among them."""
    if value not in known:
        raise UsageError(f"unknown {name} {value!r}{nearest(str(value), known)} (known: {', '.join(known)})")


def parse_layers(text: str, arch: str = "vgg19") -> Layers:
    """``"relu1_1,relu2_1:0.5"`` to names and weights.

    A name may be a pattern: ``relu?_1`` stands for relu1_1 to relu5_1. A weight may be a curve over its layers:
    ``relu?_1:256*0.25`` is 256 at the first and a quarter of the one before at each that is deeper. Raises UsageError
    for a weight that is not a number and a pattern that fits no layer.
    """
    layers: list[tuple[str, float]] = []
    for part in text.split(","):
        name, colon, weight = part.strip().partition(":")
        if not name:
            raise UsageError(f"layers {text!r}: expected names like relu1_1,relu2_1:0.5")
        first, star, factor = weight.partition("*")
        try:
            value, step = float(first) if colon else 1.0, float(factor) if star else 1.0
        except ValueError:
            raise UsageError(
                f"layers {text!r}: the weight of {name} is {weight!r}, expected a number, or a curve like 256*0.25"
            ) from None
        names = fnmatch.filter(layer_names(arch), name) if set(name) & set("*?[") else [name]
        if not names:
            raise UsageError(f"layers {text!r}: {name} fits no layer of {arch}; expected a pattern like relu?_1")
        layers += [(one, value * step**depth) for depth, one in enumerate(names)]
    return tuple(layers)


def parse_numbers(text: str) -> tuple[float, ...] | str:
    """``"2,1"`` to numbers; other text is left for Settings to refuse."""
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        return text


def parse_counts(text: str) -> int | str | tuple[int, ...]:
    """``"300"`` to a number, ``"300,100"`` to several; other text is left as it is, for Settings to refuse or know."""
    try:
        numbers = tuple(int(part) for part in text.split(","))
    except ValueError:
        return text
    return numbers if len(numbers) > 1 else numbers[0]


def parse_tiles(text: str) -> int | str:
    """``"256"`` to a number; other text is left for Settings to refuse or know."""
    return int(text) if text.isdecimal() else text


def parse_bytes(text: str) -> int:
    """``"4GB"``, ``"500 MB"`` or a number of bytes; a GB are 2^30. Raises UsageError for other text."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?)(?:I?B)?\s*", text.upper())
    if found is None:
        raise UsageError(f"memory {text!r}: expected an amount like 4GB or 500MB")
    return int(float(found[1]) * 1024 ** (" KMGT".index(found[2]) if found[2] else 0))


def parse_factor(text: str) -> float | str:
    """``"1.5"`` to a number, ``"sqrt2"`` to the square root of two; other text is left for Settings to refuse."""
    try:
        return math.sqrt(2) if text == "sqrt2" else float(text)
    except ValueError:
        return text


PARSERS: Mapping[str, Callable[[str], Any]] = {
    "steps": parse_counts,
    "history": parse_counts,
    "scales": parse_counts,
    "scale_factor": parse_factor,
    "style_weights": parse_numbers,
    "betas": parse_numbers,
    "tiles": parse_tiles,
    "memory": parse_bytes,
}
"""How the command line reads settings that are more than a word or a number."""


def _check_scales(settings: Settings) -> None:
    scales = settings.scales
    for name in ("steps", "history"):
        counts = getattr(settings, name)
        for count in counts if isinstance(counts, tuple) and counts else [counts]:
            _check_integer(name, count, 1)
    _check_number("average", settings.average, least=0.0)
    if settings.average >= 1:
        raise UsageError(f"average: expected a decay of at least 0 and below 1, got {settings.average}")
    if isinstance(scales, tuple) and scales:
        for side in scales:
            _check_integer("scales", side, 2)
        named = ",".join(map(str, scales))
        if any(a >= b for a, b in itertools.pairwise(scales)):
            raise UsageError(f"scales {named}: expected sides that grow, the picture's own last")
        if scales[-1] != (settings.size or settings.crop):
            raise UsageError(
                f"scales {named}: expected the last to be the size or crop, which is {settings.size or settings.crop}"
            )
    elif scales != "auto":
        _check_integer("scales", scales, 1)
    known = len(scales) if isinstance(scales, tuple) else scales if isinstance(scales, int) else math.inf
    for name in ("steps", "history"):
        counts = getattr(settings, name)
        if isinstance(counts, tuple) and len(counts) > known:
            raise UsageError(f"{name} {','.join(map(str, counts))}: {len(counts)} numbers for {known} scales")


def _completed(changes: Mapping[str, Any]) -> dict[str, Any]:
    """Of two settings that exclude each other, naming one takes back the other; sides of scales name the size too."""
    given = dict(changes)
    for name, other, unused in _EXCLUSIVE:
        if given.get(name) is not None:
            given.setdefault(other, unused)
    if isinstance(sides := given.get("scales"), (tuple, list)) and sides and not {"size", "crop"} & set(given):
        given |= {"size": sides[-1], "crop": None}
    return given


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, (list, tuple)) else value


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

"""Every choice of a run in one frozen dataclass. This module imports neither torch nor NumPy."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from fastnst.config.checks import check_setting, check_together
from fastnst.config.encoders import stride_of, with_default_layers
from fastnst.config.presets import PRESETS, STYLE_LAYERS
from fastnst.config.ranges import FIRST_CHANGE, SMALLEST_SCALE, WRAPS
from fastnst.errors import UsageError, nearest, shown

_T = TypeVar("_T")

# A change of the first setting gives the second the third value.
_EXCLUSIVE = (
    ("size", "crop", None),
    ("crop", "size", None),
    ("style_size", "style_scale", 1.0),
    ("style_scale", "style_size", None),
)


def _setting(default: _T, help: str, *, unit: str = "", file: bool = False, changes_picture: bool = True) -> _T:
    """A field with what others need to know of it.

    Args:
        default: its value in the preset ``default``.
        help: one line for the help of the command line; names of other settings are in backticks.
        unit: unit of the number.
        file: the setting may name a file, which a picture then records.
        changes_picture: False for settings that say where and how a run is computed, or what is shown of it. Two runs
            that differ in these alone make the same picture.
    """
    metadata = {"help": help, "unit": unit, "file": file, "changes_picture": changes_picture}
    field: _T = dataclasses.field(default=default, metadata=metadata)
    return field


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings of a run.

    The loss is ``content_weight * content + style_weight * style + tv_weight * total variation``. Content and style are
    sums over layers of the layer's weight times its loss in the named form (see :mod:`fastnst.losses`). Images are
    optimized in pixel units 0..255, the units of published learning rates and weights.

    The metadata of each field has a one-line description and the unit. ``fastnst.config.RANGES`` has the numbers
    that each setting accepts. Numbers may be of any numeric type, such as NumPy scalars; ``device`` may be a
    ``torch.device``; ``init`` and ``weights`` may be paths. They are stored as plain values.

    Example:
        >>> Settings.from_preset("johnson", steps=200).steps
        200
    """

    preset: str = _setting("default", "preset that the other settings started from", changes_picture=False)
    arch: str = _setting("vgg19", "network: vgg16, vgg19, efficientnet_lite0, or one of an installed package")
    weights: str | None = _setting(
        None, "weights of the network: a name from `fastnst weights list`, or a file", file=True
    )
    content_layers: tuple[tuple[str, float], ...] = _setting(
        (("relu4_2", 1.0),), "layers of the content loss and their weights"
    )
    # The preset emphasizes shallow layers: strokes and palette come through, and shapes of the style stay out.
    style_layers: tuple[tuple[str, float], ...] = _setting(
        tuple(zip(STYLE_LAYERS, (15.0, 5.0, 1.0, 0.3, 0.3), strict=True)), "layers of the style loss and their weights"
    )
    content_weight: float = _setting(8.0, "weight of the content loss")
    style_weight: float = _setting(1000.0, "weight of the style loss")
    tv_weight: float = _setting(0.1, "weight of the total variation loss")
    content_loss: str = _setting(
        "features", "content loss: features, self_similarity, or one of an installed package that sees several layers"
    )
    content_form: str = _setting("mean", "normalization of the content loss")
    style_form: str = _setting("channels", "normalization of the Gram loss")
    style_loss: str = _setting(
        "gram", "style loss: gram, another of fastnst.losses.style or joint, or one of an installed package"
    )
    style_weights: tuple[float, ...] = _setting((), "weight of each style picture, in their order")
    normalize_gradients: bool = _setting(
        False, "scale the gradient of each layer to the same norm before its weight is applied"
    )
    tv_kind: str = _setting("anisotropic", "form of the total variation")
    pooling: str = _setting("max", "pooling of the network: max, average or l2")
    padding: str = _setting(
        "zeros",
        "padding of convolutions: zeros, replicate, circular, reflect, or replicate_first, which replicates at the "
        "first layer only",
    )
    tileable: str = _setting(
        "none", "make a picture that continues at its opposite side: none, both, x for columns only, y for rows only"
    )
    edges: str = _setting(
        "mirror", "last rows and columns that pools leave out: mirror continues the picture so that they count, or drop"
    )
    optimizer: str = _setting("lbfgs", "optimizer; adam_pyramid is Adam on the levels of a Laplacian pyramid")
    learning_rate: float = _setting(1.0, "learning rate")
    betas: tuple[float, float] = _setting((0.9, 0.999), "decay rates of Adam's first and second moments")
    epsilon: float = _setting(1e-8, "term added to the denominator of Adam's update")
    clamp: bool = _setting(False, "clamp pixels to 0..255 after each step")
    # Each pair takes the memory of two images of history_dtype.
    history: int | tuple[int, ...] = _setting(
        20, "pairs that L-BFGS stores: one number, or one per scale; the last applies to all further scales"
    )
    first_change: float = _setting(
        FIRST_CHANGE, "mean change of a pixel by the first step of L-BFGS; less for a good start", unit="levels of 255"
    )
    history_dtype: str = _setting(
        "auto", "dtype of the pairs that L-BFGS stores; auto: bfloat16 on the CPU if features are, else the image's"
    )
    steps: int | tuple[int, ...] = _setting(
        100,
        "evaluations of loss and gradient at each scale: one number, or one per scale; the last applies to all "
        "further scales",
        unit="steps",
    )
    scales: int | str | tuple[int, ...] = _setting(
        2,
        "scales from coarse to fine: their number, auto for as many as `min_scale` allows, or the longest side of each",
    )
    scale_factor: float = _setting(2.0, "ratio of the sides of a scale to those of the scale before")
    min_scale: int = _setting(SMALLEST_SCALE, "lower bound of the longest side of the coarsest scale", unit="pixels")
    min_shorter_side: int = _setting(
        SMALLEST_SCALE, "lower bound of the shorter side of the coarsest scale", unit="pixels"
    )
    carry: bool = _setting(True, "keep Adam's moments from one scale to the next")
    average: float = _setting(0.0, "decay of a moving average of the images, which becomes the result; 0: no average")
    size: int | None = _setting(512, "longest side of the result; none: the size of the content", unit="pixels")
    crop: int | None = _setting(None, "side of a square center crop, instead of `size`", unit="pixels")
    # "shorter_shrink" also leaves a style picture alone up to 1.1 times the shorter side of the content.
    style_fit: str = _setting(
        "longest",
        "side of the style picture that is scaled to the content's; the _shrink forms never enlarge; none keeps the "
        "style's size",
    )
    style_scale: float = _setting(1.0, "size of the style picture relative to the content")
    style_size: int | None = _setting(
        None, "longest side of the style picture, instead of `style_scale`", unit="pixels"
    )
    init: str = _setting("content", "image to start from: content, noise, style, or a picture file", file=True)
    keep_color: str = _setting(
        "none", "restore the chroma of the content in this color space; luminance: style only the luminance"
    )
    match_color: str = _setting("none", "match the colors of the style to the content before the run")
    photoreal: float = _setting(
        0.0, "strength of a pass that gives the finished picture the edges of the content; 0: none"
    )
    noise: float = _setting(
        1.0, "standard deviation of the noise that a run starts from, about the network's mean color"
    )
    seed: int = _setting(0, "seed of the noise")
    snapshot_every: int = _setting(
        0, "steps over all scales from one snapshot to the next; 0: no snapshots", unit="steps", changes_picture=False
    )
    # Pillow's own limit protects from files that are made to fill memory.
    max_pixels: int | None = _setting(
        None, "largest picture that is read; none: the limit of Pillow", unit="pixels", changes_picture=False
    )
    device: str = _setting(
        "auto", "device: auto, cpu, cuda, cuda:1, xpu, mps or another of PyTorch", changes_picture=False
    )
    precision: str = _setting("auto", "precision of the features")
    convolution: str = _setting(
        "auto", "algorithm of the convolutions; winograd runs on the CPU only", changes_picture=False
    )
    # A run that chose strips itself records their rows by size, such as ("1024x768", 256): see memory_model.
    tiles: int | str | tuple[tuple[str, int], ...] = _setting(
        "auto",
        "evaluate the network on strips across the longer side: auto if the picture does not fit into memory, on, "
        "off, or the rows of a strip, which are columns in a wide picture",
        unit="rows",
        changes_picture=False,
    )
    memory: int | None = _setting(
        None, "memory that the run may use, such as 4GB; none: all that is free", unit="bytes", changes_picture=False
    )
    graph: str = _setting("auto", "capture a step as one CUDA graph", changes_picture=False)

    @classmethod
    def from_preset(cls, preset: str = "default", **changes: Any) -> Settings:
        """The settings of a preset with ``changes`` applied. None is a value like any other.

        Raises UsageError for an unknown preset or setting and for a value that is out of range.
        """
        if not isinstance(preset, str) or preset not in PRESETS:
            raise UsageError(
                f"unknown preset {shown(preset)}{nearest(str(preset), PRESETS)} (known: {', '.join(PRESETS)})"
            )
        _check_names(changes)
        return cls(**{**PRESETS[preset], "preset": preset, **_completed(changes)})

    def replace(self, **changes: Any) -> Settings:
        """A copy with ``changes`` applied and checked. ``size`` replaces ``crop``, and ``crop`` replaces ``size``.

        Raises UsageError, also for ``preset``: use :meth:`from_preset` to start from a preset.
        """
        if "preset" in changes:
            raise UsageError(
                f"preset {changes['preset']!r}: start from it with Settings.from_preset, or give settings alone"
            )
        _check_names(changes)
        return dataclasses.replace(self, **_completed(changes))

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if value is not None or not allows_none(field.name):
                object.__setattr__(self, field.name, check_setting(field.name, value))
        for name, layers in with_default_layers(self.arch, vars(self), Settings.__dataclass_fields__).items():
            object.__setattr__(self, name, layers)
        check_together(vars(self))

    @property
    def wraps(self) -> tuple[bool, bool]:
        """Whether the first row of the picture follows its last, and whether the first column does."""
        return WRAPS[self.tileable]

    def layer_names(self) -> tuple[str, ...]:
        """The layers of the content and style losses, each once."""
        return tuple(dict.fromkeys(name for name, _ in (*self.content_layers, *self.style_layers)))

    @property
    def stride(self) -> int:
        """The largest number of pixels from one position of a layer with a loss to the next; 1 for an unknown layer."""
        return max((stride_of(self.arch, name) for name in self.layer_names()), default=1)

    def steps_at(self, scale: int) -> int:
        """The number of steps at a scale, counted from 1."""
        return _at(self.steps, scale)

    def at(self, scale: int) -> Settings:
        """The settings of one scale, counted from 1: ``steps`` and ``history`` are single numbers."""
        return self.replace(steps=self.steps_at(scale), history=_at(self.history, scale))

    def gradient_unit(self) -> float:
        """The power of two that brings the largest weight of the losses into (2^13, 2^14].

        Optimizers multiply gradients by it, so that squares and dot products of gradients stay within float32 for all
        weights. A power of two as a common factor of all weights changes no bit of the result.
        """
        largest = max(
            *(self.content_weight * weight for _, weight in self.content_layers),
            *(self.style_weight * weight for _, weight in self.style_layers),
            self.tv_weight,
        )
        return 2.0 ** min(max(14 - math.ceil(math.log2(largest)), -126), 126)  # a normal number of float32

    def to_dict(self) -> dict[str, Any]:
        """The settings as plain values for JSON."""
        return dataclasses.asdict(self)


def allows_none(name: str) -> bool:
    """Whether the setting ``name`` may be None."""
    return "None" in str(Settings.__dataclass_fields__[name].type)


def file_settings() -> tuple[str, ...]:
    """The settings that may name a file."""
    return tuple(field.name for field in dataclasses.fields(Settings) if field.metadata["file"])


def picture_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The ``settings``, values by name, that change the picture. Runs that share them make the same picture."""
    unused = {field.name for field in dataclasses.fields(Settings) if not field.metadata["changes_picture"]}
    if settings.get("init", "content") != "noise":
        unused.add("seed")
    return {name: value for name, value in settings.items() if name not in unused}


def _at(counts: int | tuple[int, ...], scale: int) -> int:
    return counts[min(scale, len(counts)) - 1] if isinstance(counts, tuple) else counts


def _completed(changes: Mapping[str, Any]) -> dict[str, Any]:
    """The changes with those that they imply.

    A change of one of two exclusive settings resets the other. The sides of ``scales`` set the size as well.
    ``size=None`` asks for the size of the content and resets ``crop``; other values of None reset nothing.
    """
    completed = dict(changes)
    for name, other, unused in _EXCLUSIVE:
        if name in changes and (changes[name] is not None or name == "size"):
            completed.setdefault(other, unused)
    if isinstance(sides := completed.get("scales"), (tuple, list)) and sides and not {"size", "crop"} & set(completed):
        completed |= {"size": sides[-1], "crop": None}
    return completed


def _check_names(changes: Iterable[str]) -> None:
    known = {field.name for field in dataclasses.fields(Settings)}
    for name in changes:
        if name not in known:
            raise UsageError(f"unknown setting {shown(name)}{nearest(name, known)}")

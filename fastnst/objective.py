"""One question, one answer: the losses of an image and their gradient.

What is asked of which layer is settled here; :mod:`fastnst.engine` runs it. Autograd through
:meth:`fastnst.vgg.VGG.features` gives the same gradient and is the oracle of the tests.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from fastnst import ops
from fastnst.engine import Engine, choose
from fastnst.errors import UsageError
from fastnst.losses import content_form, style_form
from fastnst.ops.reference import accumulate_dtype
from fastnst.settings import Settings
from fastnst.styles import StyleLoss, Target, measure, style_loss
from fastnst.styles.registry import GRAM
from fastnst.taps import StyleTerm, Tap
from fastnst.variation import weighted_variation
from fastnst.vgg import VGG, Layer, check_size


@dataclass(frozen=True)
class Losses:
    """The weighted parts of a loss: ``total`` is the sum of every part."""

    total: float
    content: Mapping[str, float] = field(default_factory=dict)
    style: Mapping[str, float] = field(default_factory=dict)
    tv: float = 0.0

    @property
    def magnitude(self) -> float:
        """The sum of the parts' magnitudes: what a change of the total is small or large against. It is the total where
        no part is below zero, as all of fastnst are; a loss of the user's own may be."""
        return max(abs(self.total), sum(map(abs, (*self.content.values(), *self.style.values(), self.tv))))


StyleTargets = Mapping[str, Target]
"""For each style layer, what is kept of the style: its Gram matrix ``([1, C, C],)`` in the settings' form, or what the
settings' style loss measures."""


@dataclass(frozen=True)
class Region:
    """A style and where it goes: ``mask [1, 1, H, W]`` of the image's size, in 0..1, soft edges included; None:
    everywhere. ``weight`` is the factor of its loss, beside the mask's share of the image."""

    targets: StyleTargets
    mask: Tensor | None = None
    weight: float = 1.0


def style_targets(network: VGG, style: Tensor, settings: Settings, mask: Tensor | None = None) -> StyleTargets:
    """What is kept of a style picture, pixels ``[1, 3, H, W]`` in 0..255; computed once for any number of runs.

    ``mask [1, 1, H, W]`` in 0..1 says which of its positions count, and how much. Raises UsageError for one in which a
    layer has no position left.
    """
    loss, names = style_loss_of(settings), styled_layers(settings)
    targets: dict[str, Target] = {}
    with torch.no_grad():
        for name, x in network.walk(style.to(network.device), names) if names else ():
            scale, weight = weighing(network, name, x.shape[1:], settings, mask)
            if loss is None:
                targets[name] = (ops.gram(x, weight, scale),)
            else:
                targets[name] = measure(loss, x, weight)
            del x  # not held while the next is made
    return targets


def blend(targets: Sequence[StyleTargets], weights: Sequence[float], settings: Settings) -> StyleTargets:
    """One style between several, ``weights`` of sum 1.

    For the Gram matrix the mean of the matrices: the weighted sum of the styles' losses is the loss to that mean and a
    constant, so that any number of styles costs a step no more than one.
    """
    loss = style_loss_of(settings) or StyleLoss()
    if len(targets) == 1:
        return targets[0]
    return {name: loss.blend([target[name] for target in targets], weights) for name in targets[0]}


def styled_layers(settings: Settings) -> list[str]:
    """The layers whose style counts."""
    return [name for name, weight in settings.style_layers if weight > 0 and settings.style_weight > 0]


def weighing(
    network: VGG, layer: str, shape: Sequence[int], settings: Settings, mask: Tensor | None
) -> tuple[float, Tensor | None]:
    """The factor of the Gram matrix of a layer's features ``[C, h, w]``, and the weights of positions that a mask
    makes, on the network's device; None without one."""
    c, height, width = shape
    scale = style_form(settings.style_form).gram(c, height * width)
    if mask is None:
        return scale, None
    weight = position_weights(mask, height, width, layer)
    return scale * height * width, weight.to(network.device, accumulate_dtype(network.dtype))


def position_weights(mask: Tensor, height: int, width: int, layer: str) -> Tensor:
    """A mask ``[1, 1, H, W]`` as weights of the positions of a layer's features, ``[1, height, width]``, float64, of
    sum 1. Raises UsageError where none is left above zero."""
    weight = at_layer(mask, height, width)
    total = weight.sum()
    if not total > 0:
        raise UsageError(f"a mask has no position above zero left at layer {layer}; paint a larger region")
    return weight / total


def at_layer(mask: Tensor, height: int, width: int) -> Tensor:
    """A mask ``[1, 1, H, W]`` over ``[1, height, width]`` positions: the mean of the pixels of each."""
    mask = mask.double()
    stride = max(mask.shape[2] // height, 1)
    if (mask.shape[2] // stride, mask.shape[3] // stride) == (height, width):  # rows that pools drop are dropped here
        return F.avg_pool2d(mask, stride)[0]
    return F.adaptive_avg_pool2d(mask, (height, width))[0]


class Objective:
    """``content_weight * content + style_weight * style + tv_weight * TV`` of one content picture and its styles.

    Args:
        network: built for at least ``settings.layer_names()``.
        content: pixels ``[1, 3, H, W]``, RGB, 0..255; every image evaluated has this size.
        styles: targets from :func:`style_targets`, or several with the regions they go to.
        settings: the weights, layers, losses and forms; the rest is not read.
        engine: the kind of engine; None takes what suits the network.
        content_mask: ``[1, 1, H, W]``, factors of the content loss by pixel; None: 1 everywhere.

    Raises:
        UsageError: the picture is too small for the deepest layer, a form or loss is unknown, or a mask has no position
            above zero at a layer.
    """

    def __init__(
        self,
        network: VGG,
        content: Tensor,
        styles: StyleTargets | Sequence[Region],
        settings: Settings,
        engine: type[Engine] | None = None,
        content_mask: Tensor | None = None,
    ) -> None:
        ops.follow_matmul_precision()  # not once a step: a graph of the step could not hold it
        self.network, self.settings = network, settings
        self.size = (content.shape[-2], content.shape[-1])
        self.chain, self.taps = ask(network, self.size, styles, settings, content_mask)
        kept = [name for name, tap in self.taps.items() if tap.content]
        if kept:
            with torch.no_grad():
                features = network.features(content.to(network.device), kept)
            self.taps |= {name: replace(self.taps[name], target=features[name]) for name in kept}
        make = engine or choose(network)
        self.engine = make(network, self.chain, self.taps, self.size)
        varies = settings.tv_weight > 0
        self.parts = (*self.engine.parts, ("tv", "")) if varies else self.engine.parts
        # Made once: a number that becomes a tensor on the device is a transfer.
        weight = torch.tensor(settings.tv_weight, dtype=content.dtype, device=network.device)
        self._tv_weight = weight if varies else None

    def value_and_grad(self, image: Tensor) -> tuple[Losses, Tensor]:
        """Losses and gradient of an image ``[1, 3, H, W]``, RGB, 0..255, float32 (or float64).

        The gradient has the shape, dtype and device of the image. Raises UsageError for an image of another shape.
        """
        check_image(image, self.size)
        values, gradient = self.evaluate(image)
        return self.losses(values.tolist()), gradient

    @torch.no_grad()
    def evaluate(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """The weighted value of each of ``parts`` ``[P]``, and the gradient; nothing is checked or waited for.

        Everything stays on the device, so that a CUDA graph can hold it.
        """
        values, gradient = self.engine.evaluate(image)
        if self._tv_weight is not None:
            weight = self._tv_weight.to(image.dtype)
            value, slope = weighted_variation(image, self.settings.tv_kind, weight)
            values.append(value)
            gradient += slope
        return torch.stack(values), gradient

    def losses(self, values: Sequence[float]) -> Losses:
        """The values of ``parts`` by name."""
        named = [(kind, layer, value) for (kind, layer), value in zip(self.parts, values, strict=True)]
        return Losses(
            total=sum(values),
            content={layer: value for kind, layer, value in named if kind == "content"},
            style={layer: value for kind, layer, value in named if kind == "style"},
            tv=sum(value for kind, _, value in named if kind == "tv"),
        )


def check_image(image: Tensor, size: tuple[int, int]) -> None:
    """Raise UsageError for an image of another shape than ``[1, 3, *size]``."""
    if image.shape != (1, 3, *size):
        raise UsageError(f"expected an image of shape {(1, 3, *size)} like the content, got {tuple(image.shape)}")


def ask(
    network: VGG,
    size: tuple[int, int],
    styles: StyleTargets | Sequence[Region],
    settings: Settings,
    content_mask: Tensor | None = None,
) -> tuple[tuple[Layer, ...], dict[str, Tap]]:
    """What is asked of each layer for images of ``size``, but for the content's features, and the layers up to the
    deepest of them. Arguments and errors as of :class:`Objective`."""
    regions = [Region(styles)] if isinstance(styles, Mapping) else list(styles)
    content_weights, style_weights = (
        {name: factor * weight for name, weight in layers if factor * weight > 0}
        for factor, layers in (
            (settings.content_weight, settings.content_layers),
            (settings.style_weight, settings.style_layers),
        )
    )
    wanted = content_weights | style_weights
    chain = _prefix(network.chain, wanted)
    check_size(chain, *size)
    factor_of = content_form(settings.content_form)
    taps: dict[str, Tap] = {}
    for layer in chain:
        if layer.name not in wanted:
            continue
        c, (height, width) = layer.channels, (size[0] // layer.stride, size[1] // layer.stride)
        styled, kept = style_weights.get(layer.name, 0.0), content_weights.get(layer.name, 0.0)
        weight = None
        if kept and content_mask is not None:
            weight = at_layer(content_mask, height, width)[0].to(network.device, accumulate_dtype(network.dtype))
        terms = [_term(network, region, layer, (height, width), styled, settings) for region in regions if styled]
        taps[layer.name] = Tap(
            styles=tuple(terms),
            content=kept * factor_of(c, height * width),
            content_weight=weight,
            norms=(styled, kept) if settings.normalise_gradients else None,
        )
    return chain, taps


def _term(
    network: VGG, region: Region, layer: Layer, size: tuple[int, int], factor: float, settings: Settings
) -> StyleTerm:
    """What a region asks of a style layer, with ``factor`` before it."""
    if layer.name not in region.targets:
        raise UsageError(f"no style target for layer {layer.name}")
    form, loss = style_form(settings.style_form), style_loss_of(settings)
    scale, weight = weighing(network, layer.name, (layer.channels, *size), settings, region.mask)
    share = 1.0 if region.mask is None else float(region.mask.double().mean())
    factor *= region.weight * share * (form.loss(layer.channels) if loss is None else 1.0)
    return StyleTerm(factor, region.targets[layer.name], scale, weight, loss)


def _prefix(chain: tuple[Layer, ...], wanted: Mapping[str, float]) -> tuple[Layer, ...]:
    deepest = max(i for i, layer in enumerate(chain) if layer.name in wanted)
    return chain[: deepest + 1]


def style_loss_of(settings: Settings) -> StyleLoss | None:
    """The settings' style loss; None for the Gram matrix, which has ops and forms of its own."""
    return None if settings.style_loss == GRAM else style_loss(settings.style_loss)

"""One question, one answer: the losses of an image and their gradient.

What is asked of which layer is settled here; :mod:`fastnst.engine` runs it. Autograd through
:meth:`fastnst.vgg.VGG.features` gives the same gradient and is the oracle of the tests.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from fastnst import ops
from fastnst.engine import Engine, Tap, choose
from fastnst.errors import UsageError
from fastnst.losses import content_form, style_form
from fastnst.settings import Settings
from fastnst.vgg import VGG, Layer, check_size


@dataclass(frozen=True)
class Losses:
    """The weighted parts of a loss: ``total`` is the sum of every part."""

    total: float
    content: Mapping[str, float] = field(default_factory=dict)
    style: Mapping[str, float] = field(default_factory=dict)
    tv: float = 0.0


StyleTargets = Mapping[str, Tensor]
"""For each style layer, the style's Gram matrix [1, C, C] in the settings' form."""


def style_targets(network: VGG, style: Tensor, settings: Settings) -> StyleTargets:
    """The Gram matrices of a style picture, pixels ``[1, 3, H, W]`` in 0..255; computed once for any number of runs."""
    form = style_form(settings.style_form)
    names = [name for name, weight in settings.style_layers if weight > 0]
    if not names or settings.style_weight == 0:
        return {}
    with torch.no_grad():
        walk = network.walk(style.to(network.device), names)
        return {name: ops.gram(f, scale=form.gram(f.shape[1], f.shape[2:].numel())) for name, f in walk}


class Objective:
    """``content_weight * content + style_weight * style + tv_weight * TV`` of one content picture and one style.

    Args:
        network: built for at least ``settings.layer_names()``.
        content: pixels ``[1, 3, H, W]``, RGB, 0..255; every image evaluated has this size.
        targets: from :func:`style_targets`.
        settings: the weights, layers and forms; the rest is not read.
        engine: the kind of engine; None takes what suits the network.

    Raises:
        UsageError: the picture is too small for the deepest layer, or a form is unknown.
    """

    def __init__(
        self,
        network: VGG,
        content: Tensor,
        targets: StyleTargets,
        settings: Settings,
        engine: type[Engine] | None = None,
    ) -> None:
        ops.follow_matmul_precision()  # not once a step: a graph of the step could not hold it
        self.network, self.settings = network, settings
        self.size = (content.shape[-2], content.shape[-1])
        form, content_factor = style_form(settings.style_form), content_form(settings.content_form)
        content_weights = {
            name: settings.content_weight * w for name, w in settings.content_layers if settings.content_weight * w > 0
        }
        style_weights = {
            name: settings.style_weight * w for name, w in settings.style_layers if settings.style_weight * w > 0
        }
        wanted = content_weights | style_weights
        self.chain: tuple[Layer, ...] = _prefix(network.chain, wanted)
        check_size(self.chain, *self.size)
        with torch.no_grad():
            features = network.features(content.to(network.device), content_weights) if content_weights else {}
        self.taps: dict[str, Tap] = {}
        for layer in self.chain:
            if layer.name not in wanted:
                continue
            c, n = layer.channels, (self.size[0] // layer.stride) * (self.size[1] // layer.stride)
            styled, kept = layer.name in style_weights, layer.name in content_weights
            if styled and layer.name not in targets:
                raise UsageError(f"no style target for layer {layer.name}")
            self.taps[layer.name] = Tap(
                style=style_weights[layer.name] * form.loss(c) if styled else 0.0,
                scale=form.gram(c, n),
                gram=targets[layer.name] if styled else None,
                content=content_weights[layer.name] * content_factor(c, n) if kept else 0.0,
                target=features.get(layer.name),
            )
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
        if image.shape != (1, 3, *self.size):
            raise UsageError(
                f"expected an image of shape {(1, 3, *self.size)} like the content, got {tuple(image.shape)}"
            )
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
            values.append(weight * torch.ops.fastnst.total_variation(image, self.settings.tv_kind))
            gradient += torch.ops.fastnst.total_variation_backward(weight, image, self.settings.tv_kind)
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


def _prefix(chain: tuple[Layer, ...], wanted: Mapping[str, float]) -> tuple[Layer, ...]:
    deepest = max(i for i, layer in enumerate(chain) if layer.name in wanted)
    return chain[: deepest + 1]

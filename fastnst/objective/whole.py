"""The losses of an image and their gradient, with the feature maps of the whole image in memory.

:mod:`fastnst.objective.build` says which layer has which losses, and :mod:`fastnst.objective.engines` computes them.
Autograd through :meth:`fastnst.network.vgg.VGG.features` gives the same gradient; the tests compare with it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from fastnst import ops
from fastnst.config.settings import Settings
from fastnst.errors import UsageError
from fastnst.losses.variation import NINE_POINT, weighted_variation, wrapped_variation
from fastnst.network.cudnn import timed_algorithms
from fastnst.network.encoder import Encoder
from fastnst.objective.build import layer_terms
from fastnst.objective.engines import PlainEngine, choose_engine
from fastnst.objective.joint import make_stages
from fastnst.objective.pixels import PixelTarget
from fastnst.objective.protocol import Losses
from fastnst.objective.targets import Region, StyleTargets
from fastnst.ops.dtypes import accumulate_dtype


class Objective:
    """``content_weight * content + style_weight * style + tv_weight * TV`` of one content picture and its styles.

    Args:
        network: built for at least ``settings.layer_names()``: a :class:`fastnst.VGG`, or a
            :class:`fastnst.network.ModuleEncoder` of a module of yours.
        content: pixels ``[1, 3, H, W]``, RGB, 0..255; every image to evaluate has this size.
        styles: targets from :func:`fastnst.objective.targets.style_targets`, or one :class:`Region` for each style.
        settings: the weights, layers, losses and forms; other settings are not read.
        engine: the class of the engine; None: the one that :func:`choose_engine` names for the network.
        content_mask: ``[1, 1, H, W]``, factors of the content loss by pixel; None: 1 everywhere.
        pixel_target: one more term, of the pixels themselves.

    Attributes:
        stages: the losses of several layers, which may change from scale to scale and step to step; None if there are
            none. Until :meth:`fastnst.objective.joint.Stages.begin` is called, they are those of a first scale of one
            step that starts from the content.

    Raises:
        UsageError: the picture is too small for the deepest layer, a form or loss is unknown, a style layer has no
            target, or a mask is zero everywhere at a layer.

    Example::

        settings = Settings()
        network = VGG(weights.load(), settings.layer_names())
        objective = Objective(network, content, style_targets(network, style, settings), settings)
        losses, gradient = objective.value_and_grad(content.clone())
    """

    def __init__(
        self,
        network: Encoder,
        content: Tensor,
        styles: StyleTargets | Sequence[Region],
        settings: Settings,
        engine: type[PlainEngine] | None = None,
        content_mask: Tensor | None = None,
        *,
        pixel_target: PixelTarget | None = None,
    ) -> None:
        ops.follow_matmul_precision()  # here and not at each step: a graph of the step could not capture it
        self.network, self.settings = network, settings
        self.size = (content.shape[-2], content.shape[-1])
        self.chain, self.terms = layer_terms(network, self.size, styles, settings, content_mask)
        content_layers = [name for name, terms in self.terms.items() if terms.content]
        if content_layers:
            with torch.no_grad(), timed_algorithms(network.device):
                features = network.features(content.to(network.device), content_layers)
            self.terms |= {name: replace(self.terms[name], target=features[name]) for name in content_layers}
        engine_class: Any = engine or choose_engine(network)
        targets = styles if isinstance(styles, Mapping) else (styles[0].targets if styles else {})
        masked = not isinstance(styles, Mapping) and any(region.mask is not None for region in styles)
        self.stages = make_stages(network, content, targets, settings, masked, content_mask is not None)
        joint = () if self.stages is None else self.stages.terms
        self.engine = engine_class(network, self.chain, self.terms, self.size, joint)
        has_variation = settings.tv_weight > 0
        self.parts, factors = self.engine.parts, self.engine.factors
        if has_variation:
            self.parts = (*self.parts, ("tv", ""))
            weighed = settings.tv_kind == NINE_POINT or any(settings.wraps)
            factors = (*factors, 1.0 if weighed else settings.tv_weight)
        self._pixel_target = pixel_target
        if pixel_target is not None:
            self.parts, factors = (*self.parts, ("temporal", "")), (*factors, 1.0)
        # Tensors, since numbers would be copied to the device at each step.
        self._factors = torch.tensor(factors, dtype=accumulate_dtype(network.dtype), device=network.device)
        weight = torch.tensor(settings.tv_weight, dtype=content.dtype, device=network.device)
        self._tv_weight = weight if has_variation else None
        self._evaluated = False

    def value_and_grad(self, image: Tensor) -> tuple[Losses, Tensor]:
        """Losses and gradient of an image ``[1, 3, H, W]``, RGB, 0..255, float32 or float64.

        The gradient has the shape, dtype and device of the image. Raises UsageError for an image of another shape.
        """
        check_image(image, self.size)
        values, gradient = self.evaluate(image)
        return self.losses(values.tolist()), gradient

    @torch.no_grad()
    def evaluate(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """The weighted value of each of ``parts`` ``[P]``, and the gradient; the image's shape is not checked.

        Everything stays on the device and nothing waits for it, so that a CUDA graph can capture the call.
        """
        pixel_values: list[Tensor] = []
        has_pixels = self._tv_weight is not None or self._pixel_target is not None
        other = (lambda: self._pixel_gradient(image, pixel_values)) if has_pixels else None
        with timed_algorithms(self.network.device, not self._evaluated):
            values, gradient = self.engine.evaluate(image, other)
        self._evaluated = True
        return torch.stack([*values, *pixel_values]) * self._factors, gradient

    def _pixel_gradient(self, image: Tensor, values: list[Tensor]) -> Tensor:
        """The gradient of the losses of the pixels themselves; their values are appended to ``values``."""
        gradient = torch.zeros_like(image) if self._tv_weight is None else self._variation(image, values)
        if self._pixel_target is not None:
            values.append(self._pixel_target.add_gradient_(gradient, image).to(self._factors.dtype))
        return gradient

    def _variation(self, image: Tensor, values: list[Tensor]) -> Tensor:
        """The gradient of the weighted total variation of an image; its value is appended to ``values``."""
        assert self._tv_weight is not None
        kind, weight = self.settings.tv_kind, self._tv_weight.to(image.dtype)
        if kind == NINE_POINT or any(self.settings.wraps):
            if any(self.settings.wraps):
                value, gradient = wrapped_variation(image, kind, weight, self.settings.wraps)
            else:
                value, gradient = weighted_variation(image, kind, weight)
            values.append(value.to(image.dtype))
            return gradient
        values.append(torch.ops.fastnst.total_variation(image, kind))
        found: Tensor = torch.ops.fastnst.total_variation_backward(weight, image, kind)
        return found

    def losses(self, values: Sequence[float]) -> Losses:
        """The values of ``parts`` as :class:`Losses`."""
        named = [(kind, layer, value) for (kind, layer), value in zip(self.parts, values, strict=True)]
        return Losses(
            total=sum(values),
            content={layer: value for kind, layer, value in named if kind == "content"},
            style={layer: value for kind, layer, value in named if kind == "style"},
            tv=sum(value for kind, _, value in named if kind == "tv"),
            temporal=sum(value for kind, _, value in named if kind == "temporal"),
        )


def check_image(image: Tensor, size: tuple[int, int]) -> None:
    """Raise UsageError for an image of another shape than ``[1, 3, *size]``."""
    if image.shape != (1, 3, *size):
        raise UsageError(f"expected an image of shape {(1, 3, *size)} like the content, got {tuple(image.shape)}")

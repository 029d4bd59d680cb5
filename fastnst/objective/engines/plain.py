"""The engine that leaves convolutions, biases and ReLUs to PyTorch, and the passes that all engines share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from fastnst.losses.joint.base import IMAGE
from fastnst.losses.style import FeatureGradient
from fastnst.network.fusion import FusionPlan
from fastnst.network.layer import Layer
from fastnst.network.vgg import VGG
from fastnst.objective.joint import JointTerm, centered
from fastnst.objective.terms import (
    LayerTerms,
    ScaledFeatureGradient,
    add_gradient_,
    content_value,
    style_value_and_gradient,
)


@dataclass
class Activations:
    """What the forward pass keeps for the backward pass, by layer, and the values of the losses without factors."""

    features: dict[str, Tensor] = field(default_factory=dict)
    argmax: dict[str, Tensor] = field(default_factory=dict)
    gradients: dict[str, list[ScaledFeatureGradient]] = field(default_factory=dict)
    values: list[Tensor] = field(default_factory=list)
    input: Tensor | None = None
    image_gradient: Tensor | None = None


class PlainEngine:
    """Convolutions, biases and ReLUs by PyTorch: for any device, and the reference for the other engines.

    The forward pass keeps the output of each ReLU, in the dtype of the features; its sign is the ReLU's mask. The
    backward pass carries one gradient from the deepest layer to the image. At a layer with losses one op adds their
    gradients and applies the mask, in place. Each activation is released once it has been used.

    Args:
        network: a network of at least ``chain``.
        chain: the layers up to the deepest one with a loss.
        terms: the losses of each layer.
        size: height and width of the images.
        joint: the losses of several layers, which are among those of ``terms``.
    """

    conv_masks = False
    """Whether the backward of a convolution applies the mask of the ReLU below it."""

    def __init__(
        self,
        network: VGG,
        chain: tuple[Layer, ...],
        terms: Mapping[str, LayerTerms],
        size: tuple[int, int],
        joint: Sequence[JointTerm] = (),
    ) -> None:
        self.network, self.chain, self.terms, self.size, self.joint = network, chain, terms, size, tuple(joint)
        self.plan = FusionPlan(
            chain,
            frozenset(terms),
            network.pooling,
            network.winograd,
            conv_masks=self.conv_masks,
            whole_gradients=bool(joint) or any(one.norms is not None for one in terms.values()),
            wraps_rows=isinstance(network, VGG) and network.wraps_rows,
        )
        # In the order in which the forward pass computes them: the parts of the loss, and their factors.
        found = [
            (kind, layer.name, factor)
            for layer in chain
            if (layer_terms := terms.get(layer.name)) is not None
            for kind, exists, factor in (
                ("style", bool(layer_terms.styles), layer_terms.style_factor),
                ("content", layer_terms.target is not None, layer_terms.content),
            )
            if exists
        ]
        found += [(*term.part, term.factor) for term in self.joint]
        self.parts: tuple[tuple[str, str], ...] = tuple((kind, name) for kind, name, _ in found)
        self.factors: tuple[float, ...] = tuple(factor for _, _, factor in found)

    def evaluate(self, image: Tensor, other: Callable[[], Tensor] | None = None) -> tuple[list[Tensor], Tensor]:
        """The value of each of ``parts`` without its factor, and the gradient of the sum of values times ``factors``.

        Args:
            image: pixels ``[1, 3, H, W]``.
            other: called last; it returns a gradient to add, of the image's shape and dtype, which is overwritten.

        Returns:
            The values, and the gradient, contiguous, in the image's dtype.
        """
        activations = Activations()
        with self._evaluation():
            self._forward(image, activations)
            self._add_joint(image, activations)
            gradient = self._image_gradient(self._backward(activations), image.dtype, other)
            if activations.image_gradient is not None:
                gradient += activations.image_gradient
            return activations.values, gradient

    def _evaluation(self) -> AbstractContextManager[None]:
        """The context of one evaluation."""
        return nullcontext()

    def _input(self, image: Tensor) -> Tensor:
        """The network's input for an image."""
        return self.network.prepare(image)

    def _image_gradient(self, gradient: Tensor, dtype: torch.dtype, other: Callable[[], Tensor] | None) -> Tensor:
        """The gradient by the image from the gradient by the network's input, plus that of ``other``."""
        found = (gradient.to(dtype) * self.network.scale.to(dtype)).contiguous()
        return found if other is None else found.add_(other())

    def _forward(self, image: Tensor, activations: Activations) -> None:
        x = self._input(image)
        forward = {"conv": self._convolve, "relu": self._relu, "pool": self._pool}
        for i, layer in enumerate(self.chain):
            x = forward[layer.kind](i, x, activations)
            terms = self.terms.get(layer.name)
            if terms is None:
                continue
            if terms.styles and layer.name not in activations.gradients:
                value, activations.gradients[layer.name] = style_value_and_gradient(x, terms)
                activations.values.append(value)
            if terms.target is not None:
                activations.values.append(content_value(x, terms))

    def _add_joint(self, image: Tensor, activations: Activations) -> None:
        """Add the values and gradients of the losses of several layers."""
        for term in self.joint:
            value, gradients = term.value_and_gradients({**activations.features, IMAGE: centered(image)})
            activations.values.append(value)
            by_pixel = gradients.pop(IMAGE, None)
            if by_pixel is not None:
                by_pixel = by_pixel * (term.factor / 255)
                before = activations.image_gradient
                activations.image_gradient = by_pixel if before is None else before + by_pixel
            for name, direct in gradients.items():
                gradient = ScaledFeatureGradient(term.factor, FeatureGradient(direct=direct))
                activations.gradients.setdefault(name, []).append(gradient)

    def _backward(self, activations: Activations) -> Tensor:
        """The gradient of the network's input."""
        grad: Tensor | None = None
        chain = self.chain
        for i in range(len(chain) - 1, -1, -1):
            layer = chain[i]
            # Released here, unless the pool above was the last to read it.
            x = activations.features.pop(layer.name, None)
            terms = self.terms.get(layer.name)
            if x is not None and (terms is not None or self.plan.masks_itself(i)):
                if grad is None:
                    grad = torch.zeros_like(x)
                add_gradient_(grad, x, terms, activations.gradients.pop(layer.name, ()), relu=layer.kind == "relu")
            assert grad is not None
            if layer.kind == "pool":
                grad = self._pool_backward(i, grad, x, activations)
            elif layer.kind == "conv":
                grad = self._convolve_backward(i, grad, activations)
        assert grad is not None
        return grad

    def _convolve(self, i: int, x: Tensor, activations: Activations) -> Tensor:
        name = self.chain[i].name
        x = self.network.convolve(x, name)
        if name in self.terms:
            activations.features[name] = x
        return x

    def _relu(self, i: int, x: Tensor, activations: Activations) -> Tensor:
        x = F.relu_(x) if self.plan.fuses_relu(i - 1) else F.relu(x)
        activations.features[self.chain[i].name] = x
        return x

    def _pool(self, i: int, x: Tensor, activations: Activations) -> Tensor:
        name, kind = self.chain[i].name, self.network.pooling
        y, argmax = self._pooled(i, x)
        if kind == "max":
            activations.argmax[name] = argmax
        if self.plan.releases_relu(i):
            del activations.features[self.chain[i - 1].name]
        if name in self.terms or kind == "l2":
            activations.features[name] = y
        return y

    def _pooled(self, i: int, x: Tensor) -> tuple[Tensor, Tensor]:
        """The output of the pool ``i`` and its argmax."""
        y, argmax = torch.ops.fastnst.pool(x, self.network.pooling)
        return y, argmax

    def _pool_backward(self, i: int, grad: Tensor, y: Tensor | None, activations: Activations) -> Tensor:
        """The backward of the pool ``i`` with output ``y``, and of the ReLU below where that was released."""
        below, kind = self.chain[i - 1], self.network.pooling
        x = activations.features[below.name] if kind == "l2" else None
        y = y if kind == "l2" else None
        argmax, size = activations.argmax.pop(self.chain[i].name, None), self._size_of(below)
        back: Tensor = torch.ops.fastnst.pool_backward(grad, x, y, argmax, kind, *size, self.plan.masks_relu(i))
        # A gradient of one pixel matches both memory layouts, so that the op may not choose channels_last.
        return back.contiguous(memory_format=torch.channels_last)

    def _convolve_backward(self, i: int, grad: Tensor, activations: Activations) -> Tensor:
        """The gradient of the input of the convolution ``i``: the transposed convolution."""
        return self.network.convolve_backward(grad, self.chain[i].name)

    def _size_of(self, layer: Layer) -> tuple[int, int]:
        return self.size[0] // layer.stride, self.size[1] // layer.stride

"""The base class of losses that see the features of several layers at once, and what they are told of the run."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from fastnst.errors import UsageError
from fastnst.losses.autograd import constant, leaf, recording
from fastnst.losses.base import StyleLoss, Target
from fastnst.ops.dtypes import accumulate_dtype, autocast_disabled

IMAGE = "image"
"""The name of the picture itself among the features: ``[1, 3, H, W]``, RGB, in -0.5..0.5."""

Features = Mapping[str, Tensor]
"""The features ``[1, C, h, w]`` of each layer by name, in the network's dtype, and the picture as ``IMAGE``."""


@dataclass(frozen=True)
class Stage:
    """Where a run is. A loss that changes during a run is a function of the image and of this.

    Attributes:
        weights: the layers of the loss in the order of the network, and their weights, all above zero.
        scale, scales: number of the scale, from 1, and number of scales.
        step, steps: number of the step, from 1, and number of steps of the scale. The image after the last step is
            evaluated as step ``steps + 1``.
        seed: the setting ``seed``.
        unit: a factor that makes the features about as large as those of torchvision's networks, for losses that depend
            on their size: 1 for networks whose input has a standard deviation of about 1, 1/200 for others.

    Example:
        >>> Stage({"relu1_1": 1.0}, scale=2, scales=2).last_scale
        True
    """

    weights: Mapping[str, float] = field(default_factory=dict)
    scale: int = 1
    scales: int = 1
    step: int = 1
    steps: int = 1
    seed: int = 0
    unit: float = 1.0

    @property
    def last_scale(self) -> bool:
        """Whether this is the last scale."""
        return self.scale == self.scales

    def generator(self, salt: int = 0) -> torch.Generator:
        """A random generator on the CPU that depends on seed, scale, step and ``salt`` alone.

        A resumed run, a repeated evaluation and every device therefore draw the same numbers.
        """
        state = self.seed
        for number in (self.scale, self.step, salt):
            state = (state * 6364136223846793005 + number + 1442695040888963407) % 2**63
        return torch.Generator("cpu").manual_seed(state)


class JointLoss(StyleLoss, ABC):
    """A loss of the features of several layers together, such as hypercolumns.

    The layers are those of the setting ``style_layers``, or ``content_layers`` for a content loss, with a weight above
    zero. ``features`` are ``[1, C, h, w]`` each; picture and style may differ in size. Autograd computes the gradients,
    unless :meth:`value_and_gradients` is overridden. The loss of two layers' means::

        class Means(JointLoss):
            def target(self, features, stage):
                return tuple(features[name].float().mean((2, 3)) for name in stage.weights)

            def loss(self, features, target, stage):
                found = self.target(features, stage)
                return sum((a - b).square().mean() for a, b in zip(found, target))

    Such a loss needs the features of the whole picture at once: it runs without strips, masks and
    ``normalize_gradients``, and a step is not captured as a CUDA graph.

    Example:
        >>> from fastnst.losses.style import style_loss
        >>> isinstance(style_loss("nnst"), JointLoss)
        True
    """

    @abstractmethod
    def target(self, features: Features, stage: Stage) -> Target:
        """Return what is kept of a style picture, or for a content loss of the content picture."""

    def loss(self, features: Features, target: Target, stage: Stage) -> Tensor:
        """Return the value, a scalar that autograd can differentiate with respect to the features."""
        raise NotImplementedError(f"{type(self).__name__} defines neither loss nor value_and_gradients")

    def value_and_gradients(self, features: Features, target: Target, stage: Stage) -> tuple[Tensor, dict[str, Tensor]]:
        """Compute the value ``[]`` and its gradient by the features of each layer that it depends on.

        Gradients have the shape and dtype of the features; neither they nor the value have an autograd graph. Raises
        UsageError for a value that is not scalar or has no derivative.
        """
        name = type(self).__name__
        with recording(), autocast_disabled(next(iter(features.values())).device):
            free = {layer: leaf(x) for layer, x in features.items()}
            value = self.loss(free, tuple(constant(tensor) for tensor in target), stage)
            if not isinstance(value, Tensor) or value.shape != ():
                shape = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
                raise UsageError(f"loss {name}: expected a value of shape (), got {shape}")
            if not value.requires_grad:
                raise UsageError(f"loss {name}: its value has no derivative; compute it from the features")
            found = torch.autograd.grad(value, list(free.values()), allow_unused=True)
        gradients = {layer: one for layer, one in zip(free, found, strict=True) if one is not None}
        return value.detach().to(accumulate_dtype(value.dtype)), gradients

    def views(self, picture: Tensor) -> Sequence[Tensor]:
        """The pictures ``[1, 3, H, W]`` whose features describe a style: itself, or also turned copies of it."""
        return (picture,)

    def begin(
        self, target: Target, content: Tensor, start: Tensor, measure: Callable[[Tensor], Features], stage: Stage
    ) -> Target:
        """Return the target of a scale, from what :meth:`target` returned: the same unless overridden.

        Called once before the first step of a scale, and again when a run is resumed in it.

        Args:
            target: from :meth:`target`, blended over views and styles.
            content: the content picture ``[1, 3, H, W]`` in 0..255.
            start: the image that the scale starts from, of the same shape.
            measure: computes the features of such a picture.
            stage: the first step of the scale.
        """
        return target

    def bytes(self, sizes: Mapping[str, tuple[int, int, int]], style: float, itemsize: int) -> int:
        """Bytes that an evaluation needs at most besides the features, for the memory estimate.

        Args:
            sizes: channels, height and width of each layer, and of ``IMAGE``.
            style: the positions of the style picture relative to those of the image.
            itemsize: bytes of a value of the features.
        """
        values = sum(c * h * w for name, (c, h, w) in sizes.items() if name != IMAGE)
        return values * (itemsize + 8)  # gradients, and a copy of each in float32 with its gradient

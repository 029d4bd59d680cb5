"""Losses of several layers at once in an objective: their targets, values, and gradients by layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from fastnst.config.settings import Settings
from fastnst.errors import UsageError
from fastnst.losses.joint.base import IMAGE, Features, JointLoss, Stage
from fastnst.losses.style import StyleLoss, Target, content_loss, style_loss
from fastnst.losses.style.registry import GRAM
from fastnst.network.encoder import Encoder
from fastnst.network.layer import Layer

JOINT = "joint"
"""The key of a joint loss in :data:`fastnst.objective.targets.StyleTargets`."""
FEATURES = "features"
"""The content loss of one layer: the squared difference of features."""
# How much larger the features of Oxford's networks, whose input are pixels of 0..255, are than those of torchvision's,
# for which the weights of STROTSS's terms are made: an estimate of their order, not measured.
OXFORD_FEATURES = 200.0
DIVIDED = 0.5  # a smaller factor of the pixels, which are 0..255, divides them by their deviation


def style_joint(settings: Settings) -> JointLoss | None:
    """The style loss that the settings name if it sees several layers, else None."""
    if settings.style_loss == GRAM or not weights_of(settings.style_weight, settings.style_layers):
        return None
    found: StyleLoss = style_loss(settings.style_loss)
    return found if isinstance(found, JointLoss) else None


def content_joint(settings: Settings) -> JointLoss | None:
    """The content loss that the settings name if it is not that of single layers. Raises UsageError."""
    if settings.content_loss == FEATURES or not weights_of(settings.content_weight, settings.content_layers):
        return None
    return content_loss(settings.content_loss)


def is_joint(settings: Settings) -> bool:
    """Whether a loss of the settings sees several layers, which needs the features of the whole picture."""
    return style_joint(settings) is not None or content_joint(settings) is not None


def check_joint(settings: Settings) -> None:
    """Raise UsageError for settings that a loss of several layers cannot be combined with."""
    if not is_joint(settings):
        return
    name = _name(settings)
    if settings.normalize_gradients:
        raise UsageError(f"{name} has one gradient for several layers: use it without normalize_gradients")
    if settings.tiles == "on" or isinstance(settings.tiles, int):
        refuse_strips(settings)


def refuse_strips(settings: Settings) -> None:
    """Raise UsageError if the losses need the features of the whole picture."""
    if is_joint(settings):
        raise UsageError(f"{_name(settings)} needs the whole picture at once, not strips; use tiles 'auto' or 'off'")


def _name(settings: Settings) -> str:
    if style_joint(settings) is not None:
        return f"style_loss {settings.style_loss!r}"
    return f"content_loss {settings.content_loss!r}"


def weights_of(factor: float, layers: Sequence[tuple[str, float]]) -> dict[str, float]:
    """The layers with a weight above zero, none for a factor of zero."""
    return {name: weight for name, weight in layers if weight > 0 and factor > 0}


def stage_of(network: Encoder, layers: Mapping[str, float], settings: Settings) -> Stage:
    """The first stage of a loss of these layers, in the order of the network."""
    ordered = {layer.name: layers[layer.name] for layer in network.chain if layer.name in layers}
    unit = 1.0 if float(network.scale.mean()) < DIVIDED else 1 / OXFORD_FEATURES
    return Stage(ordered, seed=settings.seed, unit=unit)


def centered(image: Tensor) -> Tensor:
    """Pixels 0..255 as ``IMAGE`` among the features."""
    return image / 255 - 0.5


def joint_features(network: Encoder, picture: Tensor, layers: Mapping[str, float]) -> Features:
    """The features that a joint loss sees of pixels ``[1, 3, H, W]`` in 0..255."""
    picture = picture.to(network.device)
    return {**network.features(picture, layers), IMAGE: centered(picture)}


@torch.no_grad()
def joint_target(network: Encoder, style: Tensor, loss: JointLoss, stage: Stage) -> Target:
    """The target of a style picture, the blend of those of its views."""
    targets = [loss.target(joint_features(network, view, stage.weights), stage) for view in loss.views(style)]
    return targets[0] if len(targets) == 1 else loss.blend(targets, [1 / len(targets)] * len(targets))


class JointTerm:
    """``factor`` times a joint loss.

    Attributes:
        part: its kind and name among the parts of the losses.
        factor: its weight.
        stage: where the run is.
    """

    def __init__(self, part: tuple[str, str], loss: JointLoss, factor: float, target: Target, stage: Stage) -> None:
        self.part, self.loss, self.factor, self.stage = part, loss, factor, stage
        self._measured = self._target = target

    def begin(self, network: Encoder, content: Tensor, start: Tensor, stage: Stage) -> None:
        """Begin a scale."""
        self.stage, self._target = stage, ()  # the last scale's is released

        def measure(picture: Tensor) -> Features:
            return joint_features(network, picture, stage.weights)

        with torch.no_grad():
            self._target = self.loss.begin(self._measured, content, start.to(content), measure, stage)

    def value_and_gradients(self, features: Features) -> tuple[Tensor, dict[str, Tensor]]:
        """The value without ``factor``, and its gradients by layer."""
        own = {name: features[name] for name in (IMAGE, *self.stage.weights)}
        return self.loss.value_and_gradients(own, self._target, self.stage)


class Stages:
    """The joint losses of an objective, which change during a run.

    Args:
        network: the network.
        content: pixels ``[1, 3, H, W]`` in 0..255.
        terms: the losses.
    """

    def __init__(self, network: Encoder, content: Tensor, terms: Sequence[JointTerm]) -> None:
        self.network, self.content, self.terms = network, content.to(network.device), tuple(terms)
        self.begin(self.content)

    def begin(self, start: Tensor, scale: int = 1, scales: int = 1, steps: int = 1) -> None:
        """Begin a scale at the image ``start``, before its first step."""
        for term in self.terms:
            stage = replace(term.stage, scale=scale, scales=scales, step=1, steps=steps)
            term.begin(self.network, self.content, start, stage)

    def set_step(self, step: int) -> None:
        """What is evaluated next is the image of this step, from 1."""
        for term in self.terms:
            term.stage = replace(term.stage, step=step)


def make_stages(
    network: Encoder,
    content: Tensor,
    styles: Mapping[str, Target],
    settings: Settings,
    masked: bool = False,
    content_masked: bool = False,
) -> Stages | None:
    """The joint losses that the settings name; None if there are none. Raises UsageError with masks."""
    check_joint(settings)
    terms = []
    style, own = style_joint(settings), content_joint(settings)
    if style is not None:
        if masked:
            raise UsageError(f"style_loss {settings.style_loss!r} compares whole pictures: use it without masks")
        if JOINT not in styles:
            raise UsageError(f"no style target for style_loss {settings.style_loss!r}")
        stage = stage_of(network, weights_of(settings.style_weight, settings.style_layers), settings)
        terms.append(JointTerm(("style", settings.style_loss), style, settings.style_weight, styles[JOINT], stage))
    if own is not None:
        if content_masked:
            raise UsageError(f"content_loss {settings.content_loss!r} compares whole pictures: use no content mask")
        stage = stage_of(network, weights_of(settings.content_weight, settings.content_layers), settings)
        target = joint_target(network, content, own, stage)
        part = ("content", settings.content_loss)
        terms.append(JointTerm(part, own, settings.content_weight, target, stage))
    return Stages(network, content, terms) if terms else None


def joint_bytes(settings: Settings, chain: Sequence[Layer], size: tuple[int, int], style: float, itemsize: int) -> int:
    """Bytes that the joint losses need besides the features: see :meth:`JointLoss.bytes`."""
    total = 0
    for loss, factor, layers in (
        (style_joint(settings), settings.style_weight, settings.style_layers),
        (content_joint(settings), settings.content_weight, settings.content_layers),
    ):
        if loss is not None:
            names = weights_of(factor, layers)
            sizes = {
                layer.name: (layer.channels, size[0] // layer.stride, size[1] // layer.stride)
                for layer in chain
                if layer.name in names
            }
            total += loss.bytes({IMAGE: (3, *size), **sizes}, style, itemsize)
    return total

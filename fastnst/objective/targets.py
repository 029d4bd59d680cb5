"""Style targets: what an objective keeps of style pictures, and the regions of an image that they apply to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from fastnst import ops
from fastnst.config.settings import Settings
from fastnst.devices import to_float64
from fastnst.errors import UsageError
from fastnst.losses.forms import style_form
from fastnst.losses.style import StyleLoss, Target, measure, style_loss
from fastnst.losses.style.registry import GRAM
from fastnst.network.encoder import Encoder
from fastnst.objective.joint import JOINT, joint_target, stage_of, style_joint, weights_of
from fastnst.ops.dtypes import accumulate_dtype

StyleTargets = Mapping[str, Target]
"""The target of each style layer: the Gram matrix ``([1, C, C],)`` in the form that the settings name, or the
statistics that their style loss measures. A loss of several layers has one target, with the key ``"joint"``."""


@dataclass(frozen=True)
class Region:
    """A style and the part of the image that it applies to.

    Args:
        targets: from :func:`style_targets`.
        mask: ``[1, 1, H, W]`` of the image's size, in 0..1, where values in between are soft edges; None: everywhere.
        weight: factor of the region's loss, in addition to the mask's mean.

    Example:
        >>> import torch
        >>> region = Region({"relu1_1": (torch.eye(64)[None],)}, mask=torch.ones(1, 1, 48, 64), weight=2.0)
        >>> region.weight
        2.0
    """

    targets: StyleTargets
    mask: Tensor | None = None
    weight: float = 1.0


def style_targets(network: Encoder, style: Tensor, settings: Settings, mask: Tensor | None = None) -> StyleTargets:
    """The targets of a style picture. They serve any number of runs with the same network and settings.

    Args:
        network: built for at least the style layers.
        style: pixels ``[1, 3, H, W]``, RGB, 0..255.
        settings: the style layers, loss and form; other settings are not read.
        mask: ``[1, 1, H, W]`` in 0..1, the weight of each pixel; None: all pixels count alike.

    Raises:
        UsageError: the picture is too small for the deepest layer, the mask is zero everywhere at a layer, or the loss
            sees several layers and takes no mask.

    Example:
        >>> import torch, fastnst
        >>> settings = fastnst.Settings()
        >>> network = fastnst.VGG(fastnst.weights.load(), settings.layer_names())
        >>> targets = style_targets(network, torch.rand(1, 3, 32, 32) * 255, settings)
        >>> targets["relu1_1"][0].shape
        torch.Size([1, 64, 64])
    """
    joint = style_joint(settings)
    if joint is not None:
        if mask is not None:
            raise UsageError(f"style_loss {settings.style_loss!r} compares whole pictures: use it without style masks")
        stage = stage_of(network, weights_of(settings.style_weight, settings.style_layers), settings)
        return {JOINT: joint_target(network, style, joint, stage)}
    loss, names = chosen_style_loss(settings), styled_layers(settings)
    targets: dict[str, Target] = {}
    with torch.no_grad():
        for name, x in network.iter_features(style.to(network.device), names) if names else ():
            scale, weight = gram_scale_and_weight(network, name, x.shape[1:], settings, mask)
            if loss is None:
                targets[name] = (ops.gram(x, weight, scale),)
            else:
                targets[name] = measure(loss, x, weight)
            del x  # released before the network computes the next layer
    return targets


def blend(targets: Sequence[StyleTargets], weights: Sequence[float], settings: Settings) -> StyleTargets:
    """One style between several; ``weights`` sum to 1.

    For Gram matrices this is their weighted mean: the weighted sum of the losses to several matrices differs from the
    loss to their mean by a constant. A step therefore costs the same for any number of styles.

    Example:
        >>> import torch, fastnst
        >>> settings = fastnst.Settings()
        >>> network = fastnst.VGG(fastnst.weights.load(), settings.layer_names())
        >>> first, second = (style_targets(network, torch.rand(1, 3, 32, 32) * 255, settings) for _ in range(2))
        >>> blend([first, second], [0.25, 0.75], settings)["relu1_1"][0].shape
        torch.Size([1, 64, 64])
    """
    loss = chosen_style_loss(settings) or StyleLoss()
    if len(targets) == 1:
        return targets[0]
    return {name: loss.blend([target[name] for target in targets], weights) for name in targets[0]}


def styled_layers(settings: Settings) -> list[str]:
    """The style layers of positive weight."""
    return [name for name, weight in settings.style_layers if weight > 0 and settings.style_weight > 0]


def chosen_style_loss(settings: Settings) -> StyleLoss | None:
    """The style loss that the settings name; None for the Gram matrix, which has ops and forms of its own."""
    return None if settings.style_loss == GRAM else style_loss(settings.style_loss)


def gram_scale_and_weight(
    network: Encoder, layer: str, shape: Sequence[int], settings: Settings, mask: Tensor | None
) -> tuple[float, Tensor | None]:
    """The factor of the Gram matrix of features ``[C, h, w]``, and the weights ``[1, h, w]`` of their positions.

    The weights are on the network's device; None without a mask.
    """
    c, height, width = shape
    scale = style_form(settings.style_form).gram(c, height * width)
    if mask is None:
        return scale, None
    weight = position_weights(mask, height, width, layer)
    return scale * height * width, weight.to(network.device, accumulate_dtype(network.dtype))


def position_weights(mask: Tensor, height: int, width: int, layer: str) -> Tensor:
    """A mask ``[1, 1, H, W]`` as weights of a layer's positions: ``[1, height, width]``, float64, with sum 1.

    Raises UsageError where no weight is above zero.
    """
    weight = resize_mask(mask, height, width)
    total = weight.sum()
    if not total > 0:
        raise UsageError(f"a mask has no position above zero left at layer {layer}; paint a larger region")
    return weight / total


def resize_mask(mask: Tensor, height: int, width: int) -> Tensor:
    """A mask ``[1, 1, H, W]`` at a layer: ``[1, height, width]``, float64, each value the mean of its pixels."""
    mask = to_float64(mask)
    stride = max(mask.shape[2] // height, 1)
    # Pools drop an odd last row or column, and so does this average.
    if (mask.shape[2] // stride, mask.shape[3] // stride) == (height, width):
        return F.avg_pool2d(mask, stride)[0]
    return F.adaptive_avg_pool2d(mask, (height, width))[0]

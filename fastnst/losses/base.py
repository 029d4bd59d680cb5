"""What all style losses share."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

Target = tuple[Tensor, ...]
"""What a style loss keeps of the style image's features."""


class StyleLoss:
    """The base of :class:`~fastnst.losses.style.MomentLoss`, :class:`~fastnst.losses.style.FeatureLoss` and
    :class:`fastnst.losses.joint.JointLoss`; custom losses derive from one of these.

    Example:
        >>> from fastnst.losses.style import style_loss
        >>> isinstance(style_loss("sliced"), StyleLoss)
        True
    """

    def blend(self, targets: Sequence[Target], weights: Sequence[float]) -> Target:
        """Return one target for several styles, whose ``weights`` sum to 1: the weighted mean of each tensor."""
        pairs = [list(zip(weights, kept, strict=True)) for kept in zip(*targets, strict=True)]
        return tuple(torch.stack([weight * tensor for weight, tensor in pair]).sum(0) for pair in pairs)

"""The losses as ``nn.Module``, for training code."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from fastnst import ops
from fastnst.losses.forms import content_form, style_form


class _TargetLoss(nn.Module):
    """A loss with a buffer ``target`` that is never cast below float32.

    Half precision overflows for targets such as raw Gram matrices, so ``module.half()`` leaves the target unchanged.
    """

    target: Tensor

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> nn.Module:
        kept = self.target
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if torch.finfo(self.target.dtype).bits < 32:
            self.target = kept.to(self.target.device)
        return self


class GramLoss(_TargetLoss):
    """The squared distance of a feature map's Gram matrix to that of a style.

    ``weight * factor * sum (G - A)^2``, summed over the batch: eq. 4 of Gatys, Ecker and Bethge, "Image style transfer
    using convolutional neural networks", CVPR 2016. The form determines the factor and the scale of the Gram matrices
    G and A: see :mod:`fastnst.losses.forms`. Casts such as ``module.half()`` leave the target in float32 or float64.

    Args:
        style: features of the style, ``[1 or B, C, ...positions]``; only their Gram matrix is kept, as the buffer
            ``target`` ``[1 or B, C, C]``.
        form: name of a style form: ``"gatys"``, ``"channels"``, ``"johnson"`` or ``"raw"``.
        weight: a factor of the loss.

    Shape:
        - Input: ``[B, C, ...positions]``, float32, float64, bfloat16 or float16, with any number of positions.
        - Output: scalar, float32, or float64 for float64 features.

    Example:
        >>> import torch
        >>> from fastnst import losses
        >>> loss = losses.GramLoss(torch.ones(1, 8, 16, 16), form="johnson", weight=100.0)
        >>> loss
        GramLoss(form='johnson', weight=100.0)
        >>> loss(torch.ones(1, 8, 10, 12))
        tensor(0.)
    """

    def __init__(self, style: Tensor, form: str = "gatys", weight: float = 1.0) -> None:
        super().__init__()
        self.form, self.weight = form, weight  # the form by name, because its functions cannot be pickled
        scale = style_form(form).gram(style.shape[1], style.shape[2:].numel())
        with torch.no_grad():
            self.register_buffer("target", ops.gram(style, scale=scale))

    def forward(self, x: Tensor) -> Tensor:
        """Return the loss of features ``[B, C, ...positions]``."""
        form, channels = style_form(self.form), x.shape[1]
        loss = ops.style_loss(x, self.target, scale=form.gram(channels, x.shape[2:].numel()))
        return self.weight * form.loss(channels) * loss

    def extra_repr(self) -> str:
        return f"form={self.form!r}, weight={self.weight}"


class ContentLoss(_TargetLoss):
    """The squared distance of a feature map to that of a content image.

    ``weight * factor * sum (F - P)^2``, summed over the batch: eq. 1 of Gatys, Ecker and Bethge, "Image style transfer
    using convolutional neural networks", CVPR 2016. The form determines the factor: see :mod:`fastnst.losses.forms`.
    Casts such as ``module.half()`` do not narrow the target.

    Args:
        content: features P of the content image, ``[B, C, ...positions]``; kept as the buffer ``target``.
        form: name of a content form: ``"half_sum"``, ``"mean"`` or ``"half_mean"``.
        weight: a factor of the loss.

    Shape:
        - Input: the shape of ``content``, float32, float64, bfloat16 or float16; if the dtype differs from that of the
          target, both are promoted.
        - Output: scalar, float32, or float64 if either is float64.

    Example:
        >>> import torch
        >>> from fastnst import losses
        >>> loss = losses.ContentLoss(torch.zeros(1, 8, 16, 16))
        >>> loss
        ContentLoss(form='mean', weight=1.0)
        >>> loss(torch.ones(1, 8, 16, 16))
        tensor(1.)
    """

    def __init__(self, content: Tensor, form: str = "mean", weight: float = 1.0) -> None:
        super().__init__()
        self.form, self.weight = form, weight
        content_form(form)  # raises for an unknown name
        self.register_buffer("target", content.detach())

    def forward(self, x: Tensor) -> Tensor:
        """Return the loss of features of the target's shape."""
        factor = content_form(self.form)(self.target.shape[1], self.target.shape[2:].numel())
        dtype = torch.promote_types(x.dtype, self.target.dtype)
        return self.weight * factor * ops.content_loss(x.to(dtype), self.target.to(dtype))

    def extra_repr(self) -> str:
        return f"form={self.form!r}, weight={self.weight}"


class TotalVariationLoss(nn.Module):
    """The total variation of images times a weight, a smoothness penalty: see :func:`fastnst.ops.total_variation`.

    Args:
        kind: ``"anisotropic"``, ``"isotropic"`` or ``"squared"``.
        weight: a factor of the loss.

    Shape:
        - Input: ``[B, C, H, W]``, float32, float64, bfloat16 or float16.
        - Output: scalar, float32, or float64 for float64 images.

    Example:
        >>> import torch
        >>> from fastnst import losses
        >>> loss = losses.TotalVariationLoss("squared", weight=0.5)
        >>> loss
        TotalVariationLoss(kind='squared', weight=0.5)
        >>> loss(torch.tensor([[[[0.0, 2.0]]]]))
        tensor(2.)
    """

    def __init__(self, kind: str = "anisotropic", weight: float = 1.0) -> None:
        super().__init__()
        self.kind, self.weight = kind, weight

    def forward(self, x: Tensor) -> Tensor:
        """Return the loss of images ``[B, C, H, W]``, summed over the batch."""
        return self.weight * ops.total_variation(x, self.kind)

    def extra_repr(self) -> str:
        return f"kind={self.kind!r}, weight={self.weight}"

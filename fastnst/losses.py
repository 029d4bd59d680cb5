"""How the ops become the losses of a paper: normalisations by name, and ``nn.Module`` forms for training code.

A *style form* fixes the factor inside the Gram matrix and the factor before the squared distance; a *content form*
fixes the factor before the squared distance of features. C is the number of channels, N of positions.

===========  ====================  =================  =======================================================
style form   Gram matrix           loss               who uses it
===========  ====================  =================  =======================================================
gatys        F F^T / N             sum / (4 C^2)      Gatys, Ecker, Bethge 2015: sum (G-A)^2 / (4 C^2 N^2)
channels     F F^T / N             sum / C^4          mean squared error with layer weights 1 / C^2
johnson      F F^T / (C N)         sum / C^2          jcjohnson/neural-style: mean squared error
raw          F F^T                 sum / C^2          the tutorial: mean squared error of raw Gram matrices
===========  ====================  =================  =======================================================

With ``gatys``, pictures of one size give exactly the paper's value; dividing each Gram matrix by its own N lets content
and style differ in size. Content forms: ``half_sum`` = sum / 2 (Gatys et al. 2015, eq. 1), ``mean`` = sum / (C N),
``half_mean`` = sum / (2 C N).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fastnst import ops
from fastnst.errors import UsageError, nearest


@dataclass(frozen=True)
class StyleForm:
    """``gram(C, N)`` is the factor of the Gram matrix, ``loss(C)`` that of the sum of squared differences."""

    gram: Callable[[int, int], float]
    loss: Callable[[int], float]


STYLE_FORMS: Mapping[str, StyleForm] = {
    "gatys": StyleForm(lambda c, n: 1 / n, lambda c: 1 / (4 * c**2)),
    "channels": StyleForm(lambda c, n: 1 / n, lambda c: 1 / c**4),
    "johnson": StyleForm(lambda c, n: 1 / (c * n), lambda c: 1 / c**2),
    "raw": StyleForm(lambda c, n: 1.0, lambda c: 1 / c**2),
}

CONTENT_FORMS: Mapping[str, Callable[[int, int], float]] = {
    "half_sum": lambda c, n: 0.5,
    "mean": lambda c, n: 1 / (c * n),
    "half_mean": lambda c, n: 1 / (2 * c * n),
}


def style_form(name: str) -> StyleForm:
    """The style form called ``name``; UsageError suggests the nearest."""
    if name not in STYLE_FORMS:
        raise UsageError(f"unknown style form {name!r}{nearest(name, STYLE_FORMS)} (known: {', '.join(STYLE_FORMS)})")
    return STYLE_FORMS[name]


def content_form(name: str) -> Callable[[int, int], float]:
    """The content form called ``name``; UsageError suggests the nearest."""
    if name not in CONTENT_FORMS:
        known = ", ".join(CONTENT_FORMS)
        raise UsageError(f"unknown content form {name!r}{nearest(name, CONTENT_FORMS)} (known: {known})")
    return CONTENT_FORMS[name]


class _TargetLoss(nn.Module):
    """A loss with a buffer ``target``, whose dtype a cast of the module may make wider than float32, not narrower.

    Half precision does not hold what a target holds: a raw Gram matrix is infinite there.
    """

    target: Tensor

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> nn.Module:
        kept = self.target
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if torch.finfo(self.target.dtype).bits < 32:
            self.target = kept.to(self.target.device)
        return self


class StyleLoss(_TargetLoss):
    """Distance of a feature map's Gram matrix to a style's, for use in training code.

    Casts such as ``module.half()`` leave the target in float32 or float64.

    Args:
        style: the style's features ``[1 or B, C, ...]``; only their Gram matrix is kept, as the buffer ``target``.
        form: a style form by name.
        weight: a factor before the loss.
    """

    def __init__(self, style: Tensor, form: str = "gatys", weight: float = 1.0) -> None:
        super().__init__()
        self.form, self.weight = form, weight  # the name, because a form's functions cannot be pickled
        scale = style_form(form).gram(style.shape[1], style.shape[2:].numel())
        with torch.no_grad():
            self.register_buffer("target", ops.gram(style, scale=scale))

    def forward(self, x: Tensor) -> Tensor:
        """``weight * factor * sum (G - A)^2`` of features ``[B, C, ...]``, summed over the batch."""
        form, channels = style_form(self.form), x.shape[1]
        loss = ops.style_loss(x, self.target, scale=form.gram(channels, x.shape[2:].numel()))
        return self.weight * form.loss(channels) * loss


class ContentLoss(_TargetLoss):
    """Distance of a feature map to the content's.

    Casts such as ``module.half()`` leave the target in the precision it has, or widen it.

    Args:
        content: the content's features; kept as the buffer ``target``.
        form: a content form by name.
        weight: a factor before the loss.
    """

    def __init__(self, content: Tensor, form: str = "mean", weight: float = 1.0) -> None:
        super().__init__()
        self.register_buffer("target", content.detach())
        self.factor = weight * content_form(form)(content.shape[1], content.shape[2:].numel())

    def forward(self, x: Tensor) -> Tensor:
        """``weight * factor * sum (F - P)^2`` of features of the target's shape; of two dtypes the wider is used."""
        dtype = torch.promote_types(x.dtype, self.target.dtype)
        return self.factor * ops.content_loss(x.to(dtype), self.target.to(dtype))


class TotalVariationLoss(nn.Module):
    """``weight`` times :func:`fastnst.ops.total_variation` of images ``[B, C, H, W]``."""

    def __init__(self, kind: str = "anisotropic", weight: float = 1.0) -> None:
        super().__init__()
        self.kind, self.weight = kind, weight

    def forward(self, x: Tensor) -> Tensor:
        """One value, summed over the batch."""
        return self.weight * ops.total_variation(x, self.kind)

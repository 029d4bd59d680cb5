"""The losses of one layer, and how their gradients are added to the gradient from the layers above.

A layer has one style term, or one for each region of the image with weights of positions. The Gram matrix takes one op
in the forward and one in the backward pass. Another loss of :mod:`fastnst.losses.style` gives a
:class:`~fastnst.losses.style.FeatureGradient`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from fastnst.losses.style import FeatureGradient, StyleLoss, Target, value_and_gradient
from fastnst.ops.dtypes import accumulate_dtype

NORM_EPSILON = 1e-8  # added to the norm that a gradient is divided by, as in neural-style


@dataclass(frozen=True)
class StyleTerm:
    """``factor`` times a style loss at a layer.

    Args:
        factor: the weight of the term.
        target: what the loss compares with.
        scale: the factor of the Gram matrix G in ``sum (G - A)^2``; other losses do not read it.
        weight: of the positions, ``[1, h, w]``, not negative and of sum 1; None: all positions count alike.
        loss: one of :mod:`fastnst.losses.style`; None: the Gram matrix.
    """

    factor: float
    target: Target
    scale: float = 1.0
    weight: Tensor | None = None
    loss: StyleLoss | None = None


@dataclass(frozen=True)
class LayerTerms:
    """The losses of a layer: ``styles``, and ``content`` times ``sum v (F - P)^2`` for features F.

    Args:
        styles: the style terms.
        content: the factor of the content loss.
        target: P, the features of the content picture.
        content_weight: v ``[h, w]``; None: 1 everywhere.
        norms: a factor each for style and content; the gradient of each by the features is divided by its 1-norm and
            multiplied by this factor. None: gradients are not normalized.
    """

    styles: tuple[StyleTerm, ...] = ()
    content: float = 0.0
    target: Tensor | None = None
    content_weight: Tensor | None = None
    norms: tuple[float, float] | None = None

    @property
    def single_gram(self) -> StyleTerm | None:
        """The style term if it is the only one, a Gram matrix and without weights, as fused ops expect it."""
        term = self.styles[0] if len(self.styles) == 1 else None
        return term if term is not None and term.loss is None and term.weight is None else None

    @property
    def style_factor(self) -> float:
        """The factor of the value of :func:`style_value_and_gradient`."""
        return self.styles[0].factor if len(self.styles) == 1 else 1.0

    def rows(self, rows: slice) -> LayerTerms:
        """The terms for some rows of the layer; only the content term depends on them."""
        if self.target is None:
            return self
        weight = self.content_weight
        return replace(self, target=self.target[:, :, rows], content_weight=None if weight is None else weight[rows])


@dataclass(frozen=True)
class ScaledFeatureGradient:
    """The gradient of a style term: ``factor * ((matrix F + shift) diag(w) + direct)`` with ``weight [1, h, w]``."""

    factor: float
    gradient: FeatureGradient
    weight: Tensor | None = None

    def rows(self, rows: slice) -> ScaledFeatureGradient:
        """The gradient for some rows of the layer."""
        direct, weight = self.gradient.direct, self.weight
        gradient = self.gradient if direct is None else replace(self.gradient, direct=direct[:, :, rows])
        return replace(self, gradient=gradient, weight=None if weight is None else weight[:, rows])


def style_value_and_gradient(x: Tensor, terms: LayerTerms) -> tuple[Tensor, list[ScaledFeatureGradient]]:
    """The sum ``[]`` of the style terms at features ``x [1, C, h, w]``, and the gradient of each.

    The sum is to be multiplied by ``terms.style_factor``, which its gradients include.
    """
    values, gradients = [], []
    for term in terms.styles:
        if term.loss is None:
            loss, residual = torch.ops.fastnst.style_loss(x, term.target[0], _flat(term.weight), term.scale)
            factor, gradient = 4.0 * term.factor * term.scale, FeatureGradient(matrix=residual)
        else:
            loss, gradient = value_and_gradient(term.loss, x, term.target, term.weight)
            factor = term.factor
        gradients.append(ScaledFeatureGradient(factor, gradient, term.weight))
        values.append(loss)
    if len(values) == 1:
        return values[0], gradients
    return torch.stack([term.factor * value for term, value in zip(terms.styles, values, strict=True)]).sum(), gradients


def content_value(x: Tensor, terms: LayerTerms) -> Tensor:
    """The content loss ``[]`` at features ``x [1, C, h, w]``, to be multiplied by ``terms.content``."""
    assert terms.target is not None
    if terms.content_weight is None:
        loss: Tensor = torch.ops.fastnst.content_loss(x, terms.target)
        return loss
    difference = (x - terms.target).to(terms.content_weight.dtype)
    return (difference.square_().sum((0, 1)) * terms.content_weight).sum()


def add_gradient_(
    grad: Tensor, x: Tensor, terms: LayerTerms | None, gradients: Sequence[ScaledFeatureGradient], *, relu: bool
) -> None:
    """Add the gradients of the content term of ``terms`` and of style terms to ``grad``, in place.

    With ``relu``, the sum is then set to zero where the features ``x`` are zero.
    """
    if terms is None:
        _add(grad, x, relu=relu)
    elif terms.norms is None:
        _add_gradients(grad, x, gradients, terms, relu=relu)
    else:
        style_norm, content_norm = terms.norms
        for norm, styles, content in ((style_norm, gradients, None), (content_norm, (), terms)):
            found = feature_gradient(x, styles, content)
            grad += found * (norm / (one_norm(found) + NORM_EPSILON)).to(found.dtype)
        _add(grad, x, relu=relu)


def feature_gradient(x: Tensor, gradients: Sequence[ScaledFeatureGradient], terms: LayerTerms | None) -> Tensor:
    """The gradient of style terms and of the content term of ``terms`` by features ``x``, of the shape of ``x``."""
    found = torch.zeros_like(x)
    _add_gradients(found, x, gradients, terms, relu=False)
    return found


def one_norm(gradient: Tensor) -> Tensor:
    """The sum of the magnitudes ``[]``, float32, or float64 for float64."""
    return gradient.abs().sum(dtype=accumulate_dtype(gradient.dtype))


def _add_gradients(
    grad: Tensor, x: Tensor, gradients: Sequence[ScaledFeatureGradient], terms: LayerTerms | None, *, relu: bool
) -> None:
    content = 2.0 * terms.content if terms is not None and terms.target is not None else 0.0
    target = terms.target if terms is not None else None
    if terms is not None and target is not None and terms.content_weight is not None:
        grad.addcmul_(x - target, (content * terms.content_weight).to(x.dtype))
        target = None
    products: list[tuple[Tensor | None, Tensor | None, float, Tensor | None]] = []
    for one in gradients:
        if one.gradient.direct is not None:
            grad.add_(one.gradient.direct, alpha=one.factor)
        matrix, shift = one.gradient.matrix, one.gradient.shift
        if shift is not None:
            # A loss of the mean alone has no matrix, and the op no shift without one.
            matrix = shift.new_zeros(1, *2 * shift.shape[1:]) if matrix is None else matrix
            shift = one.factor * shift
        if matrix is not None:
            products.append((matrix, _flat(one.weight), one.factor, shift))
    # The last product shares one op with the content term and the mask.
    last = products.pop() if products else (None, None, 0.0, None)
    for product in products:
        _add(grad, x, *product)
    _add(grad, x, *last, target=target, content=content, relu=relu)


def _add(
    grad: Tensor,
    x: Tensor,
    matrix: Tensor | None = None,
    weight: Tensor | None = None,
    factor: float = 0.0,
    shift: Tensor | None = None,
    *,
    target: Tensor | None = None,
    content: float = 0.0,
    relu: bool = False,
) -> None:
    torch.ops.fastnst.layer_backward_(grad, x, matrix, weight, factor, shift, target, content, relu)


def _flat(weight: Tensor | None) -> Tensor | None:
    """Weights of positions ``[1, h, w]`` as ops expect them, ``[1, N]``."""
    return None if weight is None else weight.flatten(1)

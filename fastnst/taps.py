"""What is asked of one layer, and how its gradient is laid on the one that comes down.

A style is asked for once, or once for each region of the image with weights of positions. Through the Gram matrix that
is one op up and one down; through another loss of :mod:`fastnst.styles`, what its :class:`~fastnst.styles.Pull` holds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from fastnst.ops.reference import accumulate_dtype
from fastnst.styles import Pull, StyleLoss, Target, pull

NORM_EPSILON = 1e-8  # beside the norm that a gradient is divided by, as in neural-style


@dataclass(frozen=True)
class StyleTerm:
    """``factor`` times a style loss at ``weight [1, h, w]``, not negative and of sum 1, or at all positions alike.

    ``loss`` is one of :mod:`fastnst.styles`, or None for the Gram matrix: ``sum (G - A)^2`` with ``scale`` inside G.
    """

    factor: float
    target: Target
    scale: float = 1.0
    weight: Tensor | None = None
    loss: StyleLoss | None = None


@dataclass(frozen=True)
class Tap:
    """``styles``, and ``content`` times ``sum v (F - P)^2`` with P the ``target`` and v ``content_weight [h, w]``.

    ``norms``: the gradients of style and content by the features are divided by the sum of their magnitudes and
    multiplied by these.
    """

    styles: tuple[StyleTerm, ...] = ()
    content: float = 0.0
    target: Tensor | None = None
    content_weight: Tensor | None = None
    norms: tuple[float, float] | None = None

    @property
    def plain_gram(self) -> StyleTerm | None:
        """The style where it is one Gram matrix of all positions alike: what fused ops take."""
        one = self.styles[0] if len(self.styles) == 1 else None
        return one if one is not None and one.loss is None and one.weight is None else None

    def rows(self, some: slice) -> Tap:
        """Some rows of the layer."""
        if self.target is None:
            return self
        weight = self.content_weight
        return replace(self, target=self.target[:, :, some], content_weight=None if weight is None else weight[some])


@dataclass(frozen=True)
class Slope:
    """The gradient of a style term: ``factor * ((matrix F + shift) diag(w) + direct)`` with ``weight [1, h, w]``."""

    factor: float
    pull: Pull
    weight: Tensor | None = None

    def rows(self, some: slice) -> Slope:
        """Some rows of the layer."""
        direct, weight = self.pull.direct, self.weight
        pull = self.pull if direct is None else replace(self.pull, direct=direct[:, :, some])
        return replace(self, pull=pull, weight=None if weight is None else weight[:, some])


def look_at_style(x: Tensor, tap: Tap) -> tuple[Tensor, list[Slope]]:
    """The value of a tap's styles at features ``x``, and their gradients."""
    values, slopes = [], []
    for term in tap.styles:
        if term.loss is None:
            loss, residual = torch.ops.fastnst.style_loss(x, term.target[0], _flat(term.weight), term.scale)
            slopes.append(Slope(4.0 * term.factor * term.scale, Pull(matrix=residual), term.weight))
        else:
            loss, found = pull(term.loss, x, term.target, term.weight)
            slopes.append(Slope(term.factor, found, term.weight))
        values.append(term.factor * loss)
    return values[0] if len(values) == 1 else torch.stack(values).sum(), slopes


def look_at_content(x: Tensor, tap: Tap) -> Tensor:
    """The value of a tap's content loss at features ``x``."""
    assert tap.target is not None
    if tap.content_weight is None:
        loss: Tensor = torch.ops.fastnst.content_loss(x, tap.target)
        return tap.content * loss
    exact = tap.content_weight.dtype
    apart = (x - tap.target).to(exact)
    return tap.content * (apart.square_() * tap.content_weight).sum()


def lay_on(grad: Tensor, x: Tensor, tap: Tap | None, slopes: Sequence[Slope], *, relu: bool) -> None:
    """In place: ``grad`` and the gradients of the tap, and zero where ``relu`` and the features are."""
    if tap is None:
        _add(grad, x, relu=relu)
    elif tap.norms is None:
        _lay(grad, x, slopes, tap, relu=relu)
    else:
        for norm, some, one in ((tap.norms[0], slopes, None), (tap.norms[1], (), tap)):
            found = alone(x, some, one)
            grad += found * (norm / (magnitude(found) + NORM_EPSILON)).to(found.dtype)
        _add(grad, x, relu=relu)


def alone(x: Tensor, slopes: Sequence[Slope], tap: Tap | None) -> Tensor:
    """The gradient of some slopes, and of a tap's content, at features ``x``."""
    found = torch.zeros_like(x)
    _lay(found, x, slopes, tap, relu=False)
    return found


def magnitude(gradient: Tensor) -> Tensor:
    """The sum of the magnitudes of its values ``[]``, float32, or float64 for float64."""
    return gradient.abs().sum(dtype=accumulate_dtype(gradient.dtype))


def _lay(grad: Tensor, x: Tensor, slopes: Sequence[Slope], tap: Tap | None, *, relu: bool) -> None:
    content = 2.0 * tap.content if tap is not None and tap.target is not None else 0.0
    target = tap.target if tap is not None else None
    if tap is not None and target is not None and tap.content_weight is not None:
        grad += (x - target) * (content * tap.content_weight).to(x.dtype)
        target = None
    products: list[tuple[Tensor | None, Tensor | None, float]] = []
    for slope in slopes:
        if slope.pull.direct is not None:
            grad.add_(slope.pull.direct, alpha=slope.factor)
        if slope.pull.shift is not None:
            shift = slope.factor * slope.pull.shift[..., None, None]
            grad += (shift if slope.weight is None else shift * slope.weight[:, None]).to(grad.dtype)
        if slope.pull.matrix is not None:
            products.append((slope.pull.matrix, _flat(slope.weight), slope.factor))
    last = products.pop() if products else (None, None, 0.0)
    for product in products:
        _add(grad, x, *product)
    _add(grad, x, *last, target, content, relu=relu)


def _add(
    grad: Tensor,
    x: Tensor,
    matrix: Tensor | None = None,
    weight: Tensor | None = None,
    factor: float = 0.0,
    target: Tensor | None = None,
    content: float = 0.0,
    *,
    relu: bool = False,
) -> None:
    torch.ops.fastnst.tapped_backward_(grad, x, matrix, weight, factor, target, content, relu)


def _flat(weight: Tensor | None) -> Tensor | None:
    """Weights of positions as ops take them, ``[1, N]``."""
    return None if weight is None else weight.flatten(1)

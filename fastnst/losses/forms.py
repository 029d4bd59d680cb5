"""Normalizations of the style and content losses by name.

A *style form* determines the scale of the Gram matrix and the factor of the squared distance; a *content form*
determines the factor of the squared distance of features. C is the number of channels, N of positions.

===========  ====================  =================  =======================================================
style form   Gram matrix           loss               source
===========  ====================  =================  =======================================================
gatys        F F^T / N             sum / (4 C^2)      Gatys, Ecker, Bethge 2015: sum (G-A)^2 / (4 C^2 N^2)
channels     F F^T / N             sum / C^4          mean squared error with layer weights 1 / C^2
johnson      F F^T / (C N)         sum / C^2          jcjohnson/neural-style: mean squared error
raw          F F^T                 sum / C^2          mean squared error of Gram matrices that are not scaled
===========  ====================  =================  =======================================================

With ``gatys``, images of one size give the paper's value; dividing each Gram matrix by its own N allows content and
style of different sizes. Content forms: ``half_sum`` = sum / 2 (Gatys et al. 2015, eq. 1), ``mean`` = sum / (C N),
``half_mean`` = sum / (2 C N).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from fastnst.errors import UsageError, nearest


@dataclass(frozen=True)
class StyleForm:
    """The normalization of a style loss.

    Attributes:
        gram: ``gram(C, N)`` is the scale of the Gram matrix.
        loss: ``loss(C)`` is the factor of the sum of squared differences.

    Example:
        >>> form = style_form("gatys")
        >>> form.gram(64, 100), form.loss(2)
        (0.01, 0.0625)
    """

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
    """Return the style form called ``name``.

    Raises:
        UsageError: there is no such form; the message suggests the nearest.

    Example:
        >>> from fastnst import losses
        >>> losses.style_form("johnson").gram(64, 100) == 1 / 6400
        True
    """
    if name not in STYLE_FORMS:
        raise UsageError(f"unknown style form {name!r}{nearest(name, STYLE_FORMS)} (known: {', '.join(STYLE_FORMS)})")
    return STYLE_FORMS[name]


def content_form(name: str) -> Callable[[int, int], float]:
    """Return the content form called ``name``, which gives the factor for ``(C, N)``.

    Raises:
        UsageError: there is no such form; the message suggests the nearest.

    Example:
        >>> from fastnst import losses
        >>> losses.content_form("mean")(4, 25)
        0.01
    """
    if name not in CONTENT_FORMS:
        known = ", ".join(CONTENT_FORMS)
        raise UsageError(f"unknown content form {name!r}{nearest(name, CONTENT_FORMS)} (known: {known})")
    return CONTENT_FORMS[name]

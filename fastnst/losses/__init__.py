"""Losses of feature maps and images.

:class:`GramLoss`, :class:`ContentLoss` and :class:`TotalVariationLoss` are modules for training code. Their
normalizations are in :mod:`fastnst.losses.forms`, style losses other than that of the Gram matrix in
:mod:`fastnst.losses.style`, and those that see several layers at once in :mod:`fastnst.losses.joint`.
"""

from __future__ import annotations

from fastnst.losses import joint, style
from fastnst.losses.forms import CONTENT_FORMS, STYLE_FORMS, StyleForm, content_form, style_form
from fastnst.losses.modules import ContentLoss, GramLoss, TotalVariationLoss

__all__ = [
    "CONTENT_FORMS",
    "STYLE_FORMS",
    "ContentLoss",
    "GramLoss",
    "StyleForm",
    "TotalVariationLoss",
    "content_form",
    "joint",
    "style",
    "style_form",
]

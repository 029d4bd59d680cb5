"""Losses that see the features of several layers at once.

===================  ============================================================  ==========================
name                 compares                                                      class
===================  ============================================================  ==========================
``nnst``             hypercolumns with those of the style that replace them        :class:`NeuralNeighbor`
``strotss``          hypercolumns by relaxed transport, their moments and colors   :class:`RelaxedTransport`
``self_similarity``  similarities between positions with those of the content      :class:`SelfSimilarity`
===================  ============================================================  ==========================

The first two are values of the setting ``style_loss``, the last of ``content_loss``. Own ones derive from
:class:`JointLoss` and are added by :func:`fastnst.losses.style.register` or an entry point, as other style losses.
"""

from __future__ import annotations

from fastnst.losses.joint.base import IMAGE, Features, JointLoss, Stage
from fastnst.losses.joint.nearest import nearest
from fastnst.losses.joint.neural_neighbor import NeuralNeighbor
from fastnst.losses.joint.strotss import RelaxedTransport, SelfSimilarity

__all__ = [
    "IMAGE",
    "Features",
    "JointLoss",
    "NeuralNeighbor",
    "RelaxedTransport",
    "SelfSimilarity",
    "Stage",
    "nearest",
]

"""Style losses by name: built in, registered from Python, or provided by installed packages."""

from __future__ import annotations

from collections.abc import Mapping

from fastnst.config.offers import load_offer, offered_names
from fastnst.errors import UsageError, nearest
from fastnst.losses.base import StyleLoss
from fastnst.losses.joint.base import JointLoss
from fastnst.losses.joint.neural_neighbor import NeuralNeighbor
from fastnst.losses.joint.strotss import RelaxedTransport, SelfSimilarity
from fastnst.losses.style.patches import NearestPatch
from fastnst.losses.style.statistics import Covariance, GramMeanStd, MeanStd
from fastnst.losses.style.transport import Histogram, Sliced
from fastnst.losses.style.wasserstein import Wasserstein

GROUP = "fastnst.style_losses"
GRAM = "gram"
"""The settings' name of the Gram matrix loss, which has its own ops and forms instead of a class here."""

BUILT_IN: Mapping[str, type[StyleLoss]] = {
    "mean_std": MeanStd,
    "covariance": Covariance,
    "gram_mean_std": GramMeanStd,
    "wasserstein": Wasserstein,
    "sliced": Sliced,
    "histogram": Histogram,
    "cnnmrf": NearestPatch,
    "nnst": NeuralNeighbor,
    "strotss": RelaxedTransport,
}
CONTENT_BUILT_IN: Mapping[str, type[JointLoss]] = {"self_similarity": SelfSimilarity}
"""Losses that compare the image with the content alone."""

_registered: dict[str, StyleLoss] = {}


def style_loss(name: str) -> StyleLoss:
    """Return the style loss called ``name``.

    Built-in losses take precedence over registered ones, and these over the entry points of the group
    ``fastnst.style_losses``. An entry point is loaded only when its name is requested.

    Raises:
        UsageError: there is no such name (the nearest is suggested), or the entry point does not load, is not a style
            loss, or is provided twice.

    Example:
        >>> from fastnst.losses import style
        >>> style.style_loss("covariance")  # doctest: +ELLIPSIS
        <fastnst.losses.style.statistics.Covariance object at ...>
    """
    if name in BUILT_IN:
        return BUILT_IN[name]()
    if name in _registered:
        return _registered[name]
    offer = load_offer(GROUP, name, "style loss")
    if offer is None:
        known = style_losses()
        raise UsageError(f"unknown style loss {name!r}{nearest(name, known)} (known: {', '.join(known)})")
    where, found = offer
    return _instance(where, found)


def content_loss(name: str) -> JointLoss:
    """Return the content loss called ``name``: ``"self_similarity"``, or a style loss of several layers.

    Raises:
        UsageError: there is no such name, or it is that of a loss of one layer.

    Example:
        >>> from fastnst.losses import style
        >>> style.content_loss("self_similarity")  # doctest: +ELLIPSIS
        <fastnst.losses.joint.strotss.SelfSimilarity object at ...>
    """
    if name in CONTENT_BUILT_IN:
        return CONTENT_BUILT_IN[name]()
    known = ("features", *CONTENT_BUILT_IN)
    found = style_loss(name) if name in style_losses() and name != GRAM else None
    if isinstance(found, JointLoss):
        return found
    if found is not None or name == GRAM:
        raise UsageError(f"content_loss {name!r} is a loss of one layer (expected {', '.join(known)} or a JointLoss)")
    raise UsageError(f"unknown content loss {name!r}{nearest(name, known)} (known: {', '.join(known)})")


def register(name: str, loss: StyleLoss | type[StyleLoss]) -> None:
    """Register ``loss`` as ``name`` in this process, replacing an earlier registration.

    Args:
        name: letters, digits and underscores, not the name of a built-in loss.
        loss: a :class:`MomentLoss`, a :class:`FeatureLoss` or a :class:`fastnst.losses.joint.JointLoss`, or a subclass
            whose constructor needs no arguments.

    Raises:
        UsageError: an invalid name or loss.

    Example:
        >>> from fastnst.losses.style import MomentLoss
        >>> class Mean(MomentLoss):
        ...     def target(self, mean, moment):
        ...         return (mean,)
        ...
        ...     def loss(self, mean, moment, target):
        ...         return (mean - target[0]).square().mean()
        >>> register("mean_of_channels", Mean)
        >>> "mean_of_channels" in style_losses()
        True
    """
    if not name.isidentifier():
        raise UsageError(f"style loss {name!r}: expected a name of letters, digits and underscores")
    if name in BUILT_IN or name in CONTENT_BUILT_IN or name == GRAM:
        raise UsageError(f"style loss {name!r} is built in; choose another name")
    _registered[name] = _instance(f"style loss {name!r}: {loss!r}", loss)


def style_losses() -> tuple[str, ...]:
    """Return the names of all style losses, ``"gram"`` first, without loading entry points.

    Example:
        >>> style_losses()[:3]
        ('gram', 'mean_std', 'covariance')
    """
    return tuple(dict.fromkeys((GRAM, *BUILT_IN, *_registered, *offered_names(GROUP))))


def _instance(where: str, found: object) -> StyleLoss:
    if isinstance(found, type) and issubclass(found, StyleLoss):
        try:
            found = found()
        except TypeError as error:
            raise UsageError(f"{where} cannot be made without arguments: {error}") from error
    if not isinstance(found, StyleLoss):
        raise UsageError(
            f"{where} is no style loss: expected a class derived from MomentLoss, FeatureLoss or JointLoss"
        )
    return found

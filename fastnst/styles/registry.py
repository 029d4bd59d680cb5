"""Style losses by name: built in, registered from Python, or offered by installed packages."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping

from fastnst.errors import UsageError, nearest
from fastnst.styles.base import StyleLoss
from fastnst.styles.statistics import Covariance, GramMeanStd, MeanStd
from fastnst.styles.transport import Histogram, Sliced
from fastnst.styles.wasserstein import Wasserstein

GROUP = "fastnst.style_losses"
GRAM = "gram"  # the settings' name for Gram matrices, which have ops and forms of their own: see fastnst.objective

BUILT_IN: Mapping[str, type[StyleLoss]] = {
    "mean_std": MeanStd,
    "covariance": Covariance,
    "gram_mean_std": GramMeanStd,
    "wasserstein": Wasserstein,
    "sliced": Sliced,
    "histogram": Histogram,
}

_registered: dict[str, StyleLoss] = {}


def style_loss(name: str) -> StyleLoss:
    """The style loss called ``name``.

    Names are looked up among the built-in ones, then those of :func:`register`, then the entry points of the group
    ``fastnst.style_losses``, which are loaded only when asked for by name.

    Raises:
        UsageError: no such name (the nearest is suggested), or an entry point that does not load, is no style loss, or
            is offered twice.
    """
    if name in BUILT_IN:
        return BUILT_IN[name]()
    if name in _registered:
        return _registered[name]
    offered = importlib.metadata.entry_points(group=GROUP, name=name)
    if not offered:
        known = style_losses()
        raise UsageError(f"unknown style loss {name!r}{nearest(name, known)} (known: {', '.join(known)})")
    if len(offered) > 1:
        raise UsageError(f"style loss {name!r}: offered by {' and '.join(sorted(entry.value for entry in offered))}")
    (entry,) = offered
    where = f"style loss {name!r}: entry point {entry.value}"
    try:
        found = entry.load()
    except (ImportError, AttributeError, SyntaxError) as error:
        raise UsageError(f"{where} does not load: {error}") from error
    return _instance(where, found)


def register(name: str, loss: StyleLoss | type[StyleLoss]) -> None:
    """Let ``loss`` be found by ``name`` in this process; a name registered before is replaced.

    Args:
        name: letters, digits and underscores, not that of a built-in loss.
        loss: a :class:`MomentLoss` or :class:`FeatureLoss`, or such a class that takes no arguments.

    Raises:
        UsageError: a name or loss that is not so.
    """
    if not name.isidentifier():
        raise UsageError(f"style loss {name!r}: expected a name of letters, digits and underscores")
    if name in BUILT_IN or name == GRAM:
        raise UsageError(f"style loss {name!r} is built in; choose another name")
    _registered[name] = _instance(f"style loss {name!r}: {loss!r}", loss)


def style_losses() -> tuple[str, ...]:
    """Every name of a style loss, that of the Gram matrix first; no entry point is loaded."""
    offered = importlib.metadata.entry_points(group=GROUP)
    return tuple(dict.fromkeys((GRAM, *BUILT_IN, *_registered, *sorted(entry.name for entry in offered))))


def _instance(where: str, found: object) -> StyleLoss:
    if isinstance(found, type) and issubclass(found, StyleLoss):
        try:
            found = found()
        except TypeError as error:
            raise UsageError(f"{where} cannot be made without arguments: {error}") from error
    if not isinstance(found, StyleLoss):
        raise UsageError(f"{where} is no style loss: expected a class derived from MomentLoss or FeatureLoss")
    return found

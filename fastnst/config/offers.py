"""What installed packages offer by entry points, such as style losses and encoders."""

from __future__ import annotations

import importlib.metadata
from typing import Any

from fastnst.errors import UsageError


def offered_names(group: str) -> tuple[str, ...]:
    """The names of a group in order, without loading anything."""
    return tuple(sorted({entry.name for entry in importlib.metadata.entry_points(group=group)}))


def load_offer(group: str, name: str, kind: str) -> tuple[str, Any] | None:
    """Load what a package offers as ``name``: how errors call it, and the object. None if no package offers it.

    Args:
        group: the group of entry points.
        name: the name of the entry point.
        kind: what it is, in errors, such as ``"style loss"``.

    Raises:
        UsageError: several packages offer it, or it does not load.
    """
    offered = importlib.metadata.entry_points(group=group, name=name)
    if not offered:
        return None
    if len(offered) > 1:
        raise UsageError(f"{kind} {name!r}: offered by {' and '.join(sorted(entry.value for entry in offered))}")
    (entry,) = offered
    where = f"{kind} {name!r}: entry point {entry.value}"
    try:
        return where, entry.load()
    except Exception as error:  # the import of a package may raise anything
        raise UsageError(f"{where} does not load: {error}") from error

"""A bounded cache of style targets."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable

from fastnst.objective.targets import StyleTargets

LIMIT = 2**26  # bytes


class TargetCache:
    """Keeps the targets used last, of at most ``limit`` bytes together; the newest is kept whatever its size.

    Keys are made from the content of what was measured, so equal pictures share their targets.
    """

    def __init__(self, limit: int = LIMIT) -> None:
        self.limit = limit
        self._entries: OrderedDict[Hashable, StyleTargets] = OrderedDict()

    def get(self, key: Hashable, measure: Callable[[], StyleTargets]) -> StyleTargets:
        """The targets for ``key``, computed by ``measure`` if they are not in the cache."""
        if key not in self._entries:
            self._entries[key] = measure()
        self._entries.move_to_end(key)
        while len(self._entries) > 1 and self.bytes > self.limit:
            self._entries.popitem(last=False)
        return self._entries[key]

    @property
    def bytes(self) -> int:
        """Bytes of all targets in the cache."""
        return sum(
            tensor.numel() * tensor.element_size()
            for targets in self._entries.values()
            for target in targets.values()
            for tensor in target
        )

    def __len__(self) -> int:
        return len(self._entries)

"""Style targets that are kept between runs: found again by what was measured, not by which object held it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable

from fastnst.objective import StyleTargets

LIMIT = 2**26  # bytes


class TargetCache:
    """The targets used last, of at most ``limit`` bytes; the newest is kept whatever its size.

    Args:
        limit: bytes of all targets together.
    """

    def __init__(self, limit: int = LIMIT) -> None:
        self.limit = limit
        self._kept: OrderedDict[Hashable, StyleTargets] = OrderedDict()

    def get(self, key: Hashable, make: Callable[[], StyleTargets]) -> StyleTargets:
        """The targets of ``key``, made by ``make`` if they are not kept."""
        if key not in self._kept:
            self._kept[key] = make()
        self._kept.move_to_end(key)
        while len(self._kept) > 1 and self.bytes > self.limit:
            self._kept.popitem(last=False)
        return self._kept[key]

    @property
    def bytes(self) -> int:
        """Bytes of all targets that are kept."""
        return sum(
            tensor.numel() * tensor.element_size()
            for targets in self._kept.values()
            for target in targets.values()
            for tensor in target
        )

    def __len__(self) -> int:
        return len(self._kept)

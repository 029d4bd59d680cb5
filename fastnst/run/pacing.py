"""How often a callback may show a run that it must not slow down."""

from __future__ import annotations

INTERVAL = 0.5
"""Seconds from one update to the next, at least."""
SHARE = 0.015
"""The share of a run's time that updates may take, below the 2 % that are promised."""
_FIRST_COST = 0.005, 2e-8
"""Seconds that the first update is expected to take, for every picture and for each of its pixels."""


class Budget:
    """Says when the next update may be made.

    One is due ``INTERVAL`` after the last, as soon as the time of all updates so far, of this one and of the last one
    of the run, which is always made, is within ``SHARE`` of the time of the run.

    Args:
        now: seconds, of any clock.
        pixels: the size of the picture. The first update, and the first at each scale, are expected to take a time that
            depends on it; others take the time of the one before.
    """

    def __init__(self, now: float, pixels: int) -> None:
        self.start, self.shown, self.spent = now, now, 0.0
        self._least = _FIRST_COST[0] + _FIRST_COST[1] * pixels
        self._cost, self._scale = self._least, 0

    def due(self, now: float, scale: int) -> bool:
        """Whether an update at ``scale`` may begin."""
        expected = self._cost if scale == self._scale else max(self._cost, self._least)
        return now - self.shown >= INTERVAL and self.spent + 2 * expected <= SHARE * (now - self.start)

    def add(self, before: float, after: float, scale: int) -> None:
        """Account for an update."""
        self.shown, self._cost, self._scale = after, after - before, scale
        self.spent += after - before

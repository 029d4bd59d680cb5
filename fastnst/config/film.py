"""The settings of a film in addition to those of each frame. This module imports neither torch nor NumPy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from fastnst.config.checks import check_choice, check_number
from fastnst.config.ranges import MAX_ENTRIES, Range
from fastnst.errors import UsageError, shown

FLOWS = ("dis", "raft")
SHOTS = ("auto", "off")

RANGES = {
    "temporal_weight": Range(0, 1e30, whole=False),
    "still_factor": Range(1, 1e9, whole=False),
    "next_steps": Range(1, 10**6),
    "next_change": Range(0, 255, whole=False, open="least"),
    "lookback": Range(1, 10**6),
    "passes": Range(1, 100),
    "blend": Range(0, 1e6, whole=False),
}
"""The numbers that each setting accepts; for ``lookback``, the range of each."""


@dataclass(frozen=True, kw_only=True)
class FilmSettings:
    """How the frames of a film depend on each other.

    The first frame of a shot is styled as a still. Each further frame starts from the last one, warped by the optical
    flow, and ``temporal_weight`` times the mean squared difference to it, where the flow is reliable, joins the loss.

    Attributes:
        temporal_weight: weight of the temporal loss; pixels are in 0..255.
        still_factor: how many times ``temporal_weight`` holds where nothing moves and nothing changes.
        next_steps: steps of each frame after the first of a shot, at the full size alone.
        next_change: ``first_change`` of the settings for those frames, which start near their minimum.
        lookback: the frames before that each frame is held to: 1 is the last one, and (1, 10, 20) brings back what was
            hidden for some time.
        flow: ``"dis"`` (OpenCV, on the CPU), or ``"raft"`` (torchvision, with ``flow_weights``).
        flow_weights: the file of RAFT's weights.
        passes: how often the frames of a shot are optimized, in turn forward and backward. Several passes help when
            parts move far; each takes ``next_steps`` steps a frame.
        blend: with several passes, the weight of the warped neighbor in the start of a frame, relative to the frame
            of the pass before.
        shots: ``"auto"`` finds cuts; ``"off"`` takes the film as one shot.

    Raises:
        UsageError: a value of the wrong type or out of range.

    Example:
        >>> FilmSettings(lookback=(1, 10)).next_steps > 0
        True
    """

    temporal_weight: float = 1000.0
    still_factor: float = 1000.0
    next_steps: int = 30
    next_change: float = 0.5
    lookback: tuple[int, ...] = (1,)
    flow: str = "dis"
    flow_weights: str | None = None
    passes: int = 1
    blend: float = 1.0
    shots: str = "auto"

    def __post_init__(self) -> None:
        for name, limits in RANGES.items():
            object.__setattr__(self, name, _checked(name, getattr(self, name), limits))
        for name, known in (("flow", FLOWS), ("shots", SHOTS)):
            object.__setattr__(self, name, check_choice(name, getattr(self, name), known))
        if (self.flow == "raft") != (self.flow_weights is not None):
            raise UsageError("flow raft needs flow_weights, a file of torchvision's RAFT, and flow dis takes none")

    def to_dict(self) -> dict[str, Any]:
        """The settings as plain values for JSON."""
        return asdict(self)


def _checked(name: str, value: Any, limits: Range) -> Any:
    if name != "lookback":
        return check_number(name, value, limits)
    given = list(value) if isinstance(value, Sequence) and not isinstance(value, str) else [value]
    if not 0 < len(given) <= MAX_ENTRIES:
        raise UsageError(f"lookback: expected 1 to {MAX_ENTRIES} numbers of frames, got {shown(value)}")
    return tuple(sorted({check_number(name, one, limits) for one in given}))

"""The loss of an image and its gradient: what is minimized."""

from __future__ import annotations

from fastnst.objective.protocol import Losses
from fastnst.objective.targets import Region, StyleTargets, blend, style_targets
from fastnst.objective.whole import Objective

__all__ = ["Losses", "Objective", "Region", "StyleTargets", "blend", "style_targets"]

"""Settings of a run, the presets, and the files that hold settings. Importing it imports neither torch nor NumPy."""

from __future__ import annotations

from fastnst.config.parsing import parse_layers
from fastnst.config.presets import PRESETS
from fastnst.config.ranges import CHOICES, RANGES, Range
from fastnst.config.settings import Settings
from fastnst.config.toml import load_settings, save_settings

__all__ = ["CHOICES", "PRESETS", "RANGES", "Range", "Settings", "load_settings", "parse_layers", "save_settings"]

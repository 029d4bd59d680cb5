"""The values that settings accept: ranges of numbers, and the names to choose from."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

SMALLEST_SCALE = 64
"""Longest side of a scale in pixels, at least: below it, deep layers have too few positions to describe a style."""
FIRST_CHANGE = 4.0
"""Mean change of a pixel by the first step of L-BFGS, in levels of 255."""
MAX_ENTRIES = 100
"""Entries of a setting that has several, at most: steps, scales, layers, style weights."""
SIZE = re.compile(r"[0-9]{1,7}x[0-9]{1,7}")
"""Width and height in pixels, such as ``1024x768``."""

STARTS = ("content", "noise", "style")
"""Names for ``init``; any other value is the path of a picture."""
OPTIMIZERS = ("lbfgs", "adam", "adam_pyramid")
GRAPHS = ("auto", "on", "off")
TILES = ("auto", "on", "off")
"""Names for ``tiles``, which may also be a number of rows, or a number of rows for each size."""
CONVOLUTIONS = ("auto", "winograd", "direct")
PRECISIONS = ("auto", "float32", "bfloat16", "float64")
HISTORY_DTYPES = ("auto", "bfloat16", "float32")
TV_KINDS = ("anisotropic", "isotropic", "squared", "nine_point")
KEEP_COLORS = ("none", "yiq", "lab", "luminance")
MATCH_COLORS = ("none", "cholesky", "pca", "monge-kantorovich", "histogram")
STYLE_FITS = ("longest", "longest_shrink", "shorter_shrink", "none")

TILEABLE = ("none", "both", "x", "y")
WRAPS = dict(zip(TILEABLE, ((False, False), (True, True), (False, True), (True, False)), strict=True))
"""For each value of ``tileable``, whether the first row follows the last, and whether the first column does."""
EDGES = ("mirror", "drop")

CHOICES: Mapping[str, Sequence[str]] = {
    "optimizer": OPTIMIZERS,
    "history_dtype": HISTORY_DTYPES,
    "precision": PRECISIONS,
    "convolution": CONVOLUTIONS,
    "graph": GRAPHS,
    "tv_kind": TV_KINDS,
    "style_fit": STYLE_FITS,
    "tileable": TILEABLE,
    "edges": EDGES,
    "keep_color": KEEP_COLORS,
    "match_color": MATCH_COLORS,
}
"""The names that a setting accepts, for settings that accept nothing else."""
AFTER_THE_RUN = ("photoreal",)
"""Settings of what is done with the finished picture: a run can be resumed with other values of them."""


@dataclass(frozen=True)
class Range:
    """An interval of numbers from ``least`` to ``most``; ``open`` names the ends that do not belong to it.

    Example:
        >>> str(Range(2, 100))
        'a whole number of at least 2 and at most 100'
        >>> 1 in Range(2, 100)
        False
    """

    least: float
    most: float
    whole: bool = True
    open: str = ""

    def __contains__(self, value: Any) -> bool:
        """Whether a number is in the interval. The number is not NaN."""
        above = value > self.least if "least" in self.open else value >= self.least
        return bool(above and (value < self.most if "most" in self.open else value <= self.most))

    def __str__(self) -> str:
        """The interval in an error message."""
        kind, form = ("a whole number", "d") if self.whole else ("a finite number", "g")
        above = "above" if "least" in self.open else "of at least"
        below = "below" if "most" in self.open else "at most"
        return f"{kind} {above} {self.least:{form}} and {below} {self.most:{form}}"

    def short(self) -> str:
        """The interval in a help text, such as ``2 to 1000000``."""
        least, most = self._number(self.least), self._number(self.most)
        if not self.open:
            return f"{least} to {most}"
        above = f"above {least}" if "least" in self.open else f"at least {least}"
        return f"{above} and {'below' if 'most' in self.open else 'at most'} {most}"

    def _number(self, value: float) -> str:
        if not self.whole or value < 2**20:
            return f"{value:d}" if self.whole else f"{value:g}"
        power = (int(value) + 1).bit_length() - 1
        return {2**power: f"2^{power}", 2**power - 1: f"2^{power} - 1"}.get(int(value), f"{value}")


WEIGHT = Range(0, 1e30, whole=False)
SIDE = Range(2, 10**6)
RANGES: Mapping[str, Range] = {
    "content_weight": WEIGHT,
    "style_weight": WEIGHT,
    "tv_weight": WEIGHT,
    "content_layers": WEIGHT,
    "style_layers": WEIGHT,
    "style_weights": WEIGHT,
    "learning_rate": Range(0, 1e40, whole=False, open="least"),
    "betas": Range(0, 1, whole=False, open="most"),
    "epsilon": Range(0, 1e6, whole=False, open="least"),
    "history": Range(1, 1000),
    "first_change": Range(0, 255, whole=False, open="least"),
    "steps": Range(1, 10**6),
    "scales": Range(1, 1000),  # the number of scales; a side of a scale is in the range SIDE
    "scale_factor": Range(1.1, 1000, whole=False),
    "min_scale": Range(SMALLEST_SCALE, 10**6),
    "min_shorter_side": Range(1, 10**6),
    "average": Range(0, 1, whole=False, open="most"),
    "size": SIDE,
    "crop": SIDE,
    "style_scale": Range(0, 100, whole=False, open="least"),
    "style_size": SIDE,
    "photoreal": Range(0, 100, whole=False),
    "noise": Range(0, 1e6, whole=False),
    "seed": Range(0, 2**63 - 1),
    "snapshot_every": Range(0, 10**9),
    "max_pixels": Range(2, 10**12),
    "tiles": Range(16, 10**6),  # rows of a strip, or columns in a wide picture
    "memory": Range(2**20, 2**60),
}
"""The numbers that each setting accepts; for a setting with several numbers, the range of each."""

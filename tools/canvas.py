"""A figure whose parts are positioned in pixels."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from fastnst.files import replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, QUIET = "#2b3440", "#6b7785"
WIDTH = 1500  # pixels
DPI = 100


class Canvas:
    """A figure of WIDTH pixels. Positions are in pixels from the top left corner."""

    def __init__(self, height: int) -> None:
        from matplotlib.figure import Figure

        self.height = height
        self.figure: Figure = Figure(figsize=(WIDTH / DPI, height / DPI), dpi=DPI, facecolor="white")

    def axes(self, left: float, top: float, width: float, height: float) -> Axes:
        """Axes with a thin frame and no ticks."""
        box = (left / WIDTH, 1 - (top + height) / self.height, width / WIDTH, height / self.height)
        axes = self.figure.add_axes(box)
        axes.set_xticks([])
        axes.set_yticks([])
        for spine in axes.spines.values():
            spine.set(color=QUIET, linewidth=0.6)
        return axes

    def text(self, left: float, top: float, text: str, *, size: float = 13, color: str = INK, at: str = "left") -> None:
        """One or more lines, centered vertically at ``top``."""
        self.figure.text(
            left / WIDTH, 1 - top / self.height, text, fontsize=size, color=color, ha=at, va="center", linespacing=1.4
        )

    def picture(self, pixels: Tensor, left: float, top: float, width: float, height: float) -> Axes:
        """Pixels ``[1, 3, H, W]`` in 0..1, scaled to the box."""
        axes = self.axes(left, top, width, height)
        axes.imshow(pixels[0].permute(1, 2, 0).numpy(), interpolation="lanczos", aspect="auto")
        return axes

    def save(self, path: Path) -> None:
        """Write a JPEG without chroma subsampling, which would blur colored lines."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as beside:
            self.figure.savefig(beside, dpi=DPI, pil_kwargs={"quality": 88, "subsampling": 0, "optimize": True})

"""Optimizers for images, and the loop that runs them."""

from __future__ import annotations

from fastnst.optim.image_lbfgs import ImageLBFGS
from fastnst.optim.progress import Callback, Step

__all__ = ["Callback", "ImageLBFGS", "Step"]

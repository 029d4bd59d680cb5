"""fastnst: neural style transfer with fused losses and gradients.

``fastnst.stylize(photo, painting, size=512)`` styles a picture; ``fastnst.ops`` has the fused ops, ``fastnst.losses``
their ``nn.Module`` forms. Names are loaded when first used, so that ``import fastnst`` alone does not import torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from fastnst import gallery, images, losses, ops, weights
    from fastnst.errors import FastnstError, ImageError, OutOfMemoryError, UsageError, WeightsError
    from fastnst.objective import Losses, Objective
    from fastnst.optimize import Step
    from fastnst.settings import Settings
    from fastnst.transfer import Result, Stylizer, stylize
    from fastnst.vgg import VGG

_FROM = {
    "FastnstError": "errors",
    "ImageError": "errors",
    "Losses": "objective",
    "Objective": "objective",
    "OutOfMemoryError": "errors",
    "Result": "transfer",
    "Settings": "settings",
    "Step": "optimize",
    "Stylizer": "transfer",
    "UsageError": "errors",
    "VGG": "vgg",
    "WeightsError": "errors",
    "stylize": "transfer",
}
_MODULES = ("gallery", "images", "losses", "ops", "weights")

__all__ = [
    "VGG",
    "FastnstError",
    "ImageError",
    "Losses",
    "Objective",
    "OutOfMemoryError",
    "Result",
    "Settings",
    "Step",
    "Stylizer",
    "UsageError",
    "WeightsError",
    "__version__",
    "gallery",
    "images",
    "losses",
    "ops",
    "stylize",
    "weights",
]


def __getattr__(name: str) -> Any:
    if name in _FROM:
        return getattr(importlib.import_module(f"fastnst.{_FROM[name]}"), name)
    if name in _MODULES:
        return importlib.import_module(f"fastnst.{name}")
    raise AttributeError(f"module 'fastnst' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)

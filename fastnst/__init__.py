"""fastnst: neural style transfer with fused losses and gradients.

``fastnst.stylize(photo, painting, size=512)`` styles a picture; ``fastnst.ops`` has the fused ops, ``fastnst.losses``
their ``nn.Module`` forms. Names are loaded when first used, so that ``import fastnst`` alone does not import torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from fastnst import gallery, images, losses, ops, settings, styles, weights
    from fastnst.errors import CheckpointError, FastnstError, ImageError, OutOfMemoryError, UsageError, WeightsError
    from fastnst.objective import Losses, Objective
    from fastnst.optimize import Step
    from fastnst.planning import Plan, plan
    from fastnst.settings import Settings
    from fastnst.transfer import Result, Stylizer, stylize
    from fastnst.vgg import VGG

_FROM = {
    "CheckpointError": "errors",
    "FastnstError": "errors",
    "ImageError": "errors",
    "Losses": "objective",
    "Objective": "objective",
    "OutOfMemoryError": "errors",
    "Plan": "planning",
    "Result": "transfer",
    "Settings": "settings",
    "Step": "optimize",
    "Stylizer": "transfer",
    "UsageError": "errors",
    "VGG": "vgg",
    "WeightsError": "errors",
    "plan": "planning",
    "stylize": "transfer",
}
_MODULES = ("gallery", "images", "losses", "ops", "settings", "styles", "weights")

__all__ = [
    "VGG",
    "CheckpointError",
    "FastnstError",
    "ImageError",
    "Losses",
    "Objective",
    "OutOfMemoryError",
    "Plan",
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
    "plan",
    "settings",
    "styles",
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

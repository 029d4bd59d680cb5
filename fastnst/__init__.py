"""Neural style transfer with fused losses and gradients.

:func:`stylize` renders a photograph in the style of a painting. :mod:`fastnst.ops` has the fused ops,
:mod:`fastnst.losses` their ``nn.Module`` forms, :mod:`fastnst.optim` the optimizer. Names are imported on first use, so
``import fastnst`` alone does not import torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from fastnst import config, film, gallery, images, losses, ops, optim, studio, weights
    from fastnst.config.settings import Settings
    from fastnst.config.toml import load_settings, save_settings
    from fastnst.errors import CheckpointError, FastnstError, ImageError, OutOfMemoryError, UsageError, WeightsError
    from fastnst.network.vgg import VGG
    from fastnst.notebook import watch
    from fastnst.objective.protocol import Losses
    from fastnst.objective.whole import Objective
    from fastnst.optim.progress import Step
    from fastnst.run.inpainting import inpaint
    from fastnst.run.planning import Plan, plan
    from fastnst.run.result import Result
    from fastnst.run.stylizer import Stylizer, stylize
    from fastnst.run.texturing import texture

_FROM = {
    "CheckpointError": "errors",
    "FastnstError": "errors",
    "ImageError": "errors",
    "Losses": "objective",
    "Objective": "objective",
    "OutOfMemoryError": "errors",
    "Plan": "run",
    "Result": "run",
    "Settings": "config",
    "Step": "optim",
    "Stylizer": "run",
    "UsageError": "errors",
    "VGG": "network",
    "WeightsError": "errors",
    "inpaint": "run",
    "load_settings": "config",
    "plan": "run",
    "save_settings": "config",
    "stylize": "run",
    "texture": "run",
    "watch": "notebook",
}
_MODULES = ("config", "film", "gallery", "images", "losses", "ops", "optim", "studio", "weights")

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
    "config",
    "film",
    "gallery",
    "images",
    "inpaint",
    "load_settings",
    "losses",
    "ops",
    "optim",
    "plan",
    "save_settings",
    "studio",
    "stylize",
    "texture",
    "watch",
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

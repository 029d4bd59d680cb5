"""Small pictures, and settings with a shallow network and few steps."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from fastnst.config.settings import Settings
from fastnst.objective.whole import Objective

TINY: dict[str, Any] = {
    "content_layers": (("relu2_1", 1.0),),
    "style_layers": (("relu1_1", 1.0), ("relu2_1", 1.0)),
    "size": 64,
    "tv_weight": 0.0,
    "scales": 1,
    "steps": 3,
    "device": "cpu",
    "precision": "float32",
}


def tiny(**changes: Any) -> Settings:
    given = {**TINY, **changes}
    if "crop" in changes:
        del given["size"]
    return Settings.from_preset(**given)


def samples(height: int = 72, width: int = 96, seed: int = 0) -> Any:
    """A smooth picture with an edge, uint8 [H, W, 3]."""
    y, x = np.mgrid[0:height, 0:width] / 96
    waves = [np.sin((3 + seed + i) * x + (5 - i) * y + seed) for i in range(3)]
    picture = np.stack(waves, -1) * 60 + 128
    picture[height // 3 : height // 2] += 60
    return picture.clip(0, 255).astype(np.uint8)


def as_tensor(array: Any) -> Tensor:
    return torch.from_numpy(array.astype(np.float32) / 255).permute(2, 0, 1)[None]


def fail_at(monkeypatch: pytest.MonkeyPatch, call: int, error: BaseException) -> None:
    """Make construction of the ``call``-th objective raise ``error``."""
    made: list[Objective] = []

    def build(*arguments: Any, **options: Any) -> Objective:
        if len(made) == call - 1:
            raise error
        made.append(Objective(*arguments, **options))
        return made[-1]

    monkeypatch.setattr("fastnst.run.scene_run.Objective", build)

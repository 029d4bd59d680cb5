"""The presets: how each differs from the defaults of ``Settings``. Sources: docs/presets.md."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

STYLE_LAYERS = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1")

Layers = tuple[tuple[str, float], ...]


_UP_TO_4_3 = (
    *("relu1_1", "relu1_2", "relu2_1", "relu2_2", "relu3_1", "relu3_2", "relu3_3"),
    *("relu4_1", "relu4_2", "relu4_3"),
)
_STROTSS = (*_UP_TO_4_3[:7], "relu4_3", "relu5_3")


def _layers(*names: str, weight: float = 1.0) -> Layers:
    return tuple((name, weight) for name in names)


# The weights that give the bundled network the balance of one whose mean activations are 1: docs/presets.md.
_TEXTURE_LAYERS = (("relu1_1", 1.0), ("pool1", 2.4e-3), ("pool2", 2.7e-3), ("pool3", 5.3e-5), ("pool4", 7.4))
_TEXTURE: Mapping[str, Any] = {
    "content_layers": (),
    "content_weight": 0.0,
    "tv_weight": 0.0,
    "style_layers": _TEXTURE_LAYERS,
    "style_form": "gatys",
    "pooling": "average",
    "scales": 3,
    "size": None,
    "style_fit": "none",
}

PRESETS: Mapping[str, Mapping[str, Any]] = {
    "default": {},
    "gatys": {
        "edges": "drop",
        "content_weight": 1.0,
        "tv_weight": 0.0,
        "style_layers": _layers(*STYLE_LAYERS, weight=1 / 5),
        "content_form": "half_sum",
        "style_form": "gatys",
        "pooling": "average",
        "steps": 500,
        "scales": 1,
        "init": "noise",
    },
    "johnson": {
        "edges": "drop",
        "style_layers": _layers(*STYLE_LAYERS),
        "content_weight": 5.0,
        "style_weight": 100.0,
        "tv_weight": 1e-3,
        "style_form": "johnson",
        "history": 100,
        "steps": 1000,
        "scales": 1,
        "init": "noise",
        "noise": 1e-3,
    },
    "tutorial": {
        "edges": "drop",
        "arch": "vgg16",
        # In the TensorFlow network of the tutorial, conv3_3 names the output after the ReLU, which is relu3_3 here.
        "content_layers": _layers("relu3_3"),
        "style_layers": _layers(
            "relu1_1", "relu1_2", "pool1", "relu2_1", "relu2_2", "pool2", "relu3_1", "relu3_2", "relu3_3", weight=1 / 7
        ),
        "content_weight": 1e3,
        "style_weight": 1e-3,
        "tv_weight": 0.0,
        "content_form": "half_mean",
        "style_form": "raw",
        "pooling": "average",
        "optimizer": "adam",
        "learning_rate": 5.0,
        "steps": 500,
        "scales": 1,
        "size": None,
        "crop": 224,
        "snapshot_every": 50,
    },
    "crowson": {
        "edges": "drop",
        "weights": "vgg19-torchvision",
        "style_layers": tuple((name, 4.0 ** (4 - i) / 341) for i, name in enumerate(STYLE_LAYERS)),
        "content_weight": 0.015,
        "style_weight": 1.0,
        "tv_weight": 2 / 255**2,
        "style_loss": "wasserstein",
        "tv_kind": "nine_point",
        "padding": "replicate_first",
        "optimizer": "adam",
        "learning_rate": 0.02 * 255,
        "betas": (0.9, 0.99),
        "epsilon": 1e-8 / 255,
        "clamp": True,
        "steps": (1000, 500),
        "scales": "auto",
        "scale_factor": math.sqrt(2),
        "min_scale": 128,
        "min_shorter_side": 16,
        "style_fit": "longest_shrink",
        "average": 0.99,
    },
    "spst": {
        "edges": "drop",
        "style_layers": _layers(*STYLE_LAYERS),
        "content_weight": 1.0,
        "tv_weight": 0.0,
        "style_loss": "gram_mean_std",
        "history": (100, 10),
        # The program sets 600, 200, 66, 30 evaluations, but stops only after whole calls of torch's L-BFGS, of 20 each.
        "steps": (620, 220, 80, 40),
        "scales": "auto",
        "min_shorter_side": 512,
        "style_fit": "shorter_shrink",
        "size": None,
    },
    "texture": {**_TEXTURE, "init": "noise"},
    # A hole has too few positions at pool4 for statistics.
    "inpaint": {**_TEXTURE, "style_layers": _TEXTURE_LAYERS[:-1], "init": "content"},
    "nnst": {
        "edges": "drop",
        "arch": "vgg16",
        "weights": "vgg16-torchvision",
        "style_layers": _layers(*_UP_TO_4_3),
        "content_weight": 0.0,
        "style_weight": 1.0,
        "tv_weight": 0.0,
        "style_loss": "nnst",
        "optimizer": "adam_pyramid",
        "learning_rate": 0.002 * 255,
        "epsilon": 1e-8 / 255,
        "carry": False,
        "steps": (200, 200, 200, 400),
        "scales": 4,
        "min_shorter_side": 32,
    },
    "strotss": {
        "edges": "drop",
        "arch": "vgg16",
        "weights": "vgg16-torchvision",
        "content_layers": _layers(*_STROTSS),
        "style_layers": _layers(*_STROTSS),
        "content_weight": 16.0,
        "style_weight": 1.0,
        "tv_weight": 0.0,
        "content_loss": "self_similarity",
        "style_loss": "strotss",
        "optimizer": "adam_pyramid",
        "learning_rate": 0.002 * 255,
        "betas": (0.0, 0.99),
        "epsilon": 1e-8 / 255,
        "carry": False,
        "steps": 250,
        "scales": 4,
        "min_shorter_side": 32,
    },
}

"""A run leaves every setting of the host process as it was."""

from __future__ import annotations

import gc
import locale
import logging
import os
import random
import signal
import sys
import threading
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageFile
from support.pictures import samples, tiny

from fastnst import ops
from fastnst.run.stylizer import Stylizer

pytestmark = pytest.mark.usefixtures("weights_read_once")


def of_torch() -> dict[str, Any]:
    backends = torch.backends
    return {
        "threads": torch.get_num_threads(),
        "threads between ops": torch.get_num_interop_threads(),
        "dtype": torch.get_default_dtype(),
        "device": torch.get_default_device(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "deterministic warnings": torch.is_deterministic_algorithms_warn_only_enabled(),
        "fills uninitialized memory": torch.utils.deterministic.fill_uninitialized_memory,
        "matmul precision": torch.get_float32_matmul_precision(),
        "tf32 products": backends.cuda.matmul.allow_tf32,
        "cudnn": (backends.cudnn.enabled, backends.cudnn.benchmark, backends.cudnn.deterministic),
        "tf32 convolutions": backends.cudnn.allow_tf32,
        "mkldnn": (backends.mkldnn.enabled, backends.mkldnn.deterministic),
        "flush denormal": float(torch.tensor([1e-40]).mul(1.0)),
        "grad": torch.is_grad_enabled(),
        "inference": torch.is_inference_mode_enabled(),
        "anomaly": torch.is_anomaly_enabled(),
        "autocast": {name: torch.is_autocast_enabled(name) for name in ("cpu", "cuda", "mps")},
        "autocast dtypes": {name: torch.get_autocast_dtype(name) for name in ("cpu", "cuda")},
        "autocast cache": torch.is_autocast_cache_enabled(),
        "random": torch.get_rng_state().tolist(),
        "printing": vars(torch._tensor_str.PRINT_OPTS).copy(),
        "sharing": torch.multiprocessing.get_sharing_strategy(),
    }


def of_python() -> dict[str, Any]:
    logger = logging.getLogger("fastnst")
    return {
        "environment": dict(os.environ),
        "folder": os.getcwd(),  # noqa: PTH109
        "affinity": os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None,
        "warnings": list(warnings.filters),
        "logging": (logging.root.level, list(logging.root.handlers), logger.level, list(logger.handlers)),
        "signals": [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGABRT)],
        "hooks": (sys.excepthook, sys.displayhook, threading.excepthook),
        "path": list(sys.path),
        "collector": (gc.isenabled(), gc.get_threshold()),
        "recursion": sys.getrecursionlimit(),
        "locale": locale.setlocale(locale.LC_ALL),
        "random": random.getstate(),
        "python threads": threading.active_count(),
    }


def of_libraries() -> dict[str, Any]:
    return {
        "numpy errors": np.geterr(),
        "numpy random": np.random.get_state(legacy=False)["state"]["key"].tolist(),  # type: ignore[call-overload]
        "numpy printing": np.get_printoptions(),
        "pillow": (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES, ImageFile.MAXBLOCK),
    }


def state() -> dict[str, dict[str, Any]]:
    return {"torch": of_torch(), "python": of_python(), "libraries": of_libraries()}


RUNS: dict[str, dict[str, Any]] = {
    "default": {},
    "adam": {"optimizer": "adam", "average": 0.9, "init": "noise", "seed": 3},
    "strips": {"tiles": 16, "style_loss": "sliced"},
    "colors": {"keep_color": "lab", "match_color": "histogram", "photoreal": 1.0},
    "direct": {"convolution": "direct", "precision": "bfloat16"},
}


def work(**changes: Any) -> None:
    stylizer = Stylizer(tiny(**{"steps": 2, **changes}))
    stylizer.run(stylizer.load_scene(samples(), samples(seed=2)))
    ops.gram(torch.ones(1, 2, 3, 3))


@pytest.mark.parametrize("changes", RUNS.values(), ids=RUNS)
def test_a_run_changes_no_setting(changes: dict[str, Any]) -> None:
    work(**changes)  # the first one imports
    before = state()
    work(**changes)
    assert state() == before


@pytest.fixture
def unusual() -> Any:
    """Settings that are not the defaults."""
    before = torch.get_num_threads(), torch.backends.cudnn.benchmark
    torch.set_num_threads(3)
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.benchmark = True
    torch.use_deterministic_algorithms(True, warn_only=True)
    yield
    torch.use_deterministic_algorithms(False)
    torch.set_float32_matmul_precision("highest")
    torch.set_num_threads(before[0])
    torch.backends.cudnn.benchmark = before[1]


@pytest.mark.usefixtures("unusual")
def test_settings_that_the_host_has_changed_stay_as_it_left_them() -> None:
    work()
    before = state()
    assert before["torch"]["threads"] == 3
    work()
    assert state() == before


def test_a_run_that_fails_changes_no_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    work()
    before = state()
    monkeypatch.setattr("fastnst.run.scene_run.optimize", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        work()
    assert state() == before

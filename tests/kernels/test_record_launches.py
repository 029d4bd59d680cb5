"""Launches recorded from the host code, and the work that the model of kernel time derives from them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import record_launches
from emulated import Device
from gram_launches import backward, features, gram, matrix

from tools.kernel_model import facts
from tools.kernel_model.cases import case_of
from tools.kernel_model.work import FAMILIES

DATA = Path(__file__).parents[1] / "bench" / "data"  # see tests/bench/test_kernel_model.py


class Counted:
    """The emulator's module, which adds up the tensor-core instructions of its launches."""

    def __init__(self, module: Any) -> None:
        self.module = module
        self.products = 0

    def __getattr__(self, name: str) -> Any:
        function = getattr(self.module, name)
        if name not in ("gram", "backward"):
            return function

        def call(*arguments: Any, **named: Any) -> None:
            function(*arguments, **named)
            self.products += sum(self.module.counters()["mma"].values())

        return call


def entry(channels: int, positions: int, precision: str = "bfloat16") -> dict[str, Any]:
    shape = {"channels": channels, "positions": positions, "multiprocessors": 132}
    return {"side": 0, "layer": "", "precision": precision, "layout": "channels_last", **shape}


def test_recording_neither_runs_nor_allocates(module: Any) -> None:
    """A map of 2048 x 2048 and 64 channels takes 1 GB in float32."""
    found = record_launches.record_style(module, entry(64, 2048**2, "float32"))
    assert [item["op"] for item in found] == ["style_loss", "layer_backward_", "gram_backward"]
    for item in found:
        assert item["launches"]
        for launch in case_of(item).launches:
            assert launch.threads % 32 == 0
            assert launch.blocks >= 1
            assert launch.family in FAMILIES
    assert found[0]["buffers"]["x"] == 64 * 2048**2
    assert found[0]["plan"]["splits"] >= 1


def test_launches_run_again_after_recording(module: Any) -> None:
    record_launches.record_style(module, entry(64, 256))
    x = features(np.random.default_rng(1), (1, 16, 64), "float32")
    got = gram(Device(module), x, "float32")
    assert np.allclose(got.out[0], x[0] @ x[0].T, rtol=1e-5)


@pytest.mark.parametrize(("channels", "positions"), [(64, 26624), (128, 16384), (256, 8192), (512, 2048)])
def test_the_model_counts_the_products_that_the_emulator_counts(module: Any, channels: int, positions: int) -> None:
    """Exactly for the backward; for the forward up to the last, partly filled round of the blocks."""
    read = [kernel for file in DATA.glob("*_facts.json") for kernel in facts.from_json(file.read_text())]
    known = {(kernel.name, kernel.architecture): kernel for kernel in read}
    rng = np.random.default_rng(2)
    x = features(rng, (1, channels, positions), "bfloat16")
    for item in record_launches.record_style(module, entry(channels, positions))[:2]:
        counted = Counted(module)
        device = Device(counted, counting=True)
        if item["op"] == "style_loss":
            gram(device, x, "bfloat16", layout="channels_last", target=matrix(rng, 1, channels))
        else:
            backward(device, x, matrix(rng, 1, channels), "bfloat16", layout="channels_last", above=x, relu=True)
        case = case_of(item)
        modeled = 0.0
        for launch in case.launches:
            kernel = known[launch.kernel, 90]
            modeled += FAMILIES[launch.family](case, launch, kernel).products(kernel)
        assert counted.products > 0
        if item["op"] == "style_loss":
            assert counted.products <= modeled <= 1.6 * counted.products
        else:
            assert modeled == counted.products

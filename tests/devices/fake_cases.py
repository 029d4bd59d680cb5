"""Fake tensors of devices that no machine of ours has: shapes, dtypes and devices of every operation, no values.

What autograd differentiates is left to ``standin_cases.py``: its engine needs the devices.

``test_standin.py`` runs this file in a process of its own, in which these devices have a guard that does nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import standin
import torch
from support.pictures import tiny
from torch import Tensor
from torch._subclasses import FakeTensorMode
from torch.utils import _pytree as pytree

from fastnst import devices, ops, weights
from fastnst.losses.variation import add_variation
from fastnst.network.vgg import VGG
from fastnst.objective.engines import FusedEngine, PlainEngine, choose_engine
from fastnst.objective.targets import style_targets
from fastnst.objective.whole import Objective
from fastnst.optim.adam import Adam
from fastnst.strips.statistics import StreamingStatistics

LOADED = weights.load()
standin.register()


class Recorder(FakeTensorMode):
    """Fake tensors, and the operations that give float64 on another device than the CPU."""

    def __init__(self) -> None:
        super().__init__(allow_non_fake_inputs=True)
        self.wide: list[str] = []
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = super().__torch_dispatch__(func, types, args, kwargs)
        self.count += 1
        for x in pytree.tree_leaves(found):
            if isinstance(x, Tensor) and x.device.type != "cpu" and x.dtype in (torch.float64, torch.complex128):
                self.wide.append(str(func))
        return found


@pytest.fixture(params=["cuda", "xpu", "mps"])
def fake(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[SimpleNamespace]:
    """A device with fake tensors; only CUDA has float64. ``recorder`` sees every operation."""
    monkeypatch.setattr(devices, "has_float64", lambda device: device.type in ("cpu", "cuda"))
    # torch.tensor copies to the device where no mode sees it.
    monkeypatch.setattr(torch, "tensor", lambda data, **options: torch.ones(np.shape(data), **options))
    with Recorder() as recorder:
        yield SimpleNamespace(name=request.param, recorder=recorder)
    if request.param != "cuda":
        assert recorder.wide == []
    assert recorder.count > 10


def feature_map(device: str, dtype: torch.dtype = torch.float32, shape: tuple[int, ...] = (1, 8, 6, 10)) -> Tensor:
    return torch.ones(shape, dtype=dtype, device=device).contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_the_reference_of_every_op_stays_on_the_device(fake: SimpleNamespace, dtype: torch.dtype) -> None:
    """The functions that the dispatcher finds, called directly: fake tensors run the ops' fake kernels."""
    x, r = feature_map(fake.name, dtype), ops.reference
    matrix, bias = torch.ones(1, 8, 8, device=fake.name), torch.ones(8, device=fake.name, dtype=dtype)
    weight, scalar = torch.ones(1, 60, device=fake.name), torch.ones((), device=fake.name)
    kernel, small = torch.ones(4, 8, 3, 3, device=fake.name, dtype=dtype), feature_map(fake.name, dtype, (1, 4, 6, 10))
    pooled, argmax = r.pool(x, "max")
    found = [
        r.gram(x, weight, 1.0),
        r.gram_backward(matrix, x, weight, 1.0, torch.ones(1, 8, device=fake.name)),
        r.moments(x, weight, 1.0),
        r.style_loss(x, matrix, weight, 1.0),
        r.content_loss(x, x.clone()),
        r.content_loss_backward(scalar, x, x.clone()),
        [r.total_variation(x, kind) for kind in ("anisotropic", "isotropic", "squared")],
        [r.total_variation_backward(scalar, x, kind) for kind in ("anisotropic", "isotropic", "squared")],
        r.bias_relu_style_loss(x, bias, matrix, 1.0),
        [r.pool(x, kind) for kind in ("max", "average", "l2")],
        r.pool_backward(pooled, None, None, argmax, "max", 6, 10, True),
        r.pool_backward(pooled, x, pooled, None, "l2", 6, 10, False),
        [r.conv3x3(x, kernel, None, True, padding) for padding in ("zeros", "replicate")],
        r.conv3x3_backward(small, kernel, x, None, 6, 10, False),
    ]
    grad, out, rows = (
        x.clone(),
        feature_map(fake.name, dtype, (1, 4, 2, 10)),
        feature_map(fake.name, dtype, (1, 8, 2, 10)),
    )
    half, where = feature_map(fake.name, dtype, (1, 4, 1, 5)), feature_map(fake.name, torch.uint8, (1, 4, 1, 5))
    r.layer_backward_(grad, x, matrix, weight, 1.0, matrix[:, 0], x.clone(), 1.0, True)
    r.bias_relu_(grad, bias)
    r.conv3x3_out(x, kernel, None, True, "zeros", 1, out)
    r.conv3x3_pool_out(x, kernel, kernel.new_zeros(4), "zeros", 1, half, where)
    r.conv3x3_backward_out(small, kernel, x[:, :, :2], None, 6, 10, False, 1, rows)
    for y in pytree.tree_leaves([found, grad, out, rows]):
        assert y.device.type == fake.name


@pytest.mark.parametrize("padding", ["zeros", "replicate"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_an_evaluation_and_a_step_of_the_loop(fake: SimpleNamespace, dtype: torch.dtype, padding: str) -> None:
    """The objective, total variation, sums over strips and the update of Adam."""
    settings = tiny(tv_weight=1e-3, padding=padding)
    fakes = {name: tuple(torch.ones(x.shape) for x in pair) for name, pair in LOADED.convs.items()}
    network = VGG(replace(LOADED, convs=fakes), settings.layer_names(), device=fake.name, dtype=dtype, padding=padding)
    assert choose_engine(network) is (FusedEngine if ops.kernels(fake.name)["bias_relu_"] == "cuda" else PlainEngine)
    image = torch.ones(1, 3, 32, 48, device=fake.name) * 255
    objective = Objective(network, image, style_targets(network, image, settings), settings)
    values, gradient = objective.evaluate(image)
    assert (values.device, values.dtype) == (image.device, torch.float32)
    assert (gradient.device, gradient.dtype, gradient.shape) == (image.device, torch.float32, image.shape)
    total = add_variation(gradient, image, "isotropic", 1.0, slice(0, 32))
    statistics = StreamingStatistics(None, 1.0, 60)
    statistics.add(feature_map(fake.name, dtype), slice(0, 6))
    wide = torch.float64 if fake.name == "cuda" else torch.float32
    assert {total.dtype, statistics.sums[0].dtype} == {wide}
    Adam(image, 1.0).step(image, gradient)

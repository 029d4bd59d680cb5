"""The guarded step of Adam as an op: its reference on the CPU, its kernel on a CUDA device."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from support.graphs import NoHost
from torch import Tensor

from fastnst.ops import reference
from fastnst.optim.adam import Adam

SHAPE = (1, 3, 9, 11)
MOST = 4
every_dtype = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
CONSTANTS = (0.9, 0.99, 1e-6, 1.0)


def noise(seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).to(dtype)


class State:
    """The tensors of a step, for an image and its optimizer."""

    def __init__(self, dtype: torch.dtype, device: str = "cpu") -> None:
        self.image = (noise(1, dtype) * 80 + 120).to(device)
        self.good, self.mean, self.square = (torch.zeros_like(self.image) for _ in range(3))
        self.count = torch.zeros(1, dtype=torch.int32, device=device)
        self.values = torch.zeros(3, dtype=torch.float64, device=device)
        adam = Adam(self.image, 2.0, CONSTANTS[:2], CONSTANTS[2])
        rows = [(0.0, 1.0), *(adam.factors(count) for count in range(1, MOST + 1))]
        self.factors = torch.tensor(rows, dtype=torch.float64, device=device)
        self.rate = torch.ones((), dtype=torch.float64, device=device)

    def arguments(self, gradient: Tensor, losses: Tensor, clamp: bool = False) -> tuple[Any, ...]:
        state = (self.image, self.good, self.mean, self.square, self.count, self.values)
        return (
            *state,
            losses.to(self.image.device),
            gradient.to(self.image),
            self.factors,
            self.rate,
            *CONSTANTS,
            clamp,
        )

    def tensors(self) -> list[Tensor]:
        return [self.image, self.good, self.mean, self.square, self.count, self.values]


def losses(*values: float, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.tensor(values, dtype=dtype)


@every_dtype
def test_a_step_has_the_bits_of_the_optimizers(dtype: torch.dtype) -> None:
    state = State(dtype)
    image = state.image.clone()
    adam = Adam(image, 2.0, CONSTANTS[:2], CONSTANTS[2])
    for seed in (2, 3, 4):
        before = image.clone()
        adam.step(image, noise(seed, dtype))
        torch.ops.fastnst.adam_step_(*state.arguments(noise(seed, dtype), losses(1.0, 2.0)))
        assert torch.equal(state.image, image)
        assert torch.equal(state.good, before)
        assert torch.equal(state.mean, adam.mean)
        assert torch.equal(state.square, adam.square)
    assert state.count.tolist() == [3]
    assert state.values.tolist() == [1, 2, 1]


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("where", ["losses", "gradient"])
def test_a_step_that_is_not_finite_changes_the_values_alone(where: str, bad: float) -> None:
    state, gradient, found = State(torch.float32), noise(2), [1.0, 2.0]
    if where == "gradient":
        gradient[0, 2, 8, 10] = bad
    else:
        found[1] = bad
    before = [tensor.clone() for tensor in state.tensors()[:-1]]
    torch.ops.fastnst.adam_step_(*state.arguments(gradient, losses(*found), True))
    assert all(torch.equal(a, b) for a, b in zip(state.tensors(), before, strict=False))
    assert state.values[2] == 0
    torch.testing.assert_close(state.values[:2], losses(*found).double(), equal_nan=True)


def test_the_reference_waits_for_nothing() -> None:
    """It is what a device without kernels captures."""
    given = State(torch.float32).arguments(noise(2, torch.float32), losses(1.0, 2.0), True)
    with NoHost(torch.device("cpu")) as watch:
        reference.adam_step_(*given)
    assert watch.calls > 20


@every_dtype
@pytest.mark.parametrize("clamp", [False, True])
def test_opcheck(clamp: bool, dtype: torch.dtype) -> None:
    given = State(dtype).arguments(noise(2, dtype), losses(1.0, 2.0), clamp)
    torch.library.opcheck(torch.ops.fastnst.adam_step_, given)


def test_it_has_no_derivative() -> None:
    gradient = noise(2, torch.float32).requires_grad_()
    with pytest.raises(
        RuntimeError, match=r"adam_step_: has no derivative, but gradient requires a gradient; pass gradient.detach\(\)"
    ):
        torch.ops.fastnst.adam_step_(*State(torch.float32).arguments(gradient, losses(1.0, 2.0)))


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@every_dtype
@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("clamp", [False, True])
def test_the_kernel_agrees_with_the_reference(clamp: bool, wide: bool, dtype: torch.dtype) -> None:
    on_device, exact = State(dtype, "cuda"), State(torch.float64)
    exact.image.copy_(on_device.image)
    for seed in range(2, 8):  # more steps than rows of factors, one of them not finite
        gradient, found = noise(seed, dtype), losses(1.0, 2.0, dtype=torch.float64 if wide else torch.float32)
        if seed == 4:
            gradient[0, 1, 2, 3] = torch.nan
        for state in (on_device, exact):
            torch.ops.fastnst.adam_step_(*state.arguments(gradient, found, clamp))
        for a, b in zip(on_device.tensors(), exact.tensors(), strict=True):
            torch.testing.assert_close(a.cpu().double(), b.double(), rtol=1e-5, atol=1e-4)
    assert on_device.count.item() == MOST


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize(
    ("position", "change", "message"),
    [
        (0, lambda t: t.half(), "expected image of shape .*, contiguous, of dtype float32 or float64"),
        (0, lambda t: t[..., ::2], "expected image of shape .*, contiguous, of dtype float32 or float64"),
        (2, lambda t: t[:, :2], "expected mean of shape"),
        (4, lambda t: t.long(), "expected count of 1 values on the device of image"),
        (5, lambda t: t[:2], "expected values of 3 values on the device of image"),
        (7, lambda t: t.cpu(), "expected gradient on the device of x"),
        (8, lambda t: t[:, :1], r"expected factors of shape \(N, 2\)"),
    ],
)
def test_errors_of_the_kernel(position: int, change: Any, message: str) -> None:
    given = list(State(torch.float32, "cuda").arguments(noise(2, torch.float32), losses(1.0, 2.0)))
    given[position] = change(given[position])
    with pytest.raises(RuntimeError, match=f"adam_step_: {message}"):
        torch.ops.fastnst.adam_step_(*given)

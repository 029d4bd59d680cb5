"""The guarded step of Adam: the CUDA kernels' own source, run on the CPU, against the paper's formula in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from emulated import Array, Device, sector_efficiency

RATE, FIRST, SECOND, EPSILON = 1.5, 0.9, 0.99, 1e-6
MOST = 8  # steps that the table of factors has
SIZES = (1, 7, 256, 4099)  # 4099: more than one block, and a tail for both dtypes
# Of an image of gray levels.
BOUNDS = {"float32": 1e-4, "float64": 1e-11}

every_dtype = pytest.mark.parametrize("dtype", ["float32", "float64"])


def factors(most: int = MOST) -> np.ndarray:
    steps = np.arange(1, most + 1)
    rows = np.stack((RATE / (1 - FIRST**steps), np.sqrt(1 - SECOND**steps)), 1)
    return np.concatenate(([[0.0, 1.0]], rows))


class Run:
    """The state of an image and its steps; `good` starts as it never is, so that a copy shows."""

    def __init__(self, device: Device, n: int, dtype: str, *, offset: int = 0, unit: float = 1.0, clamp: bool = False):
        random = np.random.default_rng(1)
        self.device, self.dtype, self.offset, self.unit, self.clamp = device, dtype, offset, unit, clamp
        self.start = random.uniform(0, 255, n).astype(dtype)
        self.image = device.in_place("image", self.start, dtype, offset=offset)
        self.good = device.in_place("good", np.full(n, -1.0), dtype)
        self.mean, self.square = (device.in_place(name, np.zeros(n), dtype) for name in ("mean", "square"))
        self.count = device.zeros("count", 1)
        self.values: Array | None = None

    def step(self, gradient: np.ndarray, losses: Any = (1.0, 2.0), *, rate: float = 1.0, check: bool = False) -> None:
        device = self.device
        wide = "float64" if self.dtype == "float64" else "float32"
        self.gradient = device.input("gradient", gradient, self.dtype, offset=self.offset)
        self.values = device.output("values", (len(losses) + 1,), "float64")
        device.call(
            "adam_step",
            *(self.image, self.good, self.mean, self.square, self.count, self.values),
            *(device.input("losses", np.array(losses, wide), wide), self.gradient),
            *(device.input("factors", factors(), "float64"), device.input("rate", [rate], "float64")),
            device.workspace("scratch", device.module.max_blocks + 1, "int32"),
            [FIRST, SECOND, EPSILON * self.unit, self.unit],
            self.clamp,
            check,
        )

    def state(self) -> list[bytes]:
        return [a.raw().tobytes() for a in (self.image, self.good, self.mean, self.square, self.count)]


def exact_steps(start: np.ndarray, gradients: list[np.ndarray], rates: list[float], clamp: bool) -> np.ndarray:
    """Algorithm 1 of the paper."""
    x, m, v = start.astype(np.float64), np.zeros(len(start)), np.zeros(len(start))
    for t, (g, rate) in enumerate(zip(gradients, rates, strict=True), 1):
        m = FIRST * m + (1 - FIRST) * g
        v = SECOND * v + (1 - SECOND) * g**2
        x = x - rate * RATE * (m / (1 - FIRST**t)) / (np.sqrt(v / (1 - SECOND**t)) + EPSILON)
        if clamp:
            x = np.clip(x, 0, 255)
    return x


def gradients_of(n: int, dtype: str, count: int = 5) -> list[np.ndarray]:
    random = np.random.default_rng(2)
    return [(100 * random.standard_normal(n)).astype(dtype).astype(np.float64) for _ in range(count)]


@every_dtype
@pytest.mark.parametrize("clamp", [False, True])
@pytest.mark.parametrize("unit", [1.0, 2.0**-6])
@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize("n", SIZES)
def test_steps_equal_the_papers_in_float64(
    device: Device, n: int, offset: int, unit: float, clamp: bool, dtype: str
) -> None:
    """A factor of all gradients changes no step, if epsilon has it too."""
    run, gradients, rates = Run(device, n, dtype, offset=offset, unit=unit, clamp=clamp), gradients_of(n, dtype), []
    for number, gradient in enumerate(gradients):
        before = run.image.numpy()
        rates.append(1.0 if number < 2 else 0.25)
        run.step(gradient, (0.5, 1.5, float(number)), rate=rates[-1])
        assert run.values is not None
        assert run.values.numpy().tolist() == [0.5, 1.5, number, 1.0]
        np.testing.assert_array_equal(run.good.numpy(), before)
        assert run.count.numpy()[0] == number + 1
    exact = exact_steps(run.start, gradients, rates, clamp)
    np.testing.assert_allclose(run.image.numpy(), exact, rtol=0, atol=BOUNDS[dtype])
    assert not clamp or (run.image.numpy().min() >= 0 and run.image.numpy().max() <= 255)


@every_dtype
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("at", [0, 255, 256, 2047, 4098])
def test_a_gradient_that_is_not_finite_changes_nothing(device: Device, at: int, bad: float, dtype: str) -> None:
    run, gradients = Run(device, 4099, dtype), gradients_of(4099, dtype)
    run.step(gradients[0])
    before = run.state()
    gradients[1][at] = bad
    run.step(gradients[1])
    assert run.values is not None
    assert run.values.numpy().tolist() == [1, 2, 0]
    assert run.state() == before
    run.step(gradients[2])
    exact = exact_steps(run.start, [gradients[0], gradients[2]], [1.0, 1.0], False)
    np.testing.assert_allclose(run.image.numpy(), exact, rtol=0, atol=BOUNDS[dtype])


@every_dtype
@pytest.mark.parametrize("losses", [(np.nan, 1.0), (1.0, np.inf), (np.inf, -np.inf), (*(1.0,) * 299, np.nan)])
def test_a_loss_that_is_not_finite_changes_nothing(device: Device, losses: tuple[float, ...], dtype: str) -> None:
    run = Run(device, 300, dtype)
    before = run.state()
    run.step(np.ones(300), losses)
    assert run.values is not None
    np.testing.assert_array_equal(run.values.numpy(), [*losses, 0])
    assert run.state() == before


def test_the_bits_of_a_nan_that_cuda_makes_are_not_finite(device: Device) -> None:
    gradient = np.ones(64, np.float32)
    gradient.view(np.uint32)[37] = 0x7FFFFFFF
    run = Run(device, 64, "float32")
    before = run.state()
    run.step(gradient)
    assert run.state() == before


def test_after_the_last_row_of_factors_it_is_used_again(device: Device) -> None:
    run = Run(device, 5, "float64")
    for _ in range(MOST + 2):
        run.step(np.ones(5))
    assert run.count.numpy()[0] == MOST


@every_dtype
def test_any_schedule_gives_the_same_bits(module: Any, dtype: str) -> None:
    found = set()
    for seed in range(3):
        run = Run(Device(module, seed=seed), 4099, dtype)
        for gradient in gradients_of(4099, dtype, 2):
            run.step(gradient)
        found.add(tuple(run.state()))
    assert len(found) == 1


@every_dtype
@pytest.mark.parametrize("check", [True, False])
def test_each_kernel_moves_each_byte_once_in_whole_sectors(module: Any, check: bool, dtype: str) -> None:
    """The first reads the gradient; the second reads it and image and moments, and writes those and the good image."""
    device = Device(module, counting=True)
    run = Run(device, 8192, dtype)
    run.step(gradients_of(8192, dtype)[0], check=check)
    main, size = device.counters["main_loop"], 8192 * run.image.raw().itemsize
    assert main["reads"]["bytes"] == (1 if check else 4) * size
    assert main["writes"]["bytes"] == (0 if check else 4) * size
    for way in ("reads",) if check else ("reads", "writes"):
        assert sector_efficiency(main[way]) == 1
        assert main[way]["widest"] == 16

"""ptx.cuh and the kernels as nvcc compiles them: their PTX, run by the interpreter in tests/kernels/ptx."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from emulated import Device, rounded, to_bfloat16
from ptx.compiled import HERE, compile_ptx
from ptx.device import Interpreter
from ptx.parse import Kernel

Kernels = dict[str, Kernel]
ARCHITECTURES = (75, 80, 90)


def wrappers(arch: int = 80, **how: object) -> Kernels:
    return compile_ptx(HERE / "wrappers.cu", arch, **how)


def product_error(module: Any, kernels: Kernels, dtype: str) -> float:
    """The largest error of D + A B, relative to the sum of absolute products, for independent random matrices."""
    rng = np.random.default_rng(5)
    depth = 8 if dtype == "tf32" else 16
    a, b, d = (rng.standard_normal(shape) for shape in ((16, depth), (8, depth), (16, 8)))
    if dtype == "tf32":  # the machine ignores the lowest 13 bits, as the device does
        a, b = ((x.astype(np.float32).view(np.uint32) & 0xFFFFE000).view(np.float32) for x in (a, b))
        words = [x.view(np.int32) for x in (a, b)]
    else:
        a, b = (rounded(x, dtype) for x in (a, b))
        halves = [to_bfloat16(x) if dtype == "bfloat16" else x.astype(np.float16) for x in (a, b)]
        words = [np.ascontiguousarray(x).view(np.int32) for x in halves]
    device = Device(Interpreter(module, kernels))
    d = d.astype(np.float32)
    given = [device.input(name, x, "int32") for name, x in zip("ab", words, strict=True)]
    out = device.in_place("d", d, "float32")
    short = {"tf32": "tf32", "bfloat16": "bf16", "float16": "f16"}[dtype]
    device.module.launch(f"run_mma_{short}", 1, 32, *given, out)
    a, b = a.astype(np.float64), b.astype(np.float64)
    return float((np.abs(out.numpy() - (d + a @ b.T)) / (np.abs(d) + np.abs(a) @ np.abs(b.T))).max())


PRODUCTS = [(arch, dtype) for arch in ARCHITECTURES for dtype in ("tf32", "bfloat16", "float16")]


@pytest.mark.parametrize(("arch", "dtype"), [case for case in PRODUCTS if case[0] >= 80 or case[1] == "float16"])
def test_mma_multiplies_matrices_in_the_layout_of_the_manual(module: Any, arch: int, dtype: str) -> None:
    assert product_error(module, wrappers(arch), dtype) < 2**-23


@pytest.mark.parametrize("dtype", ["tf32", "bfloat16"])
def test_mma_that_the_architecture_lacks_is_a_trap(module: Any, dtype: str) -> None:
    with pytest.raises(RuntimeError, match="trap"):
        product_error(module, wrappers(75), dtype)


def permuted(module: Any, kernels: Kernels) -> tuple[np.ndarray, np.ndarray]:
    """byte_permute of random words by random selectors, and the bytes that its definition selects."""
    rng = np.random.default_rng(6)
    words = rng.integers(0, 2**32, (2, 64), dtype=np.uint32)
    chosen = rng.integers(0, 8, (64, 4))
    selector = (chosen << np.arange(0, 16, 4)).sum(axis=1).astype(np.int32)
    device = Device(Interpreter(module, kernels))
    given = [device.input(name, x.view(np.int32), "int32") for name, x in zip("ab", words, strict=True)]
    out = device.output("out", (64,), "int32")
    device.module.launch("run_byte_permute", 1, 64, *given, device.input("selector", selector, "int32"), out)
    eight = words.T.copy().view(np.uint8)
    return out.numpy().view(np.uint8).reshape(64, 4), np.take_along_axis(eight, chosen, axis=1)


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_byte_permute_selects_the_bytes_of_its_definition(module: Any, arch: int) -> None:
    got, expected = permuted(module, wrappers(arch))
    assert np.array_equal(got, expected)


def copied(module: Any, kernels: Kernels) -> tuple[np.ndarray, np.ndarray]:
    """16 bytes for each of 64 threads, of which about half are not valid; those lie outside the buffer."""
    rng = np.random.default_rng(7)
    values, valid = rng.integers(1, 2**31, (64, 4)).astype(np.int32), rng.random(64) < 0.5
    valid[40:] = False
    device = Device(Interpreter(module, kernels))
    given = device.input("from", values[:40], "int32"), device.input("valid", valid, "int32")
    out = device.output("out", (64, 4), "int32")
    device.module.launch("run_copy_async", 1, 64, *given, out)
    return out.numpy(), np.where(valid[:, None], values, 0)[np.arange(64) ^ 33]


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_copy_async_copies_valid_bytes_and_zeros(module: Any, arch: int) -> None:
    got, expected = copied(module, wrappers(arch))
    assert np.array_equal(got, expected)


def ring(module: Any, kernels: Kernels) -> tuple[np.ndarray, np.ndarray]:
    """Seven rows of 64 times 16 bytes by way of a ring of three."""
    rows = np.random.default_rng(8).integers(1, 2**31, (7, 64, 4)).astype(np.int32)
    device = Device(Interpreter(module, kernels))
    out = device.output("out", rows.shape, "int32")
    device.module.launch("run_copy_ring", 1, 64, device.input("from", rows, "int32"), out, len(rows))
    return out.numpy(), rows[:, np.arange(64) ^ 33]


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_groups_of_copies_arrive_in_order(module: Any, arch: int) -> None:
    got, expected = ring(module, wrappers(arch))
    assert np.array_equal(got, expected)

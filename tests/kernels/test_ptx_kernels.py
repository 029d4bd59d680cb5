"""Whole kernels as nvcc compiles them, run by the interpreter in tests/kernels/ptx and compared with float64.

The launches and comparisons are those of the emulator's tests; what is different is that the compiler's output runs.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import numpy as np
import pytest
import test_emulated_backward as backward
import test_emulated_between as between
import test_emulated_elementwise as elementwise
import test_emulated_gram as gram
from emulated import DTYPES, Device
from gram_launches import features
from ptx.compiled import compile_ptx, source_of
from ptx.device import Interpreter
from ptx.instructions import FENCES
from ptx.parse import Instruction, Kernel

SOURCES = ("adam", "backward", "bias_relu", "bias_relu_pool", "content_loss", "gram", "pointwise", "total_variation")
LAYOUTS = ("nchw", "channels_last", "offset")  # 16 bytes along positions, along channels, and one value at a time

every_dtype = pytest.mark.parametrize("dtype", DTYPES)
every_layout = pytest.mark.parametrize("layout", LAYOUTS)


@cache
def kernels(source: str, arch: int = 80) -> Mapping[str, Kernel]:
    return compile_ptx(source_of(source), arch)


@pytest.fixture
def compiled(module: Any) -> Callable[..., Device]:
    """A device whose launches run the compiled kernels of these sources."""

    def make(*sources: str, seed: int = 0, arch: int = 80) -> Device:
        return Device(Interpreter(module, ChainMap(*(kernels(source, arch) for source in sources))), seed=seed)

    return make


def launched(device: Device, name: str) -> bool:
    """Whether every launch was of compiled kernels, one of which has this name."""
    return any(name in kernel for kernel in device.module.launched)


GRAMS = [
    ((1, 40, 256), {"target", "mean"}, 2),
    ((2, 72, 136), {"target"}, 0),
    ((1, 136, 64), {"mean"}, 1),
    ((1, 64, 1100), {"target"}, 17),
    ((1, 72, 96), {"weight", "mean"}, 0),
]


@every_dtype
@every_layout
@pytest.mark.parametrize(("shape", "wanted", "splits"), GRAMS)
@pytest.mark.sweep(7)
def test_gram_equals_float64(
    compiled: Callable[..., Device],
    shape: tuple[int, int, int],
    wanted: set[str],
    splits: int,
    layout: str,
    dtype: str,
) -> None:
    rng = np.random.default_rng(1)
    device = compiled("gram", seed=shape[1])
    gram.check(device, features(rng, shape, dtype), dtype, rng, wanted, layout=layout, splits=splits)
    assert launched(device, "gram")


@pytest.mark.parametrize("layout", ["nchw", "channels_last"])
@pytest.mark.parametrize("dtype", gram.TENSOR_CORES)
@pytest.mark.parametrize("shape", [(1, 40, 96), (1, 72, 72)])
@pytest.mark.sweep(5)
def test_fused_bias_and_relu_equal_float64(
    compiled: Callable[..., Device], shape: tuple[int, int, int], dtype: str, layout: str
) -> None:
    """40 and 72 channels are not whole units; nothing beyond the end of the bias may be read."""
    gram.test_fused_bias_and_relu_equal_float64(compiled("gram", "bias_relu"), shape, dtype, layout)


@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUTS)
def test_gram_for_an_architecture_without_tf32_equals_float64(compiled: Callable[..., Device], layout: str) -> None:
    rng = np.random.default_rng(2)
    device = compiled("gram", arch=75)
    x = features(rng, (1, 72, 136), "float16")
    gram.check(device, x, "float16", rng, {"target"}, layout=layout, tf32=False)


TERMS = [{"above", "target", "relu"}, {"symmetrize", "weight", "shift"}]


@every_dtype
@every_layout
@pytest.mark.parametrize("terms", TERMS, ids=["layer", "gram"])
@pytest.mark.parametrize("shape", [(2, 40, 64), (1, 136, 96)])
@pytest.mark.sweep(5)
def test_backward_equals_float64(
    compiled: Callable[..., Device], shape: tuple[int, int, int], terms: set[str], layout: str, dtype: str
) -> None:
    rng = np.random.default_rng(3)
    device = compiled("backward", seed=shape[1])
    backward.check(device, features(rng, shape, dtype), dtype, rng, terms, layout=layout)
    assert launched(device, "backward")


@every_dtype
@every_layout
@pytest.mark.parametrize("shape", [(2, 16, 48), (3, 5, 37), (1, 24, 2000)])
@pytest.mark.sweep(5)
def test_bias_relu_equals_float64(
    compiled: Callable[..., Device], shape: tuple[int, int, int], layout: str, dtype: str
) -> None:
    between.test_bias_relu_equals_float64(compiled("bias_relu"), shape, layout, dtype)


POOLED = ((2, 16, 6, 8), (1, 3, 7, 9), (1, 24, 2, 33))


@every_dtype
@every_layout
@pytest.mark.parametrize("kind", between.KINDS)
@pytest.mark.parametrize("shape", POOLED)
@pytest.mark.sweep(11)
def test_pooling_equals_float64(
    compiled: Callable[..., Device], shape: tuple[int, ...], kind: str, layout: str, dtype: str
) -> None:
    device = compiled("bias_relu_pool")
    between.test_pool_equals_float64(device, shape, layout, kind, dtype)
    between.test_pool_backward_equals_float64(device, shape, layout, kind, False, dtype)
    if kind == "max":
        between.test_pool_backward_equals_float64(device, shape, layout, kind, True, dtype)


@every_dtype
@pytest.mark.parametrize(("n", "offset"), [(257, 1), (3 * 4099, 0)])
def test_losses_and_gradients_of_elements_equal_float64(
    compiled: Callable[..., Device], n: int, offset: int, dtype: str
) -> None:
    device = compiled("content_loss", "pointwise", seed=n)
    elementwise.test_content_loss_equals_its_definition(device, dtype, n, offset)
    elementwise.test_content_loss_backward_equals_its_definition(device, dtype, n, (offset, 0, 0))
    elementwise.test_pointwise_backward_equals_its_definition(device, dtype, n, offset, True, True)


@every_dtype
@pytest.mark.parametrize("kind", elementwise.KINDS)
@pytest.mark.parametrize(("shape", "layout"), [((2, 3, 17, 24), "nchw"), ((1, 3, 33, 40), "channels_last")])
@pytest.mark.sweep(5)
def test_total_variation_equals_float64(
    compiled: Callable[..., Device], shape: tuple[int, ...], layout: str, kind: str, dtype: str
) -> None:
    device = compiled("total_variation", "content_loss", seed=7)
    elementwise.test_total_variation_and_its_gradient_equal_their_definition(device, dtype, kind, shape, layout)


def before(kernel: Kernel, at: int) -> list[Instruction]:
    """The instructions of the same basic block that come before, the nearest first."""
    start = max([0, *(target for target in kernel.targets if target <= at)])
    return kernel.instructions[start:at][::-1]


def test_a_fence_stands_before_and_after_every_atomic() -> None:
    """Of every instantiation, of which the tests above run a part."""
    found = 0
    for kernel in kernels("gram").values():
        for at, ins in enumerate(kernel.instructions):
            if ins.parts[0] not in ("atom", "red"):
                continue
            found += 1
            fence = next((i for i, other in enumerate(before(kernel, at)) if other.name in FENCES), None)
            assert fence is not None, f"{kernel.name}: no fence before {ins}"
            assert not {"st", "bar"} & {other.parts[0] for other in before(kernel, at)[:fence]}, f"{kernel.name}: {ins}"
            after = [other.name for other in kernel.instructions[at + 1 :]]
            assert FENCES & set(after[: after.index("ret")]), f"{kernel.name}: no fence after {ins}"
    assert found


@pytest.mark.parametrize("source", SOURCES)
def test_no_kernel_ends_before_its_asynchronous_copies(source: str) -> None:
    """The last instruction on copies in the text of a kernel waits for all of them, and every copy is in a group."""
    for kernel in kernels(source).values():
        about = [ins for ins in kernel.instructions if ins.parts[:2] == ["cp", "async"]]
        if not about:
            continue
        assert str(about[-1]).startswith(("cp.async.wait_all", "cp.async.wait_group 0")), f"{kernel.name}: {about[-1]}"
        last = max(i for i, ins in enumerate(about) if ins.parts[2] in ("ca", "cg"))
        grouped = [ins.parts[2] for ins in about[last:]]
        assert "commit_group" in grouped or "wait_all" in grouped, f"{kernel.name}: {about[last]}"

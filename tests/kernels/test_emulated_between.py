"""Bias with ReLU, and pooling: the CUDA kernels' own source, run on the CPU, against float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from emulated import DTYPES, STORAGE, Array, Device, rounded, sector_efficiency

DENSE = ("nchw", "channels_last", "offset", "channels_last_offset")
KINDS = ("max", "average", "l2")
# One rounding to the dtype, after arithmetic in float32 for the half types.
BOUNDS = {"float32": 1e-6, "float64": 1e-13, "float16": 2**-11 + 1e-6, "bfloat16": 2**-8 + 1e-6}
# Packs of 16 bytes, rows and channels that are not packs, one row or column, more than a block, empty.
SHAPES = (
    (2, 16, 6, 8),
    (1, 3, 7, 9),
    (2, 8, 5, 16),
    (1, 24, 2, 33),
    (2, 5, 3, 2),
    (1, 8, 1, 8),
    (1, 2, 4, 1),
    (0, 8, 4, 8),
)

every_dtype = pytest.mark.parametrize("dtype", DTYPES)
every_layout = pytest.mark.parametrize("layout", DENSE)
every_kind = pytest.mark.parametrize("kind", KINDS)


def noise(shape: tuple[int, ...], seed: int, dtype: str) -> np.ndarray:
    """Normally distributed values, rounded to the dtype."""
    return rounded(np.random.default_rng(seed).standard_normal(shape), dtype).astype(np.float64)


def assert_close(got: np.ndarray, exact: np.ndarray, dtype: str) -> None:
    """Relative to one, the magnitude of the values, because of cancellation."""
    np.testing.assert_allclose(got, exact, rtol=BOUNDS[dtype], atol=1e-15 if dtype == "float64" else 5e-7)


def is_last(layout: str) -> bool:
    return layout.startswith("channels_last")


def run_bias_relu(device: Device, x: np.ndarray, bias: np.ndarray, dtype: str, layout: str) -> Array:
    b, c, n = x.shape
    values = device.in_place("x", x, dtype, layout=layout)
    add = device.input("bias", bias, dtype)
    if is_last(layout):
        device.call("bias_relu_channels", values, add, b * n, c)
    else:
        device.call("bias_relu_rows", values, add)
    return values


@every_dtype
@pytest.mark.parametrize("layout", [*DENSE, "padded"])
@pytest.mark.parametrize(
    "shape", [(2, 16, 48), (3, 5, 37), (1, 1, 1), (1, 24, 2000), (2, 3, 4999), (2, 0, 4), (1, 4, 0)]
)
def test_bias_relu_equals_float64(device: Device, shape: tuple[int, ...], layout: str, dtype: str) -> None:
    x, bias = noise(shape, 1, dtype), noise(shape[1:2], 2, dtype)
    got = run_bias_relu(device, x, bias, dtype, layout)
    assert_close(got.numpy(), np.maximum(x + bias[:, None], 0), dtype)


@pytest.mark.parametrize("layout", ["nchw", "channels_last"])
def test_bias_relu_keeps_nan_and_sets_negative_values_to_zero(device: Device, layout: str) -> None:
    x = np.array([-np.inf, -1, -0.5, np.inf, np.nan, 2.0]).reshape(1, 1, 6)
    got = run_bias_relu(device, x, np.array([0.5]), "float32", layout)
    np.testing.assert_array_equal(got.numpy().ravel(), np.float32([0, 0, 0, np.inf, np.nan, 2.5]))


def test_bias_relu_addresses_beyond_two_to_the_31_elements(device: Device) -> None:
    far, x, bias = 2**31 + 64, noise((1, 3, 40), 3, "float32"), noise((3,), 4, "float32")
    values = device.sparse("x", x.shape, "float32", strides=(3 * far, far, 1), kind="in_place")
    for c in range(3):
        values.buffer.poke(c * far, x[0, c].astype(np.float32).tobytes())
    device.call("bias_relu_rows", values, device.input("bias", bias, "float32"))
    found = [np.frombuffer(values.buffer.peek(c * far, 40), np.float32) for c in range(3)]
    assert_close(np.stack(found)[None], np.maximum(x + bias[:, None], 0), "float32")


def windows(x: np.ndarray) -> np.ndarray:
    """[B, C, H, W] -> [B, C, H // 2, W // 2, 4]."""
    b, c, h, w = x.shape
    whole = x[:, :, : h // 2 * 2, : w // 2 * 2].reshape(b, c, h // 2, 2, w // 2, 2)
    return whole.transpose(0, 1, 2, 4, 3, 5).reshape(b, c, h // 2, w // 2, 4)


def spread(four: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The inverse of `windows`, zero outside all windows."""
    b, c, h, w = four.shape[:4]
    out = np.zeros(shape)
    whole = four.reshape(b, c, h, w, 2, 2).transpose(0, 1, 2, 4, 3, 5)
    out[:, :, : 2 * h, : 2 * w] = whole.reshape(b, c, 2 * h, 2 * w)
    return out


def exact_pool(x: np.ndarray, kind: str) -> np.ndarray:
    four = windows(x)
    if kind == "max":
        return four.max(-1)
    return four.mean(-1) if kind == "average" else np.sqrt((four**2).mean(-1) + 1e-8)


def exact_argmax(x: np.ndarray) -> np.ndarray:
    four = windows(x)
    return four.argmax(-1) + 4 * (four.max(-1) <= 0)


def pooled_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    return (*shape[:2], shape[2] // 2, shape[3] // 2)


def run_pool(device: Device, x: np.ndarray, kind: str, dtype: str, layout: str) -> tuple[Array, Array | None, Array]:
    source = device.input("x", x, dtype, layout=layout)
    y = device.output("y", pooled_shape(x.shape), dtype, layout=layout)
    argmax = device.output("argmax", y.shape, "uint8", layout=layout) if kind == "max" else None
    device.call("pool", kind, source, y, argmax, is_last(layout))
    return y, argmax, source


@every_dtype
@every_kind
@every_layout
@pytest.mark.parametrize("shape", SHAPES)
def test_pool_equals_float64(device: Device, shape: tuple[int, ...], layout: str, kind: str, dtype: str) -> None:
    x = noise(shape, 3, dtype) - 0.5
    x = rounded(x, dtype).astype(np.float64)
    y, argmax, _ = run_pool(device, x, kind, dtype, layout)
    assert_close(y.numpy(), exact_pool(x, kind), dtype)
    if argmax is not None:
        np.testing.assert_array_equal(argmax.numpy(), exact_argmax(x))


@pytest.mark.parametrize("layout", ["nchw", "channels_last"])
def test_nan_is_the_largest_and_the_first_of_equal_values_is_taken(device: Device, layout: str) -> None:
    x = np.array([[1, np.nan, 2, 2, -0.0, 0, -3, -4], [3, 2, 2, 2, 0, 0, -5, -3]], np.float64).reshape(1, 1, 2, 8)
    y, argmax, _ = run_pool(device, x, "max", "float32", layout)
    assert argmax is not None
    np.testing.assert_array_equal(y.numpy().ravel(), np.float32([np.nan, 2, 0, -3]))
    assert argmax.numpy().ravel().tolist() == [1 + 4, 0, 4, 4]


def run_pool_backward(
    device: Device, x: np.ndarray, kind: str, dtype: str, layout: str, relu: bool
) -> tuple[dict[str, Array], np.ndarray]:
    """The buffers by name, and the exact gradient."""
    y, argmax = rounded(exact_pool(x, kind), dtype).astype(np.float64), exact_argmax(x)
    grad = noise(y.shape, 4, dtype)
    buffers = {"grad": device.input("grad", grad, dtype, layout=layout)}
    if kind == "max":
        buffers["argmax"] = device.input("argmax", argmax.astype(np.uint8), "uint8", layout=layout)
    if kind == "l2":
        buffers["x"] = device.input("x", x, dtype, layout=layout)
        buffers["y"] = device.input("y", y, dtype, layout=layout)
    buffers["out"] = device.output("out", x.shape, dtype, layout=layout)
    device.call(
        "pool_backward",
        kind,
        buffers["grad"],
        *(buffers.get(name) for name in ("x", "y", "argmax")),
        buffers["out"],
        relu,
        is_last(layout),
    )
    if kind == "max":
        factor = np.arange(4) == (argmax if relu else argmax % 4)[..., None]
    else:
        factor = windows(x) / (4 * y[..., None]) if kind == "l2" else np.float64(0.25)
    return buffers, spread(grad[..., None] * np.broadcast_to(factor, (*y.shape, 4)), x.shape)


@every_dtype
@pytest.mark.parametrize(("kind", "relu"), [("max", False), ("max", True), ("average", False), ("l2", False)])
@every_layout
@pytest.mark.parametrize("shape", SHAPES)
def test_pool_backward_equals_float64(
    device: Device, shape: tuple[int, ...], layout: str, kind: str, relu: bool, dtype: str
) -> None:
    x = rounded(noise(shape, 5, dtype) - 0.5, dtype).astype(np.float64)
    buffers, exact = run_pool_backward(device, x, kind, dtype, layout, relu)
    assert_close(buffers["out"].numpy(), exact, dtype)


def run_bias_relu_pool(
    device: Device, x: np.ndarray, bias: np.ndarray, kind: str, dtype: str, layout: str, keep: bool
) -> dict[str, Array]:
    """The buffers by name; without `keep` x is an input, which the kernel must not write."""
    buffers = {
        "x": (device.in_place if keep else device.input)("x", x, dtype, layout=layout),
        "bias": device.input("bias", bias, dtype),
        "y": device.output("y", pooled_shape(x.shape), dtype, layout=layout),
    }
    if kind == "max":
        buffers["argmax"] = device.output("argmax", pooled_shape(x.shape), "uint8", layout=layout)
    given = (buffers["x"], buffers["bias"], buffers["y"], buffers.get("argmax"))
    device.call("bias_relu_pool", kind, *given, keep, is_last(layout))
    return buffers


@every_dtype
@every_kind
@every_layout
@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("shape", [*SHAPES, (1, 8, 9, 21)])
def test_bias_relu_and_pool_equal_float64(
    device: Device, shape: tuple[int, ...], keep: bool, layout: str, kind: str, dtype: str
) -> None:
    x, bias = noise(shape, 10, dtype), noise(shape[1:2], 11, dtype)
    activated = rounded(np.maximum(rounded(x + bias[:, None, None], dtype), 0), dtype).astype(np.float64)
    found = run_bias_relu_pool(device, x, bias, kind, dtype, layout, keep)
    assert_close(found["x"].numpy(), activated if keep else x, dtype)
    assert_close(found["y"].numpy(), exact_pool(activated, kind), dtype)
    if kind == "max":
        np.testing.assert_array_equal(found["argmax"].numpy(), exact_argmax(activated))


@every_dtype
@every_kind
@pytest.mark.parametrize("layout", ["nchw", "channels_last"])
def test_one_op_for_bias_relu_and_pool_has_the_bits_of_two(device: Device, layout: str, kind: str, dtype: str) -> None:
    x, bias = noise((2, 24, 7, 16), 12, dtype), noise((24,), 13, dtype)
    activated = run_bias_relu(device, x.reshape(2, 24, -1), bias, dtype, layout)
    y, argmax, _ = run_pool(device, activated.numpy().astype(np.float64).reshape(x.shape), kind, dtype, layout)
    found = run_bias_relu_pool(device, x, bias, kind, dtype, layout, True)
    assert found["x"].raw().tobytes() == activated.raw().tobytes()
    assert found["y"].raw().tobytes() == y.raw().tobytes()
    assert argmax is None or found["argmax"].raw().tobytes() == argmax.raw().tobytes()


@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("layout", ["nchw", "channels_last"])
def test_bias_relu_and_pool_keep_nan_and_mark_windows_without_a_positive_value(
    device: Device, layout: str, keep: bool
) -> None:
    x = np.array([[1, np.nan, -2, -2, -0.5, 2], [3, 2, -2, -9, 0, 2]], np.float64).reshape(1, 1, 2, 6)
    found = run_bias_relu_pool(device, x, np.array([0.5]), "max", "float32", layout, keep)
    np.testing.assert_array_equal(found["y"].numpy().ravel(), np.float32([np.nan, 0, 2.5]))
    assert found["argmax"].numpy().ravel().tolist() == [1 + 4, 0 + 4, 1]


@pytest.mark.parametrize("layout", ["nchw", "channels_last"])
def test_any_schedule_gives_the_same_bits(module: Any, layout: str) -> None:
    x = noise((2, 16, 13, 24), 6, "float32")
    runs = []
    for seed in range(3):
        device = Device(module, seed=seed)
        buffers = [run_bias_relu(device, x.reshape(2, 16, -1), noise((16,), 7, "float32"), "float32", layout)]
        for kind in KINDS:
            y, argmax, _ = run_pool(device, x, kind, "float32", layout)
            buffers += [y, *([argmax] if argmax else [])]
            buffers.append(run_pool_backward(device, x, kind, "float32", layout, kind == "max")[0]["out"])
            for keep in (False, True):
                bias = noise((16,), 7, "float32")
                buffers += run_bias_relu_pool(device, x, bias, kind, "float32", layout, keep).values()
        runs.append([buffer.raw().tobytes() for buffer in buffers])
    assert runs[0] == runs[1] == runs[2]


def assert_efficient(device: Device, arrays: list[Array], least: int) -> None:
    """`least`: bytes that any kernel must read and write."""
    distinct = sum(a.buffer.read_bytes() + a.buffer.written_bytes() for a in arrays)
    assert least <= distinct <= 1.15 * least
    counters = device.counters
    parts = (counters["main_loop"], counters["elsewhere"])
    assert counters["block_read_bytes"] + 32 * sum(p["writes"]["sectors"] for p in parts) <= 1.15 * least
    for direction in ("reads", "writes"):
        assert sector_efficiency(counters["main_loop"][direction]) >= 0.95
        assert counters["elsewhere"][direction]["requests"] == 0 or direction == "reads"


def size_of(array: Array) -> int:
    return int(np.prod(array.shape)) * STORAGE[array.dtype].itemsize


@every_dtype
@pytest.mark.parametrize("layout", ["nchw", "channels_last"])
def test_bias_relu_reads_and_writes_each_value_once(module: Any, layout: str, dtype: str) -> None:
    device = Device(module, counting=True)
    x = run_bias_relu(device, noise((2, 64, 2048), 8, dtype), noise((64,), 9, dtype), dtype, layout)
    assert_efficient(device, [x], 2 * size_of(x))
    assert device.counters["main_loop"]["writes"]["widest"] == 16


@every_dtype
@every_kind
@pytest.mark.parametrize("layout", ["nchw", "channels_last"])
def test_pool_reads_and_writes_each_value_once(module: Any, layout: str, kind: str, dtype: str) -> None:
    device = Device(module, counting=True)
    y, argmax, x = run_pool(device, noise((1, 64, 16, 32), 8, dtype), kind, dtype, layout)
    arrays = [a for a in (x, y, argmax) if a is not None]
    assert_efficient(device, arrays, sum(map(size_of, arrays)))
    assert device.counters["main_loop"]["reads"]["widest"] == 16


@every_dtype
@every_kind
@pytest.mark.parametrize("layout", ["nchw", "channels_last"])
def test_pool_backward_reads_and_writes_each_value_once(module: Any, layout: str, kind: str, dtype: str) -> None:
    device = Device(module, counting=True)
    x = noise((1, 64, 16, 32), 8, dtype)
    buffers, _ = run_pool_backward(device, x, kind, dtype, layout, kind == "max")
    assert_efficient(device, list(buffers.values()), sum(map(size_of, buffers.values())))
    assert device.counters["main_loop"]["writes"]["widest"] == 16


@every_dtype
@every_kind
@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("layout", ["nchw", "channels_last"])
def test_bias_relu_and_pool_write_the_map_only_to_keep_it(
    module: Any, layout: str, keep: bool, kind: str, dtype: str
) -> None:
    device = Device(module, counting=True)
    x, bias = noise((1, 64, 16, 32), 8, dtype), noise((64,), 9, dtype)
    found = run_bias_relu_pool(device, x, bias, kind, dtype, layout, keep)
    del found["bias"]  # few bytes, which every block reads
    assert_efficient(device, list(found.values()), sum(map(size_of, found.values())) + keep * size_of(found["x"]))
    assert device.counters["main_loop"]["reads"]["widest"] == 16

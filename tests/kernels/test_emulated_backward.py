"""The backward of a layer with losses and of gram: the CUDA sources, run on the CPU."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from emulated import (
    DTYPES,
    LAYOUTS,
    NOT_FINITE,
    Device,
    bank_conflicts,
    compute_dtype,
    rounded,
    sector_efficiency,
    with_bits,
)
from gram_launches import BOUND, VGG, backward, error, features, matrix

every_dtype = pytest.mark.parametrize("dtype", DTYPES)
every_layout = pytest.mark.parametrize("layout", LAYOUTS)

TENSOR_CORES = ("float32", "float16", "bfloat16")
SIZE = {"float32": 4, "float64": 8, "float16": 2, "bfloat16": 2}
TERMS = ("above", "target", "weight", "shift", "relu", "symmetrize")


def check(device: Device, x: np.ndarray, dtype: str, rng: np.random.Generator, terms: set[str], **how: Any) -> Any:
    """Compare one launch with float64."""
    batch, channels, positions = x.shape
    exact = compute_dtype(dtype)
    given = {
        "above": rounded(rng.standard_normal(x.shape), dtype),
        "target": rounded(rng.standard_normal(x.shape), dtype),
        "weight": rng.random((batch, positions)).astype(exact),
        "shift": rng.standard_normal((batch, channels)).astype(exact),
    }
    given = {name: value for name, value in given.items() if name in terms}
    symmetrize, relu = "symmetrize" in terms, "relu" in terms
    by = rng.standard_normal((batch, channels, channels)) if symmetrize else matrix(rng, batch, channels)
    by = by.astype(exact)
    got = backward(device, x, by, dtype, **given, symmetrize=symmetrize, relu=relu, factor=0.7, content=0.3, **how)
    wide = {name: value.astype(np.float64) for name, value in given.items()}
    f, m = x.astype(np.float64), by.astype(np.float64)
    expected = 0.7 * np.einsum("bij,bjn->bin", m + m.transpose(0, 2, 1) if symmetrize else m, f)
    if "shift" in wide:
        expected = expected + wide["shift"][:, :, None]
    if "weight" in wide:
        expected = expected * wide["weight"][:, None]
    if "above" in wide:
        expected = expected + wide["above"]
    if "target" in wide:
        expected = expected + 0.3 * (f - wide["target"])
    assert error(got.out, expected * (f > 0) if relu else expected) <= BOUND[dtype]
    return got


@every_dtype
@every_layout
@pytest.mark.parametrize(("channels", "positions"), VGG)
@pytest.mark.sweep(7)
def test_a_layer_of_the_vgg_shapes_equals_float64(
    device: Device, channels: int, positions: int, layout: str, dtype: str
) -> None:
    rng = np.random.default_rng(channels)
    plain = dtype == "float64" or layout.endswith("offset")
    positions //= 16 if plain else 4
    check(
        device, features(rng, (1, channels, positions), dtype), dtype, rng, {"above", "target", "relu"}, layout=layout
    )


@pytest.mark.parametrize("part", range(10))
@pytest.mark.sweep(5)
def test_random_configurations_equal_float64(module: Any, part: int) -> None:
    rng = np.random.default_rng(200 + part)
    for _ in range(20):
        dtype, layout = str(rng.choice(DTYPES)), str(rng.choice(LAYOUTS))
        channels = int(rng.choice([1, 2, 3, 5, 8, 16, 31, 40, 64, 65, 72, 128, 136, 200]))
        positions = int(rng.choice([1, 2, 7, 16, 33, 64, 100, 128, 257]))
        shape = (int(rng.integers(1, 3)), channels, positions)
        terms = {name for name in TERMS if rng.random() < 0.5}
        device = Device(module, seed=int(rng.integers(1000)))
        check(
            device,
            features(rng, shape, dtype),
            dtype,
            rng,
            terms,
            layout=layout,
            tf32=bool(rng.random() < 0.8),
            multiprocessors=int(rng.choice([1, 132])),  # blocks of eight or four warps
        )


@pytest.mark.parametrize("layout", ["nchw", "channels_last", "offset"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_bits_do_not_depend_on_the_schedule(module: Any, layout: str, dtype: str) -> None:
    rng = np.random.default_rng(1)
    x, by = features(rng, (1, 72, 128), dtype), matrix(rng, 1, 72)
    above = rounded(rng.standard_normal(x.shape), dtype)
    launched = [
        backward(
            Device(module, seed=seed),
            x,
            by,
            dtype,
            layout=layout,
            above=above,
            relu=True,
            multiprocessors=1 + 131 * seed,
        ).out
        for seed in range(4)
    ]  # on blocks of eight warps, where the dtype has them, and of four
    assert all(np.array_equal(other, launched[0]) for other in launched[1:])


@pytest.mark.parametrize("layout", ["nchw", "channels_last"])
def test_any_number_of_channels_runs_on_tensor_cores(device: Device, layout: str) -> None:
    rng = np.random.default_rng(2)
    x = features(rng, (1, 1040, 16), "bfloat16")
    got = check(device, x, "bfloat16", rng, {"relu", "above"}, layout=layout)
    assert got.path == {"nchw": "rows", "channels_last": "channels"}[layout]


def test_plain_tf32_is_available(device: Device) -> None:
    rng = np.random.default_rng(3)
    x, by = features(rng, (1, 64, 64), "float32"), matrix(rng, 1, 64)
    exact = np.einsum("bij,bjn->bin", by.astype(np.float64), x.astype(np.float64))
    assert 1e-5 < error(backward(device, x, by, "float32", plain=True).out, exact) < 2e-3
    assert error(backward(device, x, by, "float32").out, exact) < 5e-7


VALUES = [(dtype, place) for dtype in NOT_FINITE for place in range(5)]


@pytest.mark.parametrize("channels", [16, 72])
@pytest.mark.parametrize("layout", ["nchw", "channels_last", "offset"])
@pytest.mark.parametrize(("dtype", "place"), VALUES)
@pytest.mark.sweep(5)
def test_a_value_that_is_not_finite_propagates(
    device: Device, dtype: str, place: int, layout: str, channels: int
) -> None:
    """From each of the inputs, on every path, and to no other values."""
    exact = compute_dtype(dtype)
    right = {
        "x": np.ones((1, channels, 64)),
        "by": np.ones((1, channels, channels)),
        "above": np.ones((1, channels, 64)),
        "target": np.zeros((1, channels, 64)),
        "weight": np.ones((1, 64)),
        "shift": np.ones((1, channels)),
    }
    reached = {
        "x": np.s_[0, :, 9],
        "by": np.s_[0, 3],
        "above": np.s_[0, 3, 9],
        "target": np.s_[0, 3, 9],
        "weight": np.s_[0, :, 9],
        "shift": np.s_[0, 3],
    }
    where = {"x": (0, 3, 9), "by": (0, 3, 5), "weight": (0, 9), "shift": (0, 3)}
    for name in right:
        kind = dtype if name in ("x", "above", "target") else exact
        wrong = with_bits(right[name], kind, where.get(name, (0, 3, 9)), NOT_FINITE[kind][place])
        for how in ({}, {"simt": True}, {"plain": True}):
            given = {**right, name: wrong}
            out = backward(device, dtype=dtype, layout=layout, content=1.0, **given, **how).out.copy()
            assert not np.isfinite(out[reached[name]]).any(), (name, how)
            out[reached[name]] = 0
            assert np.isfinite(out).all(), (name, how)


@pytest.mark.parametrize("batch", [65535, 65536, 70001])
@pytest.mark.sweep(3)
def test_a_batch_may_be_larger_than_the_short_axes_of_a_grid(device: Device, batch: int) -> None:
    by = np.arange(batch, dtype=np.float32).reshape(batch, 1, 1)
    packed = device.output("packed", by.shape, "float32")
    device.call("symmetrize", device.input("by", by, "float32"), packed, 1, 1, True)
    assert np.array_equal(packed.numpy(), 2 * by)


def test_a_mask_removes_only_values_that_are_not_finite(device: Device) -> None:
    x = np.full((1, 16, 64), -1.0)
    x[0, 3, 5] = 1.0
    above = np.full(x.shape, np.nan)
    out = backward(device, x, np.zeros((1, 16, 16)), "float32", above=above, relu=True).out
    assert np.isnan(out[0, 3, 5])
    assert np.count_nonzero(out == 0) == out.size - 1


@pytest.mark.parametrize(("dtype", "simt"), [("float32", False), ("bfloat16", False), ("float64", True)])
def test_addresses_beyond_two_to_the_31_elements(device: Device, dtype: str, simt: bool) -> None:
    channels, positions, far = 2, 16, 2**31 + 64
    rng = np.random.default_rng(4)
    x, by = features(rng, (1, channels, positions), dtype), matrix(rng, 1, channels)
    strides = (2 * far, far, 1)
    held = device.sparse("x", x.shape, dtype, strides=strides)
    out = device.sparse("out", x.shape, dtype, strides=strides, kind="output")
    dense, row = device.input("dense", x, dtype).buffer.read(), positions * SIZE[dtype]
    for c in range(channels):
        held.buffer.poke(c * far, dense[c * row : (c + 1) * row])
    padded = device.module.backward_plan(held.buffer, out.buffer, simt=simt)["padded"]
    m = np.zeros((1, padded, padded))
    m[:, :channels, :channels] = by
    device.module.backward(held.buffer, device.input("m", m, compute_dtype(dtype)).buffer, out.buffer, simt=simt)
    exact = np.einsum("bij,bjn->bin", by.astype(np.float64), x.astype(np.float64))
    assert error(out.numpy(), exact) <= BOUND[dtype]


@pytest.mark.parametrize("dtype", TENSOR_CORES)
@pytest.mark.parametrize("layout", ["nchw", "channels_last"])
@pytest.mark.parametrize(("channels", "positions"), VGG[:4])
@pytest.mark.sweep(5)
def test_traffic_and_products_are_minimal(module: Any, channels: int, positions: int, layout: str, dtype: str) -> None:
    device = Device(module, counting=True)
    rng = np.random.default_rng(5)
    positions //= 2
    x, target = features(rng, (1, channels, positions), dtype), features(rng, (1, channels, positions), dtype)
    got = backward(
        device, x, matrix(rng, 1, channels), dtype, layout=layout, above=x, target=target, relu=True, content=1.0
    )
    assert got.path == {"nchw": "rows", "channels_last": "channels"}[layout]
    counted = device.counters
    full = channels // 16 * (positions // 8) * (channels // 8)
    # Bfloat16 is multiplied by the two parts of M, sixteen channels at a time.
    kind, count = {"float32": ("tf32", 3 * full), "float16": ("tf32", full), "bfloat16": ("bf16", full)}[dtype]
    assert counted["mma"][kind] == sum(counted["mma"].values()) == count
    main, rest = counted["main_loop"], counted["elsewhere"]
    assert main["reads"]["widest"] == rest["reads"]["widest"] == rest["writes"]["widest"] == 16
    assert sector_efficiency(main["reads"]) >= 0.95
    assert sector_efficiency(rest["reads"]) >= 0.95
    assert sector_efficiency(rest["writes"]) >= 0.95
    assert bank_conflicts(main) == 0
    assert bank_conflicts(rest) == 0
    features_bytes = x.size * SIZE[dtype]
    distinct = {name: array.buffer for name, array in got.buffers.items() if name != "above"}
    read = sum(buffer.read_bytes() for buffer in distinct.values())
    assert read <= 1.15 * (3 * features_bytes + 4 * channels**2)
    assert sum(buffer.written_bytes() for buffer in distinct.values()) == features_bytes
    # Once per block as well, except F, which the tiles of all channels of the sum need, and the matrix.
    wide, tall = (64, 128) if channels == 64 else (128, 64)
    assert counted["blocks"] == -(-positions // tall) * (channels // wide)
    across, strips = channels // wide, counted["blocks"] // (channels // wide)
    assert counted["block_read_bytes"] <= 1.15 * ((2 + across) * features_bytes + strips * 4 * channels**2)

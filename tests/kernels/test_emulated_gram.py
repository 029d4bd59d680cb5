"""gram, moments, style_loss and bias_relu_style_loss: the CUDA sources, run on the CPU."""

from __future__ import annotations

import itertools
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
from gram_launches import BOUND, VGG, error, exact_gram, features, gram, matrix

every_dtype = pytest.mark.parametrize("dtype", DTYPES)
every_layout = pytest.mark.parametrize("layout", LAYOUTS)
vgg = pytest.mark.parametrize(("channels", "positions"), VGG)

TENSOR_CORES = ("float32", "float16", "bfloat16")
SIZE = {"float32": 4, "float64": 8, "float16": 2, "bfloat16": 2}


def check(device: Device, x: np.ndarray, dtype: str, rng: np.random.Generator, wanted: set[str], **how: Any) -> None:
    """Compare one launch with float64: G, or R and the loss; the mean; the weighted sums; exact symmetry."""
    batch, channels, positions = x.shape
    scale = 1 / max(positions, 1)
    weight = rng.random((batch, positions)).astype(np.float32) if "weight" in wanted else None
    target = matrix(rng, batch, channels) if "target" in wanted else None
    got = gram(device, x, dtype, scale=scale, weight=weight, target=target, mean="mean" in wanted, **how)
    bound = BOUND[compute_dtype(dtype)]
    exact = exact_gram(x, weight, scale)
    assert np.array_equal(got.out, got.out.transpose(0, 2, 1)), "not symmetric"
    if target is None:
        assert error(got.out, exact) <= bound
    else:
        assert error(got.out, exact - target) <= bound
        assert got.loss == pytest.approx(float(np.square(exact - target).sum()), rel=bound)
    if "mean" in wanted:
        each = np.full((batch, positions), scale) if weight is None else weight
        assert error(got.mean, np.einsum("bcn,bn->bc", x, each, dtype=float)) <= bound


@every_dtype
@every_layout
@vgg
@pytest.mark.sweep(7)
def test_style_loss_of_the_vgg_shapes_equals_float64(
    device: Device, channels: int, positions: int, layout: str, dtype: str
) -> None:
    rng = np.random.default_rng(channels)
    if dtype == "float64" or layout.endswith("offset"):
        positions //= 8  # multiply-adds are slow on the emulator
    check(device, features(rng, (1, channels, positions), dtype), dtype, rng, {"target"}, layout=layout)


@pytest.mark.parametrize("part", range(10))
@pytest.mark.sweep(5)
def test_random_configurations_equal_float64(module: Any, part: int) -> None:
    rng = np.random.default_rng(100 + part)
    for _ in range(35):
        dtype, layout = str(rng.choice(DTYPES)), str(rng.choice(LAYOUTS))
        channels = int(rng.choice([1, 2, 3, 5, 8, 16, 31, 40, 64, 65, 72, 96, 128, 136, 200]))
        positions = int(rng.choice([0, 1, 2, 7, 16, 33, 64, 100, 128, 257, 384, 520]))
        shape = (int(rng.integers(1, 4)), channels, positions)
        wanted = {name for name in ("target", "weight", "mean") if rng.random() < 0.5}
        device = Device(module, seed=int(rng.integers(1000)))
        how = {
            "splits": int(rng.choice([0, 0, 1, 2, 5, 40])),
            "tf32": bool(rng.random() < 0.8),
            "multiprocessors": int(rng.choice([1, 20, 132])),
        }
        check(device, features(rng, shape, dtype), dtype, rng, wanted, layout=layout, **how)


@pytest.mark.parametrize(("channels", "positions", "splits"), [(64, 4096, 50), (128, 2560, 20), (24, 1344, 17)])
@pytest.mark.parametrize("layout", ["nchw", "channels_last", "offset"])
@pytest.mark.sweep(5)
def test_bits_do_not_depend_on_the_schedule(
    module: Any, channels: int, positions: int, splits: int, layout: str
) -> None:
    rng = np.random.default_rng(1)
    x, target = features(rng, (1, channels, positions), "float32"), matrix(rng, 1, channels)
    if layout == "offset":
        x = x[:, :, : positions // 4]
    launched = [
        gram(Device(module, seed=seed), x, "float32", layout=layout, target=target, mean=True, splits=splits)
        for seed in range(5)
    ]
    assert launched[0].splits > 4, "the last kernel adds few groups"
    for other in launched[1:]:
        assert np.array_equal(other.out, launched[0].out)
        assert np.array_equal(other.mean, launched[0].mean)
        assert other.loss == launched[0].loss


@pytest.mark.parametrize("layout", ["nchw", "channels_last", "padded", "channels_last_padded"])
@pytest.mark.parametrize("dtype", TENSOR_CORES)
@pytest.mark.parametrize("shape", [(1, 64, 512), (2, 128, 256), (1, 104, 96), (2, 8, 72), (1, 128, 160)])
def test_fused_bias_and_relu_equal_float64(
    device: Device, shape: tuple[int, int, int], dtype: str, layout: str
) -> None:
    rng = np.random.default_rng(2)
    x, bias = rounded(rng.standard_normal(shape), dtype), rounded(rng.standard_normal(shape[1]), dtype)
    target = matrix(rng, shape[0], shape[1])
    got = gram(device, x, dtype, layout=layout, scale=1 / shape[2], target=target, bias=bias)
    activated = rounded(np.maximum(x + bias[:, None], 0), dtype)
    exact = exact_gram(activated, scale=1 / shape[2]) - target
    assert np.array_equal(got.activated, activated)
    assert error(got.out, exact) <= 1e-6
    assert got.loss == pytest.approx(float(np.square(exact).sum()), rel=1e-6)


def test_plain_tf32_is_available_and_less_accurate(device: Device) -> None:
    rng = np.random.default_rng(3)
    x = features(rng, (1, 64, 512), "float32")
    exact = exact_gram(x)
    assert 1e-6 < error(gram(device, x, "float32", plain=True).out, exact) < 2e-3
    assert error(gram(device, x, "float32").out, exact) < 2e-7


def test_plain_tf32_keeps_its_numbers_and_is_as_accurate_as_rounding_to_nearest(device: Device) -> None:
    rng = np.random.default_rng(12)
    whole = rng.integers(-1024, 1025, (1, 64, 8)).astype(np.float32)  # eleven bits, and exact sums
    assert np.array_equal(gram(device, whole, "float32", plain=True).out, exact_gram(whole))
    x = np.exp(rng.uniform(-3, 3, (1, 64, 4096))).astype(np.float32)  # each mantissa as often as its logarithm says
    mantissa, exponent = np.frexp(x.astype(np.float64))
    nearest = np.ldexp(np.rint(mantissa * 2**11), exponent - 11)
    exact = exact_gram(x)
    # Dropping the lowest bits alone is wrong by 7e-4.
    assert error(gram(device, x, "float32", plain=True).out, exact) < 2 * error(exact_gram(nearest), exact) < 3e-5


@pytest.mark.parametrize("dtype", TENSOR_CORES)
def test_a_long_sum_is_accurate_although_tensor_cores_truncate(device: Device, dtype: str) -> None:
    """One split of a bright image: without summing outside the tensor cores the error is a hundred times larger."""
    x = rounded(np.random.default_rng(4).random((1, 8, 16384)) + 1, dtype)
    assert error(gram(device, x, dtype, splits=1).out, exact_gram(x)) <= 5e-7


VALUES = [(dtype, bits) for dtype, values in NOT_FINITE.items() for bits in values]


@pytest.mark.parametrize("channels", [16, 80])
@pytest.mark.parametrize("layout", ["nchw", "channels_last", "offset"])
@pytest.mark.parametrize(("dtype", "bits"), VALUES, ids=lambda value: value if isinstance(value, str) else hex(value))
@pytest.mark.sweep(5)
def test_a_value_that_is_not_finite_propagates(
    device: Device, dtype: str, bits: int, layout: str, channels: int
) -> None:
    x = with_bits(features(np.random.default_rng(5), (2, channels, 64), dtype) + 1, dtype, (1, 3, 9), bits)
    hows: list[dict[str, Any]] = [{}, {"weight": np.ones((2, 64))}, {"simt": True}]
    if dtype == "float32":
        hows += [{"plain": True}, {"plain": True, "weight": np.ones((2, 64))}]
    for how in hows:
        got = gram(device, x, dtype, layout=layout, mean="weight" not in how, target=matrix_of(channels), **how)
        assert np.isfinite(got.out[0]).all()
        assert not np.isfinite(got.out[1, 3]).any()
        assert not np.isfinite(got.out[1, :, 3]).any()
        assert np.isfinite(np.delete(np.delete(got.out[1], 3, 0), 3, 1)).all()
        assert not np.isfinite(got.loss)
        if got.mean is not None:
            assert np.argwhere(~np.isfinite(got.mean)).tolist() == [[1, 3]]


def matrix_of(channels: int) -> np.ndarray:
    return np.ones((2, channels, channels), np.float32)


@pytest.mark.parametrize("layout", ["nchw", "channels_last"])
@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize("dtype", TENSOR_CORES)
@pytest.mark.sweep(5)
def test_a_value_that_is_not_finite_propagates_through_bias_and_relu(
    device: Device, dtype: str, plain: bool, layout: str
) -> None:
    for bits in NOT_FINITE[dtype][:4]:  # ReLU maps minus infinity to zero
        ones = np.ones((1, 16, 64))
        of_x = {"x": with_bits(ones, dtype, (0, 3, 9), bits), "bias": np.ones(16)}
        of_bias = {"x": ones, "bias": with_bits(np.ones(16), dtype, (3,), bits)}
        for given in (of_x, of_bias):
            got = gram(device, dtype=dtype, layout=layout, plain=plain, target=matrix_of(16)[:1], **given)
            assert got.path != "simt"
            assert not np.isfinite(got.out[0, 3]).any()
            assert not np.isfinite(got.loss)
            assert not np.isfinite(got.activated[0, 3, 9])


@pytest.mark.parametrize("channels", [8, 40, 72])
@pytest.mark.parametrize("dtype", TENSOR_CORES)
@pytest.mark.parametrize("layout", ["nchw", "channels_last"])
def test_the_bias_is_read_as_far_as_it_goes(device: Device, layout: str, dtype: str, channels: int) -> None:
    """And never through __ldg in half precision, which the emulator does not have: nvcc moves it before its guard."""
    x = np.ones((1, channels, 64))
    got = gram(device, x, dtype, layout=layout, bias=np.ones(channels))
    assert np.array_equal(got.activated, 2 * x)


@pytest.mark.parametrize(("tf32", "expected"), [(True, "rows"), (False, "simt")])
def test_a_card_without_tf32_takes_another_path_except_for_half(device: Device, tf32: bool, expected: str) -> None:
    x = np.ones((1, 16, 64))
    assert gram(device, x, "float32", tf32=tf32).path == expected
    assert gram(device, x, "bfloat16", tf32=tf32).path == expected
    assert gram(device, x, "float16", tf32=tf32).path == "rows"


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("simt", [False, True])
def test_addresses_beyond_two_to_the_31_elements(device: Device, dtype: str, simt: bool) -> None:
    channels, positions, far = 3, 64, 2**31 + 64
    x = features(np.random.default_rng(6), (1, channels, positions), dtype)
    held = device.sparse("x", (1, channels, positions), dtype, strides=(3 * far, far, 1))
    dense = device.input("dense", x, dtype).buffer.read()
    row = positions * SIZE[dtype]
    for c in range(channels):
        held.buffer.poke(c * far, dense[c * row : (c + 1) * row])
    plan = device.module.gram_plan(held.buffer, simt=simt)
    assert plan["path"] == ("simt" if simt else "rows")
    out = device.output("out", (1, channels, channels), "float32")
    device.module.gram(
        held.buffer,
        out.buffer,
        device.workspace("partial", plan["partial"], "float32").buffer,
        device.workspace("losses", plan["losses"], "float64").buffer,
        device.zeros("counter", 1).buffer,
        1.0,
        simt=simt,
    )
    assert error(out.numpy(), exact_gram(x)) <= 1e-6


def products(channels: int, positions: int, dtype: str) -> int:
    """Products of 16 x 8 in the lower triangle of units, with what each is made of."""
    units = -(-channels // 64)
    tiles = 20 * units + 32 * (units * (units - 1) // 2)
    return tiles * (positions // 8 * 3 if dtype == "float32" else positions // 16)


def finish_bytes(channels: int, plan: dict[str, int]) -> int:
    """What gram_finish reads of partial results: a group of warps has every n-th split, and reads four at a time."""
    units = -(-channels // 64)
    groups = 8 if plan["splits"] > 80 else 4 if plan["splits"] > 20 else 2
    loads = 0
    for row, column in itertools.product(range(units), repeat=2):
        if column <= row:
            splits = plan["diagonal_splits" if row // 2 == column // 2 else "splits"]
            shares = [len(range(group, splits, groups)) for group in range(groups)]
            loads += (20 if row == column else 32) * sum(4 * -(-share // 4) for share in shares)
    return loads * 16 * 8 * 4


# Bias and ReLU are fused up to 128 channels.
TRAFFIC = [(*shape, bias) for bias in (False, True) for shape in VGG if not bias or shape[0] <= 128]


@pytest.mark.parametrize("dtype", TENSOR_CORES)
@pytest.mark.parametrize("layout", ["nchw", "channels_last"])
@pytest.mark.parametrize(("channels", "positions", "bias"), TRAFFIC)
@pytest.mark.sweep(7)
def test_traffic_and_products_are_minimal(
    module: Any, channels: int, positions: int, layout: str, dtype: str, bias: bool
) -> None:
    device = Device(module, counting=True)
    rng = np.random.default_rng(7)
    x, target = features(rng, (1, channels, positions), dtype), matrix(rng, 1, channels)
    shifts = {"bias": features(rng, (1, 1, channels), dtype)[0, 0]} if bias else {}
    got = gram(device, x, dtype, layout=layout, target=target, **shifts)
    counted, finish = got.counted, device.counters
    assert counted["mma"][{"float32": "tf32", "float16": "f16", "bfloat16": "bf16"}[dtype]] == products(
        channels, positions, dtype
    )
    assert counted["mma_main"] == sum(counted["mma"].values())
    main = counted["main_loop"]
    assert main["reads"]["widest"] == 16
    assert bank_conflicts(main) == 0
    assert sector_efficiency(main["reads"]) >= 0.95
    assert sector_efficiency(main["writes"]) >= 0.95
    assert sector_efficiency(counted["elsewhere"]["writes"]) >= 0.95
    assert finish["elsewhere"]["reads"]["widest"] == 16
    # Partial results are read in full sectors. The matrices, which are small, are accessed as the fragments have them:
    # two neighbors of a row in NCHW, single values in channels_last.
    scattered = {"nchw": 2, "channels_last": 8}[layout] * 4 * channels**2
    partial = finish_bytes(channels, module.gram_plan(got.buffers["x"].buffer, weighted=False))
    losses = 32 * finish["blocks"] + 32  # a sector each, and the counter or the loss
    assert 32 * finish["elsewhere"]["reads"]["sectors"] <= partial + scattered + losses
    assert 32 * finish["elsewhere"]["writes"]["sectors"] <= scattered + losses
    # Memory: the map once, the target once, the result once, the workspace written and read once.
    held = {name: array.buffer for name, array in got.buffers.items()}
    read = sum(buffer.read_bytes() for buffer in held.values())
    written = sum(buffer.written_bytes() for buffer in held.values())
    workspace = held["partial"].written_bytes()
    result = 4 * channels**2
    least_read = x.size * SIZE[dtype] + result + workspace
    least_written = result + workspace + (x.size * SIZE[dtype] if bias else 0)
    assert read <= 1.15 * least_read
    assert written <= 1.15 * least_written
    assert held["x"].read_bytes() == x.size * SIZE[dtype]
    if channels <= 128:  # one tile: not even L2 is asked twice
        blocks = counted["blocks"] * channels * SIZE[dtype] * bias
        assert counted["block_read_bytes"] <= x.size * SIZE[dtype] + blocks


def test_plain_multiply_adds_meet_no_bank_twice(module: Any) -> None:
    for dtype, layout in (("float64", "nchw"), ("float64", "channels_last"), ("float32", "channels_last")):
        device = Device(module, counting=True)
        x = features(np.random.default_rng(8), (1, 128, 128), dtype)
        got = gram(device, x, dtype, layout=layout, simt=True)
        assert got.path == "simt"
        main = got.counted["main_loop"]
        assert main["shared"]["requests"] > 0
        assert bank_conflicts(main) == 0
        assert sector_efficiency(main["reads"]) >= 0.95

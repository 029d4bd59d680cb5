"""content_loss, total_variation and the pointwise backward, run on the CPU from their CUDA source."""

import numpy as np
import pytest
from emulated import DTYPES, Device, bank_conflicts, compute_dtype, rounded, sector_efficiency, strides_of

KINDS = ("anisotropic", "isotropic", "squared")
SIZES = (0, 1, 7, 256, 4099)  # 4099: more than one block in packs of 16 bytes, and a tail for every dtype
# The error of rounding a result to its dtype; sums and arithmetic are float32 or float64.
ROUNDING = {"float32": 2e-6, "float64": 1e-14, "float16": 1e-3, "bfloat16": 8e-3}


def sum_tolerance(dtype):
    return 1e-13 if dtype == "float64" else 2e-6


def normal(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape)


def content_loss(device, x, y, dtype, offset=0):
    x, y = device.input("x", x, dtype, offset=offset), device.input("y", y, dtype, offset=offset)
    partial = device.workspace("partial", device.module.max_blocks, "float64")
    out = device.output("out", (1,), compute_dtype(dtype))
    device.call("content_loss", x, y, partial, out)
    return out.numpy()[0]


def content_loss_backward(device, grad, x, y, dtype, offsets=(0, 0, 0)):
    x, y = device.input("x", x, dtype, offset=offsets[0]), device.input("y", y, dtype, offset=offsets[1])
    out = device.output("out", x.shape, dtype, offset=offsets[2])
    device.call("content_loss_backward", device.input("grad", [grad], compute_dtype(dtype)), x, y, out)
    return out.numpy()


def pointwise_backward(device, grad, x, target, content, relu, dtype, offset=0):
    grad = device.in_place("grad", grad, dtype, offset=offset)
    x = device.input("x", x, dtype, offset=offset)
    target = None if target is None else device.input("target", target, dtype)
    device.call("pointwise_backward", grad, x, target, content, relu)
    return grad.numpy()


@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_content_loss_equals_its_definition(device, dtype, n, offset):
    x, y = rounded(normal(1, n), dtype), rounded(normal(2, n), dtype)
    expected = np.sum((x.astype(np.float64) - y) ** 2)
    assert content_loss(device, x, y, dtype, offset) == pytest.approx(expected, rel=sum_tolerance(dtype), abs=0)


@pytest.mark.parametrize("offsets", [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)])
@pytest.mark.parametrize("n", SIZES[1:])
@pytest.mark.parametrize("dtype", DTYPES)
def test_content_loss_backward_equals_its_definition(device, dtype, n, offsets):
    x, y = rounded(normal(1, n), dtype), rounded(normal(2, n), dtype)
    out = content_loss_backward(device, 0.75, x, y, dtype, offsets)
    np.testing.assert_allclose(out, 1.5 * (x.astype(np.float64) - y), rtol=ROUNDING[dtype], atol=1e-6)


@pytest.mark.parametrize(("target", "relu"), [(True, True), (True, False), (False, True), (False, False)])
@pytest.mark.parametrize(("n", "offset"), [(0, 0), (1, 0), (4099, 0), (257, 1)])
@pytest.mark.parametrize("dtype", DTYPES)
def test_pointwise_backward_equals_its_definition(device, dtype, n, offset, target, relu):
    grad, x, wanted = (rounded(normal(seed, n), dtype) for seed in range(3))
    expected = grad.astype(np.float64)
    if target:
        expected = expected + 0.3 * (x.astype(np.float64) - wanted)
    if relu:
        expected = np.where(x > 0, expected, 0)
    out = pointwise_backward(device, grad, x, wanted if target else None, 0.3, relu, dtype, offset)
    # Terms of order one may cancel, which leaves their float32 rounding.
    np.testing.assert_allclose(out, expected, rtol=ROUNDING[dtype], atol=1e-13 if dtype == "float64" else 1e-6)


def test_pointwise_backward_masks_where_x_is_zero_or_nan(device):
    x = np.array([1.0, 0.0, -0.0, np.nan, -1.0])
    assert pointwise_backward(device, np.ones(5), x, None, 0.0, True, "float32").tolist() == [1, 0, 0, 0, 0]


def differences(x):
    right, down = np.zeros_like(x), np.zeros_like(x)
    right[..., :-1], down[:, :, :-1] = np.diff(x, axis=3), np.diff(x, axis=2)
    return right, down


def variation(x, kind):
    right, down = differences(x.astype(np.float64))
    if kind == "anisotropic":
        return np.sum(np.abs(right) + np.abs(down))
    return np.sum(np.hypot(right, down) if kind == "isotropic" else right**2 + down**2)


def variation_gradient(x, kind):
    """The gradient of each difference with respect to its two pixels."""
    right, down = differences(x.astype(np.float64))
    length = np.hypot(right, down)
    length[length == 0] = 1
    derivative = {"anisotropic": np.sign, "isotropic": lambda d: d / length, "squared": lambda d: 2 * d}[kind]
    right, down = derivative(right), derivative(down)
    out = -right - down
    out[..., 1:] += right[..., :-1]
    out[:, :, 1:] += down[:, :, :-1]
    return out


def total_variation(device, x, kind, dtype, **layout):
    x = device.input("x", x, dtype, **layout)
    partial = device.workspace("partial", device.module.max_blocks, "float64")
    out = device.output("out", (1,), compute_dtype(dtype))
    device.call("total_variation", x, kind, partial, out)
    return out.numpy()[0]


def total_variation_backward(device, grad, x, kind, dtype, layout="nchw", out_layout=None):
    x = device.input("x", x, dtype, layout=layout)
    out = device.output("out", x.shape, dtype, layout=out_layout or layout)
    device.call("total_variation_backward", device.input("grad", [grad], compute_dtype(dtype)), x, kind, out)
    return out.numpy()


IMAGES = [
    # shape, layout
    ((2, 3, 9, 264), "nchw"),  # packs; at least two adjacent warps; three bands
    ((1, 3, 6, 96), "channels_last"),  # packs of three channels
    ((1, 3, 5, 48), "offset"),
    ((1, 3, 5, 48), "padded"),
    ((1, 2, 5, 37), "nchw"),  # rows that are not aligned to 16 bytes
    ((1, 5, 4, 9), "channels_last"),
    ((2, 3, 5, 16), "channels_last_padded"),
    ((1, 1, 1, 8), "nchw"),
    ((1, 3, 7, 1), "channels_last"),
    ((1, 1, 1, 1), "nchw"),
]


@pytest.mark.parametrize(("shape", "layout"), IMAGES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_total_variation_and_its_gradient_equal_their_definition(device, dtype, kind, shape, layout):
    x = rounded(normal(3, *shape), dtype)
    value = total_variation(device, x, kind, dtype, layout=layout)
    assert value == pytest.approx(variation(x, kind), rel=sum_tolerance(dtype), abs=0)
    out = total_variation_backward(device, 0.5, x, kind, dtype, layout)
    np.testing.assert_allclose(out, 0.5 * variation_gradient(x, kind), rtol=ROUNDING[dtype], atol=ROUNDING[dtype])


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("dtype", DTYPES)
def test_strides_need_not_be_multiples_of_16_bytes(device, dtype, axis):
    x = rounded(normal(11, 2, 2, 3, 16), dtype)
    strides = [400, 160, 32, 1]
    strides[axis] += 1
    value = total_variation(device, x, "squared", dtype, strides=tuple(strides))
    assert value == pytest.approx(variation(x, "squared"), rel=sum_tolerance(dtype), abs=0)


@pytest.mark.parametrize("shape", [(0, 3, 4, 4), (1, 3, 0, 4), (1, 3, 4, 0)])
def test_total_variation_of_an_empty_image_is_zero(device, shape):
    assert total_variation(device, np.zeros(shape), "isotropic", "float32") == 0
    assert total_variation_backward(device, 1.0, np.zeros(shape), "isotropic", "float32").shape == shape


@pytest.mark.parametrize("kind", KINDS)
def test_gradient_and_image_may_have_different_layouts(device, kind):
    x = normal(4, 1, 3, 6, 32)
    out = total_variation_backward(device, 1.0, x, kind, "float64", "channels_last", "nchw")
    np.testing.assert_allclose(out, variation_gradient(x, kind), atol=1e-13)


@pytest.mark.parametrize("layout", ["nchw", "channels_last"])
@pytest.mark.parametrize("kind", KINDS)
def test_flat_pixels_have_no_gradient(device, kind, layout):
    x = np.ones((1, 3, 6, 32))
    x[..., 20:] = 2.0
    out = total_variation_backward(device, 1.0, x, kind, "float32", layout)
    assert np.flatnonzero(out[0, 0, 0]).tolist() == [19, 20]


@pytest.mark.parametrize("kind", ["isotropic", "squared"])
def test_nan_is_kept_and_does_not_spread(device, kind):
    x = normal(5, 1, 1, 8, 16)
    x[0, 0, 4, 8] = np.nan
    assert np.isnan(total_variation(device, x, kind, "float32"))
    out = total_variation_backward(device, 1.0, x, kind, "float32")
    expected = np.isnan(variation_gradient(x, kind))
    assert (np.isnan(out) == expected).all()
    assert 4 <= expected.sum() <= 9


@pytest.mark.parametrize("width", [8, 9])
def test_rows_may_have_a_stride_above_2_to_the_31(device, width):
    """In packs and individually."""
    x, row = normal(6, 1, 1, 3, width), 2**31 + 8
    strides = (3 * row, 3 * row, row, 1)
    image = device.sparse("x", x.shape, "float32", strides=strides)
    out = device.sparse("out", x.shape, "float32", strides=strides, kind="output")
    for i in range(3):
        image.buffer.poke(i * row, x[0, 0, i].astype(np.float32).tobytes())
    device.call("total_variation_backward", device.input("grad", [1.0], "float32"), image, "squared", out)
    found = [np.frombuffer(out.buffer.peek(i * row, width), np.float32) for i in range(3)]
    np.testing.assert_allclose(found, variation_gradient(x.astype(np.float32), "squared")[0, 0], atol=1e-5)


def test_total_variation_addresses_beyond_two_to_the_31_elements(device):
    width, row = 40, 2**31 + 64
    x = normal(9, 3 * width).reshape(1, 1, 3, width).astype(np.float32)
    image = device.sparse("x", x.shape, "float32", strides=(3 * row, 3 * row, row, 1))
    for i in range(3):
        image.buffer.poke(i * row, x[0, 0, i].tobytes())
    out, partial = (
        device.output("out", (1,), "float32"),
        device.workspace("partial", device.module.max_blocks, "float64"),
    )
    device.call("total_variation", image, "squared", partial, out)
    wide = x.astype(np.float64)
    exact = np.square(np.diff(wide, axis=3)).sum() + np.square(np.diff(wide, axis=2)).sum()
    np.testing.assert_allclose(out.numpy()[0], exact, rtol=1e-6)


def test_results_are_the_same_in_every_order_of_blocks(module):
    x, y = normal(7, 3 * 20 * 256), normal(8, 3 * 20 * 256)
    image = x.reshape(1, 3, 20, 256)
    results = set()
    for seed in range(4):
        device = Device(module, seed=seed)
        results.add(
            (
                content_loss(device, x, y, "float32").tobytes(),
                content_loss_backward(device, 1.0, x, y, "float32").tobytes(),
                total_variation(device, image, "isotropic", "float32").tobytes(),
                total_variation_backward(device, 1.0, image, "isotropic", "float32").tobytes(),
                pointwise_backward(device, x, y, y, 0.5, True, "float32").tobytes(),
            )
        )
    assert len(results) == 1


def traffic_of(module, dtype, run):
    """Counters of one launch, and the minimum of bytes: each input and each output once."""
    device = Device(module, counting=True)
    arrays = run(device)
    main = device.counters["main_loop"]
    assert bank_conflicts(main) == 0
    least = {"read": 0, "written": 0}
    found = dict(least)
    for array, uses in arrays:
        size = array.raw().nbytes
        found["read"] += array.buffer.read_bytes()
        found["written"] += array.buffer.written_bytes()
        for use in uses:
            least[use] += size
    return main, least, found


READ, WRITTEN, BOTH = ("read",), ("written",), ("read", "written")


def run_content_loss(device, dtype):
    x, y = device.input("x", normal(1, 8192), dtype), device.input("y", normal(2, 8192), dtype)
    device.call("content_loss", x, y, device.workspace("partial", device.module.max_blocks, "float64"), None)
    return [(x, READ), (y, READ)]


def run_content_loss_backward(device, dtype):
    x, y = device.input("x", normal(1, 8192), dtype), device.input("y", normal(2, 8192), dtype)
    out = device.output("out", x.shape, dtype)
    device.call("content_loss_backward", device.input("grad", [1.0], compute_dtype(dtype)), x, y, out)
    return [(x, READ), (y, READ), (out, WRITTEN)]


def run_pointwise_backward(device, dtype):
    grad, x = device.in_place("grad", normal(1, 8192), dtype), device.input("x", normal(2, 8192), dtype)
    target = device.input("target", normal(3, 8192), dtype)
    device.call("pointwise_backward", grad, x, target, 0.5, True)
    return [(grad, BOTH), (x, READ), (target, READ)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("run", [run_content_loss, run_content_loss_backward, run_pointwise_backward])
def test_elementwise_kernels_move_each_byte_once_in_whole_sectors(module, dtype, run):
    main, least, found = traffic_of(module, dtype, lambda device: run(device, dtype))
    assert found == least
    for way, use in (("reads", "read"), ("writes", "written")):
        assert main[way]["bytes"] == least[use]  # never twice, not even from cache
        assert sector_efficiency(main[way]) == 1
        assert main[way]["widest"] == (16 if least[use] else 0)


# A pack of two float64 is smaller than three channels, which are therefore read individually.
PACKED = [(dtype, "nchw") for dtype in DTYPES] + [(dtype, "channels_last") for dtype in DTYPES if dtype != "float64"]


@pytest.mark.parametrize(("dtype", "layout"), PACKED)
@pytest.mark.parametrize("backward", [False, True])
def test_total_variation_reads_values_twice_only_at_borders(module, dtype, layout, backward):
    shape, rows = (1, 3, 16, 256 if layout == "nchw" else 128), 4  # small images have bands of four rows

    def run(device):
        x = device.input("x", normal(1, *shape), dtype, layout=layout)
        one = compute_dtype(dtype)
        if backward:
            out = device.output("out", shape, dtype, layout=layout)
            device.call("total_variation_backward", device.input("grad", [1.0], one), x, "isotropic", out)
            return [(x, READ), (out, WRITTEN)]
        device.call(
            "total_variation", x, "isotropic", device.workspace("partial", device.module.max_blocks, "float64"), None
        )
        return [(x, READ)]

    main, least, found = traffic_of(module, dtype, run)
    assert found == least
    again = (rows + 2 if backward else rows + 1) / rows
    assert main["reads"]["bytes"] <= 1.03 * again * least["read"]  # 3 %: values next to a warp's columns
    assert main["reads"]["widest"] == 16
    assert sector_efficiency(main["writes"]) == 1
    if layout == "nchw":
        assert sector_efficiency(main["reads"]) >= (0.90 if backward else 0.95)


@pytest.mark.parametrize("layout", ["nchw", "channels_last"])
def test_sums_do_not_depend_on_the_layout_beyond_rounding(device, layout):
    x = normal(9, 2, 3, 7, 24)
    assert total_variation(device, x, "squared", "float64", layout=layout) == pytest.approx(
        variation(x, "squared"), rel=1e-13
    )


def test_padding_between_rows_is_neither_read_nor_written(device):
    """The emulator raises if a kernel accesses it; the gradient's padding is unchanged."""
    shape = (1, 2, 5, 16)
    x = normal(10, *shape)
    image = device.input("x", x, "float32", layout="padded")
    out = device.output("out", shape, "float32", layout="padded")
    device.call("total_variation_backward", device.input("grad", [1.0], "float32"), image, "squared", out)
    strides, _ = strides_of(shape, "padded")
    between = np.frombuffer(out.buffer.peek(16, strides[2] - 16), np.float32)
    assert np.isnan(between).all()

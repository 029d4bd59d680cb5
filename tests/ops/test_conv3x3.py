"""The convolution by Winograd's algorithm with padding, bias, ReLU and pool, against PyTorch's in float64."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from op_cases import DTYPES, channels_last, noise, relative_error, reversed_axes
from torch import Tensor

from fastnst import ops

# Winograd's transforms lose one to four bits of accuracy; at most 512 channels here.
BOUNDS = {torch.float32: 4e-6, torch.float64: 1e-14, torch.bfloat16: 2**-8, torch.float16: 2**-11}
# Batch, inputs, outputs, height, width: around tiles of 4 and 6, panels of 12 tiles, registers of 16 and 32 outputs,
# and runs of 64 inputs.
SHAPES = [
    (1, 3, 64, 17, 30),
    (2, 19, 7, 5, 9),
    (1, 64, 64, 32, 33),
    (3, 33, 31, 4, 4),
    (1, 130, 40, 6, 7),
    (1, 16, 32, 1, 1),
    (1, 1, 1, 1, 50),
    (1, 512, 96, 8, 8),
    (1, 160, 128, 29, 3),
    (1, 256, 33, 7, 30),
    (2, 259, 290, 13, 5),
]
PADDINGS = ["zeros", "replicate", "circular", "reflect", "zeros,circular", "reflect,replicate"]
every_shape = pytest.mark.parametrize("shape", SHAPES, ids=str)
every_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)
every_padding = pytest.mark.parametrize("padding", PADDINGS)


def inputs(shape: tuple[int, ...], dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """x, weight, bias and a gradient of the output."""
    b, c, k, h, w = shape
    weight = noise((k, c, 3, 3), 2) / (9 * c) ** 0.5
    values = noise((b, c, h, w), 1).relu(), weight, noise((k,), 3), noise((b, k, h, w), 4)
    x, weight, bias, grad = (value.to(dtype) for value in values)
    return channels_last(x), weight, bias, channels_last(grad)


def exact(x: Tensor, weight: Tensor, bias: Tensor | None, padding: str) -> Tensor:
    """By PyTorch's padding of rows, then of columns; reflecting a single value repeats it."""
    rows, columns = padding.split(",") if "," in padding else (padding, padding)
    around = x.double()
    for mode, size, sides in ((rows, x.shape[2], (0, 0, 1, 1)), (columns, x.shape[3], (1, 1, 0, 0))):
        kind = {"zeros": "constant", "reflect": "reflect" if size > 1 else "replicate"}.get(mode, mode)
        around = F.pad(around, sides, mode=kind)
    return F.conv2d(around, weight.double(), None if bias is None else bias.double())


def pooled(x: Tensor, weight: Tensor, bias: Tensor, padding: str = "zeros") -> tuple[Tensor, Tensor]:
    b, _, h, w = x.shape
    y = torch.empty((b, h // 2, w // 2, len(weight)), dtype=x.dtype).permute(0, 3, 1, 2)
    argmax = torch.empty_like(y, dtype=torch.uint8)
    torch.ops.fastnst.conv3x3_pool_out(x, weight, bias, padding, 0, y, argmax)
    return y, argmax


@every_dtype
@every_padding
@every_shape
def test_value_and_gradient_equal_the_definition(shape: tuple[int, ...], padding: str, dtype: torch.dtype) -> None:
    x, weight, bias, grad = inputs(shape, dtype)
    leaf = x.clone().requires_grad_()
    y = ops.conv3x3(leaf, weight, bias, padding=padding)
    wide = x.double().requires_grad_()
    expected = exact(wide, weight, bias, padding)
    assert relative_error(y, expected) <= BOUNDS[dtype]
    y.backward(grad)
    expected.backward(grad.double())
    assert leaf.grad is not None
    assert wide.grad is not None
    # The gradient of replicate padding is rounded once more.
    assert relative_error(leaf.grad, wide.grad) <= BOUNDS[dtype] * (1 if padding == "zeros" else 3)
    rectified = ops.conv3x3(x, weight, bias, relu=True, padding=padding)
    assert torch.equal(rectified, y.detach().relu())


@pytest.mark.parametrize("layout", [torch.Tensor.contiguous, channels_last, reversed_axes])
@pytest.mark.parametrize("order", [(0, 1, 2, 3), (1, 2, 3, 0), (0, 2, 3, 1), (3, 2, 1, 0)], ids=str)
def test_any_layout_of_features_and_weights_gives_the_same_bits(order: tuple[int, ...], layout: Any) -> None:
    x, weight, bias, grad = inputs((1, 19, 37, 9, 11), torch.float32)
    back = [order.index(axis) for axis in range(4)]
    other = weight.permute(order).contiguous().permute(back)
    assert torch.equal(ops.conv3x3(layout(x), other, bias), ops.conv3x3(x, weight, bias))
    spread = torch.stack((bias, bias), 1)[:, 0]
    assert not spread.is_contiguous()
    assert torch.equal(ops.conv3x3(x, weight, spread), ops.conv3x3(x, weight, bias))
    call = torch.ops.fastnst.conv3x3_backward
    again = call(layout(grad), other, layout(x), None, 9, 11, False)
    assert torch.equal(again, call(grad, weight, x, None, 9, 11, False))


@every_padding
@pytest.mark.parametrize("shape", [s for s in SHAPES if s[3] > 1], ids=str)
def test_convolution_with_pool_equals_both_in_turn(shape: tuple[int, ...], padding: str) -> None:
    x, weight, bias, _ = inputs(shape, torch.float32)
    expected = ops.pool_with_argmax(ops.conv3x3(x, weight, bias, relu=True, padding=padding))
    for got, wanted in zip(pooled(x, weight, bias, padding), expected, strict=True):
        assert torch.equal(got, wanted)


def test_pool_propagates_nan_and_takes_the_first_of_equal_values() -> None:
    x = channels_last(torch.zeros(1, 16, 4, 4))
    weight, bias = torch.zeros(16, 16, 3, 3), torch.ones(16)
    y, argmax = pooled(x, weight, bias)
    assert torch.equal(y, torch.ones_like(y))
    assert not argmax.any()
    x[0, :, 0, 1] = float("nan")
    assert pooled(x, weight, bias)[0].isnan().any()


@every_dtype
@pytest.mark.parametrize("border", [False, True])
@pytest.mark.parametrize("shape", [s for s in SHAPES if s[3] > 1 and s[4] > 1], ids=str)
def test_the_backward_undoes_a_pool_and_applies_a_mask(
    shape: tuple[int, ...], border: bool, dtype: torch.dtype
) -> None:
    x, weight, bias, _ = inputs(shape, dtype)
    size = (shape[3], shape[4])
    y, argmax = pooled(x, weight, bias)
    grad = noise(tuple(y.shape), 5).to(dtype)
    more = 2 if border else 0
    mask = noise((shape[0], shape[1], size[0] + more, size[1] + more), 6).to(dtype)
    got = torch.ops.fastnst.conv3x3_backward(grad, weight, mask, argmax, *size, border)
    # The definition: a scatter to the argmax of each maximum above zero, then the transposed convolution.
    spread = torch.zeros(shape[0], shape[2], *size, dtype=torch.float64)
    for place in range(4):
        corner = spread[:, :, place // 2 : size[0] // 2 * 2 : 2, place % 2 : size[1] // 2 * 2 : 2]
        corner += torch.where(argmax == place, grad.double(), 0)
    expected = F.conv_transpose2d(spread, weight.double(), padding=0 if border else 1)
    assert relative_error(got, torch.where(mask > 0, expected, 0)) <= BOUNDS[dtype]


def test_bits_do_not_depend_on_threads_or_on_the_batch() -> None:
    x, weight, bias, grad = inputs((3, 130, 70, 21, 13), torch.float32)
    results = []
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 3, 7):
            torch.set_num_threads(threads)
            y, argmax = pooled(x, weight, bias)
            back = torch.ops.fastnst.conv3x3_backward(grad, weight, x, None, 21, 13, False)
            results.append((ops.conv3x3(x, weight, bias), y, argmax, back))
        few = ops.conv3x3(x[:1, :, :4, :4], weight, bias)  # one tile: the output channels are divided among threads
        torch.set_num_threads(1)
        assert torch.equal(few, ops.conv3x3(x[:1, :, :4, :4], weight, bias))
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))
    alone = torch.cat([ops.conv3x3(image[None], weight, bias) for image in x])
    assert torch.equal(results[0][0], alone)


@pytest.mark.parametrize("shape", [(0, 3, 4, 5, 5), (1, 3, 0, 5, 5), (1, 3, 4, 0, 5), (1, 0, 4, 5, 5)], ids=str)
def test_empty_inputs_give_empty_or_zero_results(shape: tuple[int, ...]) -> None:
    b, c, k, h, w = shape
    x, weight, bias = torch.ones(b, c, h, w), torch.ones(k, c, 3, 3), torch.ones(k)
    assert torch.equal(ops.conv3x3(x, weight, bias), torch.ones(b, k, h, w))
    back = torch.ops.fastnst.conv3x3_backward(torch.ones(b, k, h, w), weight, None, None, h, w, False)
    assert back.shape == x.shape
    assert not back.any()


def test_a_pixel_outside_all_windows_has_no_gradient_from_a_pool() -> None:
    grad, argmax = torch.empty(1, 4, 0, 0), torch.empty(1, 4, 0, 0, dtype=torch.uint8)
    back = torch.ops.fastnst.conv3x3_backward(grad, torch.ones(4, 2, 3, 3), None, argmax, 1, 1, False)
    assert torch.equal(back, torch.zeros(1, 2, 1, 1))


@every_padding
@pytest.mark.parametrize("relu", [False, True])
def test_gradcheck_twice(padding: str, relu: bool) -> None:
    x, weight, bias, _ = inputs((1, 2, 3, 5, 6), torch.float64)
    x.requires_grad_()

    def call(x: Tensor) -> Tensor:
        return ops.conv3x3(x, weight, bias, relu=relu, padding=padding)

    assert torch.autograd.gradcheck(call, x)
    assert torch.autograd.gradgradcheck(call, x)


def test_derivative_of_the_backward_with_mask_and_argmax() -> None:
    x, weight, bias, _ = inputs((1, 2, 3, 6, 5), torch.float64)
    y, argmax = pooled(x, weight, bias)
    grad = noise(tuple(y.shape), 8).requires_grad_()
    call = torch.ops.fastnst.conv3x3_backward
    for mask, border in ((x - 0.1, False), (None, True)):
        assert torch.autograd.gradcheck(lambda g, m=mask, b=border: call(g, weight, m, argmax, 6, 5, b), grad)


@every_dtype
@pytest.mark.sweep(4)
def test_opcheck(dtype: torch.dtype) -> None:
    x, weight, bias, grad = inputs((1, 5, 6, 7, 8), dtype)
    x.requires_grad_()
    for padding in ("replicate", "reflect,circular"):
        torch.library.opcheck(torch.ops.fastnst.conv3x3, (x, weight, bias, True, padding))
    torch.library.opcheck(torch.ops.fastnst.conv3x3_backward, (grad, weight, x.detach(), None, 7, 8, False))
    torch.library.opcheck(torch.ops.fastnst.conv3x3_out, (x.detach(), weight, bias, True, "zeros", 0, grad))
    y, argmax = pooled(x.detach(), weight, bias)
    torch.library.opcheck(torch.ops.fastnst.conv3x3_pool_out, (x.detach(), weight, bias, "zeros", 0, y, argmax))
    out = torch.empty_like(x.detach())
    torch.library.opcheck(torch.ops.fastnst.conv3x3_backward_out, (grad, weight, None, None, 7, 8, False, 0, out))


def test_compile_and_autocast() -> None:
    x, weight, bias, _ = inputs((1, 5, 6, 7, 8), torch.float32)
    compiled = torch.compile(lambda x: ops.conv3x3(x, weight, bias, relu=True) * 2, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(x), ops.conv3x3(x, weight, bias, relu=True) * 2)
    plain = ops.conv3x3(x, weight, bias)
    with torch.autocast("cpu"):
        inside = ops.conv3x3(x, weight, bias)
    assert inside.dtype == torch.float32
    assert torch.equal(inside, plain)


@every_padding
def test_the_reference_gives_the_same(padding: str) -> None:
    x, weight, bias, grad = inputs((2, 5, 6, 7, 8), torch.float64)
    y = ops.conv3x3(x, weight, bias, relu=True, padding=padding)
    plain = ops.reference.conv3x3(x, weight, bias, True, padding)
    torch.testing.assert_close(y, plain, rtol=1e-12, atol=1e-12)
    assert y.stride() == plain.stride()
    got = pooled(x, weight, bias, padding)
    outs = [torch.empty_like(t) for t in got]
    ops.reference.conv3x3_pool_out(x, weight, bias, padding, 0, *outs)
    torch.testing.assert_close(got[0], outs[0], rtol=1e-12, atol=1e-12)
    assert torch.equal(got[1], outs[1])
    for border in (False, True):
        back = torch.ops.fastnst.conv3x3_backward(grad, weight, None, None, 7, 8, border)
        expected = ops.reference.conv3x3_backward(grad, weight, None, None, 7, 8, border)
        torch.testing.assert_close(back, expected, rtol=1e-12, atol=1e-12)
        assert back.stride() == expected.stride()


GOOD: dict[str, Any] = {"x": torch.ones(1, 2, 3, 3), "weight": torch.ones(4, 2, 3, 3), "bias": torch.ones(4)}


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        ({"x": torch.ones(2, 3)}, ValueError, r"expected x of shape \(B, C, H, W\), got \(2, 3\)"),
        ({"x": 3}, TypeError, "expected x to be a torch.Tensor, got int"),
        ({"weight": None}, TypeError, "expected weight to be a torch.Tensor, got NoneType"),
        (
            {"weight": torch.ones(4, 3, 3, 3)},
            ValueError,
            r"expected weight of shape \(K, 2, 3, 3\), got \(4, 3, 3, 3\)",
        ),
        ({"weight": torch.ones(4, 2, 5, 5)}, ValueError, r"expected weight of shape \(K, 2, 3, 3\)"),
        ({"weight": torch.ones(4, 2, 3, 3).double()}, TypeError, "expected weight of dtype torch.float32 like x"),
        ({"bias": torch.ones(3)}, ValueError, r"expected bias of shape \(4,\), got \(3,\)"),
        ({"bias": [1.0]}, TypeError, "expected bias to be a torch.Tensor or None, got list"),
        (
            {"padding": "zero"},
            ValueError,
            r"unknown padding 'zero', did you mean zeros\? \(known: zeros, replicate, circular, reflect\)",
        ),
        ({"padding": "zeros,mirror"}, ValueError, "unknown padding 'mirror'"),
        ({"padding": "zeros,zeros,zeros"}, ValueError, "unknown padding 'zeros,zeros'"),
        ({"weight": torch.ones(4, 2, 3, 3, requires_grad=True)}, RuntimeError, "weight has no derivative here"),
    ],
)
def test_invalid_arguments_are_errors(change: dict[str, Any], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=f"conv3x3: {message}"):
        ops.conv3x3(**{**GOOD, **change})


@pytest.mark.parametrize("place", [1, 2], ids=["weight", "bias"])
def test_a_gradient_of_the_weights_is_refused_also_by_the_raw_ops(place: int) -> None:
    given = [torch.ones(1, 2, 4, 4), torch.ones(4, 2, 3, 3), torch.ones(4)]
    given[place].requires_grad_()
    with pytest.raises(RuntimeError, match=f"conv3x3: {('weight', 'bias')[place - 1]} has no derivative here; pass"):
        torch.ops.fastnst.conv3x3(*given, False, "zeros")
    if place == 1:
        with pytest.raises(RuntimeError, match="conv3x3: weight has no derivative here; pass"):
            torch.ops.fastnst.conv3x3_backward(torch.ones(1, 4, 4, 4), given[1], None, None, 4, 4, False)
    with torch.no_grad():
        torch.ops.fastnst.conv3x3(*given, False, "zeros")


def test_the_raw_ops_check_what_would_be_read_or_written_out_of_bounds() -> None:
    x, weight, bias = channels_last(torch.ones(1, 2, 4, 4)), torch.ones(4, 2, 3, 3), torch.ones(4)
    call = torch.ops.fastnst
    with pytest.raises(RuntimeError, match=r"expected out of shape \(1, 4, 4, 4\), got \(1, 3, 4, 4\)"):
        call.conv3x3_out(x, weight, bias, False, "zeros", 0, torch.ones(1, 3, 4, 4))
    with pytest.raises(RuntimeError, match="expected out channels_last"):
        call.conv3x3_out(x, weight, bias, False, "zeros", 0, torch.ones(1, 4, 4, 4))
    for padding in ("same", "zeros,same"):
        with pytest.raises(RuntimeError, match="expected padding zeros, replicate, circular or reflect, got same"):
            call.conv3x3(x, weight, bias, False, padding)
    grad = channels_last(torch.ones(1, 4, 4, 4))
    with pytest.raises(RuntimeError, match=r"expected grad of shape \(B, K, 5, 4\), got \(1, 4, 4, 4\)"):
        call.conv3x3_backward(grad, weight, None, None, 5, 4, False)
    with pytest.raises(RuntimeError, match=r"expected mask of shape \(1, 2, 4, 4\)"):
        call.conv3x3_backward(grad, weight, grad, None, 4, 4, False)
    with pytest.raises(RuntimeError, match="expected argmax of shape"):
        call.conv3x3_backward(grad, weight, None, grad, 8, 8, False)


CHECK = """
import json, sys, torch
sys.path.insert(0, sys.argv[1])
from test_conv3x3 import BOUNDS, SHAPES, exact, inputs, pooled
from op_cases import DTYPES, relative_error
from fastnst import ops
worst = dict.fromkeys(map(str, DTYPES), 0.0)
for dtype in DTYPES:
    for shape in SHAPES:
        x, weight, bias, grad = inputs(shape, dtype)
        expected = exact(x, weight, bias, "zeros")
        down = torch.nn.functional.conv_transpose2d(grad.double(), weight.double(), padding=1)
        back = torch.ops.fastnst.conv3x3_backward(grad, weight, None, None, *shape[3:], False)
        errors = [relative_error(ops.conv3x3(x, weight, bias), expected), relative_error(back, down)]
        if shape[3] > 1:
            most = torch.nn.functional.max_pool2d(expected.relu(), 2)
            errors.append(relative_error(pooled(x, weight, bias)[0], most))
        worst[str(dtype)] = max(worst[str(dtype)], *(error / BOUNDS[dtype] for error in errors))
json.dump([ops.kernels()["conv3x3"], worst], sys.stdout)
"""


@pytest.mark.parametrize("table", ["portable", "avx2", "avx512", "avx512_bf16", "neon"])
@pytest.mark.sweep(3)
def test_every_kernel_table_keeps_the_bounds(table: str) -> None:
    environment = {**os.environ, "FASTNST_CPU": table}
    command = [sys.executable, "-c", CHECK, str(Path(__file__).parent)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if f"FASTNST_CPU={table}: expected" in done.stderr:
        pytest.skip(f"this processor has no {table}")
    assert done.returncode == 0, done.stderr
    name, worst = json.loads(done.stdout)
    assert name == table
    assert {dtype: fraction for dtype, fraction in worst.items() if fraction > 1} == {}

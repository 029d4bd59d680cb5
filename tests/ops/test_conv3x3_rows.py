"""A range of rows of a convolution, as computed for the strips of an image."""

from __future__ import annotations

import pytest
import torch
from op_cases import channels_last, noise
from torch import Tensor

from fastnst import ops
from fastnst.network.fusion import tile_rows

HEIGHT, WIDTH, INPUTS, OUTPUTS = 27, 13, 5, 19
call = torch.ops.fastnst


def maps(dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:
    x = channels_last(noise((1, INPUTS, HEIGHT, WIDTH), 1).to(dtype))
    return x, noise((OUTPUTS, INPUTS, 3, 3), 2).to(dtype), noise((OUTPUTS,), 3).to(dtype)


def empty(channels: int, rows: int, dtype: torch.dtype, width: int = WIDTH) -> Tensor:
    return torch.full((1, rows, width, channels), 7).to(dtype).permute(0, 3, 1, 2)


@pytest.mark.parametrize("padding", ["zeros", "replicate", "reflect", "zeros,circular"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize(("first", "last"), [(0, 8), (8, 16), (4, 5), (20, 27), (0, 27)])
def test_rows_from_a_part_of_the_map_have_the_bits_of_the_whole(
    first: int, last: int, dtype: torch.dtype, padding: str
) -> None:
    """If they start where a tile does and the input includes the rows that a tile reads."""
    x, weight, bias = maps(dtype)
    whole = ops.conv3x3(x, weight, bias, relu=True, padding=padding)
    above, below = max(first - 1, 0), min(-(-last // 4) * 4 + 1, HEIGHT)
    out = empty(OUTPUTS, last - first, dtype)
    call.conv3x3_out(x[:, :, above:below], weight, bias, True, padding, first - above, out)
    assert torch.equal(out, whole[:, :, first:last])


@pytest.mark.parametrize(("width", "tile"), [(13, 4), (30, 6), (31, 4), (32, 4), (66, 6)])
def test_with_many_channels_rows_start_at_multiples_of_the_tile(width: int, tile: int) -> None:
    """Tiles have four or six rows by the width of the map, so that the strips of a map have its bits."""
    inputs, height, rows = 256, 30, 12
    assert tile_rows(inputs, width) == tile
    x, weight = channels_last(noise((1, inputs, height, width), 1).float()), noise((40, inputs, 3, 3), 2).float()
    whole = ops.conv3x3(x, weight, relu=True)
    for first in range(tile, height - rows, tile):
        out = empty(40, rows, torch.float32, width)
        call.conv3x3_out(x[:, :, first - 1 : first + rows + 1], weight, None, True, "zeros", 1, out)
        assert torch.equal(out, whole[:, :, first : first + rows])
    call.conv3x3_out(x[:, :, 10 - tile : 30], weight, None, True, "zeros", tile, out)
    assert not torch.equal(out, whole[:, :, 10:22])  # where no tile starts


@pytest.mark.parametrize(("first", "last"), [(0, 8), (8, 16), (20, 26)])
def test_pooled_rows_too(first: int, last: int) -> None:
    x, weight, bias = maps()
    sizes = {"rows": HEIGHT // 2, "dtype": torch.float32, "width": WIDTH // 2}
    whole, where = empty(OUTPUTS, **sizes), empty(OUTPUTS, **(sizes | {"dtype": torch.uint8}))
    call.conv3x3_pool_out(x, weight, bias, "zeros", 0, whole, where)
    above = max(first - 1, 0)
    some = sizes | {"rows": (last - first) // 2}
    out, argmax = empty(OUTPUTS, **some), empty(OUTPUTS, **(some | {"dtype": torch.uint8}))
    call.conv3x3_pool_out(x[:, :, above : last + 3], weight, bias, "zeros", first - above, out, argmax)
    assert torch.equal(out, whole[:, :, first // 2 : last // 2])
    assert torch.equal(argmax, where[:, :, first // 2 : last // 2])


@pytest.mark.parametrize("pooled", [False, True])
def test_gradients_of_parts_add_up_to_that_of_the_whole(pooled: bool) -> None:
    """Each part's gradient includes one more row on either side; rows outside the given gradient are zero."""
    dtype, height = torch.float64, 24
    weight = noise((OUTPUTS, INPUTS, 3, 3), 2)
    rows, width = (height // 2, WIDTH // 2) if pooled else (height, WIDTH)
    grad = channels_last(noise((1, OUTPUTS, rows, width), 4))
    argmax = channels_last((noise(grad.shape, 5).abs() * 3).clamp(0, 3).to(torch.uint8)) if pooled else None
    mask = channels_last(noise((1, INPUTS, height, WIDTH), 6))
    whole = ops.reference.conv3x3_backward(grad, weight, mask, argmax, height, WIDTH, False)
    found = torch.zeros_like(whole)
    half = 2 if pooled else 1
    for top, bottom in ((0, 8), (8, 12), (12, 24)):
        low, high = max(top - 1, 0), min(bottom + 1, height)
        some = slice(top // half, bottom // half)
        out = empty(INPUTS, high - low, dtype)
        part = None if argmax is None else argmax[:, :, some]
        given = (weight, mask[:, :, low:high], part, bottom - top, WIDTH, False, low - top)
        call.conv3x3_backward_out(grad[:, :, some], *given, out)
        expected = torch.empty_like(out)
        ops.reference.conv3x3_backward_out(grad[:, :, some], *given, expected)
        assert torch.allclose(out, expected, rtol=0, atol=1e-12)
        found[:, :, low:high] += out
    assert torch.allclose(found, whole, rtol=0, atol=1e-12)


@pytest.mark.parametrize("first", [0, 2, 21])
def test_the_reference_gives_the_same_rows(first: int) -> None:
    x, weight, bias = maps(torch.float64)
    ours, plain = empty(OUTPUTS, 6, torch.float64), empty(OUTPUTS, 6, torch.float64)
    call.conv3x3_out(x, weight, bias, False, "zeros", first, ours)
    ops.reference.conv3x3_out(x, weight, bias, False, "zeros", first, plain)
    assert torch.allclose(ours, plain, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("first", "rows"), [(-1, 4), (24, 4), (30, 1), (0, 28)])
def test_rows_outside_the_output_are_rejected(first: int, rows: int) -> None:
    x, weight, bias = maps()
    with pytest.raises(RuntimeError, match=rf"conv3x3: expected rows from 0 to 27, got {first} to {first + rows}"):
        call.conv3x3_out(x, weight, bias, False, "zeros", first, empty(OUTPUTS, rows, torch.float32))


@pytest.mark.parametrize(("first", "rows"), [(-2, 4), (25, 4), (-1, 30)])
@pytest.mark.parametrize("border", [False, True])
def test_a_gradient_reaches_one_row_beyond_its_map(first: int, rows: int, border: bool) -> None:
    _, weight, _ = maps()
    grad = channels_last(noise((1, OUTPUTS, HEIGHT, WIDTH), 4).to(weight.dtype))
    width, more = (WIDTH + 2, 1) if border else (WIDTH, 0)
    said = rf"expected rows from {more - 1} to {28 + more}, got {first + more} to {first + more + rows}"
    given, out = (weight, None, None, HEIGHT, WIDTH, border, first + more), empty(INPUTS, rows, torch.float32, width)
    with pytest.raises(RuntimeError, match=said):
        call.conv3x3_backward_out(grad, *given, out)

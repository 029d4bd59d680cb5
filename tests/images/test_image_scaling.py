from __future__ import annotations

import numpy as np
import pytest
import torch
from image_files import Array

from fastnst import images
from fastnst.errors import UsageError
from fastnst.images import scaling


def lanczos_matrix(old: int, new: int) -> Array:
    """Weights [new, old] of Lanczos with a = 3, widened when shrinking, truncated and normalized at the borders."""
    scale = old / new
    centers = (np.arange(new) + 0.5) * scale
    distance = (np.arange(old) + 0.5 - centers[:, None]) / max(scale, 1)
    weights: Array = np.where(np.abs(distance) < 3, np.sinc(distance) * np.sinc(distance / 3), 0)
    weights /= weights.sum(axis=1, keepdims=True)
    return weights


@pytest.mark.parametrize(("height", "width"), [(9, 13), (40, 60), (31, 7), (1, 1), (25, 34), (50, 68)])
def test_resize_is_lanczos_in_float(height: int, width: int) -> None:
    pixels = 0.25 + 0.5 * torch.rand(1, 3, 25, 34, dtype=torch.float64)
    expected = lanczos_matrix(25, height) @ pixels.numpy() @ lanczos_matrix(34, width).T
    resized = images.resize(pixels, height, width)
    assert resized.dtype == torch.float64
    assert np.abs(resized.numpy() - expected.clip(0, 1)).max() < 1e-6


def test_resize_keeps_a_constant_that_8_bits_cannot_hold() -> None:
    resized = images.resize(torch.full((1, 3, 20, 30), 0.1234567), 11, 47)
    assert (resized - 0.1234567).abs().max() < 1e-6


def test_resize_clamps_overshoot() -> None:
    edge = torch.zeros(1, 1, 8, 8)
    edge[..., 4:] = 1
    resized = images.resize(edge, 8, 64)
    assert resized.min() == 0
    assert resized.max() == 1


def test_resize_takes_batches_any_layout_and_gradients() -> None:
    pixels = torch.rand(2, 4, 9, 7, requires_grad=True)
    resized = images.resize(pixels, 5, 5)
    assert torch.equal(resized, images.resize(pixels.to(memory_format=torch.channels_last), 5, 5))
    assert torch.equal(resized[1:, 2:3], images.resize(pixels[1:, 2:3], 5, 5))
    assert not resized.requires_grad


@pytest.mark.parametrize("shape", [(3, 4, 4), (1, 3, 0, 4), (4, 4)])
def test_resize_rejects_other_shapes(shape: tuple[int, ...]) -> None:
    with pytest.raises(UsageError, match=r"\[B, C, H, W\]"):
        images.resize(torch.zeros(shape), 4, 4)


def test_resize_rejects_integers_and_empty_sides() -> None:
    with pytest.raises(UsageError, match="uint8"):
        images.resize(torch.zeros(1, 3, 4, 4, dtype=torch.uint8), 4, 4)
    with pytest.raises(UsageError, match="height"):
        images.resize(torch.zeros(1, 3, 4, 4), 0, 4)


@pytest.mark.parametrize(
    ("height", "width", "size", "expected"),
    [
        (480, 640, 320, (240, 320)),
        (640, 480, 320, (320, 240)),
        (3, 5, 10, (6, 10)),
        (5, 5, 7, (7, 7)),
        (1000, 2, 64, (64, 1)),
        (333, 500, 100, (67, 100)),
    ],
)
def test_fit_keeps_proportions(height: int, width: int, size: int, expected: tuple[int, int]) -> None:
    assert images.fit(height, width, size) == expected


@pytest.mark.parametrize("numbers", [(0, 4, 4), (4, 0, 4), (4, 4, 0)])
def test_fit_rejects_empty_sides(numbers: tuple[int, int, int]) -> None:
    with pytest.raises(UsageError, match="at least 1"):
        images.fit(*numbers)


def flat(value: float, height: int, width: int) -> torch.Tensor:
    return torch.full((1, 3, height, width), value)


def test_sheet_places_images_side_by_side_on_white() -> None:
    made = images.sheet([flat(0.25, 10, 20), flat(0.5, 40, 20)[0]], height=20, gap=3)
    expected = torch.ones(1, 3, 26, 3 + 40 + 3 + 10 + 3)
    expected[..., 3:23, 3:43] = 0.25
    expected[..., 3:23, 46:56] = 0.5
    assert torch.allclose(made, expected, atol=1e-6)


@pytest.mark.parametrize(("count", "columns", "rows"), [(1, None, 1), (5, None, 1), (9, None, 3), (7, 2, 4), (2, 8, 1)])
def test_sheet_has_rows_and_columns(count: int, columns: int | None, rows: int) -> None:
    made = images.sheet([flat(0.0, 8, 8)] * count, columns=columns, height=8, gap=2)
    across = -(-count // rows)
    assert made.shape == (1, 3, 2 + 10 * rows, 2 + 10 * across)
    assert int((made[0, 0] == 0).sum()) == 64 * count


def test_sheet_draws_labels_below_and_does_not_change_the_images() -> None:
    pictures = [flat(0.5, 40, 60), flat(0.5, 40, 60)]
    plain = images.sheet(pictures, height=80)
    labeled = images.sheet(pictures, height=80, labels=["content", "a name much too long for the picture above it"])
    assert labeled.shape[2] > plain.shape[2]
    assert torch.equal(labeled[..., :92, :], plain[..., :92, :])
    below = labeled[0, 0, 92:]
    for start in (12, 12 + 120 + 12):
        assert below[:, start : start + 120].min() < 0.3
    for outside in (below[:, :12], below[:, 132:144], below[:, 264:]):
        assert outside.min() == 1


def test_sheet_rejects_invalid_arguments() -> None:
    with pytest.raises(UsageError, match="at least one picture"):
        images.sheet([])
    with pytest.raises(UsageError, match="2 labels"):
        images.sheet([flat(0, 4, 4)] * 2, labels=["one"])
    with pytest.raises(UsageError, match=r"\(1, 1, 4, 4\)"):
        images.sheet([torch.zeros(1, 1, 4, 4)])
    with pytest.raises(UsageError, match="columns"):
        images.sheet([flat(0, 4, 4)], columns=0)


@pytest.mark.parametrize(("size", "wanted"), [((24, 32), (48, 64)), ((48, 64), (24, 32)), ((16, 48), (32, 80))])
def test_a_tile_is_resized_as_a_part_of_its_repetitions(size: tuple[int, int], wanted: tuple[int, int]) -> None:
    """The oracle is the resized picture of nine tiles, of which the middle one does not see the border."""
    tile = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0))
    whole = images.resize(tile.repeat(1, 1, 3, 3), 3 * wanted[0], 3 * wanted[1])
    middle = whole[:, :, wanted[0] : 2 * wanted[0], wanted[1] : 2 * wanted[1]]
    torch.testing.assert_close(scaling.resize_wrapped(tile, *wanted, (True, True)), middle, rtol=0, atol=1e-5)
    rows = images.resize(tile.repeat(1, 1, 3, 1), 3 * wanted[0], wanted[1])[:, :, wanted[0] : 2 * wanted[0]]
    torch.testing.assert_close(scaling.resize_wrapped(tile, *wanted, (True, False)), rows, rtol=0, atol=1e-5)
    plain = images.resize(tile, *wanted)
    assert torch.equal(scaling.resize_wrapped(tile, *wanted, (False, False)), plain)

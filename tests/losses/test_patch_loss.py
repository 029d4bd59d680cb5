"""The patch loss of CNNMRF, against unfolded patches and autograd in float64."""

from __future__ import annotations

import pytest
import torch
from support import joint_cases as plain
from support.style_cases import gradient
from torch import Tensor

from fastnst.errors import UsageError
from fastnst.losses.style import measure, patches, style_loss, value_and_gradient


def check(x: Tensor, styles: list[Tensor]) -> None:
    loss = style_loss("cnnmrf")
    targets = [measure(loss, style) for style in styles]
    target = loss.blend(targets, [1 / len(targets)] * len(targets))
    value, found = value_and_gradient(loss, x, target)
    free = x.clone().requires_grad_()
    exact = plain.nearest_patch(free, styles)
    (wanted,) = torch.autograd.grad(exact, free)
    assert value.item() == pytest.approx(exact.item(), rel=1e-11)
    assert (gradient(found, x) - wanted).norm() <= 1e-11 * wanted.norm()


@pytest.mark.parametrize("size", [(12, 9), (3, 3), (7, 12)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_it_is_the_distance_to_the_nearest_patches(size: tuple[int, int], layout: torch.memory_format) -> None:
    check(plain.smooth(5, *size).contiguous(memory_format=layout), [plain.smooth(5, 8, 11, seed=1)])


def test_of_several_styles_it_is_that_of_their_union(monkeypatch: pytest.MonkeyPatch) -> None:
    styles = [plain.smooth(5, 8, 11, seed=1), plain.smooth(5, 6, 5, seed=2), plain.smooth(5, 8, 11, seed=3)]
    check(plain.smooth(5, 12, 9), styles)
    with pytest.raises(UsageError, match="takes no style_weights"):
        style_loss("cnnmrf").blend([(style,) for style in styles], [0.5, 0.3, 0.2])


def test_blocks_do_not_change_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patches, "LIMIT", 200)
    monkeypatch.setattr(patches.best_matches, "__kwdefaults__", {"limit": 200})
    check(plain.smooth(5, 12, 9), [plain.smooth(5, 8, 11, seed=1), plain.smooth(5, 6, 5, seed=2)])


def test_masks_choose_patches_by_their_middle() -> None:
    loss, x, style = style_loss("cnnmrf"), plain.smooth(5, 9, 12), plain.smooth(5, 8, 12, seed=1)
    left, top = torch.zeros(1, 9, 12, dtype=torch.float64), torch.zeros(1, 8, 12, dtype=torch.float64)
    left[..., :6], top[:, :4] = 1 / 54, 1 / 48
    value, found = value_and_gradient(loss, x, measure(loss, style, top), left)
    # Middles at columns 1, 3, 5 of the image and rows 1, 3 of the style.
    own, others = x[..., :7].clone().requires_grad_(), style[:, :, :5]
    exact = plain.nearest_patch(own, [others])
    (wanted,) = torch.autograd.grad(exact, own)
    assert value.item() == pytest.approx(exact.item(), rel=1e-11)
    pulled = found.direct
    assert pulled is not None
    torch.testing.assert_close(pulled[..., :7], wanted, rtol=1e-9, atol=1e-12)
    assert not pulled[..., 7:].any()


def test_a_layer_smaller_than_a_patch_is_refused() -> None:
    loss = style_loss("cnnmrf")
    with pytest.raises(UsageError, match="needs layers of 3 x 3 positions, got 2 x 8"):
        measure(loss, plain.smooth(5, 2, 8))


@pytest.mark.parametrize("changes", [{"size": 0}, {"stride": 0}])
def test_sizes_below_one_are_refused(changes: dict[str, int]) -> None:
    with pytest.raises(UsageError, match=r"NearestPatch: expected (size|stride) of at least 1"):
        patches.NearestPatch(**changes)

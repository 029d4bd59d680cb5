from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.linalg
import torch
from support.style_cases import PLAIN, Brightest, Constant, Plain, Vector, evaluate, features, gradient, smooth
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from fastnst.errors import UsageError
from fastnst.losses.style import StyleLoss, measure, registry, style_loss, transport, value_and_gradient
from fastnst.losses.style.transport import Histogram, Sliced
from fastnst.losses.style.wasserstein import Wasserstein

NAMES = tuple(PLAIN)
MOMENTS, LINES = NAMES[:4], NAMES[4:]


def test_every_built_in_loss_has_its_definition_here() -> None:
    others = ("cnnmrf", "nnst", "strotss")  # in test_patch_loss.py and test_joint_losses.py
    assert tuple(registry.BUILT_IN) == (*NAMES, *others)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("name", NAMES)
def test_value_and_gradient_are_those_of_the_definition(name: str, layout: torch.memory_format) -> None:
    x, style = smooth(6, 5, 7), smooth(6, 8, 3, seed=1) * 2 + 1
    x = x.contiguous(memory_format=layout)
    value, found = evaluate(style_loss(name), x, style)
    free = x.clone().requires_grad_(True)
    exact = PLAIN[name](free, style)
    (wanted,) = torch.autograd.grad(exact, free)
    assert value == pytest.approx(exact.item(), rel=1e-10)
    assert (found - wanted).norm() <= 1e-10 * wanted.norm()


@pytest.mark.parametrize("name", NAMES)
def test_features_equal_to_the_style_have_zero_loss_and_zero_gradient(name: str) -> None:
    x = features()
    value, found = evaluate(style_loss(name), x, x)
    other = evaluate(style_loss(name), x, features(seed=1))
    assert 0 <= abs(value) <= 1e-10 * other[0]
    assert found.norm() <= 1e-6 * other[1].norm()


@pytest.mark.parametrize("name", NAMES)
def test_the_order_of_positions_does_not_matter(name: str) -> None:
    x, style = smooth(6, 5, 7), smooth(6, 8, 3, seed=1)
    order = torch.randperm(35, generator=torch.Generator().manual_seed(2))
    shuffled = x.flatten(2)[:, :, order].reshape(x.shape)
    value, found = evaluate(style_loss(name), x, style)
    again, moved = evaluate(style_loss(name), shuffled, style)
    assert again == pytest.approx(value, rel=1e-12)
    torch.testing.assert_close(moved.flatten(2), found.flatten(2)[:, :, order], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_equal_weights_equal_no_weights(name: str) -> None:
    x, style = smooth(6, 5, 7), smooth(6, 8, 3, seed=1)
    loss = style_loss(name)
    even = torch.full((1, 5, 7), 1 / 35, dtype=torch.float64)
    value, found = evaluate(loss, x, style)
    weighted, pulled = evaluate(loss, x, style, even)
    assert weighted == pytest.approx(value, rel=1e-10)
    torch.testing.assert_close(pulled, found, rtol=1e-8, atol=1e-10)
    targets = measure(loss, style), measure(loss, style, torch.full((1, 8, 3), 1 / 24))
    torch.testing.assert_close(targets[1], targets[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_a_mask_restricts_the_loss_to_the_positions_inside(name: str) -> None:
    x, style = smooth(6, 4, 6), smooth(6, 4, 8, seed=1)
    loss = style_loss(name)
    left, top = torch.zeros(1, 4, 6, dtype=torch.float64), torch.zeros(1, 4, 8, dtype=torch.float64)
    left[..., :3], top[:, :2] = 1 / 12, 1 / 16
    value, found = value_and_gradient(loss, x, measure(loss, style, top), left)
    pulled = gradient(found, x, left)
    alone, wanted = evaluate(loss, x[..., :3], style[:, :, :2])
    assert value.item() == pytest.approx(alone, rel=1e-10)
    torch.testing.assert_close(pulled[..., :3], wanted, rtol=1e-8, atol=1e-10)
    assert not pulled[..., 3:].any()


def test_unequal_weights_change_the_ranks() -> None:
    """In style and content, compared with numpy's interpolation between weighted ranks; weights may be zero."""
    x, style = smooth(4, 3, 5), smooth(4, 2, 6, seed=1)
    generator = torch.Generator().manual_seed(2)
    w, v = (torch.rand((1, *y.shape[2:]), dtype=torch.float64, generator=generator) for y in (x, style))
    w[0, 0, 0] = v[0, 0, 0] = 0
    w, v = w / w.sum(), v / v.sum()
    free = x.clone().requires_grad_(True)
    exact = free.new_zeros(())
    for line, given in zip(free.flatten(2)[0], style.flatten(2)[0], strict=True):
        values, order = given[v.flatten() > 0].sort()
        shares = v[v > 0][order]
        kept = np.interp((np.arange(11) + 0.5) / 11, (shares.cumsum(0) - shares / 2).numpy(), values.numpy())
        values, order = line.sort()
        shares = w.flatten()[order]
        ranks = (shares.cumsum(0) - shares / 2).numpy()
        wanted = torch.from_numpy(np.interp(ranks, (np.arange(11) + 0.5) / 11, kept))
        exact = exact + (shares * (values - wanted) ** 2).sum() / 4
    value, found = value_and_gradient(Histogram(), x, measure(Histogram(), style, v), w)
    assert value.item() == pytest.approx(exact.item(), rel=1e-10)
    (by_x,) = torch.autograd.grad(exact, free)
    torch.testing.assert_close(gradient(found, x, w), by_x, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_coarser_dtypes_are_close(name: str, weighted: bool, dtype: torch.dtype) -> None:
    x, style = features(16, 9, 8), features(16, 7, 9, seed=1)
    weight = torch.rand((1, 9, 8), dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    w = weight / weight.sum() if weighted else None
    loss = style_loss(name)
    # The rounded features in float64, so that only the computation differs.
    value, found = value_and_gradient(loss, x.to(dtype), measure(loss, style.to(dtype)), w)
    exact, wanted = evaluate(loss, x.to(dtype).double(), style.to(dtype).double(), w)
    assert value.dtype == torch.float32
    assert all(part is None or part.dtype == torch.float32 for part in (found.matrix, found.shift))
    assert found.direct is None or found.direct.dtype == dtype
    assert value.item() == pytest.approx(exact, rel=1e-4)
    # Ranks of equal features are arbitrary, and a direct gradient is rounded to the features' dtype.
    apart = (gradient(found, x.to(dtype), w) - wanted).norm() / wanted.norm()
    assert apart <= (1e-2 if dtype == torch.bfloat16 or name == "wasserstein" else 1e-3)


@pytest.mark.parametrize("name", NAMES)
def test_neither_inputs_nor_results_have_a_graph(name: str) -> None:
    x, style = features().requires_grad_(True), features(seed=1)
    loss = style_loss(name)
    outside = value_and_gradient(loss, x, measure(loss, style))
    with torch.no_grad():
        target = measure(loss, style)
        inside = value_and_gradient(loss, x, target)
    for value, found in (outside, inside):
        parts = [part for part in (value, found.matrix, found.shift, found.direct, *target) if part is not None]
        assert not any(part.requires_grad for part in parts)
        assert (found.direct is None) == (name in MOMENTS)
    torch.testing.assert_close(gradient(inside[1], x.detach()), gradient(outside[1], x.detach()), rtol=0, atol=0)
    assert x.grad is None


def test_a_moment_loss_has_a_symmetric_matrix_in_its_gradient() -> None:
    x = features()
    for name in MOMENTS:
        loss = style_loss(name)
        _, found = value_and_gradient(loss, x, measure(loss, features(seed=1)))
        assert found.matrix is not None
        assert found.matrix.equal(found.matrix.mT), name


def test_wasserstein_equals_the_distance_with_the_matrix_root_of_scipy() -> None:
    x, style = smooth(6, 5, 7), smooth(6, 8, 3, seed=1)
    k, wanted = (np.cov(y.flatten(2)[0].numpy(), bias=True) + 1e-4 * np.eye(6) for y in (x, style))
    root = scipy.linalg.sqrtm(wanted)
    apart = (x.mean((0, 2, 3)) - style.mean((0, 2, 3))).square().sum().item()
    bures = np.trace(k + wanted - 2 * scipy.linalg.sqrtm(root @ k @ root).real)
    assert evaluate(Wasserstein(), x, style)[0] == pytest.approx((apart + bures) / 6, rel=1e-10)


def test_wasserstein_of_shifted_and_stretched_features_is_known() -> None:
    """For F and 3 F + 2 means differ by 2 m + 2, and deviations by 2 along every axis of the covariance."""
    x = smooth(4, 20, 20)
    value, _ = evaluate(Wasserstein(ridge=1e-12), x, 3 * x + 2)
    apart = (2 * x.mean((0, 2, 3)) + 2).square().sum() + 4 * x.var((0, 2, 3), correction=0).sum()
    assert value == pytest.approx(apart.item() / 4, rel=1e-8)


def test_wasserstein_has_the_documented_derivative() -> None:
    loss = Wasserstein()
    target = measure(loss, smooth(4, 8, 3, seed=1))

    def of(mean: Tensor, moment: Tensor) -> Tensor:
        return loss.loss(mean, moment, target)

    f = smooth(4, 30).flatten(2)[0]
    mean, moment = f.mean(1)[None], (f @ f.T / 30)[None]
    assert torch.autograd.gradcheck(of, (mean.requires_grad_(), moment.requires_grad_()))


@pytest.mark.parametrize(("policy", "threads"), [("passive", 1), (" Passive", 1), ("active", 2), (None, 2)])
def test_wasserstein_gives_lapack_one_thread_where_waiting_threads_sleep(
    policy: str | None, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    if policy is None:
        monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    else:
        monkeypatch.setenv("OMP_WAIT_POLICY", policy)
    before, seen, eigh = torch.get_num_threads(), [], torch.linalg.eigh

    def watched(x: Tensor) -> Any:
        seen.append(torch.get_num_threads())
        if len(seen) == 3:
            raise torch.linalg.LinAlgError("does not converge")
        return eigh(x)

    monkeypatch.setattr(torch.linalg, "eigh", watched)
    torch.set_num_threads(2)
    try:
        evaluate(Wasserstein(), features(), features(seed=1))
        with pytest.raises(torch.linalg.LinAlgError):
            measure(Wasserstein(), features())
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert seen == [threads] * 3


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_wasserstein_takes_fewer_positions_than_channels_and_dead_features(dtype: torch.dtype) -> None:
    few, many = features(24, 2, 3, dtype=dtype), features(24, 9, 9, seed=1, dtype=dtype)
    dead = torch.zeros_like(few)
    for x, style in ((few, many), (many, few), (few, few), (dead, many), (many, dead), (dead, dead)):
        value, found = evaluate(Wasserstein(), x, style)
        assert np.isfinite(value)
        assert value >= -1e-5 * many.square().mean()
        assert found.isfinite().all()
    assert evaluate(Wasserstein(), few, few)[1].norm() <= 1e-2 * evaluate(Wasserstein(), few, many)[1].norm()


@pytest.mark.parametrize("name", NAMES)
def test_nan_features_give_a_nan_value(name: str) -> None:
    x = features()
    x[0, 2, 3, 3] = float("nan")
    assert np.isnan(evaluate(style_loss(name), x, features(seed=1))[0])


@pytest.mark.parametrize("name", ["mean_std", "gram_mean_std"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_constant_channels_have_a_gradient_only_through_their_mean(name: str, dtype: torch.dtype) -> None:
    x = torch.full((1, 3, 4, 4), 0.7, dtype=dtype)
    x[0, 1] = 0
    _, found = evaluate(style_loss(name), x, smooth(3, 6, 6).to(dtype))
    assert found.isfinite().all()
    assert (found - found.mean((2, 3), keepdim=True)).abs().max() <= 1e-6 * found.abs().max()


class Sorted(TorchDispatchMode):
    """Records the number of values that are sorted at a time, for a target or for a gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: dict[str, list[int]] = {"sort": [], "quantile_residual_": []}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.overloadpacket.__name__ in self.sizes:
            self.sizes[func.overloadpacket.__name__].append(args[0].numel())
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", LINES)
def test_lines_are_sorted_in_chunks(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    x, style, loss = smooth(6, 5, 7), smooth(6, 8, 3, seed=1), style_loss(name)
    whole = evaluate(loss, x, style)
    monkeypatch.setattr(transport, "CHUNK", 2 * 24)
    monkeypatch.setattr(transport, "PROJECTED", 3 * 35)
    monkeypatch.setattr(transport, "LINES", 1)
    with Sorted() as found:
        value, gradient = evaluate(loss, x, style)
    assert found.sizes["sort"] == [2 * 24] * 3
    # The axes are not projected; the op itself copies a few at a time.
    assert found.sizes["quantile_residual_"] == ([3 * 35] * 2 if name == "sliced" else [6 * 35])
    assert value == pytest.approx(whole[0], rel=1e-12)
    torch.testing.assert_close(gradient, whole[1], rtol=1e-12, atol=1e-14)


def test_weighted_means_of_half_precision_are_in_float32() -> None:
    x, loss = features(dtype=torch.bfloat16), style_loss("mean_std")
    weight = torch.rand((1, 5, 7), generator=torch.Generator().manual_seed(2))
    weight /= weight.sum()
    mean, _ = measure(loss, x, weight)
    torch.testing.assert_close(mean, (x.float() * weight).sum((2, 3)), rtol=1e-6, atol=1e-7)


def test_histogram_moves_features_to_the_styles_values() -> None:
    x, style = smooth(3, 5, 4), smooth(3, 5, 4, seed=1)
    _, found = evaluate(Histogram(), x, style)
    moved = x - found * x.numel() / 2
    torch.testing.assert_close(moved.flatten(2).sort(2).values, style.flatten(2).sort(2).values)


def test_sliced_directions_are_drawn_once_by_seed() -> None:
    x = smooth(5, 4, 4)
    assert Sliced().directions(x).equal(Sliced().directions(x))
    assert not Sliced(seed=1).directions(x).equal(Sliced().directions(x))
    assert Sliced().directions(x).shape == (1, 5, 5)
    assert Sliced(count=9).directions(x).norm(dim=2).sub(1).abs().max() < 1e-12


@pytest.mark.parametrize("name", NAMES)
def test_a_blend_lies_between_its_styles(name: str) -> None:
    loss, one, other = style_loss(name), smooth(6, 5, 7), smooth(6, 8, 3, seed=1) * 2 + 3
    targets = [measure(loss, y) for y in (one, other)]

    def distance(y: Tensor, part: float) -> float:
        return value_and_gradient(loss, y, loss.blend(targets, (1 - part, part)))[0].item()

    along = [0.0, 0.25, 0.5, 0.75, 1.0]
    from_one, from_other = [distance(one, part) for part in along], [distance(other, part) for part in along]
    assert from_one == sorted(from_one)
    assert from_other == sorted(from_other, reverse=True)
    # The 24 quantiles of one style are interpolated at the 35 ranks of the other, so they are not reproduced exactly.
    rounding = 5e-3 if name in LINES else 1e-10
    assert abs(from_one[0]) <= rounding * from_one[-1]
    assert abs(from_other[-1]) <= rounding * from_other[0]


def test_a_blend_of_moments_is_that_of_the_pooled_features() -> None:
    one, other = smooth(6, 5, 7), smooth(6, 5, 7, seed=1) + 2
    for loss in (Wasserstein(), Plain()):
        blended = loss.blend([measure(loss, one), measure(loss, other)], (0.5, 0.5))
        pooled = measure(loss, torch.cat([one, other], 3))
        torch.testing.assert_close(blended, pooled, rtol=1e-9, atol=1e-11)


def test_a_blend_of_lines_averages_quantiles() -> None:
    loss = Histogram()
    one, other = (torch.tensor([[[[1.0, 2.0, 3.0]]]]), torch.tensor([[[[30.0, 10.0, 20.0]]]]))
    (blended,) = loss.blend([measure(loss, one), measure(loss, other)], (0.25, 0.75))
    torch.testing.assert_close(blended, torch.tensor([[[7.75, 15.5, 23.25]]]))


def test_a_loss_of_the_moment_alone_has_no_shift() -> None:
    x, style = features(), features(seed=1)
    _, found = value_and_gradient(Plain(), x, measure(Plain(), style))
    assert found.shift is None
    assert found.direct is None


def test_a_custom_feature_loss_has_its_gradient_from_autograd() -> None:
    x, style = features(), features(seed=1)
    value, found = value_and_gradient(Brightest(), x, measure(Brightest(), style))
    assert value.item() == pytest.approx((x.amax((2, 3)) - style.amax((2, 3))).square().mean().item(), rel=1e-6)
    assert found.direct is not None
    assert found.direct.count_nonzero() == 5  # one position of every channel that is active


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (Constant(), "style loss Constant: its value has no derivative"),
        (Vector(), r"style loss Vector: expected a value of shape \(\), got \(1, 6\)"),
        (StyleLoss(), "expected a MomentLoss or a FeatureLoss as style loss, got StyleLoss"),
    ],
)
def test_the_error_of_a_loss_without_gradient_gives_the_reason(loss: StyleLoss, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        value_and_gradient(loss, features(), ())


@pytest.mark.parametrize("shape", [(2, 3, 4, 4), (1, 3)])
def test_features_of_another_shape_are_an_error(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"expected x of shape \(1, C, ...positions\)"):
        measure(style_loss("mean_std"), torch.ones(shape))


@pytest.mark.parametrize("name", ["mean_std", "sliced"])
def test_a_weight_of_another_size_is_an_error(name: str) -> None:
    with pytest.raises(ValueError, match=r"style loss: expected weight to broadcast to \(1, 5, 7\)"):
        measure(style_loss(name), features(), torch.ones(1, 5, 6))

"""Several styles, masks, other style losses and normalized gradients in the objective, against autograd in float64
through losses written from their definitions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from support.oracles import CAFFE_MEAN, matrix, pixels, plain_features, plain_network
from support.pictures import tiny
from support.style_cases import PLAIN
from torch import Tensor

from fastnst.config.settings import Settings
from fastnst.errors import UsageError
from fastnst.losses.style import MomentLoss, register, registry
from fastnst.network.vgg import VGG
from fastnst.objective.engines import FusedEngine, PlainEngine, WinogradEngine, winograd
from fastnst.objective.targets import Region, blend, resize_mask, style_targets
from fastnst.objective.whole import Objective
from fastnst.weights import Weights

SIZE, STYLE_SIZE = (22, 30), (27, 18)
ENGINES = pytest.mark.parametrize("kind", [PlainEngine, FusedEngine, WinogradEngine])
STRIDES = {"relu1_1": 1, "relu2_1": 2}


def exact(given: Weights, settings: Settings, kind: type[PlainEngine] = PlainEngine) -> VGG:
    winograd = kind is WinogradEngine
    return VGG(given, settings.layer_names(), dtype=torch.float64, winograd=winograd)


def painted(height: int, width: int, seed: int) -> Tensor:
    """A mask [1, 1, H, W] with soft edges and black parts."""
    coarse = torch.rand(1, 1, 4, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return F.interpolate((coarse - 0.3).clamp(0), (height, width), mode="bilinear")


def shrunk(mask: Tensor, stride: int) -> Tensor:
    """The mean of each block of pixels, [N]."""
    height, width = mask.shape[2] // stride, mask.shape[3] // stride
    blocks = mask[0, 0, : height * stride, : width * stride].reshape(height, stride, width, stride)
    return blocks.mean((1, 3)).flatten()


def close(found: Tensor, wanted: Tensor, error: float = 1e-11) -> None:
    assert wanted.norm() > 0
    assert (found - wanted).norm() <= error * wanted.norm()


@ENGINES
@pytest.mark.parametrize("form", ["gatys", "channels", "johnson"])
def test_guided_gram_matrices_and_content_by_region_are_their_definitions(
    form: str, kind: type[PlainEngine], bundled64: Weights
) -> None:
    """sum_i lambda_i share_i (sum (F T_i F^T - S T'_i S^T)^2) of Gatys et al. 2017, T of sum 1, in the forms' factors;
    content sum v (F - P)^2."""
    settings = tiny(style_form=form, style_weight=700.0, content_weight=3.0)
    network = exact(bundled64, settings, kind)
    content, image = pixels(*SIZE), pixels(*SIZE, seed=9)
    styles = [pixels(*STYLE_SIZE, seed=1), pixels(*STYLE_SIZE, seed=2)]
    masks, sources = [painted(*SIZE, seed) for seed in (3, 4)], [None, painted(*STYLE_SIZE, 5)]
    held, strengths = painted(*SIZE, 6), (1.5, 0.5)
    regions = [
        Region(style_targets(network, style, settings, source), mask, strength)
        for style, source, mask, strength in zip(styles, sources, masks, strengths, strict=True)
    ]
    losses, gradient = Objective(network, content, regions, settings, kind, held).value_and_grad(image)

    plain = plain_network(bundled64.convs, "vgg19", "relu2_1")
    image.requires_grad_(True)
    x, p = plain_features(plain, image, CAFFE_MEAN), plain_features(plain, content, CAFFE_MEAN)
    total = torch.zeros((), dtype=torch.float64)
    for style, source, mask, strength in zip(styles, sources, masks, strengths, strict=True):
        s = plain_features(plain, style, CAFFE_MEAN)
        for name, stride in STRIDES.items():
            f, t = matrix(x[name]), matrix(s[name])
            w = shrunk(mask, stride)
            v = torch.ones(t.shape[1], dtype=torch.float64) if source is None else shrunk(source, stride)
            c = f.shape[0]
            apart = (f * (w / w.sum())) @ f.T - (t * (v / v.sum())) @ t.T
            factor = {"gatys": 1 / (4 * c**2), "channels": 1 / c**4, "johnson": 1 / c**4}[form]
            total = total + 700.0 * strength * mask.mean() * factor * apart.square().sum()
    f, target = matrix(x["relu2_1"]), matrix(p["relu2_1"])
    total = total + 3.0 * ((f - target).square() * shrunk(held, 2)).sum() / f.numel()
    (wanted,) = torch.autograd.grad(total, image)
    assert losses.total == pytest.approx(total.item(), rel=1e-11)
    close(gradient, wanted)


@ENGINES
@pytest.mark.parametrize("name", PLAIN)
def test_other_style_losses_are_their_definitions(name: str, kind: type[PlainEngine], bundled64: Weights) -> None:
    settings = tiny(style_loss=name, style_weight=50.0, content_weight=0.0, content_layers=(("relu1_2", 1.0),))
    network = exact(bundled64, settings, kind)
    content, style, image = pixels(*SIZE), pixels(*STYLE_SIZE, seed=1), pixels(*SIZE, seed=2)
    targets = style_targets(network, style, settings)
    losses, gradient = Objective(network, content, targets, settings, kind).value_and_grad(image)

    plain = plain_network(bundled64.convs, "vgg19", "relu2_1")
    image.requires_grad_(True)
    x, s = plain_features(plain, image, CAFFE_MEAN), plain_features(plain, style, CAFFE_MEAN)
    total = 50.0 * sum(PLAIN[name](x[layer], s[layer].detach()) for layer in STRIDES)
    (wanted,) = torch.autograd.grad(total, image)
    # Two of the losses sort, and the order of equal values is arbitrary. Roots of eigenvalues near zero keep half
    # their digits.
    error = {"sliced": 1e-3, "histogram": 1e-3, "wasserstein": 1e-7}.get(name, 1e-9)
    assert losses.total == pytest.approx(total.item(), rel=error)
    close(gradient, wanted, error)


class Means(MomentLoss):
    """Of the mean alone: its gradient has no product with the features."""

    def target(self, mean: Tensor, moment: Tensor) -> tuple[Tensor, ...]:
        return (mean,)

    def loss(self, mean: Tensor, moment: Tensor, target: tuple[Tensor, ...]) -> Tensor:
        return (mean - target[0]).square().sum()


def weighted_mean(f: Tensor, w: Tensor) -> Tensor:
    return (f * w).sum(1)


def weighted_covariance(f: Tensor, w: Tensor) -> Tensor:
    centered = f - weighted_mean(f, w)[:, None]
    return (centered * w) @ centered.T / f.shape[0] ** 2


def weighted_mean_std(f: Tensor, w: Tensor) -> Tensor:
    mean = weighted_mean(f, w)
    variance = ((f - mean[:, None]).square() * w).sum(1)
    deviation = torch.where(variance > 0, variance, 1).sqrt() * (variance > 0)
    return torch.cat((mean, deviation)) / f.shape[0] ** 0.5


@ENGINES
@pytest.mark.parametrize(
    ("name", "statistic"),
    [("mean_std", weighted_mean_std), ("covariance", weighted_covariance), ("means", weighted_mean)],
)
def test_statistics_of_regions_are_their_definitions(
    name: str,
    statistic: Callable[[Tensor, Tensor], Tensor],
    kind: type[PlainEngine],
    bundled64: Weights,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """sum_i lambda_i share_i |t(F, T_i) - t(S, T'_i)|^2, each statistic t of positions that weigh T, of sum 1."""
    monkeypatch.setattr(registry, "_registered", {})
    register("means", Means)
    settings = tiny(style_loss=name, style_weight=50.0, content_weight=0.0, content_layers=(("relu1_2", 1.0),))
    network = exact(bundled64, settings, kind)
    content, style, image = pixels(*SIZE), pixels(*STYLE_SIZE, seed=1), pixels(*SIZE, seed=2)
    masks, source, strengths = [painted(*SIZE, seed) for seed in (3, 4)], painted(*STYLE_SIZE, 5), (1.5, 0.5)
    regions = [
        Region(style_targets(network, style, settings, source), mask, strength)
        for mask, strength in zip(masks, strengths, strict=True)
    ]
    losses, gradient = Objective(network, content, regions, settings, kind).value_and_grad(image)

    plain = plain_network(bundled64.convs, "vgg19", "relu2_1")
    image.requires_grad_(True)
    x, s = plain_features(plain, image, CAFFE_MEAN), plain_features(plain, style, CAFFE_MEAN)
    total = torch.zeros((), dtype=torch.float64)
    for mask, strength in zip(masks, strengths, strict=True):
        for layer, stride in STRIDES.items():
            w, v = shrunk(mask, stride), shrunk(source, stride)
            apart = statistic(matrix(x[layer]), w / w.sum()) - statistic(matrix(s[layer]), v / v.sum()).detach()
            total = total + 50.0 * strength * mask.mean() * apart.square().sum()
    (wanted,) = torch.autograd.grad(total, image)
    assert losses.total == pytest.approx(total.item(), rel=1e-9)
    close(gradient, wanted, 1e-9)


@ENGINES
def test_a_normalized_gradient_has_its_weight_as_1_norm(kind: type[PlainEngine], bundled64: Weights) -> None:
    """As in neural-style: the gradient of a loss by its layer, divided by its 1-norm and times its strength."""
    settings = tiny(normalize_gradients=True, style_weight=20.0, content_weight=7.0)
    network = exact(bundled64, settings, kind)
    content, style, image = pixels(*SIZE), pixels(*STYLE_SIZE, seed=1), pixels(*SIZE, seed=2)
    _, gradient = Objective(network, content, style_targets(network, style, settings), settings, kind).value_and_grad(
        image
    )
    plain = plain_network(bundled64.convs, "vgg19", "relu2_1")
    image.requires_grad_(True)
    x, s, p = (plain_features(plain, picture, CAFFE_MEAN) for picture in (image, style, content))
    wanted = torch.zeros_like(image)
    for layer in STRIDES:
        f, t = matrix(x[layer]), matrix(s[layer])
        terms = [(20.0, (f @ f.T / f.shape[1] - t @ t.T / t.shape[1]).square().sum())]
        if layer == "relu2_1":
            terms.append((7.0, (x[layer] - p[layer]).square().sum()))
        for strength, loss in terms:
            (by_features,) = torch.autograd.grad(loss, x[layer], retain_graph=True)
            wanted += torch.autograd.grad(
                x[layer], image, strength * by_features / by_features.abs().sum(), retain_graph=True
            )[0]
    close(gradient, wanted, 1e-9)


def test_a_mask_of_ones_changes_nothing(bundled64: Weights) -> None:
    settings = tiny()
    network = exact(bundled64, settings)
    content, style, image = pixels(*SIZE), pixels(*STYLE_SIZE, seed=1), pixels(*SIZE, seed=2)
    white, style_white = (torch.ones(1, 1, *size, dtype=torch.float64) for size in (SIZE, STYLE_SIZE))
    plain = Objective(network, content, style_targets(network, style, settings), settings).value_and_grad(image)
    regions = [Region(style_targets(network, style, settings, style_white), white)]
    masked = Objective(network, content, regions, settings, content_mask=white).value_and_grad(image)
    assert masked[0].total == pytest.approx(plain[0].total, rel=1e-12)
    close(masked[1], plain[1], 1e-12)


def test_a_mask_limits_the_gradient_of_its_style(bundled64: Weights) -> None:
    """A style on the left half has no gradient beyond the receptive field of the deepest layer."""
    settings = tiny(content_weight=0.0, style_layers=(("relu2_1", 1.0),))
    network = exact(bundled64, settings)
    image = pixels(24, 48, seed=2)
    left = torch.zeros(1, 1, 24, 48, dtype=torch.float64)
    left[..., :24] = 1
    regions = [Region(style_targets(network, pixels(*STYLE_SIZE, seed=1), settings), left)]
    _, gradient = Objective(network, image, regions, settings).value_and_grad(image)
    assert (gradient[..., :24] != 0).any()
    assert (gradient[..., 30:] == 0).all()


@pytest.mark.parametrize("name", ["gram", "covariance"])
def test_a_blend_has_the_gradient_of_the_weighted_sum(name: str, bundled64: Weights) -> None:
    """For Gram and covariance losses; other losses blend their targets."""
    settings = tiny(style_loss=name)
    network = exact(bundled64, settings)
    content, image = pixels(*SIZE), pixels(*SIZE, seed=2)
    targets = [style_targets(network, pixels(*STYLE_SIZE, seed=seed), settings) for seed in (3, 4, 5)]
    weights = (0.5, 0.3, 0.2)
    blended = Objective(network, content, blend(targets, weights, settings), settings).value_and_grad(image)[1]
    apart = sum(
        weight * Objective(network, content, target, settings).value_and_grad(image)[1]
        for target, weight in zip(targets, weights, strict=True)
    )
    close(blended, apart, 1e-12)


@pytest.mark.parametrize("name", ["gram", "wasserstein", "histogram"])
@pytest.mark.parametrize("padding", ["zeros", "replicate"])
def test_strips_add_their_rows_of_masks_and_losses(
    name: str, padding: str, bundled: Weights, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = tiny(style_loss=name, content_layers=(("relu1_1", 1.0),), padding=padding)
    network = VGG(bundled, settings.layer_names(), padding=padding, winograd=True)
    content, style, image = (pixels(37, 26, seed, torch.float32) for seed in range(3))
    mask = painted(37, 26, 3)
    gradients = []
    for rows in (8, 40):
        monkeypatch.setattr(winograd, "strip_rows", lambda _, rows=rows: rows)
        regions = [Region(style_targets(network, style, settings), mask)]
        objective = Objective(network, content, regions, settings, content_mask=mask)
        gradients.append(objective.value_and_grad(image)[1])
    assert gradients[0].abs().max() > 0
    assert torch.equal(*gradients)


def test_a_mask_is_averaged_over_the_pixels_of_a_position() -> None:
    mask = torch.arange(30.0).reshape(1, 1, 5, 6)
    wanted = torch.tensor([[(0 + 1 + 6 + 7) / 4, 5.5, 7.5], [15.5, 17.5, 19.5]])
    torch.testing.assert_close(resize_mask(mask, 2, 3)[0], wanted.double())


def test_a_mask_that_is_zero_at_a_layer_is_refused(bundled64: Weights) -> None:
    settings = tiny()
    network = exact(bundled64, settings)
    mask = torch.zeros(1, 1, 23, 31, dtype=torch.float64)
    mask[..., 22, 30] = 1  # in the row and the column that the first pool drops
    with pytest.raises(UsageError, match="a mask has no position above zero left at layer relu2_1"):
        style_targets(network, pixels(23, 31), settings, mask)


def test_losses_of_several_regions_are_summed_by_layer(bundled64: Weights) -> None:
    settings: Any = tiny()
    network = exact(bundled64, settings)
    targets = style_targets(network, pixels(*STYLE_SIZE, seed=1), settings)
    regions = [Region(targets, painted(*SIZE, seed)) for seed in (1, 2)]
    losses, _ = Objective(network, pixels(*SIZE), regions, settings).value_and_grad(pixels(*SIZE, seed=3))
    assert list(losses.style) == ["relu1_1", "relu2_1"]

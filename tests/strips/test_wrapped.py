"""Pictures that continue at their opposite side: loss and gradient, whole and in strips, against ordinary modules."""

from __future__ import annotations

import queue
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from threading import Barrier
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from support.oracles import pixels, plain_features, plain_network
from torch import Tensor, nn

from fastnst.config.settings import Settings
from fastnst.distributed import SINGLE, Ranks
from fastnst.errors import UsageError
from fastnst.losses.variation import add_variation, wrapped_variation
from fastnst.network.vgg import VGG
from fastnst.objective.targets import style_targets
from fastnst.objective.whole import Objective
from fastnst.strips.objective import StripObjective
from fastnst.strips.wrapped import WrappedSweep, margin_rows
from fastnst.weights import Weights

LAYERS: dict[str, Any] = {
    "content_layers": (("relu2_1", 1.0),),
    "style_layers": (("relu1_1", 0.2), ("pool2", 0.3), ("relu3_1", 0.2)),
}
PADDING = {"both": "circular", "x": "zeros,circular", "y": "circular,zeros"}


def variation(x: Tensor, kind: str, rows: bool, columns: bool) -> Tensor:
    """The definition, with the neighbors of the last row and column by ``torch.roll``."""
    right, down = x.roll(-1, 3) - x, x.roll(-1, 2) - x
    right = right if columns else right * (torch.arange(x.shape[3]) < x.shape[3] - 1)
    down = down if rows else down * (torch.arange(x.shape[2]) < x.shape[2] - 1)[:, None]
    if kind == "anisotropic":
        return (right.abs() + down.abs()).sum()
    energy = right.square() + down.square()
    return energy.sum() if kind == "squared" else energy.sqrt().sum()


@pytest.mark.parametrize("wraps", [(True, True), (False, True), (True, False)])
@pytest.mark.parametrize("kind", ["anisotropic", "isotropic", "squared"])
def test_variation_of_a_picture_that_continues(kind: str, wraps: tuple[bool, bool]) -> None:
    """In one piece, and in pieces of 256 rows from any row to any other."""
    x = pixels(300, 7).requires_grad_()
    exact = 0.3 * variation(x, kind, *wraps)
    (gradient,) = torch.autograd.grad(exact, x)
    value, found = wrapped_variation(x.detach(), kind, torch.tensor(0.3, dtype=torch.float64), wraps)
    exact = exact.detach()
    assert float(value) == pytest.approx(float(exact), rel=1e-12)
    torch.testing.assert_close(found, gradient, rtol=1e-12, atol=1e-12)
    total, summed = torch.zeros_like(x), 0.0
    for rows in (slice(0, 41), slice(41, 299), slice(299, 300)):
        summed += float(add_variation(total, x.detach(), kind, 0.3, rows, wraps))
    assert summed == pytest.approx(float(exact), rel=1e-12)
    torch.testing.assert_close(total, gradient, rtol=1e-12, atol=1e-12)


def padded_network(given: Weights, pooling: str, rows: bool, columns: bool) -> nn.Sequential:
    """Ordinary modules that pad each axis by itself."""
    network = plain_network(given.convs, "vgg19", "relu3_1", pooling)

    class Padded(nn.Module):
        def __init__(self, conv: nn.Module) -> None:
            super().__init__()
            self.conv = conv

        def forward(self, x: Tensor) -> Tensor:
            x = F.pad(x, (1, 1, 0, 0), mode="circular" if columns else "constant")
            x = F.pad(x, (0, 0, 1, 1), mode="circular" if rows else "constant")
            return F.conv2d(x, self.conv.weight, self.conv.bias)

    made = nn.Sequential()
    for name, module in network.named_children():
        made.add_module(name, Padded(module) if isinstance(module, nn.Conv2d) else module)
    return made


@pytest.mark.parametrize("pooling", ["max", "average"])
@pytest.mark.parametrize("winograd", [False, True])
@pytest.mark.parametrize(
    ("tileable", "size", "rows"),
    [("both", (80, 32), 16), ("both", (32, 80), 24), ("x", (48, 80), 16), ("x", (80, 48), 32), ("y", (80, 48), 16)],
)
@pytest.mark.sweep(3)
def test_whole_and_in_strips_as_by_ordinary_modules(
    bundled64: Weights, tileable: str, size: tuple[int, int], rows: int, winograd: bool, pooling: str
) -> None:
    settings = Settings(tileable=tileable, pooling=pooling, **LAYERS)
    network = VGG(
        bundled64,
        settings.layer_names(),
        padding=PADDING[tileable],
        pooling=pooling,
        dtype=torch.float64,
        winograd=winograd,
    )
    content, style, image = (pixels(*size, seed=seed) for seed in range(3))
    targets = style_targets(network, style, settings)
    whole = Objective(network, content, targets, settings).value_and_grad(image)
    strips = StripObjective(network, content, targets, settings, rows).value_and_grad(image)

    modules, x = padded_network(bundled64, pooling, *settings.wraps), image.clone().requires_grad_()
    wanted, found = plain_features(modules, content), plain_features(modules, x)
    total = settings.tv_weight * variation(x, settings.tv_kind, *settings.wraps)
    total = total + settings.content_weight * (found["relu2_1"] - wanted["relu2_1"]).square().mean()
    for name, weight in settings.style_layers:
        features = found[name].flatten(2)
        gram = features @ features.mT / features.shape[2]
        total = total + settings.style_weight * weight * (gram - targets[name][0]).square().sum() / len(gram[0]) ** 4
    (gradient,) = torch.autograd.grad(total, x)
    for losses, got in (whole, strips):
        assert losses.total == pytest.approx(float(total.detach()), rel=1e-12)
        assert float((got - gradient).norm() / gradient.norm()) <= 1e-12


def test_a_tile_that_is_shifted_has_a_shifted_gradient(bundled64: Weights) -> None:
    """No position is special; a shift by the deepest stride keeps the windows of pools."""
    settings = Settings(tileable="both", **LAYERS)
    network = VGG(bundled64, settings.layer_names(), padding="circular", dtype=torch.float64)
    content, image = pixels(32, 48, seed=0), pixels(32, 48, seed=2)
    targets = style_targets(network, pixels(32, 32, seed=1), settings)
    losses, gradient = Objective(network, content, targets, settings).value_and_grad(image)
    move = {"shifts": (8, 20), "dims": (2, 3)}
    shifted, moved = Objective(network, content.roll(**move), targets, settings).value_and_grad(image.roll(**move))
    assert shifted.total == pytest.approx(losses.total, rel=1e-12)
    assert float((moved - gradient.roll(**move)).norm() / gradient.norm()) <= 1e-12


def test_margins_cover_the_receptive_field(bundled64: Weights) -> None:
    """The rows that the gradient of one row of features reaches, by autograd, and in whole strides no more."""
    network = VGG(bundled64, ["relu3_1"], dtype=torch.float64)
    margin = margin_rows(network.chain)
    image = pixels(2 * margin + 12, 16).requires_grad_()
    (gradient,) = torch.autograd.grad(network.features(image)["relu3_1"][:, :, margin // 4 + 1].sum(), image)
    reached = gradient.abs().sum((0, 1, 3)).nonzero().flatten()
    above, below = margin + 4 - int(reached[0]), int(reached[-1]) - (margin + 7)
    assert margin - 4 < max(above, below) <= margin


@dataclass(frozen=True)
class Shared(Ranks):
    """Ranks that are threads of this process."""

    posts: dict[tuple[int, int], queue.Queue[Tensor]] = field(default_factory=dict)
    images: dict[int, Tensor] = field(default_factory=dict)
    meeting: Barrier = field(default_factory=lambda: Barrier(1))

    def send(self, x: Tensor, to: int) -> Callable[[], None]:
        self.posts[self.rank, to].put(x.clone())
        return lambda: None

    def receive(self, x: Tensor, source: int) -> None:
        x.copy_(self.posts[source, self.rank].get(timeout=60))

    def gather_bands(self, x: Tensor, bands: Sequence[tuple[int, int]]) -> None:
        self.images[self.rank] = x.clone()
        self.meeting.wait(60)
        for rank, (top, bottom) in enumerate(bands):
            x[:, :, top:bottom] = self.images[rank][:, :, top:bottom]


def test_ranks_share_a_tile(bundled64: Weights) -> None:
    """Each rank finds the gradient that one rank finds alone; together they pass each row of a layer once."""
    network = VGG(bundled64, ["relu2_1"], padding="circular", dtype=torch.float64)
    image, count = pixels(260, 16), 2
    posts: dict[tuple[int, int], queue.Queue[Tensor]] = {(a, 1 - a): queue.Queue() for a in range(count)}
    images, meeting = {}, Barrier(count)

    def sweep(ranks: Ranks) -> tuple[Tensor, list[int]]:
        strips = WrappedSweep(network, network.chain, ["relu2_1"], (260, 16), 64, ranks)
        rows, gradient = [], torch.zeros_like(image)
        strips.forward(image, lambda name, some, x: rows.extend(range(some.start, some.stop)))

        def add_gradients(name: str, some: slice, grad: Tensor, x: Tensor, relu: bool) -> None:
            grad += x if name == "relu2_1" else 0
            grad *= (x > 0) if relu else 1

        strips.backward(image, add_gradients, gradient)
        return gradient, rows

    alone, every_row = sweep(SINGLE)
    assert every_row == list(range(130))
    with ThreadPoolExecutor(count) as pool:
        found = list(pool.map(sweep, [Shared(rank, count, 60, posts, images, meeting) for rank in range(count)]))
    assert [row for _, rows in found for row in rows] == every_row
    for gradient, _ in found:
        torch.testing.assert_close(gradient, alone, rtol=1e-12, atol=1e-9)


def test_a_height_that_pools_shorten_is_refused(bundled64: Weights) -> None:
    network = VGG(bundled64, ["relu3_1"], padding="circular", dtype=torch.float64)
    with pytest.raises(UsageError, match="a picture of 42 rows: expected a multiple of 4, the stride of layer relu3_1"):
        WrappedSweep(network, network.chain, ["relu3_1"], (42, 32), 16)

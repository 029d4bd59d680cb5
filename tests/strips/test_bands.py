"""A picture split into bands: each row of each layer is computed once, by one rank, as without bands."""

from __future__ import annotations

import queue
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import pairwise

import pytest
import torch
from support.oracles import pixels
from torch import Tensor

from fastnst.distributed import LEAST_BAND, SINGLE, WORTH_WHILE, Ranks
from fastnst.network.fusion import FusionPlan
from fastnst.network.vgg import VGG
from fastnst.strips.halo import Halo
from fastnst.strips.layout import StripLayout, receptive_offset
from fastnst.strips.sweep import StripSweep
from fastnst.weights import Weights

Posts = dict[tuple[int, int], "queue.Queue[Tensor]"]
DEEP = ("relu1_1", "relu2_1", "relu3_1", "relu4_2", "relu5_1")
MIXED = ("conv1_1", "relu1_2", "pool1", "conv2_2", "pool2", "relu3_1")


@dataclass(frozen=True)
class Threads(Ranks):
    """Ranks that are threads of this process and send copies to each other."""

    posts: Posts = field(default_factory=dict)

    def send(self, x: Tensor, to: int) -> Callable[[], None]:
        self.posts[self.rank, to].put(x.clone())
        return lambda: None

    def receive(self, x: Tensor, source: int) -> None:
        x.copy_(self.posts[source, self.rank].get(timeout=60))


@dataclass
class SweepResult:
    """The gradient, and for each layer its rows in the order of the ranks, and their features."""

    gradient: Tensor
    rows: dict[str, list[int]]
    features: dict[str, Tensor]


def sweep(network: VGG, names: tuple[str, ...], image: Tensor, rows: int, count: int) -> SweepResult:
    """The gradient of half the sum of squares of all observed features, by ``count`` ranks."""
    posts: Posts = {(a, b): queue.Queue() for a in range(count) for b in (a - 1, a + 1)}

    def rank(number: int) -> tuple[Tensor, list[tuple[str, slice, Tensor]]]:
        ranks = Threads(number, count, 60, posts) if count > 1 else SINGLE
        strips = StripSweep(network, network.chain, names, (image.shape[2], image.shape[3]), rows, ranks)
        seen = []
        strips.forward(image, lambda name, some, x: seen.append((name, some, x.clone())))
        gradient = torch.zeros_like(image)

        def add_gradients(name: str, some: slice, grad: Tensor, x: Tensor, relu: bool) -> None:
            if name in names:
                grad += x
            if relu:
                grad *= x > 0

        strips.backward(image, add_gradients, gradient)
        outside = torch.ones(image.shape[2], dtype=torch.bool)
        outside[slice(*strips.band)] = False
        assert not gradient[:, :, outside].any()
        return gradient, seen

    with ThreadPoolExecutor(count) as pool:
        found = list(pool.map(rank, range(count)))
    order: dict[str, list[int]] = {name: [] for name in names}
    parts: dict[str, list[Tensor]] = {name: [] for name in names}
    for _, seen in found:
        for name, some, x in seen:
            order[name].extend(range(some.start, some.stop))
            parts[name].append(x)
    gradient = torch.stack([gradient for gradient, _ in found]).sum(0)
    return SweepResult(gradient, order, {name: torch.cat(some, 2) for name, some in parts.items()})


@pytest.mark.parametrize(
    ("height", "rows", "count", "names", "pooling", "padding", "dtype", "winograd"),
    [
        (641, 200, 4, DEEP, "max", "zeros", torch.float64, False),
        (390, 64, 3, DEEP, "max", "zeros", torch.float64, False),
        (700, 64, 2, DEEP, "max", "zeros", torch.float32, True),
        (517, 48, 3, DEEP, "max", "zeros", torch.float32, True),
        (390, 16, 3, DEEP, "max", "zeros", torch.float32, True),
        (517, 96, 3, ("relu5_1",), "max", "replicate", torch.float64, True),
        (517, 48, 3, DEEP, "max", "replicate_first", torch.float32, True),
        (517, 48, 3, MIXED, "average", "zeros", torch.float64, True),
        (390, 16, 3, MIXED, "max", "zeros", torch.float64, True),
        (641, 200, 4, (*MIXED, "relu4_1"), "l2", "replicate", torch.float64, False),
    ],
)
@pytest.mark.sweep(5)
def test_bands_give_the_features_and_gradient_of_the_whole_picture(
    bundled64: Weights,
    bundled: Weights,
    height: int,
    rows: int,
    count: int,
    names: tuple[str, ...],
    pooling: str,
    padding: str,
    dtype: torch.dtype,
    winograd: bool,
) -> None:
    given = bundled if dtype == torch.float32 else bundled64
    network = VGG(given, names, pooling=pooling, padding=padding, dtype=dtype, winograd=winograd)
    image = pixels(height, 16, seed=2, dtype=dtype)
    whole, shared = (sweep(network, names, image, rows, ranks) for ranks in (1, count))
    strides = {layer.name: layer.stride for layer in network.chain}
    assert shared.rows == {name: list(range(height // strides[name])) for name in names}
    for name in names:
        if winograd:
            assert torch.equal(shared.features[name], whole.features[name])
        else:  # PyTorch's convolutions may round a strip differently
            apart = (shared.features[name] - whole.features[name]).abs().max()
            assert float(apart) <= 1e-13 * float(whole.features[name].max())
    within = 1e-6 if dtype == torch.float32 else 1e-14
    assert float((shared.gradient - whole.gradient).norm() / whole.gradient.norm()) <= within


@pytest.mark.parametrize("winograd", [False, True])
@pytest.mark.parametrize("observed", [("relu5_1",), MIXED])
@pytest.mark.parametrize("width", [96, 512, 4096])
def test_a_band_computes_all_rows_of_its_halo(
    bundled: Weights, winograd: bool, observed: tuple[str, ...], width: int
) -> None:
    """Wherever a band of the least height begins; otherwise rows would have to come from a third band."""
    network = VGG(bundled, observed, winograd=winograd)
    plan = FusionPlan(network.chain, frozenset(observed), network.pooling, winograd)
    for top in (*range(128, 192), 1000, 1001, 1023, 1024):
        band = StripLayout(plan, (4096, width), 4096, (top, top + LEAST_BAND))
        assert all(
            band.ends[0][i] <= rows.start and rows.stop <= band.ends[-1][i] for i, rows in band.halo_above.items()
        )


def test_a_halo_has_the_rows_that_two_bands_share() -> None:
    halo = Halo({0: slice(4, 9), 3: slice(2, 2)}, {0: (3, 5), 3: (8, 2)}, torch.zeros((), dtype=torch.float64))
    assert halo.flat.numel() == 5 * 3 * 5
    x = pixels(12, 5, seed=0)
    for first, rows in ((0, slice(0, 6)), (6, slice(6, 7)), (7, slice(7, 12))):
        halo.copy_from(0, first, x[:, :, rows])
    assert torch.equal(halo.maps[0], x[:, :, 4:9])
    halo.add(0, 8, x[:, :, 8:])
    assert torch.equal(halo.maps[0][:, :, 4], 2 * x[:, :, 8])
    below = torch.zeros(1, 3, 3, 5, dtype=torch.float64)
    halo.add_to(below, 0, 7)
    assert torch.equal(below, torch.stack((x[:, :, 7], 2 * x[:, :, 8], 0 * x[:, :, 8]), 2))
    assert [halo.is_complete(ends) for ends in ([8, 0, 0, 2], [9, 0, 0, 1], [9, 0, 0, 2])] == [False, False, True]


def test_the_receptive_offset_grows_with_the_depth(bundled: Weights) -> None:
    """By one row for each 3 x 3 convolution, or by up to the rows of a tile."""
    shallow, deep = (VGG(bundled, [name]) for name in ("relu1_1", "relu5_1"))
    assert receptive_offset(shallow, shallow.chain, 512) == 1
    ours = VGG(bundled, ["relu5_1"], winograd=True)
    assert 16 < receptive_offset(deep, deep.chain, 512) < receptive_offset(ours, ours.chain, 512) < 256


@pytest.mark.parametrize(("height", "offset"), [(4001, 150.0), (2048, 60.0), (1536, 150.0), (1536, 20.5)])
def test_ranks_have_equal_work(height: int, offset: float) -> None:
    for count in (2, 3, 5, 8):
        ranks = Ranks(0, count)
        bands = ranks.bands(height, offset)
        assert [bands[0][0], bands[-1][1]] == [0, height]
        assert all(a[1] == b[0] for a, b in pairwise(bands))
        assert min(bottom - top for top, bottom in bands) >= LEAST_BAND
        work = ranks.work(height, offset)
        if height / count - offset >= LEAST_BAND:
            assert sum(work) == pytest.approx(height)
            assert max(work) - min(work) <= 2
        assert ranks.splits(height, offset) == (max(work) <= WORTH_WHILE * height)


def test_small_pictures_are_not_split() -> None:
    assert not SINGLE.splits(10**6, 150)
    assert Ranks(0, 2).splits(512, 150)
    assert not Ranks(0, 2).splits(300, 150)
    assert not Ranks(0, 8).splits(1023, 50)

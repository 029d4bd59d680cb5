"""A picture shared out in bands: each row of each layer is made once, by one rank, as in the picture whole."""

from __future__ import annotations

import queue
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import pairwise

import pytest
import torch
from loop_oracles import pixels
from torch import Tensor

from fastnst.cuts import Cuts, lag
from fastnst.edges import Edge
from fastnst.ranks import ALONE, LEAST_BAND, WORTH_WHILE, Ranks
from fastnst.strips import Strips
from fastnst.vgg import VGG
from fastnst.weights import Weights

Posts = dict[tuple[int, int], "queue.Queue[Tensor]"]
DEEP = ("relu1_1", "relu2_1", "relu3_1", "relu4_2", "relu5_1")
MIXED = ("conv1_1", "relu1_2", "pool1", "conv2_2", "pool2", "relu3_1")


@dataclass(frozen=True)
class Threads(Ranks):
    """Ranks that are threads of this process and send each other copies."""

    posts: Posts = field(default_factory=dict)

    def send(self, x: Tensor, to: int) -> Callable[[], None]:
        self.posts[self.rank, to].put(x.clone())
        return lambda: None

    def receive(self, x: Tensor, source: int) -> None:
        x.copy_(self.posts[source, self.rank].get(timeout=60))


@dataclass
class Swept:
    """The gradient, and for each layer the rows shown, in the order of the ranks, and their features."""

    gradient: Tensor
    rows: dict[str, list[int]]
    features: dict[str, Tensor]


def sweep(network: VGG, names: tuple[str, ...], image: Tensor, rows: int, count: int) -> Swept:
    """A sum of squares of all features looked at, by ``count`` ranks."""
    posts: Posts = {(a, b): queue.Queue() for a in range(count) for b in (a - 1, a + 1)}

    def rank(number: int) -> tuple[Tensor, list[tuple[str, slice, Tensor]]]:
        ranks = Threads(number, count, 60, posts) if count > 1 else ALONE
        strips = Strips(network, network.chain, names, (image.shape[2], image.shape[3]), rows, ranks)
        seen = []
        strips.up(image, lambda name, some, x: seen.append((name, some, x.clone())))
        gradient = torch.zeros_like(image)

        def lay(name: str, some: slice, grad: Tensor, x: Tensor, relu: bool) -> None:
            if name in names:
                grad += x
            if relu:
                grad *= x > 0

        strips.down(image, lay, gradient)
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
    return Swept(gradient, order, {name: torch.cat(some, 2) for name, some in parts.items()})


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
def test_bands_are_the_picture_whole(
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
        else:  # PyTorch's convolutions may round a strip otherwise
            apart = (shared.features[name] - whole.features[name]).abs().max()
            assert float(apart) <= 1e-13 * float(whole.features[name].max())
    within = 1e-6 if dtype == torch.float32 else 1e-14
    assert float((shared.gradient - whole.gradient).norm() / whole.gradient.norm()) <= within


@pytest.mark.parametrize("winograd", [False, True])
@pytest.mark.parametrize("looked_at", [("relu5_1",), MIXED])
def test_what_a_band_lends_is_its_own(bundled: Weights, winograd: bool, looked_at: tuple[str, ...]) -> None:
    """However a band of the least height lies: else its rows would have to come from the band after the next."""
    network = VGG(bundled, looked_at, winograd=winograd)
    for top in (*range(128, 192), 1000, 1001, 1023, 1024):
        band = Cuts(network, network.chain, looked_at, 4096, 4096, (top, top + LEAST_BAND))
        assert all(band.ends[0][i] <= rows.start and rows.stop <= band.ends[-1][i] for i, rows in band.above.items())


def test_an_edge_keeps_what_two_bands_share() -> None:
    edge = Edge({0: slice(4, 9), 3: slice(2, 2)}, {0: (3, 5), 3: (8, 2)}, torch.zeros((), dtype=torch.float64))
    assert edge.flat.numel() == 5 * 3 * 5
    x = pixels(12, 5, seed=0)
    for first, rows in ((0, slice(0, 6)), (6, slice(6, 7)), (7, slice(7, 12))):
        edge.take(0, first, x[:, :, rows])
    assert torch.equal(edge.maps[0], x[:, :, 4:9])
    edge.add(0, 8, x[:, :, 8:])
    assert torch.equal(edge.maps[0][:, :, 4], 2 * x[:, :, 8])
    below = torch.zeros(1, 3, 3, 5, dtype=torch.float64)
    edge.add_to(below, 0, 7)
    assert torch.equal(below, torch.stack((x[:, :, 7], 2 * x[:, :, 8], 0 * x[:, :, 8]), 2))
    assert [edge.reached(ends) for ends in ([8, 0, 0, 2], [9, 0, 0, 1], [9, 0, 0, 2])] == [False, False, True]


def test_work_begins_lower_the_deeper_the_layer(bundled: Weights) -> None:
    """One row lower with each convolution: 3 x 3 windows. Tiles of four rows make that four at most."""
    shallow, deep = (VGG(bundled, [name]) for name in ("relu1_1", "relu5_1"))
    assert lag(shallow, shallow.chain) == 1
    ours = VGG(bundled, ["relu5_1"], winograd=True)
    assert 16 < lag(deep, deep.chain) < lag(ours, ours.chain) < 256


@pytest.mark.parametrize(("height", "behind"), [(4001, 150.0), (2048, 60.0), (1024, 150.0), (1024, 20.5)])
def test_ranks_have_as_much_work(height: int, behind: float) -> None:
    for count in (2, 3, 5, 8):
        ranks = Ranks(0, count)
        bands = ranks.bands(height, behind)
        assert [bands[0][0], bands[-1][1]] == [0, height]
        assert all(a[1] == b[0] for a, b in pairwise(bands))
        assert min(bottom - top for top, bottom in bands) >= LEAST_BAND
        work = ranks.work(height, behind)
        if height / count - behind >= LEAST_BAND:
            assert sum(work) == pytest.approx(height)
            assert max(work) - min(work) <= 2
        assert ranks.shares(height, behind) == (max(work) <= WORTH_WHILE * height)


def test_small_pictures_are_not_shared_out() -> None:
    assert not ALONE.shares(10**6, 150)
    assert Ranks(0, 2).shares(512, 150)
    assert not Ranks(0, 2).shares(300, 150)
    assert not Ranks(0, 8).shares(1023, 50)

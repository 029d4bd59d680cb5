"""Loss and gradient in strips, against those of the whole picture and against autograd."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from support.oracles import CONTENT, STYLE, evaluate, pixels, plain_features, plain_network
from torch import Tensor

from fastnst import Settings, spill
from fastnst.errors import FastnstError, UsageError
from fastnst.losses.variation import add_variation, weighted_variation
from fastnst.network.vgg import VGG
from fastnst.objective.arena import Arena
from fastnst.objective.targets import Region, style_targets
from fastnst.objective.whole import Objective
from fastnst.spill import SpillBuffer
from fastnst.strips.objective import StripObjective, strip_targets
from fastnst.strips.sweep import StripSweep
from fastnst.weights import Weights

MIDDLE: dict[str, Any] = {
    "content_layers": (("relu3_2", 1.0),),
    "style_layers": (("relu1_1", 0.2), ("relu2_1", 0.2), ("relu3_1", 0.2)),
}
EVERYWHERE: dict[str, Any] = {
    "content_layers": (("conv2_1", 1.0), ("relu3_1", 0.5)),
    "style_layers": (
        ("conv1_1", 0.2),
        ("relu1_2", 0.2),
        ("pool1", 0.3),
        ("conv2_2", 0.1),
        ("relu2_2", 0.1),
        ("pool2", 1),
    ),
}


def network_for(given: Weights, settings: Settings, dtype: torch.dtype, winograd: bool = False) -> VGG:
    return VGG(
        given,
        settings.layer_names(),
        pooling=settings.pooling,
        padding=settings.padding,
        dtype=dtype,
        winograd=winograd,
    )


def both(
    given: Weights,
    settings: Settings,
    size: tuple[int, int],
    rows: int,
    dtype: torch.dtype = torch.float64,
    winograd: bool = False,
    masks: bool = False,
) -> tuple[tuple[Any, Tensor], tuple[Any, Tensor]]:
    """Losses and gradient of one image, as a whole and in strips."""
    network = network_for(given, settings, dtype, winograd)
    content, image = pixels(*size, seed=0, dtype=dtype), pixels(*size, seed=2, dtype=dtype)
    styles = [pixels(61, 54, seed=1, dtype=dtype), pixels(50, 43, seed=3, dtype=dtype)][: 2 if masks else 1]
    regions: list[list[Region]] = []
    left = torch.linspace(1, 0, size[1], dtype=torch.float64).expand(1, 1, *size)
    for measure in (
        lambda x: style_targets(network, x, settings),
        lambda x: strip_targets(network, x, settings, 24),
    ):
        given_masks = (left, 1 - left) if masks else (None,)
        regions.append([Region(measure(x), mask) for x, mask in zip(styles, given_masks, strict=True)])
    content_mask = pixels(*size, seed=5)[:, :1] / 255 if masks else None
    whole = Objective(network, content, regions[0], settings, content_mask=content_mask)
    tiled = StripObjective(network, content, regions[1], settings, rows, content_mask)
    assert tiled.strips.count == -(-max(size) // rows)
    return whole.value_and_grad(image), tiled.value_and_grad(image)


def assert_close(found: tuple[tuple[Any, Tensor], tuple[Any, Tensor]], within: float) -> None:
    (losses, gradient), (in_strips, strips_gradient) = found
    assert in_strips.total == pytest.approx(losses.total, rel=within)
    assert dict(in_strips.style) == pytest.approx(dict(losses.style), rel=100 * within)
    assert dict(in_strips.content) == pytest.approx(dict(losses.content), rel=100 * within)
    assert in_strips.tv == pytest.approx(losses.tv, rel=within)
    assert float((strips_gradient - gradient).norm() / gradient.norm()) <= within


@pytest.mark.parametrize(("size", "rows"), [((96, 41), 32), ((38, 97), 16), ((103, 35), 37), ((40, 51), 39)])
@pytest.mark.parametrize("pooling", ["max", "average", "l2"])
@pytest.mark.parametrize("padding", ["zeros", "replicate", "replicate_first"])
@pytest.mark.sweep(5)
def test_in_float64_loss_and_gradient_are_those_of_the_whole_picture(
    bundled64: Weights, size: tuple[int, int], rows: int, pooling: str, padding: str
) -> None:
    settings = Settings.from_preset(pooling=pooling, padding=padding, **MIDDLE)
    assert_close(both(bundled64, settings, size, rows), 1e-12)


@pytest.mark.parametrize("winograd", [False, True])
@pytest.mark.parametrize(
    "change",
    [
        EVERYWHERE,
        EVERYWHERE | {"pooling": "average"},
        EVERYWHERE | {"pooling": "l2", "padding": "replicate"},
        MIDDLE | {"normalize_gradients": True},
        MIDDLE | {"style_loss": "covariance"},
        MIDDLE | {"style_loss": "mean_std"},
        MIDDLE | {"style_loss": "gram_mean_std", "tv_kind": "isotropic"},
        MIDDLE | {"style_loss": "sliced", "tv_kind": "nine_point"},
        MIDDLE | {"style_loss": "histogram", "tv_kind": "squared"},
        MIDDLE | {"content_weight": 0.0},
        MIDDLE | {"style_weight": 0.0},
    ],
)
@pytest.mark.sweep(5)
def test_every_loss_and_layer(bundled64: Weights, winograd: bool, change: dict[str, Any]) -> None:
    for size in ((101, 42), (42, 101)):
        assert_close(both(bundled64, Settings.from_preset(**change), size, 32, winograd=winograd), 1e-12)


def test_wasserstein(bundled64: Weights) -> None:
    """Roots of eigenvalues: those that are zero except for rounding keep half their digits."""
    shallow = {"style_layers": (("relu1_1", 0.5), ("relu2_1", 0.5)), "style_loss": "wasserstein"}
    assert_close(both(bundled64, Settings.from_preset(**MIDDLE | shallow), (101, 42), 32), 1e-7)


@pytest.mark.parametrize("style_loss", ["gram", "mean_std", "histogram"])
def test_masks(bundled64: Weights, style_loss: str) -> None:
    settings = Settings.from_preset(style_loss=style_loss, **MIDDLE)
    assert_close(both(bundled64, settings, (101, 42), 32, masks=True), 1e-12)
    # Equal features are ranked in the order of their positions, which have different weights.
    assert_close(both(bundled64, settings, (42, 101), 32, masks=True), 1e-4 if style_loss == "histogram" else 1e-12)


@pytest.mark.parametrize("preset", ["default", "gatys", "johnson", "spst", "tutorial"])
@pytest.mark.sweep(5)
def test_the_layers_of_the_presets(bundled64: Weights, vgg16_64: Weights, preset: str) -> None:
    settings = Settings.from_preset(preset)
    given = vgg16_64 if settings.arch == "vgg16" else bundled64
    assert_close(both(given, settings, (150, 33), 64), 1e-12)


@pytest.mark.parametrize("winograd", [False, True])
def test_in_float32_the_features_have_the_same_bits(bundled: Weights, winograd: bool) -> None:
    """Otherwise some would change their sign, which changes the gradient a hundred times more.

    Those of a wide picture are the bits of its transpose: see above.
    """
    assert_close(both(bundled, Settings(), (300, 40), 70, torch.float32, winograd), 2e-6)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """The size of each map that is allocated and of each tensor that is spilled."""
    sizes: list[tuple[Any, ...]] = []
    empty, put = Arena.empty, SpillBuffer.put

    def counted_empty(self: Arena, *size: Any) -> Tensor:
        sizes.append(size)
        return empty(self, *size)

    def counted_put(self: SpillBuffer, x: Tensor) -> SpillBuffer.Slot:
        sizes.append(tuple(x.shape))
        return put(self, x)

    monkeypatch.setattr(Arena, "empty", counted_empty)
    monkeypatch.setattr(SpillBuffer, "put", counted_put)
    return sizes


@pytest.mark.parametrize("winograd", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_a_wide_picture_is_computed_as_its_transpose_is(
    bundled: Weights, counted: list[tuple[Any, ...]], winograd: bool, masked: bool
) -> None:
    """With transposed kernels: the same strips, maps and spilled rows, and the same bits."""
    settings = Settings.from_preset(**MIDDLE)
    network = network_for(bundled, settings, torch.float32, winograd)
    tall = [pixels(200, 36, seed=seed, dtype=torch.float32) for seed in range(4)]
    found = []
    for given, pictures in ((network, tall), (network.transposed(), [x.mT.contiguous() for x in tall])):
        content, image, style, painted = pictures
        mask = painted[:, :1] / 255 if masked else None
        counted.clear()
        regions = [Region(strip_targets(given, style, settings, 48, mask), mask)]
        objective = StripObjective(given, content, regions, settings, 48, mask)
        losses, gradient = objective.value_and_grad(image)
        assert objective.strips.count == 5
        found.append((losses, gradient, list(counted)))
    (losses, gradient, sizes), (other, turned, others) = found
    assert len(sizes) > 5
    assert sizes == others
    assert losses == other
    assert torch.equal(gradient, turned.mT)


@pytest.mark.parametrize("winograd", [False, True])
def test_a_wide_picture_in_float32(bundled: Weights, winograd: bool) -> None:
    """Its features have the bits of the transposed picture, so that some masks differ from the whole picture's."""
    (losses, gradient), (in_strips, other) = both(bundled, Settings(), (200, 600), 70, torch.float32, winograd)
    assert in_strips.total == pytest.approx(losses.total, rel=1e-6)
    assert float((other - gradient).norm() / gradient.norm()) <= 1e-3


@pytest.mark.parametrize("size", [(101, 42), (42, 101)])
def test_against_ordinary_modules_and_autograd(bundled64: Weights, size: tuple[int, int]) -> None:
    settings = Settings.from_preset(**MIDDLE)
    image = pixels(*size, seed=2)
    plain = plain_network(bundled64.convs, "vgg19", "relu3_2")
    terms = [(settings.style_weight * 0.2, name, STYLE["channels"]) for name in ("relu1_1", "relu2_1", "relu3_1")]
    terms.append((settings.content_weight, "relu3_2", CONTENT["mean"]))
    total, _, exact = evaluate(
        lambda x: plain_features(plain, x, bundled64.mean, bundled64.scale),
        image,
        pixels(*size, seed=0),
        pixels(61, 54, seed=1),
        terms,
        [(settings.tv_weight, settings.tv_kind)],
    )
    _, (losses, gradient) = both(bundled64, settings, size, 32)
    assert losses.total == pytest.approx(total, rel=1e-12)
    assert float((gradient - exact).norm() / exact.norm()) <= 1e-12


def test_the_forward_pass_computes_no_row_twice(bundled64: Weights) -> None:
    """The strips have all rows of each layer, once each and in order."""
    network = network_for(bundled64, Settings(), torch.float64)
    names = [layer.name for layer in network.chain]
    seen: dict[str, list[int]] = {name: [] for name in names}
    StripSweep(network, network.chain, names, (150, 32), 48).forward(
        pixels(150, 32), lambda name, rows, x: seen[name].extend(range(rows.start, rows.stop)), keep=False
    )
    assert seen == {layer.name: list(range(150 // layer.stride)) for layer in network.chain}


@pytest.mark.parametrize("kind", ["anisotropic", "isotropic", "squared", "nine_point"])
def test_total_variation_in_strips(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    image = pixels(37, 11, seed=4)
    value, gradient = weighted_variation(image, kind, torch.tensor(0.5, dtype=torch.float64))
    monkeypatch.setattr("fastnst.losses.variation.ROWS", 5)
    found = torch.zeros_like(image)
    parts = [add_variation(found, image, kind, 0.5, rows) for rows in (slice(0, 13), slice(13, 14), slice(14, 37))]
    assert float(sum(parts)) == pytest.approx(float(value), rel=1e-13)
    assert torch.allclose(found, gradient, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("in_memory", [0, 10**9])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_a_spill_buffer_returns_what_was_stored(in_memory: int, dtype: torch.dtype) -> None:
    buffer = SpillBuffer(in_memory)
    kept = [pixels(5, 7, seed=i).to(dtype)[:, :, 1:4] for i in range(4)]
    kept[1] = kept[1].contiguous(memory_format=torch.channels_last)
    for _ in range(2):
        slots = [buffer.put(x) for x in kept]
        for x in kept:
            x += 0  # what was put is a copy
        for slot, x in zip(reversed(slots), reversed(kept), strict=True):
            assert torch.equal(buffer.get(slot), x)
        buffer.clear()


@pytest.mark.parametrize("in_memory", [0, 10**9])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_tensor_in_a_file_reads_as_any_other(
    monkeypatch: pytest.MonkeyPatch, in_memory: int, dtype: torch.dtype
) -> None:
    monkeypatch.setattr(spill, "IN_MEMORY", in_memory)
    monkeypatch.setattr(spill, "CHUNK", 100)
    one, other = (pixels(9, 7, seed=i).to(dtype) for i in range(2))
    held = spill.FileTensor(one)
    found = held.tensor
    assert torch.equal(found, one)
    held.store(other)
    assert torch.equal(found, other)
    spill.release_pages()
    assert torch.equal(found, other)
    del held
    assert torch.equal(found, other)
    assert (spill.on_disk(one) is one) == (in_memory > 0)
    assert torch.equal(spill.on_disk(one.mT), one.mT)


def test_a_signal_does_not_mix_two_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spill, "IN_MEMORY", 0)
    one, other = pixels(9, 7, seed=0), pixels(9, 7, seed=1)
    held, write = spill.FileTensor(one), spill._write

    def interrupted(file: Any, offset: int, parts: Any) -> None:
        def signaled() -> Iterator[Tensor]:
            for number, part in enumerate(parts):
                if number == 1:
                    signal.raise_signal(signal.SIGINT)
                yield part

        write(file, offset, signaled())

    monkeypatch.setattr(spill, "CHUNK", 10)
    monkeypatch.setattr(spill, "_write", interrupted)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            held.store(other)
    finally:
        signal.signal(signal.SIGINT, before)
    assert torch.equal(held.tensor, other)


def test_without_room_for_a_file_an_image_stays_in_memory(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: Any) -> None:
        raise FastnstError("no space left")

    monkeypatch.setattr(spill, "IN_MEMORY", 0)
    one, other = pixels(9, 7, seed=0), pixels(9, 7, seed=1)
    full_later = spill.FileTensor(one)
    monkeypatch.setattr(spill, "_write", full)
    full_at_once = spill.FileTensor(one)
    assert torch.equal(full_at_once.tensor, one)
    for held in (full_later, full_at_once):
        held.store(other)
        assert torch.equal(held.tensor, other)
    assert caplog.text.count("kept in memory, since it cannot be written to a temporary file (no space left)") == 2


def test_a_full_disk_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    class Full:
        def seek(self, _: int) -> None: ...

        def write(self, _: object) -> None:
            raise OSError(28, "No space left on device")

    buffer = SpillBuffer(0)
    buffer.put(torch.ones(3))
    monkeypatch.setattr(buffer, "_file", Full())
    with pytest.raises(FastnstError, match=r"no space left in .*; make room there or set TMPDIR"):
        buffer.put(torch.ones(3))


def test_an_image_of_another_size_is_refused(bundled64: Weights) -> None:
    settings = Settings.from_preset(**MIDDLE)
    network = network_for(bundled64, settings, torch.float64)
    targets = style_targets(network, pixels(32, 32), settings)
    objective = StripObjective(network, pixels(40, 32), targets, settings, 16)
    with pytest.raises(UsageError, match=r"expected an image of shape \(1, 3, 40, 32\)"):
        objective.value_and_grad(pixels(41, 32))

from __future__ import annotations

import dataclasses
import re
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from support.oracles import pixels, plain_features, plain_network, table
from torch.utils._python_dispatch import TorchDispatchMode

from fastnst.errors import UsageError, WeightsError
from fastnst.network import vgg
from fastnst.network.layer import Layer
from fastnst.network.vgg import VGG
from fastnst.weights import Weights


class CountConvolutions(TorchDispatchMode):
    """Counts the convolutions that run."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func is torch.ops.aten.convolution.default
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("arch", ["vgg16", "vgg19"])
def test_the_chain_is_the_table_of_the_paper(arch: str) -> None:
    assert [dataclasses.astuple(layer) for layer in vgg.layers(arch)] == table(arch)


@pytest.mark.parametrize(("arch", "count", "last"), [("vgg16", 13, "conv5_3"), ("vgg19", 16, "conv5_4")])
def test_networks_have_their_number_of_convolutions(arch: str, count: int, last: str) -> None:
    names = vgg.convolutions(vgg.layers(arch))
    assert len(names) == count
    assert names[-1] == last


@pytest.mark.parametrize("padding", ["zeros", "replicate", "replicate_first", "circular", "reflect"])
@pytest.mark.parametrize("pooling", ["max", "average", "l2"])
@pytest.mark.parametrize("arch", ["vgg16", "vgg19"])
@pytest.mark.sweep(5)
def test_features_equal_those_of_ordinary_modules(
    bundled64: Weights, vgg16_64: Weights, arch: str, pooling: str, padding: str
) -> None:
    weights = vgg16_64 if arch == "vgg16" else bundled64
    image = pixels(33, 37)  # PyTorch reflects no single row
    oracle = plain_features(plain_network(weights.convs, arch, "relu5_1", pooling, padding), image)
    network = VGG(weights, ["relu5_1"], pooling=pooling, padding=padding, dtype=torch.float64)
    found = network.features(image, oracle)
    assert found.keys() == oracle.keys()
    for name, exact in oracle.items():
        torch.testing.assert_close(found[name], exact.detach(), rtol=1e-11, atol=1e-9)


def test_l2_pooling_is_the_root_mean_square(bundled64: Weights) -> None:
    x = pixels(8, 6)
    pooled = VGG(bundled64, ["pool1"], pooling="l2", dtype=torch.float64).pool(x)
    torch.testing.assert_close(pooled, F.lp_pool2d(x, 2, 2) / 2)


def test_pixels_are_shifted_and_scaled_by_the_constants_of_the_weights(bundled: Weights) -> None:
    weights = dataclasses.replace(bundled, mean=(1.0, 2.0, 3.0), scale=(0.5, 0.25, 2.0))
    x = VGG(weights, ["relu1_1"]).prepare(torch.full((1, 3, 2, 2), 11.0))
    assert x.mean((0, 2, 3)).tolist() == [5.0, 2.25, 16.0]


def test_half_precision_features_are_close_to_float32(bundled: Weights) -> None:
    image = pixels(32, 32, dtype=torch.float32)
    half = VGG(bundled, ["relu3_1"], dtype=torch.bfloat16).features(image)["relu3_1"]
    full = VGG(bundled, ["relu3_1"]).features(image)["relu3_1"]
    assert half.dtype == torch.bfloat16
    assert (half - full).norm() < 0.02 * full.norm()


@pytest.mark.parametrize(("wanted", "count"), [(["relu1_1"], 1), (["pool1", "conv1_1"], 2), (["conv3_1"], 5), ([], 0)])
def test_no_convolution_runs_past_the_deepest_requested_layer(bundled: Weights, wanted: list[str], count: int) -> None:
    network = VGG(bundled, ["relu5_1"])
    with CountConvolutions() as counted:
        assert set(network.features(pixels(20, 20, dtype=torch.float32), wanted)) == set(wanted)
    assert counted.count == count


def test_without_names_the_deepest_layer_is_returned(bundled: Weights) -> None:
    network = VGG(bundled, ["relu1_2", "relu2_1", "conv1_1"])
    assert list(network.convs) == ["conv1_1", "conv1_2", "conv2_1"]
    with CountConvolutions() as counted:
        assert list(network.features(pixels(8, 8, dtype=torch.float32))) == ["relu2_1"]
    assert counted.count == 3


def test_nothing_in_the_network_requires_a_gradient(bundled: Weights) -> None:
    network = VGG(bundled, ["relu2_1"])
    assert not any(tensor.requires_grad for pair in network.convs.values() for tensor in pair)
    assert not network.features(pixels(8, 8, dtype=torch.float32))["relu2_1"].requires_grad


def test_features_are_differentiable_in_the_image(bundled: Weights) -> None:
    image = pixels(8, 8, dtype=torch.float32).requires_grad_(True)
    VGG(bundled, ["pool1"]).features(image)["pool1"].sum().backward()
    assert image.grad is not None
    assert image.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("name", "nearest"), [("relu42", "relu4_2"), ("Relu3_1", "relu3_1"), ("conv4-2", "conv4_2"), ("pool_1", "pool1")]
)
def test_an_unknown_layer_suggests_the_nearest(bundled: Weights, name: str, nearest: str) -> None:
    with pytest.raises(UsageError, match=re.escape(f"unknown layer {name!r} of vgg19, did you mean {nearest}?")):
        VGG(bundled, ["relu1_1", name])


def test_vgg16_has_no_fourth_convolution_in_a_block(vgg16: Weights) -> None:
    with pytest.raises(UsageError, match="unknown layer 'relu3_4' of vgg16"):
        VGG(vgg16, ["relu3_4"])


def test_a_layer_the_network_was_not_built_for_is_refused(bundled: Weights) -> None:
    with pytest.raises(UsageError, match="'relu3_1' is not among the layers this network was built for"):
        VGG(bundled, ["relu2_1"]).features(pixels(32, 32), ["relu3_1"])


@pytest.mark.parametrize(("what", "value", "meant"), [("pooling", "avg", "average"), ("padding", "zero", "zeros")])
def test_an_unknown_pooling_or_padding_suggests_the_nearest(
    bundled: Weights, what: str, value: str, meant: str
) -> None:
    with pytest.raises(UsageError, match=f"unknown {what} '{value}', did you mean {meant}"):
        VGG(bundled, ["relu1_1"], **{what: value})  # type: ignore[arg-type]


def test_an_unknown_network_suggests_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"unknown network 'vgg-16', did you mean vgg16\? \(known: vgg16, vgg19\)"):
        vgg.layers("vgg-16")


@pytest.mark.parametrize(
    ("layer", "least"), [("relu1_2", 1), ("pool1", 2), ("relu2_1", 2), ("relu4_2", 8), ("relu5_1", 16)]
)
@pytest.mark.parametrize("wide", [True, False])
def test_the_smallest_side_is_the_stride_of_the_deepest_layer(
    bundled: Weights, layer: str, least: int, wide: bool
) -> None:
    network = VGG(bundled, [layer])

    def run(short: int) -> torch.Size:
        height, width = (short, 20) if wide else (20, short)
        return network.features(pixels(height, width, dtype=torch.float32))[layer].shape

    assert 1 in run(least)[2:]
    if least > 1:
        size = f"20x{least - 1}" if wide else f"{least - 1}x20"
        message = f"image of {size} pixels is too small for layer {layer}: it needs at least {least} on the shorter"
        with pytest.raises(UsageError, match=message):
            run(least - 1)


def test_a_shallow_layer_of_a_deep_network_takes_a_small_image(bundled: Weights) -> None:
    assert VGG(bundled, ["relu5_1"]).features(torch.zeros(1, 3, 1, 1), ["relu1_1"])["relu1_1"].shape == (1, 64, 1, 1)


def test_missing_convolutions_are_named(bundled: Weights) -> None:
    convs = {name: pair for name, pair in bundled.convs.items() if name not in ("conv1_2", "conv3_1")}
    weights = dataclasses.replace(bundled, convs=convs, name="holes.pth")
    with pytest.raises(WeightsError, match=r"weights holes\.pth: lacks conv1_2, conv3_1; it holds conv1_1, conv2_1, "):
        VGG(weights, ["relu3_2"])
    assert list(VGG(weights, ["relu1_1"]).convs) == ["conv1_1"]


def test_layers_past_the_bundled_ones_are_named(bundled: Weights) -> None:
    with pytest.raises(WeightsError, match="lacks conv5_2"):
        VGG(bundled, ["relu5_2"])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("names", "pooled"), [(["relu1_1", "relu3_1"], 2), (["relu1_2", "pool2", "conv2_2"], 0)])
def test_convolutions_fused_with_their_pool_give_the_same_bits(
    bundled: Weights, monkeypatch: pytest.MonkeyPatch, names: list[str], pooled: int, dtype: torch.dtype
) -> None:
    """The reference is an image that requires a gradient, for which no pool is fused."""
    network = VGG(bundled, names, dtype=dtype, winograd=True)
    calls: list[str] = []
    fused = VGG._convolve_and_pool

    def counted(self: VGG, x: torch.Tensor, layer: Layer) -> torch.Tensor:
        calls.append(layer.name)
        return fused(self, x, layer)

    monkeypatch.setattr(VGG, "_convolve_and_pool", counted)
    image = pixels(19, 22, dtype=torch.float32)
    found = network.features(image, names)
    assert len(calls) == pooled
    exact = network.features(image.clone().requires_grad_(), names)
    assert len(calls) == pooled
    for name in names:
        assert torch.equal(found[name], exact[name])

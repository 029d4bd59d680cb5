"""Receptive fields against the pixels that have a gradient, found by autograd through the networks themselves.

All weights are positive, so that no contribution cancels, and pools are averages, so that each of their inputs counts.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest
import torch
from support.encoders import ENTRY, drawn_state, without_weights
from support.oracles import pixels
from torch import Tensor

from fastnst.errors import UsageError
from fastnst.network import VGG, ReceptiveField, RegisteredEncoder, receptive_fields
from fastnst.network.efficientnet_lite import EfficientNetLite0
from fastnst.weights import Weights


def support(layer: Callable[[Tensor], Tensor], shape: tuple[int, int], row: int, column: int) -> tuple[range, range]:
    """The rows and columns of the pixels that one position of a layer has a gradient at."""
    image = torch.full((1, 3, *shape), 130.0, dtype=torch.float64, requires_grad=True)
    found = layer(image)
    (gradient,) = torch.autograd.grad(found[0, :, row, column].sum(), image)
    touched = [torch.nonzero(gradient.abs().sum((0, 1, axis)))[:, 0].tolist() for axis in (3, 2)]
    for one in touched:
        assert one == list(range(one[0], one[-1] + 1))
    return range(touched[0][0], touched[0][-1] + 1), range(touched[1][0], touched[1][-1] + 1)


def check(network: VGG | RegisteredEncoder, name: str, field: ReceptiveField, shape: tuple[int, int]) -> None:
    height, width = field.positions(shape[0]), field.positions(shape[1])
    features = network.features(pixels(*shape), [name])[name]
    assert features.shape[2:] == (height, width)
    for row, column in ((0, width - 1), (height // 2, width // 2), (height - 1, 0)):
        found = support(lambda x: network.features(x, [name])[name], shape, row, column)
        assert found == (field.pixels(row, shape[0]), field.pixels(column, shape[1]))


def test_of_vgg(bundled64: Weights) -> None:
    fields = receptive_fields("vgg19")
    convs = {name: (weight.abs(), bias.abs()) for name, (weight, bias) in bundled64.convs.items()}
    given = dataclasses.replace(bundled64, convs=convs, mean=(0.0, 0.0, 0.0))
    for name in ("conv1_1", "relu2_2", "pool2", "relu3_1", "relu4_1"):
        check(VGG(given, [name], pooling="average", dtype=torch.float64), name, fields[name], (101, 88))


@pytest.fixture(scope="module")
def positive() -> RegisteredEncoder:
    entry = without_weights(lambda: EfficientNetLite0(drawn_state(positive=True)))
    return RegisteredEncoder(entry, entry.fields, dtype=torch.float64)


@pytest.mark.parametrize("name", ["stem", "block1", "block2.expand", "block3", "block4.depthwise", "block5", "block8"])
def test_of_efficientnet_lite0(positive: RegisteredEncoder, name: str) -> None:
    check(positive, name, receptive_fields("efficientnet_lite0")[name], (213, 186))


def test_the_deepest_of_efficientnet_lite0_reads_the_whole_picture(positive: RegisteredEncoder) -> None:
    for name in ("block11", "block16"):
        check(positive, name, positive.fields[name], (180, 180))
        assert positive.fields[name].pixels(3, 180) == range(0, 180)


def test_of_a_network_with_symmetric_strides() -> None:
    network = RegisteredEncoder(ENTRY, ["first", "second"], dtype=torch.float64)
    for x in network.module.parameters():
        x.data.abs_()
    for name in ("first", "second"):
        check(network, name, ENTRY.fields[name], (29, 34))


def test_map_sizes_and_the_least_size() -> None:
    entry = without_weights(lambda: EfficientNetLite0(drawn_state()))
    network = RegisteredEncoder(entry, ["stem", "block3", "block11", "block16"])
    for size in ((32, 47), (63, 65), (33, 100)):
        features = network.features(pixels(*size, dtype=torch.float32), network.names)
        for layer in network.chain:
            assert features[layer.name].shape[1:] == (layer.channels, *network.map_size(layer, size))
    assert [field.least for field in network.fields.values()] == [2, 4, 16, 32]
    with pytest.raises(UsageError, match=r"image of 40x31 pixels is too small for layer block16: it needs at least 32"):
        network.map_size(network.chain[-1], (31, 40))


def test_without_padding_a_position_needs_its_whole_field() -> None:
    field = ReceptiveField().then(7, stride=2).then(3, stride=2)
    assert (field.size, field.stride, field.least, field.reach) == (11, 4, 11, 7)
    assert [field.positions(n) for n in (10, 11, 14, 15)] == [0, 1, 1, 2]


@pytest.mark.parametrize("values", [(0, 1, 0, 0), (1, 0, 0, 0), (1, 1, -1, 0)])
def test_a_field_that_cannot_be_is_refused(values: tuple[int, int, int, int]) -> None:
    with pytest.raises(UsageError, match="expected a size and stride of at least 1"):
        ReceptiveField(*values)

"""EfficientNet-Lite0 against its definition with batch normalization; its installed weights against a photograph."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from support.encoders import blocks, drawn_state, installed, plain_lite0
from support.oracles import pixels

from fastnst import images
from fastnst.config.encoder_table import LITE0_BLOCKS
from fastnst.errors import WeightsError
from fastnst.files import ASSETS
from fastnst.network import RegisteredEncoder, find_encoder
from fastnst.network.efficientnet_lite import EfficientNetLite0, build

NAMES = ("stem", *(f"block{i}" for i in range(1, 17)))
BUILDINGS = {442, 449, 483, 663, 698}  # ImageNet's bell cote, boathouse, castle, monastery, palace


def test_the_blocks_are_those_of_the_paper() -> None:
    assert list(LITE0_BLOCKS) == blocks()


def test_folded_convolutions_have_the_features_of_the_definition() -> None:
    state = drawn_state()
    module = EfficientNetLite0(state).eval()
    image = pixels(64, 96, dtype=torch.float32) / 128 - 1
    expected = plain_lite0(state, image)
    with torch.no_grad():
        x = image
        for name in NAMES:
            x = module.get_submodule(name)(x)
            assert (x - expected[name]).norm() <= 1e-5 * expected[name].norm()


def test_the_installed_weights_recognize_a_pagoda() -> None:
    state = torch.load(installed(), weights_only=True)
    network = RegisteredEncoder(find_encoder("efficientnet_lite0"), ["block5", "block16"])
    picture = images.resize(images.load(ASSETS / "demo_photo.jpg").pixels, 224, 224) * 255
    with torch.no_grad():
        features = network.features(picture, ["block5", "block16"])
        expected = plain_lite0(state, (picture - 127) / 128)
        for name, x in features.items():
            assert (x - expected[name]).norm() <= 1e-5 * expected[name].norm()
        x = F.conv2d(features["block16"], state["_conv_head.weight"])
        parts = (state[f"_bn1.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
        x = F.relu6(F.batch_norm(x, *parts, False, 0.0, 1e-3)).mean((2, 3))
        scores = F.linear(x, state["_fc.weight"], state["_fc.bias"])
    assert set(scores.topk(3).indices[0].tolist()) <= BUILDINGS


def test_another_file_is_one_clear_error(tmp_path: Path) -> None:
    torch.save({"conv.weight": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(
        WeightsError, match=r"other.pth: is no state dict of EfficientNet-Lite0 \('_bn0.running_mean'\)"
    ):
        build(tmp_path / "other.pth")

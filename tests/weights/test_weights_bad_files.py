"""Missing, damaged, hostile and other files raise an error of one line, and run no code."""

from __future__ import annotations

import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import weights_files as files

from fastnst.errors import WeightsError
from fastnst.weights import load


class Malicious:
    """Unpickling this creates a file."""

    def __init__(self, victim: Path) -> None:
        self.victim = victim

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.victim),)


def write_malicious_npz(path: Path, payload: Malicious) -> None:
    array = np.empty(1, dtype=object)
    array[0] = payload
    np.savez(path, conv1_1_W=array)


MALICIOUS: dict[str, Callable[[Path, Malicious], Any]] = {
    "zip.pth": lambda path, payload: torch.save({"features.0.weight": payload}, path),
    "old.pth": lambda path, payload: torch.save({"a": payload}, path, _use_new_zipfile_serialization=False),
    "plain-0.pt": lambda path, payload: path.write_bytes(pickle.dumps(payload, 0)),
    "plain-2.pt": lambda path, payload: path.write_bytes(pickle.dumps(payload, 2)),
    "plain-5.pt": lambda path, payload: path.write_bytes(pickle.dumps(payload, 5)),
    "object.npz": write_malicious_npz,
}


@pytest.mark.parametrize("filename", MALICIOUS)
def test_a_pickle_runs_no_code(filename: str, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    path = tmp_path / filename
    MALICIOUS[filename](path, Malicious(victim))
    with pytest.raises(WeightsError) as caught:
        load(path, arch="vgg19")
    assert not victim.exists()
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_the_payload_of_these_tests_does_create_its_file(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Malicious(tmp_path / "victim")))
    assert (tmp_path / "victim").exists()


@pytest.mark.parametrize("filename", ["zip.pth", "old.pth", "plain-2.pt"])
def test_the_error_for_a_rejected_pickle_names_its_call(filename: str, tmp_path: Path) -> None:
    MALICIOUS[filename](tmp_path / filename, Malicious(tmp_path / "victim"))
    with pytest.raises(WeightsError, match=r"refused, reading it would run code \(\w+\.mkdir\)"):
        load(tmp_path / filename)


def test_a_whole_model_is_rejected_with_the_way_to_save_it(tmp_path: Path) -> None:
    torch.save(torch.nn.Conv2d(3, 3, 3), tmp_path / "model.pth")
    with pytest.raises(WeightsError, match=r"run code \(torch\.nn\.\S+Conv2d\); .*torch\.save\(model\.state_dict\(\)"):
        load(tmp_path / "model.pth")


def test_a_torchscript_program_is_rejected(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "model.pt", "w") as archive:
        for member in ("model/data.pkl", "model/constants.pkl", "model/code/__torch__.py"):
            archive.writestr(member, b"")
    with pytest.raises(WeightsError, match="refused, a TorchScript program"):
        load(tmp_path / "model.pt")


WRITERS: dict[str, Callable[[Path, files.Convs], None]] = {
    "zip.pth": files.write_pth,
    "old.pth": files.write_old_pth,
    "vgg.safetensors": files.write_safetensors,
    "vgg.h5": files.write_keras2,
    "vgg.mat": files.write_old_mat,
    "vgg.npz": files.write_npz,
}


@pytest.mark.parametrize("filename", WRITERS)
@pytest.mark.parametrize("keep", [0.999, 0.5, 0.1, 0.001])
def test_a_truncated_file_is_one_clear_error(filename: str, keep: float, tmp_path: Path) -> None:
    path = tmp_path / filename
    WRITERS[filename](path, files.random_convs())
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])
    with pytest.raises(WeightsError) as caught:
        load(path, arch="vgg19", need=["conv1_1", "conv1_2", "conv2_1"])
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("filename", WRITERS)
@pytest.mark.parametrize("seed", range(3))
def test_a_file_with_flipped_bytes_is_read_or_one_clear_error(filename: str, seed: int, tmp_path: Path) -> None:
    path = tmp_path / filename
    WRITERS[filename](path, files.random_convs())
    data = bytearray(path.read_bytes())
    generator = np.random.default_rng(seed)
    for position in (*generator.integers(0, 2000, 20), *generator.integers(0, len(data), 20)):
        data[position] ^= 0xFF
    path.write_bytes(data)
    try:
        load(path, arch="vgg19")
    except WeightsError as error:
        assert str(error).startswith(f"{path}: ")  # noqa: PT017 - reading such a file may also succeed


@pytest.mark.parametrize("suffix", [".pth", ".safetensors", ".h5", ".mat", ".npz"])
@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "an empty file"),
        (b"\x89PNG\r\n\x1a\n and so on, a picture", "but its content is no weights fastnst knows"),
        (b"<html>404 Not Found</html>", "but its content is no weights fastnst knows"),
        (b"MATLAB 7.3 MAT-file, Platform: GLNXA64", "a MATLAB 7.3 file; save it again with save"),
    ],
)
def test_a_file_without_weights_is_reported_as_such(suffix: str, content: bytes, expected: str, tmp_path: Path) -> None:
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=expected):
        load(path)


def test_the_error_for_a_wrong_suffix_names_the_format_of_the_content(tmp_path: Path) -> None:
    files.write_keras2(tmp_path / "vgg.pth", files.random_convs())
    with pytest.raises(WeightsError, match=r"named \.pth, but its content is HDF5"):
        load(tmp_path / "vgg.pth")


def test_missing_file_folder_and_unknown_suffix_have_different_errors(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"gone\.pth: no such file"):
        load(tmp_path / "gone.pth")
    with pytest.raises(WeightsError, match="a folder; give the weights file itself"):
        load(tmp_path)
    (tmp_path / "vgg.onnx").write_bytes(b"something")
    with pytest.raises(WeightsError, match=r"unknown kind of weights file; fastnst reads \.pth, \.pt, \.safetensors"):
        load(tmp_path / "vgg.onnx")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="needs a user who may be refused")
def test_a_file_without_permission_is_one_clear_error(tmp_path: Path) -> None:
    files.write_pth(tmp_path / "vgg.pth", files.random_convs())
    (tmp_path / "vgg.pth").chmod(0)
    with pytest.raises(WeightsError, match="cannot be read: Permission denied"):
        load(tmp_path / "vgg.pth")


def broken(part: str, value: torch.Tensor | None) -> dict[str, torch.Tensor]:
    state = files.torchvision_state(files.random_convs())
    if value is None:
        del state[part]
    else:
        state[part] = value
    return state


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        (
            broken("features.2.weight", torch.zeros(64, 32, 3, 3)),
            r"conv1_2 weight should be \[64, 64, 3, 3\] \(out, in, height, width\), found \[64, 32, 3, 3\]",
        ),
        (broken("features.5.bias", torch.zeros(64)), r"conv2_1 bias should be \[128\], found \[64\]"),
        (broken("features.2.bias", None), "conv1_2 has no bias"),
        (broken("features.0.weight", torch.full((64, 3, 3, 3), torch.nan)), "conv1_1 weight holds NaN or infinite"),
        (broken("features.0.bias", torch.zeros(64, dtype=torch.int32)), "conv1_1 bias should hold floating point"),
        (broken("features.1.running_mean", torch.zeros(64)), "batch normalization; fastnst needs the one without"),
        (broken("features.3.weight", torch.zeros(64)), "positions 0, 2, 3, 5, which fit neither VGG-16 nor VGG-19"),
        (broken("other.features.0.weight", torch.zeros(64, 3, 3, 3)), "holds conv1_1 twice"),
        ({"encoder.weight": torch.zeros(2)}, "no VGG convolutions found; .* the file holds encoder.weight"),
        ({}, "no VGG convolutions found; .* the file holds nothing"),
        (torch.zeros(3), "holds a Tensor, not tensors by name"),
    ],
)
def test_the_error_describes_wrong_contents(state: Any, expected: str, tmp_path: Path) -> None:
    torch.save(state, tmp_path / "vgg.pth")
    with pytest.raises(WeightsError, match=expected):
        load(tmp_path / "vgg.pth", arch="vgg19")


def test_a_kernel_in_theano_order_names_the_layer(tmp_path: Path) -> None:
    import h5py

    with h5py.File(tmp_path / "vgg.h5", "w") as file:
        file["block1_conv1/W:0"], file["block1_conv1/b:0"] = np.zeros((64, 3, 3, 3), "f4"), np.zeros(64, "f4")
    with pytest.raises(WeightsError, match=r"conv1_1 weight should be \[64, 3, 3, 3\] .*, found \[3, 3, 64, 3\]"):
        load(tmp_path / "vgg.h5", arch="vgg19")


def test_a_layer_the_network_does_not_have_is_named(tmp_path: Path) -> None:
    files.write_npz(tmp_path / "vgg.npz", files.random_convs("conv1_1", "conv3_4"))
    with pytest.raises(WeightsError, match="holds VGG-19, not VGG-16"):
        load(tmp_path / "vgg.npz", arch="vgg16")


def test_a_zip_with_damaged_names_is_one_clear_error(tmp_path: Path) -> None:
    path = tmp_path / "vgg.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("vgg/d\u00e4ta.pkl", b"")
    path.write_bytes(path.read_bytes().replace("\u00e4".encode(), b"\xe9\xe9"))
    with pytest.raises(WeightsError, match="damaged, truncated or not a weights file"):
        load(path)

"""Writes small VGG files of correct shapes in every format that fastnst reads. Shares no code with the readers.

The truth is a dict of name to (kernel [out, in, 3, 3] in RGB order, bias [out]), NumPy float32.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

Array = NDArray[Any]
Convs = dict[str, tuple[Array, Array]]

# From the papers and from torchvision, not from fastnst.
SHAPES = {"conv1_1": (64, 3), "conv1_2": (64, 64), "conv2_1": (128, 64), "conv3_4": (256, 256), "conv4_1": (512, 256)}
VGG19_POSITIONS = {"conv1_1": 0, "conv1_2": 2, "conv2_1": 5, "conv3_4": 16, "conv4_1": 19}
VGG16_POSITIONS = {"conv1_1": 0, "conv1_2": 2, "conv2_1": 5, "conv4_1": 17}
CAFFE = ((123.68, 116.779, 103.939), (1.0, 1.0, 1.0))
TORCHVISION = ((123.675, 116.28, 103.53), (1 / 58.395, 1 / 57.12, 1 / 57.375))


def random_convs(*names: str) -> Convs:
    generator = np.random.default_rng(0)
    convs = {}
    for name in names or ("conv1_1", "conv1_2", "conv2_1"):
        outputs, inputs = SHAPES[name]
        kernel = generator.normal(0, 0.05, (outputs, inputs, 3, 3)).astype(np.float32)
        convs[name] = (kernel, generator.normal(0, 0.1, outputs).astype(np.float32))
    return convs


def bundle_tensors(path: Path) -> tuple[dict[str, Array], dict[str, Any]]:
    """Read a safetensors file by its specification: tensors by name, and the parsed ``fastnst`` metadata."""
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    metadata = json.loads(header.pop("__metadata__")["fastnst"])
    types = {"F32": "<f4", "U8": "u1"}
    tensors = {}
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        flat = np.frombuffer(data[8 + length + begin : 8 + length + end], types[entry["dtype"]])
        tensors[name] = flat.reshape(entry["shape"])
    return tensors, metadata


def _bgr(name: str, kernel: Array) -> Array:
    return kernel[:, ::-1] if name == "conv1_1" else kernel


def _hwio(kernel: Array) -> Array:
    return np.ascontiguousarray(np.moveaxis(kernel, (2, 3, 1, 0), (0, 1, 2, 3)))


def _state(convs: Convs, key: Callable[[str], str]) -> dict[str, torch.Tensor]:
    state = {"classifier.0.weight": torch.zeros(5, 7), "classifier.0.bias": torch.zeros(5)}
    for name, (kernel, bias) in convs.items():
        state[f"{key(name)}.weight"] = torch.tensor(kernel.copy())
        state[f"{key(name)}.bias"] = torch.tensor(bias)
    return state


def torchvision_state(convs: Convs, positions: dict[str, int] = VGG19_POSITIONS) -> dict[str, torch.Tensor]:
    return _state(convs, lambda name: f"features.{positions[name]}")


def write_pth(path: Path, convs: Convs) -> None:
    torch.save(torchvision_state(convs), path)


def write_old_pth(path: Path, convs: Convs) -> None:
    torch.save(torchvision_state(convs), path, _use_new_zipfile_serialization=False)


def write_checkpoint(path: Path, convs: Convs) -> None:
    torch.save({"epoch": 3, "state_dict": _state(convs, lambda name: f"module.vgg.{name}")}, path)


def write_features_only(path: Path, convs: Convs) -> None:
    state = _state(convs, lambda name: str(VGG19_POSITIONS[name]))
    torch.save({key: value for key, value in state.items() if "classifier" not in key}, path)


def write_safetensors(path: Path, convs: Convs) -> None:
    from safetensors.torch import save_file

    save_file(torchvision_state(convs), path)


def write_named_safetensors(path: Path, convs: Convs) -> None:
    from safetensors.torch import save_file

    save_file(_state(convs, lambda name: name), path)


def _write_h5(path: Path, convs: Convs, kernel_at: str, bias_at: str) -> None:
    import h5py

    with h5py.File(path, "w") as file:
        file["block1_pool/empty"] = np.zeros(0, np.float32)
        for name, (kernel, bias) in convs.items():
            layer = f"block{name[4]}_conv{name[6]}"
            file[kernel_at.format(layer)] = _hwio(_bgr(name, kernel))
            file[bias_at.format(layer)] = bias


def write_keras1(path: Path, convs: Convs) -> None:
    _write_h5(path, convs, "{0}/{0}_W_1:0", "{0}/{0}_b_1:0")


def write_keras2(path: Path, convs: Convs) -> None:
    _write_h5(path, convs, "{0}/{0}/kernel:0", "{0}/{0}/bias:0")


def write_keras2_model(path: Path, convs: Convs) -> None:
    import h5py

    _write_h5(path, convs, "model_weights/{0}/{0}/kernel:0", "model_weights/{0}/{0}/bias:0")
    with h5py.File(path, "a") as file:
        file["optimizer_weights/adam/block1_conv1/kernel/m:0"] = np.ones((3, 3, 3, 64), np.float32)


def _write_keras3(path: Path, convs: Convs, named: bool) -> None:
    import h5py

    with h5py.File(path, "w") as file:
        for number, (name, (kernel, bias)) in enumerate(convs.items()):
            group = file.create_group(f"layers/conv2d{f'_{number}' if number else ''}/vars")
            if named:
                group.attrs["name"] = f"block{name[4]}_conv{name[6]}"
            group["0"], group["1"] = _hwio(_bgr(name, kernel)), bias
        file["layers/dense/vars/0"] = np.zeros((7, 5), np.float32)


def write_keras3(path: Path, convs: Convs) -> None:
    _write_keras3(path, convs, named=True)


def write_unnamed_keras3(path: Path, convs: Convs) -> None:
    _write_keras3(path, convs, named=False)


def _cell(*values: Any) -> Array:
    cell = np.empty((1, len(values)), dtype=object)
    for index, value in enumerate(values):
        cell[0, index] = value
    return cell


def write_mat(path: Path, convs: Convs, mean: Array | None = None) -> None:
    from scipy.io import savemat

    layers = []
    for name, (kernel, bias) in convs.items():
        layers += [
            {"name": name, "type": "conv", "weights": _cell(_hwio(kernel), bias[:, None]), "pad": np.ones((1, 4))},
            {"name": name.replace("conv", "relu"), "type": "relu"},
        ]
    normalization = {} if mean is None else {"averageImage": mean}
    meta = {"normalization": {"imageSize": np.array([[224.0, 224.0, 3.0]]), **normalization}}
    savemat(path, {"layers": _cell(*layers), "meta": meta})


def write_old_mat(path: Path, convs: Convs) -> None:
    from scipy.io import savemat

    layers = [
        {"type": "conv", "name": name, "filters": _hwio(kernel), "biases": bias[None]}
        for name, (kernel, bias) in convs.items()
    ]
    mean = np.broadcast_to(np.array(CAFFE[0]), (224, 224, 3))
    savemat(path, {"layers": _cell(*layers), "normalization": {"averageImage": mean}}, do_compression=True)


def write_npz(path: Path, convs: Convs) -> None:
    arrays: dict[str, Any] = {"fc8_W": np.zeros((5, 7), np.float32), "fc8_b": np.zeros(7, np.float32)}
    for name, (kernel, bias) in convs.items():
        arrays[f"{name}_W"], arrays[f"{name}_b"] = _hwio(kernel), bias
    np.savez(path, **arrays)


def write_one_layer(path: Path, kernel: Any, bias: Any) -> None:
    """Write conv1_1 as given, whatever its shape and dtype, in the format of the suffix: [out, in, height, width]."""
    import h5py
    from scipy.io import savemat

    if path.suffix == ".npz":
        np.savez(path, conv1_1_W=_hwio(kernel), conv1_1_b=bias)
    elif path.suffix == ".h5":
        with h5py.File(path, "w") as file:
            file["block1_conv1/kernel:0"], file["block1_conv1/bias:0"] = _hwio(kernel), bias
    elif path.suffix == ".mat":
        savemat(path, {"layers": _cell({"name": "conv1_1", "weights": _cell(_hwio(kernel), bias)})})
    else:
        raise ValueError(path.suffix)


def write_codebook(path: Path, tensors: dict[str, Any] | None = None, **facts: Any) -> None:
    """Write conv1_1 in the format of the bundled weights, with some of its tensors or facts changed."""
    from safetensors.numpy import save_file

    held = {
        "conv1_1.codebook": np.linspace(-1, 1, 256, dtype=np.float32),
        "conv1_1.index": np.arange(64 * 27, dtype=np.int64).astype(np.uint8).reshape(64, 3, 3, 3),
        "conv1_1.bias": np.zeros(64, np.float32),
    }
    header = {"format": "fastnst-codebook-1", "arch": "vgg19", "convention": "caffe", "name": "n", "license": "l"}
    header |= {"source": "s", **facts}
    save_file({**held, **(tensors or {})}, path, {"fastnst": json.dumps(header)})


def write_big_endian_mat(path: Path, convs: Convs) -> None:
    """Write a big-endian MAT-file by MathWorks' description of the format; scipy only reads such files."""

    def element(kind: int, data: bytes) -> bytes:
        return struct.pack(">II", kind, len(data)) + data + bytes(-len(data) % 8)

    def matrix(kind: int, shape: tuple[int, ...], contents: bytes, name: bytes = b"") -> bytes:
        sides = struct.pack(f">{len(shape)}i", *shape)
        return element(14, element(6, struct.pack(">II", kind, 0)) + element(5, sides) + element(1, name) + contents)

    def numbers(array: Array) -> bytes:
        return matrix(7, array.shape, element(7, array.astype(">f4").tobytes(order="F")))

    layers = b""
    for name, (kernel, bias) in convs.items():
        text = matrix(4, (1, len(name)), element(4, name.encode("utf-16-be")))
        both = matrix(1, (1, 2), numbers(_hwio(kernel)) + numbers(bias[:, None]))
        width = struct.pack(">HHi", 4, 5, 8)  # a small element: size, type and contents in eight bytes
        layers += matrix(2, (1, 1), width + element(1, b"name\0\0\0\0weights\0") + text + both)
    start = b"MATLAB 5.0 MAT-file".ljust(124) + b"\x01\x00MI"
    path.write_bytes(start + matrix(1, (1, len(convs)), layers, b"layers"))

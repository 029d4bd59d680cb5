"""Other dtypes than float32 in files are converted, or rejected with an error that names them."""

from __future__ import annotations

import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
import torch
import weights_files as files

from fastnst.errors import WeightsError
from fastnst.weights import load

KERNEL, BIAS = files.random_convs("conv1_1")["conv1_1"]


def assert_conv1_1(path: Path, kernel: Any = KERNEL, bias: Any = BIAS) -> None:
    weight, found_bias = load(path, arch="vgg19", convention="caffe-rgb").convs["conv1_1"]
    assert torch.equal(weight, torch.from_numpy(kernel.astype(np.float32)))
    assert torch.equal(found_bias, torch.from_numpy(bias.astype(np.float32)))


@pytest.mark.parametrize("suffix", [".npz", ".h5"])
@pytest.mark.parametrize("dtype", [">f2", ">f4", ">f8", "<f2", "<f8"])
def test_either_byte_order_and_every_float_is_read(suffix: str, dtype: str, tmp_path: Path) -> None:
    path = tmp_path / f"vgg{suffix}"
    kernel, bias = KERNEL.astype(dtype), BIAS.astype(dtype)
    files.write_one_layer(path, kernel, bias)
    assert_conv1_1(path, kernel, bias)


def test_fortran_order_is_read(tmp_path: Path) -> None:
    kernel = np.asfortranarray(np.moveaxis(KERNEL, (2, 3, 1, 0), (0, 1, 2, 3)))
    np.savez_compressed(tmp_path / "vgg.npz", conv1_1_W=kernel, conv1_1_b=BIAS)
    assert_conv1_1(tmp_path / "vgg.npz")


@pytest.mark.parametrize("suffix", [".npz", ".h5", ".mat"])
@pytest.mark.parametrize("dtype", ["i4", "c8", "u1", "?"])
def test_the_error_for_other_dtypes_names_the_dtype(suffix: str, dtype: str, tmp_path: Path) -> None:
    path = tmp_path / f"vgg{suffix}"
    files.write_one_layer(path, KERNEL.astype(dtype), BIAS)
    with pytest.raises(WeightsError, match=r"conv1_1 (weight should hold floating point numbers|has no weight)"):
        load(path, arch="vgg19")


@pytest.mark.parametrize("compressed", [False, True])
def test_integers_that_matlab_stores_for_doubles_are_read_as_scipy_does(compressed: bool, tmp_path: Path) -> None:
    """MATLAB stores integers in the smallest integer type; the class of the array remains double."""
    path = tmp_path / "vgg.mat"
    kernel = np.arange(KERNEL.size, dtype=np.float64).reshape(KERNEL.shape) % 200
    files.write_one_layer(path, kernel, BIAS.astype(np.float64))
    data = path.read_bytes()
    doubles = np.moveaxis(kernel, (2, 3, 1, 0), (0, 1, 2, 3)).tobytes(order="F")
    at = data.index(doubles)
    small = doubles_as_bytes(data, at, len(doubles))
    path.write_bytes(small if not compressed else as_compressed(small))
    truth = scipy.io.loadmat(path, simplify_cells=True)["layers"]["weights"][0]
    assert np.array_equal(truth, np.moveaxis(kernel, (2, 3, 1, 0), (0, 1, 2, 3)))
    assert_conv1_1(path, kernel)


def doubles_as_bytes(data: bytes, at: int, size: int) -> bytes:
    """Rewrite the numbers at ``at`` as unsigned bytes and shorten every array around them."""
    numbers = np.frombuffer(data[at : at + size]).astype(np.uint8).tobytes()
    numbers += bytes(-len(numbers) % 8)
    out = bytearray(data[: at - 8] + struct.pack("<II", 2, size // 8) + numbers + data[at + size :])
    for tag in range(128, at - 8, 8):
        kind, length = struct.unpack_from("<II", data, tag)
        if kind == 14 and tag + 8 + length >= at + size:
            struct.pack_into("<I", out, tag + 4, length - (size - len(numbers)))
    return bytes(out)


def as_compressed(data: bytes) -> bytes:
    packed = zlib.compress(data[128:])
    return data[:128] + struct.pack("<II", 15, len(packed)) + packed


def test_a_big_endian_mat_is_read_as_scipy_does(tmp_path: Path) -> None:
    path = tmp_path / "vgg.mat"
    convs = files.random_convs()
    files.write_big_endian_mat(path, convs)
    layers = scipy.io.loadmat(path, simplify_cells=True)["layers"]
    assert [layer["name"] for layer in layers] == list(convs)
    assert np.array_equal(layers[1]["weights"][0], np.moveaxis(convs["conv1_2"][0], (2, 3, 1, 0), (0, 1, 2, 3)))
    weights = load(path, arch="vgg19")
    for name, (kernel, bias) in convs.items():
        assert np.array_equal(weights.convs[name][0], kernel)
        assert np.array_equal(weights.convs[name][1], bias)


def state(weight: Any, bias: Any = None) -> dict[str, Any]:
    return {"conv1_1.weight": weight, "conv1_1.bias": torch.from_numpy(BIAS) if bias is None else bias}


def quantized() -> torch.Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated in PyTorch, but such files exist
        return torch.quantize_per_tensor(torch.zeros(64, 3, 3, 3), 0.1, 0, torch.quint8)


UNUSABLE: dict[str, Callable[[], Any]] = {
    "meta": lambda: torch.zeros(64, 3, 3, 3, device="meta"),
    "nested": lambda: torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)]),
    "quantized": quantized,
    "sparse": lambda: torch.zeros(64, 3, 3, 3).to_sparse(),
    "sparse rows": lambda: torch.zeros(64, 27).to_sparse_csr(),
    "float8": lambda: torch.zeros(64, 3, 3, 3).to(torch.float8_e4m3fn),
    "float4": lambda: torch.zeros(64, 3, 3, 3, dtype=torch.uint8).view(torch.float4_e2m1fn_x2),
    "complex": lambda: torch.zeros(64, 3, 3, 3, dtype=torch.complex64),
    "integers": lambda: torch.zeros(64, 3, 3, 3, dtype=torch.int64),
    "negated view": lambda: torch._neg_view(torch.zeros(64, 3, 3, 3)),
    "text": lambda: "conv1_1",
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "old"])
@pytest.mark.parametrize("kind", UNUSABLE)
def test_tensors_other_than_plain_floats_are_one_clear_error(kind: str, zipped: bool, tmp_path: Path) -> None:
    path = tmp_path / "vgg.pth"
    try:
        torch.save(state(UNUSABLE[kind]()), path, _use_new_zipfile_serialization=zipped)
    except (RuntimeError, NotImplementedError, AttributeError, KeyError) as error:
        pytest.skip(f"torch.save does not write it: {error}")
    with pytest.raises(WeightsError, match=r"not a plain tensor|should hold floating point|conv1_1 has no weight"):
        load(path, arch="vgg19")


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2, torch.int8, torch.bool])
def test_safetensors_of_other_dtypes_are_rejected_with_their_name(dtype: torch.dtype, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file(state(torch.zeros(64, 3, 3, 3).to(dtype)), tmp_path / "vgg.safetensors")
    with pytest.raises(WeightsError, match="conv1_1 weight should hold floating point numbers"):
        load(tmp_path / "vgg.safetensors", arch="vgg19")


def test_a_safetensors_file_of_four_bit_floats_is_rejected_with_their_name(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    path = tmp_path / "vgg.safetensors"
    save_file(state(torch.zeros(64, 3, 3, 3, dtype=torch.float16)), path)
    path.write_bytes(path.read_bytes().replace(b'"F16","shape":[64', b'"F4" ,"shape":[64'))
    with pytest.raises(WeightsError, match=r"F4|damaged"):
        load(path, arch="vgg19")


def with_attribute() -> torch.Tensor:
    parameter = torch.nn.Parameter(torch.from_numpy(KERNEL.copy()))
    parameter.tag = 1  # type: ignore[attr-defined]
    return parameter


LAYOUTS: dict[str, Callable[[], torch.Tensor]] = {
    "parameter": lambda: torch.nn.Parameter(torch.from_numpy(KERNEL.copy())),
    "with an attribute": with_attribute,
    "channels last": lambda: torch.from_numpy(KERNEL.copy()).to(memory_format=torch.channels_last),
    "part of a larger one": lambda: torch.cat([torch.zeros(5, 3, 3, 3), torch.from_numpy(KERNEL)])[5:],
    "every other row": lambda: torch.from_numpy(KERNEL).repeat_interleave(2, 0)[::2],
}


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "old"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_tensor_is_read_with_any_strides_and_offset(layout: str, zipped: bool, tmp_path: Path) -> None:
    torch.save(state(LAYOUTS[layout]()), tmp_path / "vgg.pth", _use_new_zipfile_serialization=zipped)
    assert_conv1_1(tmp_path / "vgg.pth")


def test_a_pickle_of_python_2_is_read(tmp_path: Path) -> None:
    """Its strings are byte strings, and its OrderedDict is constructed from a list of pairs."""
    path = tmp_path / "vgg.pth"
    torch.save(state(torch.from_numpy(KERNEL)), path, _use_new_zipfile_serialization=False)
    data = path.read_bytes()
    for key in (b"conv1_1.weight", b"conv1_1.bias"):
        assert data.count(b"X" + len(key).to_bytes(4, "little") + key) == 1
        data = data.replace(b"X" + len(key).to_bytes(4, "little") + key, b"U" + bytes([len(key)]) + key)
    path.write_bytes(data)
    assert_conv1_1(path)


def test_a_file_of_a_big_endian_machine_is_read(tmp_path: Path) -> None:
    swapped = {"conv1_1.weight": KERNEL.byteswap(), "conv1_1.bias": BIAS.byteswap()}
    torch.save({key: torch.from_numpy(value) for key, value in swapped.items()}, tmp_path / "little.pth")
    with zipfile.ZipFile(tmp_path / "little.pth") as old, zipfile.ZipFile(tmp_path / "vgg.pth", "w") as new:
        for info in old.infolist():
            new.writestr(info.filename, b"big" if info.filename.endswith("byteorder") else old.read(info))
    assert np.array_equal(torch.load(tmp_path / "vgg.pth")["conv1_1.weight"], KERNEL)
    assert_conv1_1(tmp_path / "vgg.pth")


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300, -1.0, 256.0])
def test_an_invalid_mean_pixel_is_an_error(value: float, tmp_path: Path) -> None:
    files.write_mat(tmp_path / "vgg.mat", files.random_convs("conv1_1"), np.array([120.0, value, 100.0]))
    with pytest.raises(WeightsError, match="averageImage should hold values of 0 to 255"):
        load(tmp_path / "vgg.mat", arch="vgg19")


@pytest.mark.parametrize("shape", [(4,), (5, 4), (4, 5, 1), (3, 4, 5, 3)])
def test_a_mean_pixel_of_another_shape_is_an_error(shape: tuple[int, ...], tmp_path: Path) -> None:
    files.write_mat(tmp_path / "vgg.mat", files.random_convs("conv1_1"), np.full(shape, 120.0))
    with pytest.raises(WeightsError, match=r"averageImage should be \[3\] or \[height, width, 3\], found"):
        load(tmp_path / "vgg.mat", arch="vgg19")


def test_weights_too_large_for_float32_are_rejected(tmp_path: Path) -> None:
    files.write_one_layer(tmp_path / "vgg.npz", np.full(KERNEL.shape, 1e300), BIAS)
    with pytest.raises(WeightsError, match="conv1_1 weight holds NaN or infinite values"):
        load(tmp_path / "vgg.npz", arch="vgg19")


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        ({"convention": "foo"}, "its convention should be caffe or caffe-rgb or torchvision, found foo"),
        ({"arch": "vgg11"}, "its arch should be vgg16 or vgg19, found vgg11"),
        ({"arch": ["vgg19"]}, "its arch should be a text, found list"),
        ({"name": 7}, "its name should be a text, found int"),
        ({"license": None}, "its license should be a text, found NoneType"),
        ({"source": {"a": 1}}, "its source should be a text, found dict"),
    ],
)
def test_the_error_names_invalid_metadata_of_a_codebook_file(
    facts: dict[str, Any], expected: str, tmp_path: Path
) -> None:
    files.write_codebook(tmp_path / "vgg.safetensors", **facts)
    with pytest.raises(WeightsError, match=expected):
        load(tmp_path / "vgg.safetensors")


@pytest.mark.parametrize(
    ("tensors", "expected"),
    [
        ({"conv1_1.index": np.zeros((64, 3, 3, 3), np.int32)}, "conv1_1 weight should hold uint8, found I32"),
        ({"conv1_1.index": np.zeros((64, 3, 3), np.uint8)}, r"conv1_1 weight should be \[64, 3, 3, 3\]"),
        ({"conv1_1.codebook": np.zeros(255, np.float32)}, "conv1_1.codebook should be 256 float32 numbers"),
        ({"conv1_1.codebook": np.zeros(256, np.float64)}, "conv1_1.codebook should be 256 float32 numbers"),
        ({"conv1_1.bias": np.zeros(63, np.float32)}, r"conv1_1 bias should be \[64\], found \[63\]"),
        ({"\x1b[31m.index": np.zeros(1, np.uint8)}, "damaged"),
    ],
)
def test_the_error_names_invalid_tensors_of_a_codebook_file(
    tensors: dict[str, Any], expected: str, tmp_path: Path
) -> None:
    files.write_codebook(tmp_path / "vgg.safetensors", tensors)
    with pytest.raises(WeightsError, match=expected) as caught:
        load(tmp_path / "vgg.safetensors")
    assert str(caught.value).isprintable()


def test_foreign_texts_are_escaped_before_they_reach_a_terminal(tmp_path: Path) -> None:
    files.write_codebook(
        tmp_path / "vgg.safetensors", name="\x1b[31mred\x07\nline2", license="a\u202eb", source="é" * 999
    )
    weights = load(tmp_path / "vgg.safetensors")
    assert weights.name == r"\x1b[31mred\x07\x0aline2"
    assert weights.license == r"a\u202eb"
    assert weights.source == "é" * 197 + "..."


@pytest.mark.parametrize("key", ["\x1b[31m.weight", "a\nb", "\u202e", "\x07" * 1000])
def test_foreign_keys_in_errors_are_escaped(key: str, tmp_path: Path) -> None:
    import h5py
    from safetensors.torch import save_file

    torch.save({key: torch.zeros(2)}, tmp_path / "vgg.pth")
    save_file({key: torch.zeros(2)}, tmp_path / "vgg.safetensors")
    np.savez(tmp_path / "vgg.npz", **{key: np.zeros(2)})
    with h5py.File(tmp_path / "vgg.h5", "w") as file:
        file[key] = np.zeros(2)
    scipy.io.savemat(tmp_path / "vgg.mat", {"layers": files._cell({"name": key})})
    for suffix in (".pth", ".safetensors", ".npz", ".h5", ".mat"):
        with pytest.raises(WeightsError, match="no VGG convolutions found") as caught:
            load(tmp_path / f"vgg{suffix}")
        assert str(caught.value).isprintable()
        assert len(str(caught.value)) < 500


def test_the_name_of_a_file_is_escaped(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"a\\x0ab\.pth: no such file"):
        load(tmp_path / "a\nb.pth")


def test_threads_load_the_same_weights(tmp_path: Path) -> None:
    convs = files.random_convs()
    for suffix, write in ((".pth", files.write_pth), (".h5", files.write_keras2), (".mat", files.write_mat)):
        write(tmp_path / f"vgg{suffix}", convs)
    paths = [tmp_path / f"vgg{suffix}" for suffix in (".pth", ".h5", ".mat")] * 4
    with ThreadPoolExecutor(4) as pool:
        loaded = list(pool.map(lambda path: load(path, arch="vgg19"), paths))
    for weights in loaded:
        assert all(np.array_equal(weights.convs[name][0], kernel) for name, (kernel, _) in convs.items())

"""Every format gives the same convolutions: float32, [out, in, 3, 3], RGB, with the right mean and scale."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import weights_files as files
from weights_files import CAFFE, TORCHVISION, Convs

from fastnst.errors import UsageError, WeightsError
from fastnst.weights import Weights, load
from fastnst.weights.entries import BUNDLED

FORMATS: dict[str, tuple[Callable[[Path, Convs], None], Any]] = {
    "vgg.pth": (files.write_pth, TORCHVISION),
    "old.pth": (files.write_old_pth, TORCHVISION),
    "checkpoint.pt": (files.write_checkpoint, TORCHVISION),
    "features.PTH": (files.write_features_only, TORCHVISION),
    "vgg.safetensors": (files.write_safetensors, TORCHVISION),
    "named.safetensors": (files.write_named_safetensors, TORCHVISION),
    "keras1.h5": (files.write_keras1, CAFFE),
    "keras2.h5": (files.write_keras2, CAFFE),
    "model.h5": (files.write_keras2_model, CAFFE),
    "keras3.weights.h5": (files.write_keras3, CAFFE),
    "unnamed.weights.h5": (files.write_unnamed_keras3, CAFFE),
    "verydeep.mat": (files.write_mat, CAFFE),
    "verydeep-2014.mat": (files.write_old_mat, CAFFE),
    "vgg16_weights.npz": (files.write_npz, CAFFE),
}


def oxford_bgr() -> Any:
    """Oxford's first layer as in Caffe files, read from the bundle without fastnst."""
    tensors, _ = files.bundle_tensors(BUNDLED)
    return tensors["conv1_1.codebook"][tensors["conv1_1.index"]]


def assert_holds(weights: Weights, convs: Convs) -> None:
    assert list(weights.convs) == sorted(convs)
    for name, (kernel, bias) in convs.items():
        weight, found_bias = weights.convs[name]
        assert weight.dtype == found_bias.dtype == torch.float32
        assert weight.is_contiguous()
        assert torch.equal(weight, torch.tensor(kernel.copy()))
        assert torch.equal(found_bias, torch.tensor(bias))


@pytest.mark.parametrize("filename", FORMATS)
def test_each_format_gives_the_same_convs(filename: str, tmp_path: Path) -> None:
    convs = files.random_convs()
    write, (mean, scale) = FORMATS[filename]
    write(tmp_path / filename, convs)
    weights = load(tmp_path / filename, arch="vgg19", need=convs)
    assert_holds(weights, convs)
    assert weights.mean == pytest.approx(mean)
    assert weights.scale == pytest.approx(scale)
    assert weights.source == str(tmp_path / filename)


@pytest.mark.parametrize("filename", FORMATS)
def test_each_format_reports_exactly_the_missing_layers(filename: str, tmp_path: Path) -> None:
    FORMATS[filename][0](tmp_path / filename, files.random_convs())
    with pytest.raises(WeightsError, match=r"lacks conv5_1, conv2_2; it holds conv1_1 to conv2_1 of VGG-16$"):
        load(tmp_path / filename, arch="vgg16", need=["conv1_1", "conv5_1", "conv2_2"])


@pytest.mark.parametrize(
    ("arch", "names", "positions"),
    [
        ("vgg19", ["conv1_1", "conv3_4"], files.VGG19_POSITIONS),
        ("vgg16", ["conv1_1", "conv4_1"], files.VGG16_POSITIONS),
    ],
)
def test_arch_is_detected_by_the_layers_present(
    arch: str, names: list[str], positions: dict[str, int], tmp_path: Path
) -> None:
    convs = files.random_convs(*names)
    torch.save(files.torchvision_state(convs, positions), tmp_path / "vgg.pth")
    files.write_npz(tmp_path / "vgg.npz", convs)
    for path in (tmp_path / "vgg.pth", tmp_path / "vgg.npz"):
        assert_holds(load(path), convs)
        assert load(path).arch == arch
    other = {"vgg16": "vgg19", "vgg19": "vgg16"}[arch]
    with pytest.raises(WeightsError, match=f"holds {arch.replace('vgg', 'VGG-')}, not {other.replace('vgg', 'VGG-')}"):
        load(tmp_path / "vgg.pth", arch=other)


def test_an_ambiguous_file_requires_arch(tmp_path: Path) -> None:
    files.write_pth(tmp_path / "vgg.pth", files.random_convs())
    with pytest.raises(WeightsError, match=r"VGG-16 and VGG-19 both have; say which with arch='vgg16' or arch='vgg19'"):
        load(tmp_path / "vgg.pth")


def noisy(kernel: Any) -> Any:
    """A first layer after retraining: similar to the original, not equal."""
    spread = 0.2 * np.abs(kernel).mean()
    return (kernel + np.random.default_rng(1).normal(0, spread, kernel.shape)).astype(np.float32)


@pytest.mark.parametrize("write", [files.write_pth, files.write_old_pth, files.write_safetensors, files.write_npz])
@pytest.mark.parametrize(
    "change", [lambda kernel: kernel, noisy, lambda kernel: kernel / 60], ids=["", "noisy", "small"]
)
def test_oxford_weights_are_detected_by_their_first_layer_and_converted_to_rgb(
    write: Callable[[Path, Convs], None], change: Callable[[Any], Any], tmp_path: Path
) -> None:
    path = tmp_path / {"write_npz": "vgg.npz", "write_safetensors": "vgg.safetensors"}.get(write.__name__, "vgg.pth")
    bgr = change(oxford_bgr())
    bias = np.ones(64, np.float32)
    rgb: Convs = {"conv1_1": (bgr[:, ::-1], bias)}
    for stored in (bgr, bgr[:, ::-1]):  # as in Caffe files, and already reversed
        write(path, {"conv1_1": (stored, bias)})
        weights = load(path, arch="vgg19")
        assert_holds(weights, rgb)
        assert (weights.mean, weights.scale) == CAFFE


def test_oxford_weights_with_folded_torchvision_normalization_are_detected_by_their_norm(tmp_path: Path) -> None:
    std = np.array([58.395, 57.12, 57.375], np.float32)[:, None, None]
    folded: Convs = {"conv1_1": (oxford_bgr()[:, ::-1] * std, np.ones(64, np.float32))}
    files.write_pth(tmp_path / "vgg.pth", folded)
    weights = load(tmp_path / "vgg.pth", arch="vgg19")
    assert_holds(weights, folded)
    assert weights.scale == pytest.approx(TORCHVISION[1])


@pytest.mark.parametrize(
    ("convention", "turned", "expected"),
    [("torchvision", False, TORCHVISION), ("caffe-rgb", False, CAFFE), ("caffe", True, CAFFE)],
)
@pytest.mark.parametrize("kernel", [oxford_bgr, lambda: files.random_convs()["conv1_1"][0]], ids=["oxford", "random"])
def test_the_callers_convention_overrules_detection(
    convention: str, turned: bool, expected: Any, kernel: Callable[[], Any], tmp_path: Path
) -> None:
    stored = kernel()
    files.write_pth(tmp_path / "vgg.pth", {"conv1_1": (stored, np.ones(64, np.float32))})
    weights = load(tmp_path / "vgg.pth", arch="vgg19", convention=convention)
    assert_holds(weights, {"conv1_1": (stored[:, ::-1] if turned else stored, np.ones(64, np.float32))})
    assert weights.mean == pytest.approx(expected[0])
    assert weights.scale == pytest.approx(expected[1])


@pytest.mark.parametrize("shape", [(3,), (1, 1, 3), (4, 5, 3)])
def test_matconvnet_mean_is_read_from_the_file(shape: tuple[int, ...], tmp_path: Path) -> None:
    files.write_mat(tmp_path / "vgg.mat", files.random_convs(), np.broadcast_to([120.5, 110.25, 100.0], shape))
    assert load(tmp_path / "vgg.mat", arch="vgg16").mean == (120.5, 110.25, 100.0)
    overruled = load(tmp_path / "vgg.mat", arch="vgg16", convention="torchvision")
    assert overruled.mean == pytest.approx(TORCHVISION[0])


def test_hed_weights_keep_the_mean_they_were_trained_with(tmp_path: Path) -> None:
    import h5py

    files.write_keras3(tmp_path / "hed.weights.h5", files.random_convs())
    with h5py.File(tmp_path / "hed.weights.h5", "a") as file:
        file["dsn1/vars/0"] = np.zeros((1, 1, 64, 1), np.float32)
    assert load(tmp_path / "hed.weights.h5", arch="vgg16").mean == (122.67892, 116.66877, 104.00699)


def test_unnamed_keras_layers_are_ordered_numerically(tmp_path: Path) -> None:
    import h5py

    from fastnst.weights.layout import conv_shapes

    shapes = list(conv_shapes("vgg19").items())[:12]
    with h5py.File(tmp_path / "vgg.weights.h5", "w") as file:
        for number, (_, (outputs, inputs, _, _)) in enumerate(shapes):
            group = file.create_group(f"layers/conv2d{f'_{number}' if number else ''}/vars")
            group.create_dataset("0", (3, 3, inputs, outputs), "f4", fillvalue=number, chunks=True)
            group["1"] = np.zeros(outputs, np.float32)
    weights = load(tmp_path / "vgg.weights.h5")
    assert weights.arch == "vgg19"
    assert [float(weight.max()) for weight, _ in weights.convs.values()] == list(range(12))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_floating_point_types_become_float32(dtype: torch.dtype, tmp_path: Path) -> None:
    state = {key: value.to(dtype) for key, value in files.torchvision_state(files.random_convs("conv1_1")).items()}
    torch.save(state, tmp_path / "vgg.pth")
    weight, bias = load(tmp_path / "vgg.pth", arch="vgg16").convs["conv1_1"]
    assert weight.dtype == bias.dtype == torch.float32
    assert torch.equal(weight, state["features.0.weight"].float())


def test_loaded_weights_do_not_depend_on_the_file(tmp_path: Path) -> None:
    convs = files.random_convs()
    files.write_pth(tmp_path / "vgg.pth", convs)
    weights = load(tmp_path / "vgg.pth", arch="vgg19")
    with (tmp_path / "vgg.pth").open("r+b") as file:
        file.write(bytes((tmp_path / "vgg.pth").stat().st_size))
    assert_holds(weights, convs)


def test_the_error_without_h5py_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files.write_keras2(tmp_path / "vgg.h5", files.random_convs())
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(WeightsError, match=r'needs h5py: pip install "fastnst\[weights\]"'):
        load(tmp_path / "vgg.h5")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"arch": "vgg-19"}, "arch is vgg16 or vgg19, not 'vgg-19', did you mean vgg19"),
        ({"convention": "torch"}, "convention is one of caffe, caffe-rgb, torchvision, not 'torch', did you mean"),
        ({"need": ["conv5_7"]}, "no VGG has a convolution 'conv5_7', did you mean conv5_"),
        ({"spec": "vgg16-torchvison"}, "'vgg16-torchvison' is neither a file nor a name .* did you mean vgg16-torch"),
        ({"spec": "qqq"}, "names: vgg19, vgg19-torchvision"),
    ],
)
def test_invalid_arguments_are_usage_errors(arguments: dict[str, Any], expected: str) -> None:
    with pytest.raises(UsageError, match=expected):
        load(**arguments)


def test_the_error_of_the_bundle_lists_missing_layers() -> None:
    with pytest.raises(WeightsError, match="bundled VGG-19: lacks conv5_2; it holds conv1_1 to conv5_1 of VGG-19"):
        load(need=["conv1_1", "conv5_2"])
    with pytest.raises(WeightsError, match="holds VGG-19, not VGG-16"):
        load(arch="vgg16")

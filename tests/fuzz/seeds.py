"""Small files of every kind that fastnst reads, with the same bytes in every run."""

from __future__ import annotations

import hashlib
import io
import json
import struct
import tempfile
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageCms, features

SIZE = (24, 16)  # width, height
SETTINGS = {"preset": "johnson", "steps": 30, "style_layers": [["relu1_1", 1.0], ["relu2_1", 0.5]], "init": "noise"}
SETTINGS |= {
    "size": 64,
    "scales": [32, 64],
    "betas": [0.9, 0.99],
    "tiles": "auto",
    "memory": None,
    "style_weights": [2],
}
FILES = {"content": {"name": "photo.jpg", "sha256": "0" * 64}, "style": {"name": "painting.jpg", "sha256": "1" * 64}}


def _picture(mode: str = "RGB") -> Image.Image:
    x, y = np.meshgrid(np.arange(SIZE[0]), np.arange(SIZE[1]))
    planes = [(x * 9 + y * (3 + 2 * band)) % 256 for band in range(4)]
    image = Image.fromarray(np.stack(planes, -1).astype(np.uint8), "RGBA" if mode != "CMYK" else "CMYK")
    return image if mode == image.mode else image.convert(mode)


def _saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def _profile() -> bytes:
    data = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    data[24:36] = bytes(12)  # the creation time
    return bytes(data)


def _exif(**texts: str) -> Image.Exif:
    exif = Image.Exif()
    exif[274] = 6
    if texts:
        exif[270] = texts["description"]
    return exif


def _deep_png(bands: int) -> bytes:
    samples = np.arange(SIZE[0] * SIZE[1] * bands, dtype=">u2") * 13
    rows = samples.reshape(SIZE[1], -1).view(np.uint8)
    body = zlib.compress(b"".join(bytes([y % 5]) + row.tobytes() for y, row in enumerate(rows)))
    chunks = [
        (b"IHDR", struct.pack(">2I5B", *SIZE, 16, {1: 0, 3: 2, 4: 6}[bands], 0, 0, 0)),
        (b"IDAT", body),
        (b"IEND", b""),
    ]
    parts = [struct.pack(">I", len(b)) + n + b + struct.pack(">I", zlib.crc32(n + b)) for n, b in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def png() -> list[bytes]:
    palette = _picture("RGB").quantize(16)
    plain = [_saved(_picture("RGBA"), "PNG", icc_profile=_profile(), exif=_exif()), _saved(_picture("L"), "PNG")]
    return [
        *plain,
        _saved(palette, "PNG", transparency=3),
        _saved(_picture("1"), "PNG"),
        _deep_png(1),
        _deep_png(3),
        _deep_png(4),
    ]


def jpeg() -> list[bytes]:
    plain = _saved(_picture(), "JPEG", icc_profile=_profile(), exif=_exif())
    rest = [_saved(_picture(mode), "JPEG") for mode in ("L", "CMYK")]
    return [plain, _saved(_picture(), "JPEG", progressive=True), *rest]


def webp() -> list[bytes]:
    kinds: list[dict[str, Any]] = [{}, {"lossless": True}, {"icc_profile": _profile(), "exif": _exif()}]
    return [_saved(_picture("RGBA"), "WEBP", **kind) for kind in kinds]


def tiff() -> list[bytes]:
    import tifffile

    found = [_saved(_picture(mode), "TIFF", compression=how) for mode, how in (("RGB", "raw"), ("RGBA", "tiff_lzw"))]
    found += [_saved(_picture("CMYK"), "TIFF"), _saved(_picture("RGB"), "TIFF", compression="jpeg")]
    found += [
        _saved(_picture("RGB").quantize(9), "TIFF"),
        _saved(Image.fromarray(np.asarray(_picture("L"), np.float32) / 255), "TIFF"),
    ]
    deep = (np.arange(SIZE[0] * SIZE[1] * 3).reshape(SIZE[1], SIZE[0], 3) * 11).astype(np.uint16)
    kinds: list[dict[str, Any]] = [
        {"compression": "zlib", "rowsperstrip": 5, "iccprofile": _profile()},
        {"tile": (16, 16)},
    ]
    kinds += [{"bigtiff": True, "compression": "zlib"}, {"planarconfig": "separate"}]
    pictures = (deep, deep, (deep >> 8).astype(np.uint8), deep.transpose(2, 0, 1))
    for data, options in zip(pictures, kinds, strict=True):
        stream = io.BytesIO()
        tifffile.imwrite(stream, data, photometric="rgb", metadata=None, software="", **options)
        found.append(stream.getvalue())
    return found


def gif() -> list[bytes]:
    frames = [_picture("RGB").quantize(colors) for colors in (16, 8)]
    return [_saved(frames[0], "GIF", transparency=2), _saved(frames[0], "GIF", save_all=True, append_images=frames[1:])]


def bmp() -> list[bytes]:
    return [_saved(_picture(mode), "BMP") for mode in ("RGB", "L", "1", "RGBA")] + [
        _saved(_picture().quantize(9), "BMP")
    ]


def ppm() -> list[bytes]:
    deep = b"P6\n# a comment\n24 16\n65535\n" + bytes(range(256)) * 9
    return [
        _saved(_picture(), "PPM"),
        _saved(_picture("L"), "PPM"),
        deep,
        b"P2\n3 2\n9\n1 2 3\n4 5 6\n",
        b"Pf\n2 2\n-1.0\n" + bytes(16),
    ]


def avif() -> list[bytes]:
    return [_saved(_picture("RGBA"), "AVIF", icc_profile=_profile())] if features.check("avif") else []


def jpeg2000() -> list[bytes]:
    kinds = ("RGB", "RGBA", "L")
    return [_saved(_picture(mode), "JPEG2000") for mode in kinds] if features.check_codec("jpg_2000") else []


def psd() -> list[bytes]:
    """A flat picture without layers, plain and with packed rows (Adobe Photoshop File Formats Specification)."""
    planes = np.asarray(_picture()).transpose(2, 0, 1)
    head = b"8BPS\0\x01" + bytes(6) + struct.pack(">HIIHH", 3, SIZE[1], SIZE[0], 8, 3) + bytes(12)
    rows = [bytes([SIZE[0] - 1]) + row.tobytes() for plane in planes for row in plane]
    packed = b"".join(struct.pack(">H", len(row)) for row in rows) + b"".join(rows)
    return [head + b"\0\0" + planes.tobytes(), head + b"\0\1" + packed]


# Weights: the first convolution of a VGG, whose shape all readers check


def _conv() -> tuple[Any, Any]:
    kernel = (np.arange(64 * 27, dtype=np.float32) % 31 - 15).reshape(64, 3, 3, 3) / 99
    return kernel, np.arange(64, dtype=np.float32) / 99


def _hwio() -> Any:
    return np.ascontiguousarray(_conv()[0].transpose(2, 3, 1, 0))


def _file(write: Callable[[Path], object]) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "seed")
        write(path)
        return path.read_bytes()


def safetensors() -> list[bytes]:
    import torch

    kernel, bias = map(torch.from_numpy, _conv())
    meta = {"format": "fastnst-codebook-1", "arch": "vgg19", "convention": "caffe", "name": "a name"}
    meta |= {"license": "a license", "source": "a source", "decoded_sha256": {}}
    index = (torch.arange(64 * 27) % 256).to(torch.uint8).reshape(64, 3, 3, 3)
    coded = {"conv1_1.codebook": torch.arange(256.0) / 99, "conv1_1.index": index, "conv1_1.bias": bias}
    plain = [packed({f"{name}.weight": kernel, f"{name}.bias": bias}, {}) for name in ("features.0", "conv1_1")]
    return [*plain, *[packed(coded, {"fastnst": json.dumps(meta)})] * 2]


def pth() -> list[bytes]:
    import torch

    kernel, bias = map(torch.from_numpy, _conv())
    both = torch.cat([kernel.flatten(), bias])  # views of one storage, which the old format names by its address
    state = {"features.0.weight": both[: kernel.numel()].view_as(kernel), "features.0.bias": both[kernel.numel() :]}
    kinds: list[tuple[Any, bool]] = [(state, True), ({"epoch": 3, "state_dict": state}, True), (state, False)]
    new, nested, old = [_file(lambda p, s=s, z=z: torch.save(s, p, _use_new_zipfile_serialization=z)) for s, z in kinds]
    name = str(both.untyped_storage()._cdata).encode()
    return [new, nested, old.replace(struct.pack("<cI", b"X", len(name)) + name, b"X\1\0\0\x000")]


def h5() -> list[bytes]:
    import h5py

    def write(path: Path, kernel: str, bias: str, **options: Any) -> None:
        with h5py.File(path, "w") as file:
            file.create_dataset(kernel, data=_hwio(), **options)
            file.create_dataset(bias, data=_conv()[1])
            file[kernel].parent.attrs["name"] = "block1_conv1"

    named = ("block1_conv1/block1_conv1/kernel:0", "block1_conv1/block1_conv1/bias:0")
    third = ("layers/conv2d/vars/0", "layers/conv2d/vars/1")
    deflated = {"chunks": True, "compression": "gzip", "shuffle": True}
    return [
        _file(lambda p: write(p, *named)),
        _file(lambda p: write(p, *third)),
        _file(lambda p: write(p, *named, **deflated)),
    ]


def mat() -> list[bytes]:
    from scipy.io import savemat

    def cell(*values: Any) -> Any:
        found = np.empty((1, len(values)), dtype=object)
        for at, value in enumerate(values):
            found[0, at] = value
        return found

    def undated(path: Path, content: Any, compressed: bool) -> None:
        savemat(path, content, do_compression=compressed)
        data = path.read_bytes()
        path.write_bytes(b"MATLAB 5.0 MAT-file".ljust(124) + data[124:])  # instead of the creation time

    new = {"name": "conv1_1", "type": "conv", "weights": cell(_hwio(), _conv()[1][:, None])}
    old = {"name": "conv1_1", "type": "conv", "filters": _hwio(), "biases": _conv()[1][None]}
    mean = {"averageImage": np.array([[[123.0, 117.0, 104.0]]])}
    first = {"layers": cell(new, {"name": "relu1_1", "type": "relu"}), "meta": {"normalization": mean}}
    second = {"layers": cell(old), "normalization": mean}
    return [_file(lambda p, c=c, z=z: undated(p, c, z)) for c in (first, second) for z in (False, True)]


def npz() -> list[bytes]:
    kinds = [np.savez, np.savez_compressed]

    def write(path: Path, save: Any) -> None:
        with path.open("wb") as stream:
            save(stream, conv1_1_W=_hwio(), conv1_1_b=_conv()[1], fc8_b=np.zeros(3))

    return [_file(lambda p, save=save: write(p, save)) for save in kinds]


# Settings and runs


def toml() -> list[bytes]:
    first = """preset = "johnson"
scales = 2
steps = [30, 20]
size = 64
style_weight = 200.5
clamp = true
[style_layers]
relu1_1 = 1.0
"""
    second = """fastnst = "0.1.0"
preset = "spst"
size = false
crop = 99
betas = [0.9, 0.99]
memory = 4000000000
tiles = 32
"""
    third = """init = "noise"
seed = 7
style_weights = [2.0, 1]
weights = "vgg19"
"""
    return [text.encode() for text in (first, second, third)]


def settings_json() -> list[bytes]:
    """The JSON in an image file; :func:`with_json` creates the file."""
    return [
        json.dumps({"fastnst": "0.1.0", **SETTINGS, "files": FILES}).encode(),
        json.dumps({**SETTINGS, "size": None, "scales": 2}).encode(),
    ]


def with_json(text: bytes, kind: str) -> bytes:
    """An image file with the text where ``images.save`` stores settings."""
    from PIL.PngImagePlugin import PngInfo

    shown = text.decode("latin1")
    if kind == "PNG":
        info = PngInfo()
        info.add_text("fastnst", shown)
        return _saved(_picture(), "PNG", pnginfo=info)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return _saved(_picture(), kind, exif=_exif(description="fastnst " + shown[:60000]))


def signed(tensors: dict[str, Any], header: Any, version: str = "2") -> bytes:
    """A checkpoint with a correct digest: SHA-256 of the text and, by name, of dtype, shape and bytes."""
    text = header if isinstance(header, str) else json.dumps(header)
    found = hashlib.sha256(text.encode("utf-8", "surrogatepass"))
    for name in sorted(tensors):
        found.update(f"{tensors[name].dtype} {tuple(tensors[name].shape)}".encode())
        found.update(_bytes(tensors[name]))
    return packed(tensors, {"fastnst checkpoint": version, "run": text, "sha256": found.hexdigest()})


def packed(tensors: dict[str, Any], metadata: dict[str, str]) -> bytes:
    """A safetensors file; the library itself writes metadata in random order."""
    names = {"float64": "F64", "float32": "F32", "float16": "F16", "int64": "I64", "uint8": "U8", "bool": "BOOL"}
    entries: dict[str, Any] = {"__metadata__": metadata}
    at = 0
    for name, tensor in tensors.items():
        kind, size = names[str(tensor.dtype).removeprefix("torch.")], tensor.numel() * tensor.element_size()
        entries[name] = {"dtype": kind, "shape": list(tensor.shape), "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(entries).encode()
    return struct.pack("<Q", len(text)) + text + b"".join(map(_bytes, tensors.values()))


def _bytes(tensor: Any) -> bytes:
    return bytes(tensor.contiguous().numpy().tobytes())

"""One reader per file format, selected by the file's suffix and confirmed by its content."""

from __future__ import annotations

import zipfile
from pathlib import Path

from fastnst.errors import WeightsError, printable
from fastnst.weights.readers import keras, matconvnet, npz, safetensors_file, torch_file
from fastnst.weights.readers.common import Content, parsing

_READERS = {
    "PyTorch": torch_file.read,
    "safetensors": safetensors_file.read,
    "HDF5": keras.read,
    "MATLAB": matconvnet.read,
    "NumPy": npz.read,
}
_SUFFIXES = {
    ".pth": "PyTorch",
    ".pt": "PyTorch",
    ".safetensors": "safetensors",
    ".h5": "HDF5",
    ".hdf5": "HDF5",
    ".mat": "MATLAB",
    ".npz": "NumPy",
}


def read(path: Path) -> Content:
    """Read a weights file. Raises WeightsError."""
    label = printable(str(path), 4096)
    with parsing(label, "weights"):
        if not path.exists():
            raise WeightsError("no such file")
        if path.is_dir():
            raise WeightsError("a folder; give the weights file itself")
        if not path.is_file():
            raise WeightsError("a pipe or a device; give a regular file")
        by_name = _SUFFIXES.get(path.suffix.lower())
        if by_name is None:
            raise WeightsError(f"unknown kind of weights file; fastnst reads {', '.join(_SUFFIXES)}")
        by_content = _sniff(path)
        if by_content != by_name:
            found = by_content or "no weights fastnst knows"
            raise WeightsError(f"named {path.suffix}, but its content is {found}")
    with parsing(label, by_name):
        return _READERS[by_name](path)


def _sniff(path: Path) -> str | None:
    """Detect the format from the first bytes, and for zip files from their members."""
    with path.open("rb") as file:
        start = file.read(16)
    if not start:
        raise WeightsError("an empty file")
    if start.startswith(b"PK\x03\x04"):
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
        if any(name.endswith("data.pkl") for name in names):
            return "PyTorch"
        return "NumPy" if any(name.endswith(".npy") for name in names) else None
    if start.startswith(b"\x89HDF\r\n\x1a\n"):
        return "HDF5"
    if start.startswith(b"MATLAB 7.3"):
        raise WeightsError("a MATLAB 7.3 file; save it again with save(..., '-v7')")
    if start.startswith(b"MATLAB 5.0"):
        return "MATLAB"
    if start[8:9] == b"{":  # eight bytes of length, then JSON
        return "safetensors"
    return "PyTorch" if start.startswith(b"\x80") else None  # a pickle, as torch.save wrote before 1.6

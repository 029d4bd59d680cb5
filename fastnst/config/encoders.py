"""Encoders beside VGG by name: built in, registered from Python, or offered by installed packages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastnst.config.encoder_entry import EncoderEntry
from fastnst.config.encoder_table import ENTRIES
from fastnst.config.layer_names import BLOCKS, layer_names, layer_stride
from fastnst.config.offers import load_offer, offered_names
from fastnst.config.presets import Layers
from fastnst.config.receptive import ReceptiveField, vgg_fields
from fastnst.errors import UsageError, nearest

GROUP = "fastnst.encoders"

_registered: dict[str, EncoderEntry] = {}


def find_encoder(name: str) -> EncoderEntry:
    """Return the encoder called ``name``.

    Built-in encoders take precedence over registered ones, and these over the entry points of the group
    ``fastnst.encoders``. An entry point is loaded only when its name is requested.

    Raises:
        UsageError: there is no such name (the nearest is suggested), or the entry point does not load, is not an
            :class:`EncoderEntry` of that name, or is provided twice.

    Example:
        >>> from fastnst.network import find_encoder
        >>> find_encoder("efficientnet_lite0").fields["block4"].stride
        8
    """
    found = _find(name)
    if found is None:
        known = (*BLOCKS, *encoders())
        raise UsageError(f"unknown network {name!r}{nearest(name, known)} (known: {', '.join(known)})")
    return found


def encoders() -> tuple[str, ...]:
    """Return the names of all encoders beside VGG, without loading entry points.

    Example:
        >>> from fastnst.network import encoders
        >>> encoders()[0]
        'efficientnet_lite0'
    """
    return tuple(dict.fromkeys((*ENTRIES, *_registered, *offered_names(GROUP))))


def register_encoder(entry: EncoderEntry) -> None:
    """Register an encoder in this process, replacing an earlier registration of its name.

    Raises:
        UsageError: its name is that of a built-in encoder.

    Example:
        >>> from fastnst.network import EncoderEntry, ReceptiveField, encoders, register_encoder
        >>> field = ReceptiveField().then(3, padding=1)
        >>> layers = (("0", 1.0),)
        >>> register_encoder(EncoderEntry("example", "my_package:build", {"0": field}, layers, layers))
        >>> "example" in encoders()
        True
    """
    if entry.name in ENTRIES:
        raise UsageError(f"encoder {entry.name!r} is built in; choose another name")
    _registered[entry.name] = entry


def with_default_layers(arch: str, values: Mapping[str, Any], fields: Mapping[str, Any]) -> dict[str, Layers]:
    """The layers of the losses for a network, where the settings have those that VGG has by default.

    ``values`` are the settings by name, ``fields`` their fields.
    """
    entry = _known(arch)
    if entry is None:
        return {}
    own = {"content_layers": entry.content_layers, "style_layers": entry.style_layers}
    return {name: layers for name, layers in own.items() if values[name] == fields[name].default}


def receptive_fields(arch: str) -> Mapping[str, ReceptiveField]:
    """Return the receptive field of every layer of a network, VGG or an encoder, by name, shallow layers first.

    Raises:
        UsageError: an unknown network.

    Example:
        >>> from fastnst.network import receptive_fields
        >>> receptive_fields("vgg19")["relu4_1"]
        ReceptiveField(size=68, stride=8, before=30, after=30)
    """
    return vgg_fields(arch) if arch in BLOCKS else find_encoder(arch).fields


def network_layers(arch: str) -> tuple[str, ...]:
    """Every layer of a network in order; an empty tuple for an unknown network."""
    entry = _known(arch)
    return layer_names(arch) if entry is None else tuple(entry.fields)


def stride_of(arch: str, name: str) -> int:
    """The pixels from one position of a layer to the next; 1 for an unknown layer. Weights may be those of another VGG
    than ``arch``."""
    entry = _known(arch)
    if entry is not None:
        return entry.fields[name].stride if name in entry.fields else 1
    return layer_stride(name) if any(name in layer_names(one) for one in BLOCKS) else 1


def _known(arch: str) -> EncoderEntry | None:
    """The encoder called ``arch``; None for VGG, and for one that a run refuses, so that settings can be read."""
    try:
        return None if arch in BLOCKS else _find(arch)
    except UsageError:
        return None


def _find(name: str) -> EncoderEntry | None:
    if name in ENTRIES:
        return ENTRIES[name]
    if name in _registered:
        return _registered[name]
    offer = load_offer(GROUP, name, "encoder")
    if offer is None:
        return None
    where, found = offer
    if not isinstance(found, EncoderEntry) or found.name != name:
        raise UsageError(f"{where} is no EncoderEntry of that name")
    _registered[name] = found
    return found

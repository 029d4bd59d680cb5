"""VGG-16 and VGG-19: their layers, their forward pass, and which layers are computed together; other networks."""

from __future__ import annotations

from fastnst.config.encoder_entry import EncoderEntry, PackagedFile
from fastnst.config.encoders import encoders, find_encoder, receptive_fields, register_encoder
from fastnst.config.receptive import ReceptiveField
from fastnst.network.encoder import ModuleEncoder
from fastnst.network.registered import RegisteredEncoder
from fastnst.network.vgg import VGG

__all__ = [
    "VGG",
    "EncoderEntry",
    "ModuleEncoder",
    "PackagedFile",
    "ReceptiveField",
    "RegisteredEncoder",
    "encoders",
    "find_encoder",
    "receptive_fields",
    "register_encoder",
]

"""VGG-16 and VGG-19: their layers, their forward pass, and which layers are computed together; other networks."""

from __future__ import annotations

from fastnst.network.encoder import ModuleEncoder
from fastnst.network.vgg import VGG

__all__ = ["VGG", "ModuleEncoder"]

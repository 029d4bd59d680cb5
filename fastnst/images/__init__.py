"""Pictures in and out: files, Pillow images, arrays and tensors to float RGB tensors, and back to files.

Inside the library a picture is a float32 tensor ``[1, 3, H, W]``: RGB, sRGB, 0..1. Everything a file may bring along
(orientation, colour profile, transparency, depth) is dealt with here, at the border.
"""

from __future__ import annotations

from fastnst.images.contact import sheet
from fastnst.images.loading import Picture, load
from fastnst.images.saving import check_target, save
from fastnst.images.scaling import fit, resize
from fastnst.images.settings import read_settings

__all__ = ["Picture", "check_target", "fit", "load", "read_settings", "resize", "save", "sheet"]

"""Reading and writing images: files, Pillow images, arrays and tensors to float RGB tensors, and back to files.

Inside the library an image is a float32 tensor ``[1, 3, H, W]``: RGB, sRGB, 0..1. Orientation, color profiles,
transparency and depth of files are handled here.
"""

from __future__ import annotations

from fastnst.images.contact_sheet import sheet
from fastnst.images.loading import Picture, Source, load
from fastnst.images.metadata import read_settings
from fastnst.images.saving import save
from fastnst.images.scaling import fit, resize
from fastnst.images.targets import check_target

__all__ = ["Picture", "Source", "check_target", "fit", "load", "read_settings", "resize", "save", "sheet"]

"""From FFmpeg's frames to pictures and back: color matrix and range, depth, alpha, rotation, pixel aspect.

The conversions are FFmpeg's (swscale), at 16 bits per channel. Matrix and range are those of the frame's tags. Where
tags are missing, the matrix is BT.709 for pictures of high definition and BT.601 for smaller ones, as players assume,
and the range is limited. Transfer functions are not converted: values are taken as those of a display, as players do.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastnst import images
from fastnst.errors import ImageError, UsageError
from fastnst.images import Picture

if TYPE_CHECKING:
    from av.video.frame import VideoFrame

_BT709, _BT601, _UNSPECIFIED = 1, 5, 2
_LIMITED = 1  # AVCOL_RANGE_MPEG
_HD = (1280, 576)  # wider or higher: BT.709
# Bicubic, accurate rounding, chroma interpolated at full resolution: SWS_BICUBIC and so on.
_FLAGS = 0x4 | 0x40000 | 0x2000 | 0x4000
_EIGHT_BITS = {"bgra": "rgba", "argb": "rgba", "rgba": "rgba", "bgr0": "rgb24", "rgb24": "rgb24", "gbrp": "rgb24"}
_MOST_STRETCH = 16


@dataclass(frozen=True)
class Geometry:
    """How a coded picture is shown: scaled to square pixels, then transposed, then mirrored.

    Attributes:
        width: width as coded, with square pixels.
        height: height as coded, with square pixels.
        transposed: whether rows become columns.
        flip_rows: whether the order of rows is then reversed.
        flip_columns: whether the order of columns is then reversed.
    """

    width: int
    height: int
    transposed: bool = False
    flip_rows: bool = False
    flip_columns: bool = False

    @property
    def shown(self) -> tuple[int, int]:
        """Width and height as shown."""
        return (self.height, self.width) if self.transposed else (self.width, self.height)

    def orient(self, array: NDArray[Any]) -> NDArray[Any]:
        """A view of ``[H, W, C]`` as shown."""
        if self.transposed:
            array = array.transpose(1, 0, 2)
        return array[:: -1 if self.flip_rows else 1, :: -1 if self.flip_columns else 1]


def find_geometry(frame: VideoFrame, aspect: Fraction | None) -> Geometry:
    """The geometry of a frame whose pixels have the given ratio of width to height. No side becomes shorter."""
    width, height = frame.width, frame.height
    if aspect is not None and Fraction(1, _MOST_STRETCH) <= aspect <= _MOST_STRETCH:
        if aspect > 1:
            width = round(width * aspect)
        elif aspect < 1:
            height = round(height / aspect)
    a, b, c, d = _display_matrix(frame)
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return Geometry(width, height, False, flip_rows=d < 0, flip_columns=a < 0)
    return Geometry(width, height, True, flip_rows=b < 0, flip_columns=c < 0)


def _display_matrix(frame: VideoFrame) -> tuple[int, int, int, int]:
    """``x' = a x + c y, y' = b x + d y`` of the display matrix (ISO/IEC 14496-12, 6.2.2), to the nearest quarter."""
    every: Any = frame.side_data
    for data in every:
        if getattr(data.type, "name", "") == "DISPLAYMATRIX" and data.buffer_size >= 36:
            a, b, _, c, d, *_ = struct.unpack("=9i", bytes(data)[:36])
            if (a, b, c, d) != (0, 0, 0, 0):
                return a, b, c, d
    return 1, 0, 0, 1


def has_alpha(frame: VideoFrame) -> bool:
    """Whether a frame's format has an alpha channel. Palettes have one that is opaque as a rule; it counts."""
    return frame.format.name == "pal8" or any(component.is_alpha for component in frame.format.components)


def to_picture(frame: VideoFrame, geometry: Geometry, path: Path | None) -> Picture:
    """The picture that a frame shows."""
    source = None
    if frame.format.is_rgb is False and frame.colorspace == _UNSPECIFIED:
        high = frame.width >= _HD[0] or frame.height > _HD[1]
        source = _BT709 if high else _BT601
    # Within 8-bit RGB bytes are moved, which is exact; with 16 bits swscale would round on its way through YUV.
    shallow = frame.format.is_rgb and all(component.bits <= 8 for component in frame.format.components)
    most = 255 if shallow or frame.format.name == "pal8" else 65535
    form = ("rgba" if has_alpha(frame) else "rgb24") if most == 255 else "rgba64le" if has_alpha(frame) else "rgb48le"
    converted = frame.reformat(
        geometry.width, geometry.height, form, src_colorspace=source, interpolation=_FLAGS, threads=1
    )
    samples = geometry.orient(converted.to_ndarray())
    if samples.shape[2] == 4 and samples[..., 3].min() < most:
        if samples[..., 3].any():
            return Picture(*_pair(images.load(np.ascontiguousarray(samples))), path)
        empty = torch.zeros(1, 1, *samples.shape[:2])
        return Picture(empty.expand(1, 3, -1, -1).contiguous(), empty, path)
    planes = np.ascontiguousarray(samples[..., :3].transpose(2, 0, 1), np.float32)
    planes /= most
    return Picture(torch.from_numpy(planes)[None], None, path)


def _pair(picture: Picture) -> tuple[Tensor, Tensor | None]:
    return picture.pixels, picture.alpha


def to_frame(pixels: Tensor, alpha: Tensor | None, form: str, padded: tuple[int, int]) -> VideoFrame:
    """A frame in pixel format ``form`` for FFmpeg's encoders: BT.709, limited range, or RGB.

    ``padded`` is width and height of the frame; pixels beyond the picture repeat its last column and row.
    """
    import av

    bits = 8 if form in _EIGHT_BITS else 16
    levels = quantize(pixels, alpha, bits)
    rows, columns = padded[1] - levels.shape[0], padded[0] - levels.shape[1]
    if rows or columns:
        levels = np.pad(levels, ((0, rows), (0, columns), (0, 0)), mode="edge")
    if bits == 8:
        wanted = _EIGHT_BITS[form]
        if levels.shape[2] == 3 and wanted == "rgba":
            levels = np.pad(levels, ((0, 0), (0, 0), (0, 1)), constant_values=255)
        return av.VideoFrame.from_ndarray(np.ascontiguousarray(levels), format=wanted).reformat(format=form, threads=1)
    source = "rgba64le" if levels.shape[2] == 4 else "rgb48le"
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(levels), format=source)
    return frame.reformat(format=form, dst_colorspace=_BT709, dst_color_range=_LIMITED, interpolation=_FLAGS, threads=1)


def quantize(pixels: Tensor, alpha: Tensor | None, bits: int) -> NDArray[Any]:
    """Pixels and alpha in 0..1 as integers ``[H, W, 3 or 4]``, uint8 or uint16, rounded to nearest.

    Raises UsageError for other shapes, ImageError for values that are not finite.
    """
    check_pixels(pixels, alpha)
    planes = pixels.detach()[0] if alpha is None else torch.cat([pixels.detach()[0], alpha.detach()[0].to(pixels)])
    values = planes.to("cpu", torch.float32).permute(1, 2, 0).numpy()
    if not np.isfinite(values).all():
        raise ImageError("film: a frame contains values that are not finite (NaN or infinite); expected 0..1")
    scaled: NDArray[np.float32] = values.clip(0, 1) * np.float32(2**bits - 1) + np.float32(0.5)
    return scaled.astype(np.uint16 if bits == 16 else np.uint8)


def check_pixels(pixels: Tensor, alpha: Tensor | None) -> None:
    """Raise UsageError unless the shapes are ``[1, 3, H, W]`` and ``[1, 1, H, W]``, of floats."""
    shape = tuple(pixels.shape)
    if len(shape) != 4 or shape[:2] != (1, 3) or 0 in shape or not pixels.is_floating_point():
        raise UsageError(f"film: expected pixels as floats [1, 3, H, W], got {pixels.dtype} of shape {shape}")
    if alpha is not None and tuple(alpha.shape) != (1, 1, *shape[2:]):
        raise UsageError(f"film: expected alpha [1, 1, {shape[2]}, {shape[3]}], got shape {tuple(alpha.shape)}")

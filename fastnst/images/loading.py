"""``load``: an image from a file, a Pillow image, an array or a tensor, optionally resized or cropped."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastnst.errors import ImageError, UsageError
from fastnst.images import decoding
from fastnst.images.depth16 import Decoded
from fastnst.images.guards import check_range, check_size, one_line
from fastnst.images.opening import FileSource, is_file
from fastnst.images.scaling import check_integer, cover, fit, lanczos, resize

_HALF_LEVEL = 0.5 / 255
"""Alpha below which a color is treated as invisible, because dividing it by alpha would give noise."""
_ARRAY_SCALES = {np.dtype(bool): 1, np.dtype(np.uint8): 255, np.dtype(np.uint16): 65535}
_TENSOR_SCALES = {torch.bool: 1, torch.uint8: 255, torch.uint16: 65535}
_INTEGER_TENSORS = (torch.int8, torch.int16, torch.int32, torch.int64, torch.uint32, torch.uint64)


@dataclass(frozen=True, eq=False)
class Picture:
    """An image in the library's representation.

    Colors are not multiplied by alpha. Fully transparent pixels, whose colors in files are arbitrary, have the mean of
    the visible colors weighted by alpha, so that they add no color to a style.

    Attributes:
        pixels: float32 ``[1, 3, H, W]``, RGB, sRGB, 0..1, on the CPU.
        alpha: float32 ``[1, 1, H, W]``, 0..1, for :func:`save`; None if the image is opaque.
        path: the file that the image was read from, if any.

    Example:
        >>> import torch
        >>> picture = Picture(torch.rand(1, 3, 48, 64))
        >>> picture.size
        (48, 64)
    """

    pixels: Tensor
    alpha: Tensor | None = None
    path: Path | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.pixels.shape[-2], self.pixels.shape[-1]


Source = FileSource | PIL.Image.Image | NDArray[Any] | Tensor | Picture
"""What :func:`load` accepts: a file by path, as bytes or open, a Pillow image, an array, a tensor or a Picture."""


def load(
    source: Source,
    *,
    size: int | None = None,
    crop: int | tuple[int, int] | None = None,
    max_pixels: int | None = None,
) -> Picture:
    """Load an image.

    EXIF orientation is applied, and color is converted to sRGB by the embedded profile. 16-bit PNG and TIFF files keep
    their depth. Of several frames the first is read. Of camera raw, and of TIFF whose first page is a thumbnail, the
    largest embedded image other than sensor data is read.

    Args:
        source: a file (PNG, JPEG, WebP, TIFF, GIF, BMP, PPM, AVIF, JPEG 2000, PSD, and HEIF with pillow-heif), a Pillow
            image, an array ``[H, W]`` or ``[H, W, C]``, a tensor ``[H, W]``, ``[C, H, W]`` or ``[1, C, H, W]``, or a
            :class:`Picture`. A file is a path, its bytes, or a file object, which is read from its start, or if it
            cannot be rewound, from where it is. The channels are gray, gray and alpha, RGB, or RGB and alpha. Values
            are uint8 (0..255), uint16 (0..65535), bool or floats in 0..1.
        size: resize by Lanczos so that the longest side has this many pixels.
        crop: a side, or height and width: resize by Lanczos to the smallest size that covers it, and crop the center.
        max_pixels: limit on the pixels of a file, instead of ``PIL.Image.MAX_IMAGE_PIXELS``. A file object may hold
            8 bytes for each, and 64 MiB more.

    Returns:
        The image as a :class:`Picture`.

    Raises:
        ImageError: a file that is missing, unreadable, damaged, too large, below 2 x 2 pixels or with one side more
            than 1000 times the other; camera raw without a preview of at least half its size; values that are not
            finite or not in 0..1.
        UsageError: an invalid argument.

    Example:
        >>> import numpy as np
        >>> from fastnst import images
        >>> images.load(np.zeros((480, 640, 3), np.uint8), size=320).pixels.shape
        torch.Size([1, 3, 240, 320])
    """
    if size is not None and crop is not None:
        raise UsageError("load: expected size or crop, got both")
    for name, value in (("size", size), ("max_pixels", max_pixels)):
        if value is not None:
            check_integer(name, value)
    box = None if crop is None else _crop_size(crop)
    picture = source if isinstance(source, Picture) else _decode(source, max_pixels)
    height, width = picture.pixels.shape[-2:]
    if size is not None:
        return _resize(picture, *fit(height, width, size))
    if box is not None:
        return _crop_center(_resize(picture, *cover(height, width, box)), *box)
    return picture


def _crop_size(crop: int | tuple[int, int]) -> tuple[int, int]:
    sides = crop if isinstance(crop, (tuple, list)) else (crop, crop)
    if len(sides) != 2:
        raise UsageError(f"crop: expected a side or (height, width), got {crop!r}")
    return check_integer("crop", sides[0]), check_integer("crop", sides[1])


def _decode(source: Source, max_pixels: int | None) -> Picture:
    if isinstance(source, PIL.Image.Image):
        name = "the Pillow image"
        check_size(name, source.width, source.height, max_pixels)
        try:
            return _picture(decoding.decode_image(source.copy(), name), None)
        except (ImageError, MemoryError):
            raise
        except Exception as error:  # Pillow reads lazily, and the image's file may be damaged, closed or deleted
            raise ImageError(f"{name}: cannot be decoded ({one_line(error)})") from error
    if isinstance(source, Tensor):
        return _picture(_from_tensor(source), None)
    if isinstance(source, np.ndarray):
        return _picture(_from_array(source), None)
    if is_file(source):
        return _picture(*decoding.decode_file(source, max_pixels))
    raise UsageError(
        "load: expected a path, bytes, a file object, a Pillow image, an array, a tensor or a Picture, "
        f"got {type(source).__name__}"
    )


def _from_tensor(source: Tensor) -> Decoded:
    if source.layout != torch.strided or source.is_nested or source.is_meta or source.is_quantized:
        raise UsageError(f"load: expected a plain tensor, got {source.layout}, {source.dtype} on {source.device}")
    shape = tuple(source.shape)
    channels = 1 if len(shape) == 2 else shape[-3] if len(shape) == 3 or (len(shape) == 4 and shape[0] == 1) else 0
    if channels not in (1, 2, 3, 4) or not (source.dtype in _TENSOR_SCALES or source.is_floating_point()):
        hint = _hint(shape, source.dtype in _INTEGER_TENSORS, channels_first=True)
        raise UsageError(
            "load: expected a tensor [H, W], [C, H, W] or [1, C, H, W] with 1 to 4 channels, of uint8, uint16, bool or "
            f"floats in 0..1, got {source.dtype} of shape {shape}{hint}"
        )
    planes = source.detach().to("cpu", torch.float32).resolve_neg().reshape(channels, *shape[-2:])
    values = planes.permute(1, 2, 0).numpy()
    scale = _TENSOR_SCALES.get(source.dtype, 1)
    return _validate(values if scale == 1 else values / np.float32(scale), "the tensor")


def _from_array(source: NDArray[Any]) -> Decoded:
    array = source[..., None] if source.ndim == 2 else source
    scale = _ARRAY_SCALES.get(source.dtype.newbyteorder("="), 1 if source.dtype.kind == "f" else None)
    if array.ndim != 3 or array.shape[2] not in (1, 2, 3, 4) or scale is None:
        hint = _hint(source.shape, source.dtype.kind in "iu", channels_first=False)
        raise UsageError(
            "load: expected an array [H, W] or [H, W, 1 to 4] of uint8, uint16, bool or floats in 0..1, "
            f"got {source.dtype} of shape {source.shape}{hint}"
        )
    values = array.astype(np.float32)
    return _validate(values if scale == 1 else values / np.float32(scale), "the array")


def _hint(shape: tuple[int, ...], whole: bool, *, channels_first: bool) -> str:
    """What is probably wrong with a tensor or an array of ``shape`` that is no picture, as the end of an error."""
    counts = (1, 2, 3, 4)
    if len(shape) == 4:
        one = "" if shape[0] == 1 else "; it is a batch: give one picture of it, x[0]"
        return one or ("; channels come first: x[0].permute(2, 0, 1)" if channels_first else "; give x[0]")
    if len(shape) == 3 and channels_first and shape[0] not in counts and shape[2] in counts:
        return "; channels come first: tensor.permute(2, 0, 1)"
    if len(shape) == 3 and not channels_first and shape[2] not in counts and shape[0] in counts:
        return "; channels come last: array.transpose(1, 2, 0)"
    name = "torch" if channels_first else "np"
    return f"; convert levels of 0..255 to {name}.uint8" if whole and len(shape) in (2, 3) else ""


def _validate(values: NDArray[np.float32], name: str) -> Decoded:
    """Check float values [H, W, 1 to 4], and return their color and alpha."""
    check_size(name, values.shape[1], values.shape[0], max_pixels=values.size)
    check_range(values, name)
    values = values.clip(0, 1)
    bands = values.shape[2]
    alpha = values[..., -1] if bands in (2, 4) else None
    return Decoded(np.repeat(values[..., :1], 3, axis=2) if bands < 3 else values[..., :3], alpha)


def _picture(decoded: Decoded, path: Path | None) -> Picture:
    rgb, alpha = decoded
    planes = np.ascontiguousarray(rgb.transpose(2, 0, 1), np.float32)  # no copy if the image was decoded into planes
    if rgb.dtype == np.uint8:
        planes /= 255
    pixels = torch.from_numpy(planes)[None]
    if alpha is None or alpha.min() == 1:
        return Picture(pixels, None, path)
    kept = torch.from_numpy(np.ascontiguousarray(alpha, np.float32))[None, None]
    if not kept.any():
        raise ImageError(f"{path or 'the picture'}: is fully transparent; expected visible pixels")
    for plane, mean in zip(pixels[0], _mean_color(pixels, kept)[0], strict=True):
        plane.masked_fill_(kept[0, 0] <= 0, float(mean))
    return Picture(pixels, kept, path)


def _mean_color(pixels: Tensor, alpha: Tensor) -> Tensor:
    """The mean of the colors weighted by alpha, [1, 3, 1, 1]; black if alpha is zero."""
    sums = [(plane * alpha[0, 0]).sum(dtype=torch.float64) for plane in pixels[0]]  # one plane of extra memory
    total = torch.stack(sums)[None, :, None, None]
    return (total / alpha.sum(dtype=torch.float64).clamp_min(1e-6)).float()


def _resize(picture: Picture, height: int, width: int) -> Picture:
    """Resize color and alpha. Colors are weighted by alpha, so that those of invisible pixels have no influence."""
    pixels, alpha = picture.pixels, picture.alpha
    if tuple(pixels.shape[-2:]) == (height, width):
        return picture
    if alpha is None:
        return Picture(resize(pixels, height, width), None, picture.path)
    weight = lanczos(alpha, height, width)
    colors = lanczos(pixels * alpha, height, width) / weight.clamp_min(_HALF_LEVEL)
    colors = torch.where(weight > _HALF_LEVEL, colors.clamp(0, 1), _mean_color(pixels, alpha))
    return Picture(colors, weight.clamp(0, 1), picture.path)


def _crop_center(picture: Picture, height: int, width: int) -> Picture:
    top, left = (picture.pixels.shape[2] - height) // 2, (picture.pixels.shape[3] - width) // 2

    def center(planes: Tensor) -> Tensor:
        return planes[:, :, top : top + height, left : left + width].contiguous()

    return Picture(center(picture.pixels), None if picture.alpha is None else center(picture.alpha), picture.path)

"""Animated GIF, WebP and PNG (APNG), read by Pillow, which applies disposal and blending."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO

import torch
from PIL import Image

from fastnst import images
from fastnst.errors import ImageError
from fastnst.film.boxes import is_cut
from fastnst.film.film import Film, FilmInfo, Frame
from fastnst.film.opening import open_file
from fastnst.images import Picture
from fastnst.images.formats import decoder_errors, identify
from fastnst.images.guards import check_size, one_line

log = logging.getLogger("fastnst")

_SHORTEST, _USUAL = 11, 100  # milliseconds: browsers show frames that claim to be shorter for the usual time
_MILLISECOND = Fraction(1, 1000)
_LAST_BYTES = 64


def is_animation(head: bytes) -> bool:
    """Whether a file that begins with ``head`` is GIF, WebP or PNG."""
    return head[:4] == b"GIF8" or head[:8] == b"\x89PNG\r\n\x1a\n" or (head[:4] == b"RIFF" and head[8:12] == b"WEBP")


class AnimationFilm(Film):
    """An animation.

    Args:
        path: the file.
        max_pixels: limit on the pixels of a frame, instead of ``PIL.Image.MAX_IMAGE_PIXELS``.
        skip: whether an animation that ends early is read as far as it goes, with a warning.
    """

    def __init__(self, path: Path, max_pixels: int | None, skip: bool) -> None:
        self._path, self._max_pixels, self._skip = path, max_pixels, skip
        self._starts: list[int] = [0]  # milliseconds; the last is the end of the film
        alpha, size = False, (0, 0)
        with open_file(path) as stream:
            self._check_end(stream)
            for image in self._images(stream, report=True):
                shown = image.info.get("duration", 0)
                self._starts.append(self._starts[-1] + (round(shown) if shown >= _SHORTEST else _USUAL))
                size, alpha, last = image.size, alpha or _is_transparent(image), image
        if len(self._starts) == 1:
            raise ImageError(f"{path}: has no frames that can be decoded; expected a whole film")
        self.info = self._facts(size, alpha, _times_shown(last))

    def _facts(self, size: tuple[int, int], alpha: bool, loop: int) -> FilmInfo:
        count, end = len(self._starts) - 1, self._starts[-1]
        steps = [b - a for a, b in zip(self._starts, self._starts[1:], strict=False)]
        # Rounded to hundredths of a second in a GIF, and to thousandths in the others.
        variable = max(steps) - min(steps) > (10 if self._path.suffix.lower() == ".gif" else 1)
        return FilmInfo(
            width=size[0],
            height=size[1],
            frame_rate=Fraction(1000 * count, end).limit_denominator(1001),
            count=count,
            variable=variable,
            has_alpha=alpha,
            duration=end / 1000,
            loop=loop,
            path=self._path,
            time_base=_MILLISECOND,
        )

    def _check_end(self, stream: BinaryIO) -> None:
        head = stream.read(4)
        size = stream.seek(0, 2)
        stream.seek(max(size - _LAST_BYTES, 0))
        tail = stream.read()
        ends = {b"GIF8": tail.rstrip(b"\0")[-1:] == b";", b"\x89PNG": b"IEND" in tail}.get(head)
        if ends is False or (ends is None and is_cut(stream)):
            text = f"{self._path}: ends early"
            if head == b"RIFF":  # libwebp reads a whole file or nothing
                raise ImageError(f"{text}; expected a whole film")
            if not self._skip:
                raise ImageError(
                    f"{text}; expected a whole film, or read what is there with broken='skip' (--broken skip)"
                )
            log.warning("%s; what is there is read", text)

    def _images(self, stream: BinaryIO, report: bool = False) -> Iterator[Image.Image]:
        """The frames as Pillow composes them; the same image is yielded each time."""
        with decoder_errors(self._path):
            image: Any = identify(stream, self._path, self._max_pixels)
            check_size(str(self._path), image.width, image.height, self._max_pixels)
        first = 1 if getattr(image, "default_image", False) else 0  # a still for readers that know no animation
        size = image.size
        for index in range(first, 1 << 30):
            try:
                image.seek(index)
                image.load()
            except EOFError:
                return
            except Exception as error:  # as decoder_errors
                self._report(index - first, error, report)
                return
            if image.size != size:
                raise ImageError(f"{self._path}: changes its size at frame {index - first}; expected one size")
            yield image

    def _report(self, number: int, error: Exception, report: bool) -> None:
        text = f"{self._path}: frame {number} is broken ({one_line(error)})"
        if not self._skip:
            raise ImageError(
                f"{text}; expected a whole film, or read what is before it with broken='skip' (--broken skip)"
            ) from error
        if report:
            log.warning("%s; it and those after it are skipped", text)

    def _read(self, first: int) -> Iterator[Frame]:
        with open_file(self._path) as stream:
            for number, image in enumerate(self._images(stream)):
                if first <= number < len(self._starts) - 1:
                    start, end = self._starts[number : number + 2]
                    yield Frame(number, start * _MILLISECOND, (end - start) * _MILLISECOND, self._picture(image))

    def _picture(self, image: Image.Image) -> Picture:
        # images.load refuses what is fully transparent.
        if _is_transparent(image) and image.convert("RGBA").getchannel("A").getextrema()[1] == 0:
            empty = torch.zeros(1, 1, image.height, image.width)
            return Picture(empty.expand(1, 3, -1, -1).contiguous(), empty, self._path)
        found = images.load(image, max_pixels=image.width * image.height)
        return Picture(found.pixels, found.alpha, self._path)


def _is_transparent(image: Image.Image) -> bool:
    """Whether some pixel is not opaque."""
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        low: Any = image.convert("RGBA").getchannel("A").getextrema()[0]
        return bool(low < 255)
    return False


def _times_shown(image: Image.Image) -> int:
    """How often an animation is shown, 0 for endlessly. A GIF says how often it is repeated after the first time."""
    loop = image.info.get("loop")
    if image.format != "GIF":
        return int(loop or 0)
    return 1 if loop is None else 0 if loop == 0 else int(loop) + 1

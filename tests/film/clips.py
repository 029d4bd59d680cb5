"""Clips made with PyAV directly, and what is known of them, so that the tests do not depend on the code they test."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from fastnst.errors import ImageError
from fastnst.film import open_film

WIDTH, HEIGHT = 64, 48
COLORS = (
    (255, 255, 255),
    (255, 255, 0),
    (0, 255, 255),
    (0, 255, 0),
    (255, 0, 255),
    (255, 0, 0),
    (0, 0, 255),
    (0, 0, 0),
)
LEVEL = 3 / 255  # of a color after a round trip through 8-bit YUV in limited range: steps of up to 2.1, rounded twice


def bars(number: int, width: int = WIDTH, height: int = HEIGHT) -> NDArray[np.uint8]:
    """Vertical bars of eight colors at three quarters of their strength; the top quarter is gray and counts frames."""
    picture = np.zeros((height, width, 3), np.uint8)
    for i, color in enumerate(COLORS):
        picture[:, i * width // 8 : (i + 1) * width // 8] = np.array(color) * 3 // 4
    picture[: height // 4] = counted(number)
    return picture


def counted(number: int) -> int:
    """The gray level of the top quarter of frame ``number``."""
    return 20 + 10 * (number % 20)


def write(
    path: Path,
    pictures: Sequence[NDArray[Any]],
    *,
    codec: str = "libx264",
    form: str = "yuv420p",
    rate: Fraction = Fraction(25),
    times: Sequence[int] | None = None,
    unit: Fraction | None = None,
    options: dict[str, str] | None = None,
    matrix: int = 1,
    wide: int = 1,
    tags: bool = True,
    rotation: int = 0,
    aspect: Fraction | None = None,
    sound: float = 0.0,
    metadata: dict[str, str] | None = None,
    muxer: str | None = None,
) -> Path:
    """A clip: ``matrix`` is AVColorSpace, ``wide`` AVColorRange (1 limited, 2 full), ``sound`` seconds of a sine."""
    with av.open(str(path), "w", format=muxer) as container:
        container.metadata.update(metadata or {})
        stream: Any = container.add_stream(codec, rate=rate, options={"crf": "8"} if options is None else options)
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt = form
        context = stream.codec_context
        context.time_base = unit or 1 / rate
        context.thread_count = 1
        if tags:
            context.colorspace, context.color_range = matrix, wide
        if rotation:
            stream.set_display_rotation(rotation)
        if aspect is not None:
            context.sample_aspect_ratio = aspect
        voice = container.add_stream("aac", rate=48000, layout="mono") if sound else None
        for k, picture in enumerate(pictures):
            source = "rgba" if picture.shape[2] == 4 else "rgb24"
            frame = av.VideoFrame.from_ndarray(picture, format=source)
            flags = 0x4 | 0x40000 | 0x2000 | 0x4000
            frame = frame.reformat(
                format=form, dst_colorspace={1: 1, 6: 5, 9: 9}[matrix], dst_color_range=wide, interpolation=flags
            )
            frame.pts, frame.time_base = k if times is None else times[k], context.time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if voice is not None:
            container.mux(sine(voice, sound))
            container.mux(voice.encode(None))
    return path


def sine(stream: Any, seconds: float, frequency: float = 440.0, rate: int = 48000) -> list[Any]:
    """The packets of a sine."""
    packets = []
    values = np.sin(np.arange(int(seconds * rate)) * (2 * np.pi * frequency / rate)).astype(np.float32) / 2
    for start in range(0, len(values), 1024):
        frame = av.AudioFrame.from_ndarray(values[None, start : start + 1024], format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = rate, start, Fraction(1, rate)
        packets += stream.encode(frame)
    return packets


def clip(path: Path, count: int = 10, **arguments: Any) -> Path:
    """A clip of ``count`` frames of bars."""
    return write(path, [bars(k) for k in range(count)], **arguments)


def packets(path: Path) -> list[Any]:
    """The packets of the video, by PyAV alone."""
    with av.open(str(path)) as container:
        return [packet for packet in container.demux(video=0) if packet.size]


def counts(film: Any) -> list[float]:
    """The gray level of the top of each frame."""
    return [float(frame.picture.pixels[0, :, 1:8, 4:-4].mean()) * 255 for frame in film]


def refused(path: Path, **arguments: Any) -> str:
    """The message of the error for a film, which has one line and names the file."""
    with pytest.raises(ImageError) as caught, open_film(path, **arguments) as film:
        for _ in film:
            pass
    message = str(caught.value)
    assert "\n" not in message
    assert path.name in message
    assert len(message) < 500
    return message

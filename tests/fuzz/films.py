"""Small films of every kind that is read, with the same bytes in every run, and how they are read."""

from __future__ import annotations

import io
import itertools
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

WIDTH, HEIGHT, COUNT = 32, 24, 5
MOST_FRAMES = 100
CONTAINERS = {
    "mp4": (("mp4", "libx264", "yuv420p"), ("mp4", "mpeg4", "yuv420p"), ("mov", "qtrle", "argb")),
    "mkv": (("matroska", "libx264", "yuv420p"), ("matroska", "ffv1", "bgra"), ("webm", "libvpx-vp9", "yuva420p")),
    "avi": (("avi", "mpeg4", "yuv420p"), ("avi", "mjpeg", "yuvj420p")),
    "ts": (("mpegts", "libx264", "yuv420p"),),
    "flv": (("flv", "flv", "yuv420p"),),
}
ANIMATIONS = ("GIF", "WEBP", "PNG")


def pictures() -> list[Any]:
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    planes = [np.stack([x * 7, y * 9, x * k + y * 3, 255 - x * k], 2) % 256 for k in range(COUNT)]
    return [plane.astype(np.uint8) for plane in planes]


def contained(form: str, codec: str, pixels: str) -> bytes:
    """A film with sound."""
    import av

    buffer = io.BytesIO()
    with av.open(buffer, "w", format=form, container_options={"fflags": "+bitexact"}) as container:
        stream: Any = container.add_stream(codec, rate=25, options={"threads": "1", "g": "3"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, pixels
        stream.codec_context.thread_count = 1
        stream.codec_context.flags |= 1 << 23  # AV_CODEC_FLAG_BITEXACT
        voice: Any = container.add_stream("libopus" if form == "webm" else "aac", rate=48000, layout="mono")
        voice.codec_context.flags |= 1 << 23
        container.metadata["comment"] = 'fastnst {"steps": 5}'
        for k, picture in enumerate(pictures()):
            frame = av.VideoFrame.from_ndarray(picture, format="rgba").reformat(format=pixels)
            frame.pts, frame.time_base = k, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 4800), np.float32), format="fltp", layout="mono")
        sound.sample_rate, sound.pts = 48000, 0
        container.mux(voice.encode(sound))
        container.mux(voice.encode(None))
    return buffer.getvalue()


def animated(kind: str) -> bytes:
    buffer = io.BytesIO()
    first, *others = [Image.fromarray(picture) for picture in pictures()]
    first.save(buffer, kind, save_all=True, append_images=others, duration=[40, 80, 40, 40, 120], loop=2)
    return buffer.getvalue()


def makers() -> dict[str, Callable[[], list[bytes]]]:
    """For each kind of film what makes its seeds."""
    found: dict[str, Callable[[], list[bytes]]] = {
        name: lambda kinds=kinds: [contained(*kind) for kind in kinds]  # type: ignore[misc]
        for name, kinds in CONTAINERS.items()
    }
    return found | {name.lower(): lambda name=name: [animated(name)] for name in ANIMATIONS}  # type: ignore[misc]


def read(path: Path, expect: Callable[[bool, str], None], max_pixels: int) -> None:
    """Read a film as far as it goes."""
    from fastnst.film import open_film, read_film_settings

    read_film_settings(path)
    with open_film(path, max_pixels=max_pixels, broken="skip") as film:
        before = None
        for frame in itertools.islice(film, MOST_FRAMES):
            expect(frame.picture.size == (film.info.height, film.info.width), "frames are of the film's size")
            expect(bool(((frame.picture.pixels >= 0) & (frame.picture.pixels <= 1)).all()), "pixels are in 0..1")
            expect(before is None or (frame.number > before.number and frame.time > before.time), "frames are in order")
            before = frame
        if before is not None and before.number > 1:
            found = next(film.frames(before.number - 1), None)
            expect(found is not None and found.number >= before.number - 1, "reading may start at each frame")

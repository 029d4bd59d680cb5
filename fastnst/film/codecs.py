"""Which codecs the containers hold, and the options of their encoders."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fastnst.errors import ImageError, UsageError, nearest

CONTAINERS = {
    ".mp4": ("mp4", ("h264", "hevc", "av1")),
    ".m4v": ("mp4", ("h264", "hevc")),
    ".mov": ("mov", ("h264", "hevc", "prores", "qtrle")),
    ".mkv": ("matroska", ("h264", "hevc", "vp9", "av1", "ffv1")),
    ".webm": ("webm", ("vp9", "av1")),
}
"""For each suffix FFmpeg's name of the container and the codecs, the default first."""
ALPHA_DEFAULTS = {".mov": "prores", ".mkv": "ffv1", ".webm": "vp9"}
"""The default codec for films with alpha."""


@dataclass(frozen=True)
class Codec:
    """A codec.

    Attributes:
        encoder: FFmpeg's name of the encoder.
        form: the pixel format.
        alpha: the pixel format with alpha; None if there is none.
        worst: the constant rate factor of quality 0, 0 being that of quality 100; None for codecs without.
        quality: the quality that is used by default.
        options: further options of the encoder.
        fast: options for speed, in addition.
        even: whether the sides must be even.
        tag: the name of the codec in MP4 and MOV, where the usual one is not understood everywhere.
    """

    encoder: str
    form: str
    alpha: str | None = None
    worst: int | None = None
    quality: int = 65
    options: tuple[tuple[str, str], ...] = ()
    fast: tuple[tuple[str, str], ...] = ()
    even: bool = False
    tag: str | None = None


CODECS = {
    "h264": Codec("libx264", "yuv420p", worst=51, fast=(("preset", "veryfast"),), even=True),
    "hevc": Codec(
        "libx265",
        "yuv420p",
        worst=51,
        options=(("x265-params", "log-level=error"),),
        fast=(("preset", "ultrafast"),),
        even=True,
        tag="hvc1",
    ),
    "vp9": Codec(
        "libvpx-vp9",
        "yuv420p",
        "yuva420p",
        worst=63,
        quality=62,
        options=(("b", "0"), ("row-mt", "1"), ("cpu-used", "2")),
        fast=(("deadline", "realtime"), ("cpu-used", "7")),
    ),
    "av1": Codec(
        "libsvtav1",
        "yuv420p",
        worst=63,
        quality=60,
        options=(("preset", "8"),),
        fast=(("preset", "12"),),
        even=True,
    ),
    "ffv1": Codec("ffv1", "bgr0", "bgra", options=(("level", "3"), ("slicecrc", "1"), ("g", "1"))),
    "prores": Codec("prores_ks", "yuv422p10le", "yuva444p10le", options=(("vendor", "apl0"),)),
    "qtrle": Codec("qtrle", "rgb24", "argb"),
}


def choose(path: Path, codec: str | None, alpha: bool) -> Codec:
    """The codec for a file. Raises UsageError for one that the container or this library lacks, or without alpha."""
    suffix = path.suffix.lower()
    known = CONTAINERS[suffix][1]
    name = codec or (ALPHA_DEFAULTS.get(suffix) if alpha else None) or known[0]
    if name not in CODECS or name not in known:
        raise UsageError(f"codec: expected {', '.join(known)} for {suffix}, got {name!r}{nearest(name, known)}")
    if alpha and CODECS[name].alpha is None:
        others = [f"{one} ({', '.join(found)})" for one in CONTAINERS if (found := _with_alpha(one))]
        raise UsageError(
            f"{path}: {name} holds no transparency; expected {', '.join(others)}, .gif, .webp, .png or a folder"
        )
    return CODECS[name]


def _with_alpha(suffix: str) -> list[str]:
    return [name for name in CONTAINERS[suffix][1] if CODECS[name].alpha is not None]


def check_encoder(path: Path, codec: Codec) -> None:
    """Raise ImageError if PyAV was built without the encoder."""
    import av

    if codec.encoder not in av.codecs_available:
        raise ImageError(f"{path}: this PyAV has no encoder {codec.encoder}; expected another codec")


def encoder_options(codec: Codec, quality: int | None, fast: bool) -> dict[str, str]:
    """The options of the encoder for a quality of 1 to 100."""
    options = dict(codec.options)
    if codec.worst is not None:
        level = codec.quality if quality is None else quality
        options["crf"] = str(round((100 - level) * codec.worst / 100))
    return options | (dict(codec.fast) if fast else {})

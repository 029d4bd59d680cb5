"""Writing containers with PyAV: frames with exact times, color tags, sound, and the settings as the comment."""

from __future__ import annotations

import logging
from contextlib import nullcontext
from fractions import Fraction
from pathlib import Path
from typing import Any

from torch import Tensor

from fastnst.errors import UsageError
from fastnst.film import codecs
from fastnst.film.codecs import CONTAINERS, Codec
from fastnst.film.film import FilmInfo
from fastnst.film.pixels import to_frame
from fastnst.film.sound import Sound
from fastnst.images.metadata import PREFIX
from fastnst.process import usual_scheduling

log = logging.getLogger("fastnst")

_BT709, _LIMITED = 1, 1  # of AVColorSpace, AVColorPrimaries and AVColorTransferCharacteristic; AVColorRange
_FINEST = 2**31 - 1  # the largest number of ticks a second of MP4
_USUAL_TICKS = 90_000
_MISSING = Fraction(3, 2)  # frames by which a film must be shorter than the one it is made from for its sound to be cut


class ContainerWriter:
    """Encodes frames into a file under a temporary name, which the caller renames.

    Args:
        temporary: the file to write; its suffix names the container.
        info: size, frame rate, times and alpha of the film.
        codec: the codec.
        options: options of the encoder.
        text: what to store as the comment, None for nothing.
        sound: a film whose sound is written as well.
    """

    def __init__(
        self,
        temporary: Path,
        info: FilmInfo,
        codec: Codec,
        options: dict[str, str],
        text: str | None,
        sound: Path | None = None,
    ) -> None:
        import av

        form, _ = CONTAINERS[temporary.suffix.lower()]
        muxing = {"movflags": "+faststart"} if form in ("mp4", "mov") else {}
        self.container: Any = av.open(str(temporary), "w", format=form, container_options=muxing)
        if text is not None:
            self.container.metadata["comment"] = PREFIX + text
        self._info, self.unit = info, _unit(info)
        self._form = codec.alpha if info.has_alpha and codec.alpha else codec.form
        self._size = padded_size(info, codec)
        self._stream: Any = self.container.add_stream(codec.encoder, rate=info.frame_rate, options=options)
        context: Any = self._stream.codec_context
        context.width, context.height = self._size
        context.pix_fmt = self._form
        context.time_base = self.unit
        if "yuv" in self._form:
            context.colorspace = context.color_primaries = context.color_trc = _BT709
            context.color_range = _LIMITED
        if codec.tag is not None and form in ("mp4", "mov"):
            context.codec_tag = codec.tag
        self._durations: dict[int, int] = {}
        self._last, self._end, self._open = -1, Fraction(0), False
        self._sound = None if sound is None else Sound(sound, self.container, form)

    def add(self, pixels: Tensor, alpha: Tensor | None, time: Fraction, duration: Fraction | None) -> None:
        """Encode a frame that is shown at ``time``."""
        tick = round(time / self.unit)
        if tick <= self._last:
            raise UsageError(f"film: expected times that grow by at least {self.unit} s, got {float(time):.6f} s")
        self._last = tick
        frame: Any = to_frame(pixels, alpha, self._form, self._size)
        frame.pts, frame.time_base = tick, self.unit
        if duration is not None:
            self._durations[tick] = frame.duration = max(round((time + duration) / self.unit) - tick, 1)
        frame.color_trc = frame.color_primaries = _BT709
        self._end = time + (duration or 1 / self._info.frame_rate)
        if self._sound is not None:
            self._sound.write_until(time)
        with nullcontext() if self._open else usual_scheduling():  # the first frame opens the encoder
            packets = self._stream.encode(frame)
        self._open = True
        self._mux(packets)

    def _mux(self, packets: Any) -> None:
        for packet in packets:
            known = self._durations.pop(packet.pts, None) if packet.pts is not None else None
            if known is not None:
                packet.duration = known
            self.container.mux(packet)

    def finish(self) -> None:
        """Write what the encoder still holds."""
        self._mux(self._stream.encode(None))
        if self._sound is not None:
            whole, missing = self._info.duration, _MISSING / self._info.frame_rate
            self._sound.finish(self._end if whole is not None and self._end < whole - missing else None)

    def close(self) -> None:
        """Write the end of the file and close it."""
        try:
            self.container.close()
        finally:
            if self._sound is not None:
                self._sound.close()


def padded_size(info: FilmInfo, codec: Codec) -> tuple[int, int]:
    """Width and height that are encoded. Where they must be even, the last column or row is repeated.

    Cropping would lose pixels and scaling would blur all of them; 4:4:4 would keep the size, but browsers and devices
    do not play it.
    """
    if not codec.even:
        return info.width, info.height
    return info.width + info.width % 2, info.height + info.height % 2


def _unit(info: FilmInfo) -> Fraction:
    """The unit of times: the film's own, or the finest that frames at the frame rate need."""
    if info.time_base is not None and info.time_base.denominator <= _FINEST and info.time_base > 0:
        return info.time_base
    if info.variable or info.frame_rate.numerator > _FINEST:
        return Fraction(1, _USUAL_TICKS)
    return Fraction(1, info.frame_rate.numerator)


def choose_codec(path: Path, codec: str | None, alpha: bool) -> Codec:
    """The codec for a file, which this PyAV has. Raises UsageError or ImageError."""
    chosen = codecs.choose(path, codec, alpha)
    codecs.check_encoder(path, chosen)
    return chosen

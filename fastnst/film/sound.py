"""The sound of one film, written into another: copied where the container takes it, encoded again elsewhere."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path
from typing import Any

from fastnst.film.opening import import_av, open_container, reason

log = logging.getLogger("fastnst")

_TAKES = {
    "mp4": ("aac", "mp3", "ac3", "eac3", "alac", "opus", "flac"),
    "mov": ("aac", "mp3", "ac3", "eac3", "alac", "pcm_s16le", "pcm_s16be", "pcm_s24le", "pcm_s24be", "pcm_f32le"),
    "webm": ("opus", "vorbis"),
}
"""The codecs that players expect in each container; Matroska takes all."""
_ENCODERS = {"webm": ("libopus", 160_000)}
_USUAL = ("aac", 192_000)
_RATES = (96000, 88200, 48000, 44100, 32000, 24000, 22050, 16000)  # of AAC
_EARLIEST = Fraction(-1, 2)  # seconds; what starts before is left out, except for what decoders need to start up


class Sound:
    """Writes the sound of the film ``path`` into ``container`` beside its pictures.

    The zero of times is the first frame of the film, so that sound and pictures stay together. All tracks are written.

    Args:
        path: a film; one without sound adds nothing.
        container: a container of PyAV that is being written, before its first packet.
        form: FFmpeg's name of its format.
    """

    def __init__(self, path: Path, container: Any, form: str) -> None:
        self._path, self._container, self._stack = path, container, ExitStack()
        source: Any = self._stack.enter_context(open_container(path, None))
        self._av = import_av(path)
        videos = [stream for stream in source.streams.video if stream.start_time is not None]
        self._start = videos[0].start_time * videos[0].time_base if videos else Fraction(0)
        self._tracks = {
            stream.index: self._track(stream, form) for stream in source.streams.audio if stream.codec_context
        }
        self._waiting: Any = None
        self._packets: Iterator[Any] = iter(())
        if self._tracks:
            self._packets = source.demux([source.streams[index] for index in self._tracks])

    def _track(self, stream: Any, form: str) -> tuple[Any, bool]:
        """The stream of the new film for one of the old, and whether its packets are copied."""
        name = stream.codec_context.codec.canonical_name
        takes = _TAKES.get(form)
        copied = name in takes if takes is not None else stream.codec_context.name in self._container.supported_codecs
        if copied:
            track = self._container.add_stream_from_template(stream)
        else:
            encoder, bits = _ENCODERS.get(form, _USUAL)
            rate = min(_RATES, key=lambda known: abs(known - stream.rate)) if encoder == "aac" else 48000
            layout = stream.layout.name if stream.channels in (1, 2, 6) else "stereo"
            track = self._container.add_stream(encoder, rate=rate, layout=layout)
            track.codec_context.bit_rate = bits
        if "language" in stream.metadata:
            track.metadata["language"] = stream.metadata["language"]
        return track, copied

    def write_until(self, time: Fraction | None) -> None:
        """Write the sound before ``time``, None for all that is left. A damaged sound ends there, with a warning."""
        while (packet := self._next()) is not None:
            if time is not None and packet.size and self._time(packet) >= time:
                return
            self._waiting = None
            self._write(packet)

    def _next(self) -> Any:
        if self._waiting is None:
            self._waiting = self._read(lambda: next(self._packets, None))
        return self._waiting

    def _read(self, step: Callable[[], Any]) -> Any:
        try:
            return step()
        except (self._av.error.FFmpegError, OSError, ValueError) as error:
            log.warning("%s: its sound is damaged (%s); the new film has what is before", self._path, reason(error))
            self._packets = iter(())
            return None

    def _time(self, packet: Any) -> Fraction:
        stamp = packet.pts if packet.pts is not None else packet.dts
        return Fraction(-1) if stamp is None else stamp * packet.time_base - self._start

    def _write(self, packet: Any) -> None:
        track, copied = self._tracks[packet.stream.index]
        if packet.size and self._time(packet) < _EARLIEST:
            return
        if not copied:
            for frame in self._read(packet.decode) or ():
                if frame.pts is not None:
                    frame.pts -= round(self._start / frame.time_base)
                self._container.mux(track.encode(frame))
        elif packet.size:
            shift = round(self._start / packet.time_base)
            packet.pts = None if packet.pts is None else packet.pts - shift
            packet.dts = None if packet.dts is None else packet.dts - shift
            packet.stream = track
            self._container.mux(packet)

    def finish(self, end: Fraction | None) -> None:
        """Write the rest, up to ``end`` if the new film is shorter than the old."""
        self.write_until(end)
        for track, copied in self._tracks.values():
            if not copied:
                self._container.mux(track.encode(None))

    def close(self) -> None:
        """Close the old film."""
        self._stack.close()

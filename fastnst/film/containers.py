"""Films in containers (MP4, Matroska, ...), decoded by PyAV frame by frame."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from fastnst import limits
from fastnst.errors import ImageError
from fastnst.film.boxes import is_cut
from fastnst.film.film import Film, FilmInfo, Frame
from fastnst.film.opening import av_errors, import_av, open_container, open_file, reason
from fastnst.film.pixels import Geometry, find_geometry, has_alpha, to_picture
from fastnst.film.timeline import Timeline, read_timeline
from fastnst.images.guards import check_size

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

log = logging.getLogger("fastnst")

_THREADS = 8
_ALPHA_DECODERS = {"vp9": "libvpx-vp9", "vp8": "libvpx"}  # FFmpeg's own decoders ignore the alpha of WebM


@dataclass(frozen=True)
class Broken:
    """A place where decoding failed: the timestamp of the packet, None at the end, and what the decoder said."""

    stamp: int | None
    reason: str


class ContainerFilm(Film):
    """A film in a container.

    Args:
        path: the file.
        max_pixels: limit on the pixels of a frame, instead of ``PIL.Image.MAX_IMAGE_PIXELS``.
        skip: whether broken frames are left out with a warning instead of raising ImageError.
    """

    def __init__(self, path: Path, max_pixels: int | None, skip: bool) -> None:
        self._path, self._max_pixels, self._skip = path, max_pixels, skip
        self._warned: set[int | str] = set()
        with open_file(path) as file:
            cut = is_cut(file)
        try:
            with open_container(path, max_pixels) as container:
                stream = find_video(container, path, max_pixels)
                timeline = read_timeline(container, stream, path)
                sound = bool(container.streams.audio)
        except ImageError as error:
            if not cut:
                raise
            raise ImageError(f"{path}: ends early, and no frame of it can be read; expected a whole film") from error
        if cut:
            self._report_end(timeline)
        self._timeline = timeline
        self._size, self._geometry, alpha, start = self._look()
        self._timeline = timeline.starting_at(start)
        self.info = self._facts(alpha, sound)

    def _facts(self, alpha: bool, sound: bool) -> FilmInfo:
        line = self._timeline
        count = len(line.stamps) or None
        width, height = self._geometry.shown
        return FilmInfo(
            width=width,
            height=height,
            frame_rate=line.rate,
            count=count,
            variable=line.variable,
            has_alpha=alpha,
            has_audio=sound,
            duration=float(line.time(count - 1) + line.duration(count - 1)) if count else None,
            path=self._path,
            time_base=line.unit if line.variable else Fraction(1, line.rate.numerator),
        )

    def _report_end(self, timeline: Timeline) -> None:
        text = f"{self._path}: ends early, after {timeline.packets} frames"
        if timeline.stamps:
            last = len(timeline.stamps) - 1
            text = f"{self._path}: ends early; the last frame in it is {last} (at {float(timeline.time(last)):.3f} s)"
        if not self._skip:
            raise ImageError(f"{text}; expected a whole film, or read what is there with broken='skip' (--broken skip)")
        log.warning("%s", text)

    def _look(self) -> tuple[tuple[int, int], Geometry, bool, int | None]:
        """Coded size, geometry, alpha and timestamp of the first frame that can be decoded."""
        with open_container(self._path, self._max_pixels) as container:
            stream = find_video(container, self._path, self._max_pixels)
            broken = False
            for found in decode(container, stream, self._path):
                if isinstance(found, Broken):
                    if not self._skip:
                        raise self._broken(found, 0)
                    broken = True
                    continue
                check_size(str(self._path), found.width, found.height, self._max_pixels)
                geometry = find_geometry(found, stream.sample_aspect_ratio)
                check_size(str(self._path), *geometry.shown, self._max_pixels)
                start = None if broken else found.pts  # broken frames keep their numbers
                return (found.width, found.height), geometry, has_alpha(found), start
        raise ImageError(f"{self._path}: none of its frames can be decoded; expected a whole film")

    def _read(self, first: int) -> Iterator[Frame]:
        if self._timeline.stamps and first >= len(self._timeline.stamps):
            return
        yield from self._from(first, self._timeline.key_before(first) if first else None)

    def _from(self, first: int, key: int | None) -> Iterator[Frame]:
        """The frames from ``first`` on, decoded from the key frame with timestamp ``key``, None for the start."""
        with open_container(self._path, self._max_pixels) as container:
            stream = find_video(container, self._path, self._max_pixels)
            if key is not None:
                with av_errors(self._path, "is damaged"):
                    container.seek(key, stream=stream)
            yield from self._numbered(decode(container, stream, self._path), first, sought=key is not None)

    def _numbered(self, found: Iterator[VideoFrame | Broken], first: int, sought: bool) -> Iterator[Frame]:
        line = self._timeline
        expected, clock = 0, _Clock(line)
        for one in found:
            if isinstance(one, Broken):
                number = line.number(one.stamp)
                if not (sought and number is not None and number < first):
                    self._report(one, expected)
                continue
            if (one.width, one.height) != self._size:
                raise self._resized(one, expected)
            number = line.number(one.pts) if line.stamps else expected
            if number is None or (number < expected and not sought):
                continue  # before the first frame, or once more
            if sought and number > first and expected == 0:
                # The index led too far: decode from the start.
                yield from self._from(first, None)
                return
            if not sought or expected:
                self._report_missing(expected, number, first)
            expected, sought = number + 1, False
            time, duration = clock.next(number, one)
            if number >= first:
                yield Frame(number, time, duration, to_picture(one, self._geometry, self._path))
        if line.stamps:
            self._report_missing(expected, len(line.stamps), first)

    def _report_missing(self, start: int, end: int, first: int) -> None:
        for number in range(max(start, first), end):
            self._report(Broken(self._timeline.stamps[number], "the decoder returned nothing for it"), number)

    def _report(self, broken: Broken, expected: int) -> None:
        """Raise the error of a broken frame or, if they are skipped, warn of it once."""
        error = self._broken(broken, expected)
        if not self._skip:
            raise error
        key = str(error).partition("(")[0]
        if key not in self._warned:
            self._warned.add(key)
            log.warning("%s; skipped", str(error).partition(";")[0])

    def _broken(self, broken: Broken, expected: int) -> ImageError:
        number = self._timeline.number(broken.stamp)
        if number is not None:
            which = f"frame {number} (at {float(self._timeline.time(number)):.3f} s)"
        else:
            which = f"frame {expected} or one after it"
        return ImageError(
            f"{self._path}: {which} is broken ({broken.reason}); expected a whole film, or leave out broken frames "
            "with broken='skip' (--broken skip)"
        )

    def _resized(self, frame: VideoFrame, number: int) -> ImageError:
        (width, height), new = self._size, f"{frame.width} x {frame.height}"
        return ImageError(
            f"{self._path}: changes from {width} x {height} to {new} pixels at frame {number}; expected one size"
        )


class _Clock:
    """The times of frames that are read in order. Without timestamps of packets, those of the frames themselves."""

    def __init__(self, timeline: Timeline) -> None:
        self._line = timeline
        self._start: Fraction | None = None
        self._last = Fraction(-1)

    def next(self, number: int, frame: VideoFrame) -> tuple[Fraction, Fraction | None]:
        line = self._line
        if line.stamps:
            return line.time(number), line.duration(number)
        time = None if frame.pts is None else frame.pts * (frame.time_base or line.unit)
        if self._start is None:
            self._start, self._last = time or Fraction(0), Fraction(-1)
        shown = None if time is None else time - self._start
        if shown is None or shown <= self._last:
            shown = max(self._last, Fraction(-1) / line.rate) + 1 / line.rate if number else Fraction(0)
        self._last = shown
        return shown, None


def find_video(container: InputContainer, path: Path, max_pixels: int | None) -> VideoStream:
    """The film's pictures: the first video stream that is not a cover. Raises ImageError if there is none."""
    streams = container.streams.video
    covers = [stream for stream in streams if "attached_pic" in str(stream.disposition)]
    stream = next((stream for stream in streams if stream not in covers), None)
    if stream is None:
        what = "sound alone" if container.streams.audio else "no video"
        raise ImageError(f"{path}: holds {what}; expected a film with pictures")
    context: Any = stream.codec_context
    if context is None:
        raise ImageError(f"{path}: its video codec is none that this PyAV decodes; convert it to H.264 first")
    if not (context.width and context.height):  # FFmpeg forgets a size above the limit
        limit = Image.MAX_IMAGE_PIXELS if max_pixels is None else max_pixels
        raise ImageError(f"{path}: its frames have no known size, or more than the limit of {limit} pixels")
    check_size(str(path), context.width, context.height, max_pixels)
    return stream


def decode(container: InputContainer, stream: VideoStream, path: Path) -> Iterator[VideoFrame | Broken]:
    """The frames of a stream in the order in which they are shown, and where decoding failed."""
    av = import_av(path)
    context = _decoder(av, stream)
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
        except (av.error.FFmpegError, OSError, ValueError) as error:  # the container itself ends in damage
            yield Broken(None, reason(error))
            packet = None
        ended = packet is None or packet.size == 0
        try:
            frames = context.decode(None if ended else packet)
        except (av.error.FFmpegError, OSError, ValueError, RuntimeError) as error:
            yield Broken(None if packet is None else packet.pts, reason(error))
            frames = []
        for frame in frames:
            if frame.is_corrupt:
                yield Broken(frame.pts, "its data is damaged")
            else:
                yield frame
        if ended:
            return


def _decoder(av: Any, stream: VideoStream) -> Any:
    """The decoder of a stream. Errors end a frame instead of being painted over."""
    context: Any = stream.codec_context
    name = _ALPHA_DECODERS.get(context.codec.canonical_name)
    if name is not None and stream.metadata.get("alpha_mode") == "1":
        context = av.CodecContext.create(name, "r")
        context.extradata = stream.codec_context.extradata
    context.options = {"err_detect": "explode", "max_pixels": str(2**31 - 1)}
    context.thread_count = min(limits.cpus(), _THREADS)
    return context

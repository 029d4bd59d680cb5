"""When the frames of a container are shown, from its packets alone: nothing is decoded.

The packets of most codecs are one frame each, and their timestamps, sorted, are those of the frames. With them a frame
has a number before anything is decoded, a missing frame is noticed, and reading can start at the nearest key frame.
"""

from __future__ import annotations

import bisect
from array import array
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

from fastnst.errors import ImageError
from fastnst.film.opening import av_errors

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.stream import VideoStream

_ONE_FRAME_A_PACKET = (
    "h264", "hevc", "vvc", "vp9", "av1", "mpeg4", "prores", "dnxhd", "ffv1", "qtrle", "png", "mjpeg", "huffyuv",
    "ffvhuff", "utvideo", "rawvideo",
)  # fmt: skip
_FORMATS = ("mov", "matroska")  # their packets have timestamps, and an index leads to key frames
_DEFAULT_RATE = Fraction(25)
_SPARE = Fraction(3, 2)  # of the unit of time: by how much rounded times may deviate from an even rhythm


@dataclass(frozen=True)
class Timeline:
    """The times of a film's frames.

    Attributes:
        stamps: timestamps of the frames in order, in units of ``unit``; empty where packets do not tell.
        keys: those of key frames, in order.
        unit: the unit of timestamps, in seconds.
        rate: frames per second, on average.
        variable: whether the frames are unevenly spaced.
        last: the duration of the last frame in units; 0 if the file does not tell.
        packets: how many packets there are.
    """

    stamps: array[int]
    keys: array[int]
    unit: Fraction
    rate: Fraction
    variable: bool
    last: int
    packets: int

    def starting_at(self, stamp: int | None) -> Timeline:
        """The timeline without frames before ``stamp``: those that precede the first key frame can't be decoded."""
        if stamp is None or not self.stamps or stamp == self.stamps[0]:
            return self
        stamps = self.stamps[bisect.bisect_left(self.stamps, stamp) :]
        return Timeline(stamps, self.keys, self.unit, self.rate, self.variable, self.last, self.packets)

    def number(self, stamp: int | None) -> int | None:
        """The number of the frame with this timestamp; None if it is none of the frames'."""
        if stamp is None or not self.stamps:
            return None
        found = bisect.bisect_left(self.stamps, stamp)
        return found if found < len(self.stamps) and self.stamps[found] == stamp else None

    def time(self, number: int) -> Fraction:
        """Seconds from the first frame to frame ``number``."""
        if self.variable:
            return (self.stamps[number] - self.stamps[0]) * self.unit
        return number / self.rate

    def duration(self, number: int) -> Fraction:
        """Seconds for which frame ``number`` is shown."""
        if number + 1 < len(self.stamps):
            return self.time(number + 1) - self.time(number)
        return self.last * self.unit if self.variable and self.last else 1 / self.rate

    def key_before(self, number: int) -> int | None:
        """The timestamp of the key frame from which frame ``number`` can be decoded; None for the start."""
        found = bisect.bisect_right(self.keys, self.stamps[number]) if self.stamps else 0
        return self.keys[found - 1] if found > 1 else None


def read_timeline(container: InputContainer, stream: VideoStream, path: Path) -> Timeline:
    """Read all packets of a stream. Raises ImageError for a stream without packets."""
    stamps, keys = array("q"), array("q")
    complete, packets, last, newest = True, 0, 0, None
    with av_errors(path, "is damaged"):
        for packet in container.demux(stream):
            if packet.size == 0 or packet.is_discard:
                continue
            packets += 1
            if packet.pts is None:
                complete = False
                continue
            stamps.append(packet.pts)
            if packet.is_keyframe:
                keys.append(packet.pts)
            if newest is None or packet.pts > newest:
                newest, last = packet.pts, max(packet.duration or 0, 0)
    if packets == 0:
        raise ImageError(f"{path}: its video has no frames; expected at least one")
    unit = stream.time_base or Fraction(1, 1000)
    ordered, known = array("q", sorted(stamps)), array("q", sorted(keys))
    rates = [_plausible(rate) for rate in (stream.average_rate, stream.base_rate, stream.guessed_rate)]
    trusted = complete and len(set(stamps)) == packets and bool(known) and _is_indexed(container, stream)
    if not trusted:
        return Timeline(array("q"), known, unit, next(filter(None, rates), _DEFAULT_RATE), False, last, packets)
    rate, variable = _rhythm(ordered, unit, last, rates)
    return Timeline(ordered, known, unit, rate, variable, last, packets)


def _is_indexed(container: InputContainer, stream: VideoStream) -> bool:
    codec = stream.codec_context.codec.canonical_name if stream.codec_context is not None else ""
    return codec in _ONE_FRAME_A_PACKET and container.format.name.split(",")[0] in _FORMATS


def _plausible(rate: Fraction | None) -> Fraction | None:
    return rate if rate is not None and Fraction(1, 100_000) < rate < 100_000 else None


def _rhythm(stamps: array[int], unit: Fraction, last: int, rates: list[Fraction | None]) -> tuple[Fraction, bool]:
    """The frame rate that explains all timestamps up to their rounding; else the average, and True."""
    total = stamps[-1] - stamps[0]
    for rate in dict.fromkeys(filter(None, rates)):
        step = 1 / (rate * unit)
        # Integers throughout: fractions of a long film would take seconds.
        over, under, spare = step.numerator, step.denominator, int(_SPARE * step.denominator)
        if all(abs((stamp - stamps[0]) * under - k * over) <= spare for k, stamp in enumerate(stamps)):
            return rate, False
    frames = len(stamps) if last else len(stamps) - 1
    span = (total + last) * unit
    if frames < 1 or span <= 0:
        return next(filter(None, rates), _DEFAULT_RATE), False
    return (frames / span).limit_denominator(100_000), True

"""What a film is: its facts, its frames, and the interface that every kind of film is read through."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType

from fastnst.errors import UsageError
from fastnst.images import Picture


@dataclass(frozen=True)
class FilmInfo:
    """The facts of a film, as it is shown.

    Attributes:
        width: width in pixels, after rotation and with square pixels.
        height: height in pixels, likewise.
        frame_rate: frames per second; the average of a film with ``variable``.
        count: number of frames; None if only decoding tells.
        variable: whether the frames are unevenly spaced. If not, frame ``k`` is at ``k / frame_rate``.
        has_alpha: whether frames may be transparent.
        has_audio: whether the file has sound.
        duration: seconds from the first frame to the end of the last; None if unknown.
        loop: how often an animation is shown, 0 for endlessly; None for other films.
        path: the file or folder, if any.
        time_base: the unit that all times are multiples of, in seconds; None if there is none.

    Example:
        >>> from fractions import Fraction
        >>> FilmInfo(640, 360, Fraction(25)).variable
        False
    """

    width: int
    height: int
    frame_rate: Fraction
    count: int | None = None
    variable: bool = False
    has_alpha: bool = False
    has_audio: bool = False
    duration: float | None = None
    loop: int | None = None
    path: Path | None = None
    time_base: Fraction | None = None


@dataclass(frozen=True, eq=False)
class Frame:
    """One picture of a film.

    Attributes:
        number: number of the frame, from 0. A frame that is skipped as broken keeps its number.
        time: seconds from the first frame, exact.
        duration: seconds until the next frame; None if unknown.
        picture: the picture; ``picture.pixels`` is float32 ``[1, 3, H, W]``, RGB, 0..1, on the CPU.

    Example:
        >>> import torch
        >>> from fractions import Fraction
        >>> from fastnst.images import Picture
        >>> Frame(0, Fraction(0), Fraction(1, 25), Picture(torch.zeros(1, 3, 4, 6))).picture.size
        (4, 6)
    """

    number: int
    time: Fraction
    duration: Fraction | None
    picture: Picture


class Film(ABC):
    """A film that is open for reading, from :func:`open_film`. Iterating reads the frames from the start, any number of
    times.

    Attributes:
        info: the facts of the film.

    Example::

        with open_film("clip.mp4") as film:
            for frame in film:
                print(frame.number, float(frame.time), frame.picture.size)
    """

    info: FilmInfo

    def __enter__(self) -> Film:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        return None  # nothing is held: each iteration opens the file and closes it

    def __iter__(self) -> Iterator[Frame]:
        return self.frames(0)

    def frames(self, first: int) -> Iterator[Frame]:
        """The frames from number ``first`` on: the same pictures as those of a whole iteration.

        Args:
            first: number of the first frame, from 0; beyond the last there is none.

        Raises:
            UsageError: a number below 0.
            ImageError: a frame that cannot be decoded, or of another size than the first.
        """
        if isinstance(first, bool) or not isinstance(first, int) or first < 0:
            raise UsageError(f"frames: expected the number of a frame, from 0, got {first!r}")
        return self._read(first)

    @abstractmethod
    def _read(self, first: int) -> Iterator[Frame]:
        """The frames from ``first`` on, which is 0 or more."""

"""Take the frames out of a film, at the size of the result, and find its shots."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

from fastnst import images
from fastnst.errors import ImageError, UsageError
from fastnst.film import shots
from fastnst.film.frames_store import FrameStore
from fastnst.film.reading import FilmInfo, is_film, open_film
from fastnst.film.shots import CutDetector, Shot
from fastnst.images import Picture
from fastnst.run.stylizer import Stylizer

LEAST_MASK = 1 / 255
"""Value of a mask of a film where it is black, so that a style whose mask is black in a whole frame has no weight."""


@dataclass(frozen=True)
class Frames:
    """What was taken out of a film.

    Attributes:
        info: of the film, with the size of the result.
        times: time and duration of each frame in seconds from the first frame.
        shots: the shots.
    """

    info: FilmInfo
    times: tuple[tuple[Fraction, Fraction | None], ...]
    shots: tuple[Shot, ...] = field(default=())

    def to_dict(self) -> dict[str, Any]:
        """The frames as plain values for JSON."""
        base = self.info.time_base
        fractions = {"frame_rate": str(self.info.frame_rate), "time_base": None if base is None else str(base)}
        info = {**dataclasses.asdict(self.info), "path": None, **fractions}
        times = [[str(time), None if duration is None else str(duration)] for time, duration in self.times]
        return {"info": info, "times": times, "shots": [dataclasses.asdict(shot) for shot in self.shots]}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], path: Path) -> Frames:
        """The inverse of :meth:`to_dict`."""
        try:
            rate, base = values["info"]["frame_rate"], values["info"]["time_base"]
            fractions = {"frame_rate": Fraction(rate), "time_base": None if base is None else Fraction(base)}
            info = FilmInfo(**{**values["info"], "path": path, **fractions})
            times = tuple((Fraction(time), None if long is None else Fraction(long)) for time, long in values["times"])
            found = tuple(
                Shot(one["first"], one["last"], tuple(one["style"]), tuple(one["mask"]), _tuples(one["settings"]))
                for one in values["shots"]
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ImageError(f"{path}: the record of its frames is damaged; begin again with --force") from error
        return cls(info, times, found)


def extract(
    path: str | os.PathLike[str],
    stylizer: Stylizer,
    store: FrameStore,
    *,
    masks: Sequence[Any],
    frames: tuple[int, int] | None,
    broken: str,
    find_cuts: bool,
) -> Frames:
    """Write the frames of a film and of its masks into ``store``, and find the shots.

    Args:
        path: the film.
        stylizer: gives the size of the result.
        store: where frames are written.
        masks: one for each style, or None; those that are films are extracted.
        frames: the first frame and the one after the last; None: all.
        broken: ``"refuse"`` or ``"skip"``.
        find_cuts: whether to look for cuts; without, the film is one shot.

    Raises:
        ImageError: a film that cannot be read, or a disk that is full.
        UsageError: a mask of another length.
    """
    limit, detector = stylizer.settings.max_pixels, CutDetector()
    first, last = frames or (0, None)
    times: list[tuple[Fraction, Fraction | None]] = []
    size = (0, 0)
    with open_film(path, max_pixels=limit, broken=broken) as film:
        info = film.info
        for frame in film.frames(first):
            if last is not None and frame.number >= last:
                break
            content = stylizer.loader.content(frame.picture)
            size = content.size
            store.write("content", len(times), content)
            detector.add(content.pixels)
            times.append((frame.time, frame.duration))
    if last is not None and len(times) < last - first:
        raise UsageError(f"{path}: has no frame {first + len(times)}, got frames {first}:{last}")
    if not times:
        raise ImageError(f"{path}: has no frames")
    start = times[0][0]
    times = [(time - start, duration) for time, duration in times]
    for index, mask in enumerate(masks):
        if mask is not None and is_film(mask):
            _extract_mask(mask, index, stylizer, store, range(first, first + len(times)), whole=last is None)
    info = dataclasses.replace(info, height=size[0], width=size[1], count=len(times))
    cuts = detector.cuts() if find_cuts else []
    return Frames(info, tuple(times), tuple(shots.split(len(times), cuts)))


def _extract_mask(
    path: str | os.PathLike[str], index: int, stylizer: Stylizer, store: FrameStore, wanted: range, *, whole: bool
) -> None:
    """Write the frames ``wanted`` of a mask, which has no others if ``whole``."""
    found = 0
    with open_film(path, max_pixels=stylizer.settings.max_pixels) as film:
        for frame in film:
            found += 1
            if frame.number not in wanted:
                continue
            content = store.read("content", frame.number - wanted.start)
            gray = frame.picture.pixels.mean(1, keepdim=True).expand(-1, 3, -1, -1)
            if frame.picture.alpha is not None:
                gray = gray * frame.picture.alpha
            fitted = images.resize(gray.contiguous(), *content.size).clamp(min=LEAST_MASK)
            store.write(f"mask_{index + 1}", frame.number - wanted.start, Picture(fitted))
    if found < wanted.stop or (whole and found != wanted.stop):
        raise UsageError(f"mask {path}: has {found} frames, but the film has {wanted.stop}; draw one for each frame")


def _tuples(values: Mapping[str, Any]) -> dict[str, Any]:
    """Settings from JSON, where tuples are lists."""
    return {name: _tuple(value) for name, value in values.items()}


def _tuple(value: Any) -> Any:
    return tuple(_tuple(one) for one in value) if isinstance(value, list) else value

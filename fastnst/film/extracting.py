"""Take the frames out of a film, at the size of the result, and find its shots."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch

from fastnst.errors import ImageError, UsageError
from fastnst.film import shots
from fastnst.film.frames_store import FrameStore
from fastnst.film.reading import FilmInfo, is_film, open_film
from fastnst.film.shots import CutDetector, Shot
from fastnst.images import Picture
from fastnst.run.stylizer import Stylizer

LEAST_MASK = 1 / 255
"""Value of a mask of a film that is black in a whole frame, so that its style has hardly any weight there."""


@dataclass(frozen=True)
class Frames:
    """What was taken out of a film.

    Attributes:
        info: of the film, with the size of the result.
        whole: height and width of the film, to which masks belong; a crop is a part of it.
        times: time and duration of each frame in seconds from the first frame.
        shots: the shots.
    """

    info: FilmInfo
    whole: tuple[int, int]
    times: tuple[tuple[Fraction, Fraction | None], ...]
    shots: tuple[Shot, ...] = field(default=())

    def to_dict(self) -> dict[str, Any]:
        """The frames as plain values for JSON."""
        base = self.info.time_base
        fractions = {"frame_rate": str(self.info.frame_rate), "time_base": None if base is None else str(base)}
        info = {**dataclasses.asdict(self.info), "path": None, **fractions}
        times = [[str(time), None if duration is None else str(duration)] for time, duration in self.times]
        return {
            "info": info,
            "whole": list(self.whole),
            "times": times,
            "shots": [dataclasses.asdict(shot) for shot in self.shots],
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], path: Path) -> Frames:
        """The inverse of :meth:`to_dict`."""
        try:
            rate, base = values["info"]["frame_rate"], values["info"]["time_base"]
            fractions = {"frame_rate": Fraction(rate), "time_base": None if base is None else Fraction(base)}
            info = FilmInfo(**{**values["info"], "path": path, **fractions})
            height, width = values["whole"]
            times = tuple((Fraction(time), None if long is None else Fraction(long)) for time, long in values["times"])
            found = tuple(
                Shot(one["first"], one["last"], tuple(one["style"]), tuple(one["mask"]), one["settings"])
                for one in values["shots"]
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ImageError(f"{path}: the record of its frames is damaged; begin again with --force") from error
        return cls(info, (height, width), times, found)


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
    size, whole = (0, 0), Picture(torch.zeros(1, 3, 1, 1))
    with open_film(path, max_pixels=limit, broken=broken) as film:
        info = film.info
        for frame in film.frames(first):
            if last is not None and frame.number >= last:
                break
            content = stylizer.loader.content(frame.picture)
            size, whole = content.size, frame.picture
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
            wanted = range(first, first + len(times))
            found = _extract_mask(mask, index, stylizer, store, wanted, whole)
            if found < wanted.stop or (last is None and found != wanted.stop):
                count = wanted.stop
                raise UsageError(f"mask {mask}: has {found} frames, but the film has {count}; draw one for each frame")
    info = dataclasses.replace(info, height=size[0], width=size[1], count=len(times))
    cuts = detector.cuts() if find_cuts else []
    return Frames(info, whole.size, tuple(times), tuple(shots.split(len(times), cuts)))


def _extract_mask(
    path: str | os.PathLike[str], index: int, stylizer: Stylizer, store: FrameStore, wanted: range, whole: Picture
) -> int:
    """Write the frames ``wanted`` of a mask, fitted as those of the film are. Returns the number of its frames."""
    found = 0
    with open_film(path, max_pixels=stylizer.settings.max_pixels) as film:
        for frame in film:
            found += 1
            if frame.number in wanted:
                name = f"frame {frame.number} of mask"
                fitted = stylizer.loader.fitted_mask(name, frame.picture, whole, stylizer.loader.content)
                if not bool((fitted.pixels > 0).any()):
                    fitted = Picture(fitted.pixels + LEAST_MASK)
                store.write(f"mask_{index + 1}", frame.number - wanted.start, fitted)
    return found

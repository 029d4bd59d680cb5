"""What a film is made from, and the outcome."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fastnst.errors import UsageError, shown
from fastnst.film.flow import FlowEstimator
from fastnst.film.frames_store import SUFFIX, FrameStore
from fastnst.film.reading import BROKEN
from fastnst.film.shots import Shot
from fastnst.images.loading import Source
from fastnst.run.scene import check_counts

Name = str | os.PathLike[str]


@dataclass(frozen=True)
class FilmRequest:
    """A film to style.

    Attributes:
        film: a film, an animation, or a folder of frames.
        styles: the style pictures.
        output: the file to write, or a folder for numbered frames.
        masks: one for each style, a picture or a film of the same number of frames, or None.
        style_masks: one for each style, a picture of its size, or None: which part of it is used.
        content_mask: a picture of the frames' size: how much the content counts.
        shots: a TOML file with the shots, see :func:`fastnst.film.shots.read_shots`; None: ``film_settings.shots``.
        frames: the first frame and the one after the last; None: all. The result has no sound then.
        broken: ``"refuse"`` or ``"skip"``: what to do about frames that cannot be decoded.
        quality, codec: of the output, see :class:`fastnst.film.writing.FilmWriter`.
        flow: estimates optical flow, instead of what the setting ``flow`` names.
        keep_frames: keep the folder of frames when the film is finished.
        force: replace frames of another film or other settings.

    Example:
        >>> FilmRequest("clip.mp4", ("painting.jpg",), "styled.mp4").store.folder.name
        'styled.mp4.frames'
    """

    film: Name
    styles: Sequence[Source]
    output: Name
    masks: Sequence[Name | None] = ()
    style_masks: Sequence[Source | None] = ()
    content_mask: Source | None = None
    shots: Name | None = None
    frames: tuple[int, int] | None = None
    broken: str = "refuse"
    quality: int | None = None
    codec: str | None = None
    flow: FlowEstimator | None = None
    keep_frames: bool = False
    force: bool = False

    @property
    def store(self) -> FrameStore:
        """The frames made so far, in a folder beside the output."""
        output = Path(self.output)
        return FrameStore(output.with_name(output.name + SUFFIX))


@dataclass(frozen=True)
class FilmReport:
    """The outcome of :func:`stylize_film`.

    Attributes:
        path: the film.
        frames: the number of frames.
        shots: the shots.
        made: the number of frames that this run made; the others were there.

    Example:
        >>> FilmReport(Path("styled.mp4"), frames=48, shots=(Shot(0, 48),), made=48).frames
        48
    """

    path: Path
    frames: int
    shots: tuple[Shot, ...]
    made: int


def check_request(request: FilmRequest) -> None:
    """Raise UsageError for a request that contradicts itself."""
    check_counts(len(request.styles), request.masks, request.style_masks)
    if request.frames is not None:
        first, last = request.frames
        if not (isinstance(first, int) and isinstance(last, int) and 0 <= first < last):
            raise UsageError(f"frames: expected the first and the one after the last, such as 0:50, got {first}:{last}")
    if request.broken not in BROKEN:
        raise UsageError(f"broken: expected {' or '.join(BROKEN)}, got {shown(request.broken)}")

"""``FilmWriter``: write a film frame by frame; it appears at its name when it is complete."""

from __future__ import annotations

import errno
import logging
import os
import struct
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

from torch import Tensor

from fastnst.errors import ImageError, UsageError, nearest
from fastnst.files import obstacle, replacing
from fastnst.film.animating import LONGEST, WRITERS, AnimationWriter
from fastnst.film.codecs import CONTAINERS, encoder_options
from fastnst.film.encoding import ContainerWriter, choose_codec
from fastnst.film.film import FilmInfo
from fastnst.film.folder import FolderWriter, check_folder
from fastnst.film.opening import import_av, reason
from fastnst.film.pixels import check_pixels
from fastnst.images.metadata import to_json

log = logging.getLogger("fastnst")

SUFFIXES = (*CONTAINERS, *WRITERS)
"""The suffixes of films; a name without one is a folder of numbered PNG files."""
_FOLDER_CODECS = {"png": 8, "png16": 16}
_WEBP_QUALITY = 85


def check_target(
    path: str | os.PathLike[str],
    *,
    codec: str | None = None,
    quality: int | None = None,
    alpha: bool = False,
    parents: bool = False,
    force: bool = True,
) -> Path:
    """Check before a long run that :class:`FilmWriter` can write to ``path``.

    Args:
        path: the film to write.
        codec: as for :class:`FilmWriter`.
        quality: as for :class:`FilmWriter`.
        alpha: whether the film has transparency.
        parents: whether missing folders will be made.
        force: whether an existing film may be replaced.

    Returns:
        The path.

    Raises:
        UsageError: an unknown suffix or codec, a codec without transparency, or a quality out of range.
        ImageError: a folder that is missing or not writable, or a package or encoder that is missing.

    Example:
        >>> from fastnst.film import check_target
        >>> check_target("out.mp4", codec="h264").name
        'out.mp4'
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix and suffix not in SUFFIXES:
        known = ", ".join(SUFFIXES)
        raise UsageError(
            f"{path}: expected a name ending in {known}, or one without a suffix for a folder of frames, got {suffix!r}"
            f"{nearest(suffix, SUFFIXES)}"
        )
    if quality is not None and (isinstance(quality, bool) or not isinstance(quality, int) or not 1 <= quality <= 100):
        raise UsageError(f"quality: expected a whole number from 1 to 100, got {quality!r}")
    if suffix in CONTAINERS:
        import_av(path)
        choose_codec(path, codec, alpha)
    elif codec is not None and (suffix or codec not in _FOLDER_CODECS):
        known = "no codec" if suffix else " or ".join(_FOLDER_CODECS)
        raise UsageError(f"codec: expected {known} for {suffix or 'a folder'}, got {codec!r}")
    if not suffix:
        check_folder(path)
    why = obstacle(path if suffix else path / "frame", parents=parents or (not suffix and path.parent.is_dir()))
    if why is not None:
        raise ImageError(f"{path}: {why}")
    if not force and path.exists():
        raise UsageError(f"{path} exists already; name another film, or replace it with --force")
    return path


class FilmWriter:
    """Writes a film. A context manager: the film is at its name when the block has ended without an error, and until
    then an existing file of this name is as it was.

    Args:
        path: the film. Its suffix determines the format: .mp4, .m4v, .mov, .mkv, .webm, .gif, .webp, or .png and .apng
            for APNG; a name without a suffix is a folder of numbered PNG files.
        info: size, frame rate, alpha and loop of the film, such as those of the film that it is made from.
            ``time_base`` is the unit of the times.
        quality: 1 to 100; None for a good default of each codec. 100 is the best that the codec does: lossless WebP,
            and lossless but for the conversion to 4:2:0 in H.264. It has no effect on ffv1, qtrle, ProRes, GIF, PNG.
        codec: h264, hevc, av1, vp9, ffv1, prores or qtrle, as far as the container holds it; png or png16 for a folder;
            None for the default.
        audio_from: a film whose sound is written as well.
        settings: stored as JSON for :func:`read_film_settings`.
        fast: prefer speed of encoding to size.

    Raises:
        UsageError: an invalid argument.
        ImageError: a file that cannot be written.

    Example::

        with open_film("clip.mp4") as film, FilmWriter("copy.mp4", film.info, audio_from="clip.mp4") as writer:
            for frame in film:
                writer.add(frame.picture.pixels, frame.picture.alpha, time=frame.time, duration=frame.duration)
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        info: FilmInfo,
        *,
        quality: int | None = None,
        codec: str | None = None,
        audio_from: str | os.PathLike[str] | None = None,
        settings: Mapping[str, object] | None = None,
        fast: bool = False,
    ) -> None:
        self.path = check_target(path, codec=codec, quality=quality, alpha=info.has_alpha)
        self.info, self.count = info, 0
        self._codec, self._quality, self._fast, self._settings = codec, quality, fast, settings
        self._text = None if settings is None else to_json(settings)
        self._sound = None if audio_from is None else Path(audio_from)
        self._stack = ExitStack()
        self._writer: Any = None
        longest = LONGEST.get(self.path.suffix.lower(), 2**31 - 1)
        if max(info.width, info.height) > longest:
            size = f"{info.width} x {info.height}"
            raise ImageError(f"{self.path}: this format holds at most {longest} pixels a side, got {size}")

    def __enter__(self) -> FilmWriter:
        with _errors(self.path), ExitStack() as stack:
            if self.path.suffix:
                temporary = stack.enter_context(replacing(self.path))
                self._writer = self._file_writer(temporary)
            else:
                bits = _FOLDER_CODECS[self._codec or "png"]
                self._writer = FolderWriter(self.path, bits, self._settings)
            self._stack = stack.pop_all()
        return self

    def _file_writer(self, temporary: Path) -> ContainerWriter | AnimationWriter:
        suffix = self.path.suffix.lower()
        if suffix in WRITERS:
            if self._sound is not None and self.info.has_audio:
                log.warning("%s: this format holds no sound; it is left out", self.path)
            return WRITERS[suffix](temporary, self.info, self._quality or _WEBP_QUALITY, self._text, self._fast)
        codec = choose_codec(self.path, self._codec, self.info.has_alpha)
        options = encoder_options(codec, self._quality, self._fast)
        return ContainerWriter(temporary, self.info, codec, options, self._text, self._sound)

    def add(
        self, pixels: Tensor, alpha: Tensor | None = None, *, time: Fraction, duration: Fraction | None = None
    ) -> None:
        """Write the next frame.

        Args:
            pixels: ``[1, 3, H, W]``, floating-point RGB, clamped to 0..1, of the film's size.
            alpha: ``[1, 1, H, W]`` in 0..1, for films with alpha.
            time: seconds from the start of the film, later than that of the frame before.
            duration: seconds for which it is shown; of all but the last frame, the next one's time tells.
        """
        check_pixels(pixels, alpha)
        if tuple(pixels.shape[2:]) != (self.info.height, self.info.width):
            size = f"{self.info.width} x {self.info.height}"
            raise UsageError(f"film: expected frames of {size}, got {pixels.shape[3]} x {pixels.shape[2]}")
        if alpha is not None and not self.info.has_alpha:
            raise UsageError("film: expected no alpha, since info.has_alpha is False")
        if self._writer is None:
            raise UsageError("film: expected frames inside the `with` block of the writer")
        with _errors(self.path):
            self._writer.add(pixels, alpha, time, duration)
        self.count += 1

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        writer, self._writer = self._writer, None
        if kind is not None:
            with suppress(Exception):
                writer.close()
            self._stack.__exit__(kind, error, at)
            return
        with _errors(self.path), self._stack:
            try:
                if self.count == 0:
                    raise ImageError(f"{self.path}: has no frames; expected at least one")
                writer.finish()
            except BaseException:
                with suppress(Exception):
                    writer.close()
                raise
            writer.close()


@contextmanager
def _errors(path: Path) -> Iterator[None]:
    """Raise what encoders and disks raise as an ImageError of one line."""
    try:
        yield
    except Exception as error:
        if not isinstance(error, (OSError, struct.error)) and not type(error).__module__.startswith("av."):
            raise
        full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
        why = "no space left on the disk; expected room for the film" if full else reason(error)
        raise ImageError(f"{path}: cannot be written ({why})") from error

"""``FilmWriter``: write a film frame by frame; it appears at its name when it is complete."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

from torch import Tensor

from fastnst.errors import ImageError, UsageError, nearest
from fastnst.files import obstacle, replacing
from fastnst.film.codecs import CONTAINERS, encoder_options
from fastnst.film.encoding import ContainerWriter, choose_codec
from fastnst.film.film import FilmInfo
from fastnst.film.opening import import_av, reason
from fastnst.film.pixels import check_pixels
from fastnst.images.metadata import to_json

SUFFIXES = tuple(CONTAINERS)


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
    if suffix not in SUFFIXES:
        known = ", ".join(SUFFIXES)
        raise UsageError(f"{path}: expected a name ending in {known}, got {suffix!r}{nearest(suffix, SUFFIXES)}")
    if quality is not None and (isinstance(quality, bool) or not isinstance(quality, int) or not 1 <= quality <= 100):
        raise UsageError(f"quality: expected a whole number from 1 to 100, got {quality!r}")
    why = obstacle(path, parents=parents)
    if why is not None:
        raise ImageError(f"{path}: {why}")
    if not force and path.exists():
        raise UsageError(f"{path} exists already; name another file, or replace it with --force")
    import_av(path)
    choose_codec(path, codec, alpha)
    return path


class FilmWriter:
    """Writes a film. A context manager: the film is at its name when the block has ended without an error, and until
    then an existing file of this name is as it was.

    Args:
        path: the film. Its suffix determines the format: .mp4, .m4v, .mov, .mkv or .webm.
        info: size, frame rate and alpha of the film, such as those of the film that it is made from. ``time_base`` is
            the unit of the times.
        quality: 1 to 100; None for a good default of each codec.
        codec: h264, hevc, av1, vp9, ffv1, prores or qtrle, as far as the container holds it; None for its default.
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
        self._text = None if settings is None else to_json(settings)
        self._codec = choose_codec(self.path, codec, info.has_alpha)
        self._options = encoder_options(self._codec, quality, fast)
        self._sound = None if audio_from is None else Path(audio_from)
        self._stack = ExitStack()
        self._writer: Any = None

    def __enter__(self) -> FilmWriter:
        with self._errors(), ExitStack() as stack:
            temporary = stack.enter_context(replacing(self.path))
            self._writer = ContainerWriter(temporary, self.info, self._codec, self._options, self._text, self._sound)
            self._stack = stack.pop_all()
        return self

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
        with self._errors():
            self._writer.add(pixels, alpha, time, duration)
        self.count += 1

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        writer, self._writer = self._writer, None
        with self._errors(), self._stack:
            try:
                if kind is None:
                    if self.count == 0:
                        raise ImageError(f"{self.path}: has no frames; expected at least one")
                    writer.finish()
            finally:
                self._close(writer, quiet=kind is not None)
            if error is not None:
                raise error

    def _close(self, writer: Any, quiet: bool) -> None:
        try:
            writer.close()
        except Exception:
            if not quiet:
                raise

    def _errors(self) -> Any:
        return _Errors(self.path)


class _Errors:
    """Raises what encoders and disks raise as an ImageError of one line."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if isinstance(error, (OSError, EOFError, RuntimeError, ArithmeticError)) or type(error) is ValueError:
            raise ImageError(f"{self._path}: cannot be written ({reason(error)})") from error

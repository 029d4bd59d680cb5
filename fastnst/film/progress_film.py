"""``ProgressFilm``: a film of how a picture comes about, from the callback of a run.

Frames are enlarged and encoded in a thread of their own. A queue of a few frames bounds the memory and, if encoding
ever is slower than the steps, makes the run wait. No run ends because its film cannot be written.
"""

from __future__ import annotations

import logging
import os
import queue
import threading
from collections.abc import Callable, Mapping
from fractions import Fraction
from types import TracebackType
from typing import TYPE_CHECKING

from torch import Tensor

from fastnst import images
from fastnst.errors import FastnstError, UsageError, shown
from fastnst.film.codecs import CONTAINERS
from fastnst.film.film import FilmInfo
from fastnst.film.provenance import read_film_settings
from fastnst.film.reading import open_film
from fastnst.film.writing import FilmWriter, check_target

if TYPE_CHECKING:
    from fastnst.optim.progress import Step

log = logging.getLogger("fastnst")

FPS, EVERY = Fraction(10), 5
"""Frames per second, and steps from one frame to the next, unless chosen."""
MOST_FPS, MOST_STEPS = 240, 10**9
HOLD = 1
"""Seconds for which the last frame is shown."""
KEY = "film"
"""What the settings in the film have its rate and steps under."""
_WAITING = 3  # frames in the queue

Item = tuple[Tensor, int]
"""An image of any size, and the number of its step."""


class ProgressFilm:
    """A callback of :func:`fastnst.stylize` that films the run: its first and last step and every ``every``-th between.

    The film is at its name after the last step. As a context manager it is there as well when the block ends early, by
    Ctrl-C, a callback or an error, if there is a frame. The last frame stays for a second. If the film cannot be
    written, there is a warning, and the run goes on.

    Args:
        path: the film, with a suffix of :class:`FilmWriter`, or a folder.
        fps: frames per second, up to 240.
        every: steps from one frame to the next, counted over all scales.
        show: what to show for an image ``[1, 3, h, w]`` of any scale; by default the image at the size of the result.
        settings: stored in the film, with the rate and the steps.
        resume: begin with the frames that an interrupted run has written to ``path``, up to the step at which this run
            goes on.

    Raises:
        UsageError: an invalid argument.
        ImageError: a path that cannot be written.

    Example:
        >>> import tempfile, torch, fastnst
        >>> from fastnst.film import ProgressFilm, open_film
        >>> photo, painting = torch.rand(3, 64, 64), torch.rand(3, 64, 64)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with ProgressFilm(f"{folder}/progress.gif", fps=10, every=2) as film:
        ...         _ = fastnst.stylize(photo, painting, size=64, steps=4, scales=1, callback=film)
        ...     with open_film(film.path) as made:
        ...         made.info.count
        3
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        fps: float | Fraction = FPS,
        every: int = EVERY,
        show: Callable[[Tensor], Tensor] | None = None,
        settings: Mapping[str, object] | None = None,
        resume: bool = False,
    ) -> None:
        self.path = check_target(path)
        self.fps, self.every = check_fps(fps), check_every(every)
        self.count = 0
        """Number of frames so far, without those that hold the last one."""
        self.written = False
        """Whether the film has been written."""
        about = {"every": self.every, "fps": float(self.fps)}
        self._show, self._settings, self._resume = show, {**(settings or {}), KEY: about}, resume
        self._queue: queue.Queue[Item | None] = queue.Queue(_WAITING)
        self._thread: threading.Thread | None = None
        self._size: tuple[int, int] | None = None
        self._step = 0
        self._failed = self._closed = False

    def __enter__(self) -> ProgressFilm:
        return self

    def __call__(self, step: Step) -> None:
        """Film a step, if its turn has come."""
        if self._failed or self._closed or not (step.count == 1 or step.count % self.every == 0 or step.last):
            return
        self._size = step.size
        self._put(step.image, step.count)
        if step.last:
            self.close()

    def add(self, image: Tensor) -> None:
        """Add an image ``[1, 3, H, W]`` in 0..1 as the next frame, such as the result of a run that was stopped."""
        if self._size is None:
            self._size = (int(image.shape[2]), int(image.shape[3]))
        if not (self._failed or self._closed):
            self._put(image.detach().to("cpu"), self._step + 1)

    def _put(self, image: Tensor, step: int) -> None:
        self._step = step
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="fastnst film", daemon=True)
            self._thread.start()
        self._queue.put((image, step))

    def close(self) -> None:
        """Finish the film, as the last step does. Does nothing without a frame, or a second time."""
        self._closed = True
        thread, self._thread = self._thread, None
        if thread is not None:
            self._queue.put(None)
            thread.join()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _work(self) -> None:
        """Write the frames of the queue until None; after an error, empty it."""
        try:
            self._write()
            self.written = True
        except (FastnstError, MemoryError) as error:
            self._failed = True
            log.warning("%s; the run goes on without its film", error)
        except Exception as error:
            self._failed = True
            log.warning("%s: the film cannot be written (%s); the run goes on without it", self.path, error)
        finally:
            while self._failed and self._queue.get() is not None:
                pass

    def _write(self) -> None:
        item = self._queue.get()
        assert item is not None
        assert self._size is not None
        height, width = self._size
        info = FilmInfo(width, height, self.fps, loop=0, time_base=Fraction(1, self.fps.numerator))
        with FilmWriter(self.path, info, settings=self._settings, fast=True) as writer:
            if self._resume:
                self._copy_before(item[1], writer)
            pixels = self._shown(item[0])
            while (item := self._queue.get()) is not None:
                self._add(writer, pixels)
                pixels = self._shown(item[0])
            self._hold(writer, pixels)

    def _shown(self, image: Tensor) -> Tensor:
        assert self._size is not None
        return images.resize(image, *self._size) if self._show is None else self._show(image)

    def _add(self, writer: FilmWriter, pixels: Tensor) -> None:
        writer.add(pixels, time=writer.count / self.fps, duration=1 / self.fps)
        self.count = writer.count

    def _hold(self, writer: FilmWriter, pixels: Tensor) -> None:
        """Write the last frame. In containers it is repeated, since not every player heeds a long last duration."""
        self.count += 1
        contained = self.path.suffix.lower() in CONTAINERS
        duration = 1 / self.fps if contained else max(Fraction(HOLD), 1 / self.fps)
        for _ in range(max(round(HOLD * self.fps), 1) if contained else 1):
            writer.add(pixels, time=writer.count / self.fps, duration=duration)

    def _copy_before(self, step: int, writer: FilmWriter) -> None:
        """Copy the frames of steps before ``step`` from the film of the interrupted run, if there is one of it."""
        if not self.path.exists() or step == 1:
            return
        try:
            about = (read_film_settings(self.path) or {}).get(KEY)
            every = about.get("every") if isinstance(about, dict) else None
            with open_film(self.path) as film:
                size = (film.info.height, film.info.width)
                wanted = (writer.info.height, writer.info.width)
                fits = size == wanted or size == tuple(side + side % 2 for side in wanted)  # as H.264 pads them
                if not isinstance(every, int) or every < 1 or not fits:
                    log.warning("%s: is no film of this run; the new film starts at step %d", self.path, step)
                    return
                for frame in film:
                    if step_of(frame.number, every) >= step:
                        break
                    self._add(writer, frame.picture.pixels[:, :, : wanted[0], : wanted[1]])
        except FastnstError as error:
            log.warning("%s; the new film starts at step %d", error, step)


def step_of(number: int, every: int) -> int:
    """The step that a frame shows: the first one, and then every ``every``-th."""
    return 1 if number == 0 else number * every + (every == 1)


def check_fps(fps: float | Fraction) -> Fraction:
    """Frames per second as a fraction. Raises UsageError."""
    try:
        found = Fraction(fps).limit_denominator(1001)
    except (ValueError, TypeError, OverflowError, ZeroDivisionError):
        found = Fraction(0)
    if isinstance(fps, bool) or not Fraction(1, 10) <= found <= MOST_FPS:
        raise UsageError(f"fps: expected a number from 0.1 to {MOST_FPS}, got {shown(fps)}")
    return found


def check_every(every: int) -> int:
    """Steps from one frame to the next. Raises UsageError."""
    if isinstance(every, bool) or not isinstance(every, int) or not 1 <= every <= MOST_STEPS:
        raise UsageError(f"every: expected a whole number from 1 to {MOST_STEPS}, got {shown(every)}")
    return every

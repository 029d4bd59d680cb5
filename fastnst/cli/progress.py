"""Progress bars on stderr."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from fastnst.errors import printable

if TYPE_CHECKING:
    from fastnst.film.making import FilmProgress
    from fastnst.optim.progress import Step

_FORMAT = "{percentage:3.0f}%|{bar:24}| {desc}"


class _Bar:
    """A bar from 0 to 1. It appears with the first progress, so that an error before it stands alone."""

    def __init__(self, quiet: bool) -> None:
        self._quiet = quiet
        self._bar: tqdm[Any] | None = None

    def show(self, fraction: float, text: str) -> None:
        """Move the bar to ``fraction`` and show ``text`` beside it."""
        try:
            self._show(fraction, text)
        except OSError:  # the reader has gone: no reason to end the run
            self._quiet, self._bar = True, None

    def _show(self, fraction: float, text: str) -> None:
        text = printable(text)
        if self._bar is None:
            # Without a terminal each refresh is a line of a log file.
            interval = 0.1 if sys.stderr.isatty() else 10.0
            self._bar = tqdm(
                total=1.0,
                desc=text,
                bar_format=_FORMAT,
                dynamic_ncols=True,
                file=sys.stderr,
                disable=self._quiet,
                mininterval=interval,
                miniters=0,
            )
        self._bar.set_description_str(text, refresh=False)
        self._bar.update(min(fraction, 1.0) - self._bar.n)

    def close(self, text: str = "") -> None:
        """Close the bar, with ``text`` as its last line."""
        if self._bar is not None:
            if text:
                self._bar.set_description_str(printable(text), refresh=False)
            self._bar.close()
            self._bar = None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


class StepBar(_Bar):
    """Shows the number of each step, its loss and the remaining time. A callback of :func:`fastnst.stylize`."""

    def __init__(self, quiet: bool) -> None:
        super().__init__(quiet)
        self._last: Step | None = None

    def __enter__(self) -> StepBar:
        return self

    def __call__(self, step: Step) -> None:
        self._last = step
        self.show(fraction_done(step), f"{describe(step)}  {tqdm.format_interval(step.remaining)} left")

    def close(self, text: str = "") -> None:
        if self._last is not None:
            text = f"{describe(self._last)}  {tqdm.format_interval(self._last.seconds)}"
        super().close(text)


class GalleryBar(_Bar):
    """Shows the steps of each pair in turn, and the remaining time of all pairs."""

    def __init__(self, quiet: bool) -> None:
        super().__init__(quiet)
        self._before = 0.0
        self._now = (0, 0.0)

    def __enter__(self) -> GalleryBar:
        return self

    def show_step(self, name: str, number: int, count: int, step: Step) -> None:
        """Show a step of the pair ``number``, from 1, of ``count``."""
        if number != self._now[0]:
            self._before += self._now[1]
        self._now = (number, step.seconds)
        fraction = (number - 1 + fraction_done(step)) / count
        left = tqdm.format_interval((self._before + step.seconds) * (1 - fraction) / fraction)
        self.show(fraction, f"pair {number}/{count} {name}  {describe(step)}  {left} left")


class FilmBar(_Bar):
    """Shows the frame in progress, and the remaining time of the film."""

    def __init__(self, quiet: bool) -> None:
        super().__init__(quiet)
        self._start = time.perf_counter()
        self._before: int | None = None

    def __enter__(self) -> FilmBar:
        return self

    def show_step(self, progress: FilmProgress, step: Step) -> None:
        """Show a step of a frame. The time of frames that were there before is not counted."""
        if self._before is None:
            self._before = progress.done
        made = progress.done - self._before + fraction_done(step)
        left = progress.count - self._before - made
        seconds = time.perf_counter() - self._start
        remaining = tqdm.format_interval(seconds * left / made) if made else "?"
        which = f"pass {progress.which}/{progress.passes} " if progress.passes > 1 else ""
        text = f"frame {progress.done + 1}/{progress.count} {which} {describe(step)}  {remaining} left"
        self.show((progress.done + fraction_done(step)) / progress.count, text)


class ByteBar(_Bar):
    """Shows a download. The ``progress`` argument of :func:`fastnst.weights.fetch`."""

    def __init__(self, name: str, quiet: bool) -> None:
        super().__init__(quiet)
        self._name = name

    def __enter__(self) -> ByteBar:
        return self

    def __call__(self, done: int, total: int | None) -> None:
        of = f" of {total / 1e6:.1f}" if total else ""
        self.show(done / total if total else 0.0, f"{self._name}  {done / 1e6:.1f}{of} MB")


def fraction_done(step: Step) -> float:
    """The fraction of the run that is done after ``step``, 0 to 1."""
    total = step.seconds + step.remaining
    return step.seconds / total if total > 0 else 0.0


def describe(step: Step) -> str:
    """Scale, step and loss in one line."""
    scale = f"scale {step.scale}/{step.scales} " if step.scales > 1 else ""
    return f"{scale}step {step.step}/{step.steps}  loss {step.losses.total:.4g}"

"""``watch``: the picture and the loss of a run, live in a notebook."""

from __future__ import annotations

import logging
import time
import uuid
from typing import Any

from fastnst.errors import UsageError
from fastnst.images.guards import one_line
from fastnst.images.scaling import check_integer, fit
from fastnst.notebook.curve import curve
from fastnst.optim.progress import Step
from fastnst.run import showing

log = logging.getLogger("fastnst")

INTERVAL = 0.5
"""Seconds from one update to the next, at least."""
SHARE = 0.015
"""The share of a run's time that updates may take, below the 2 % that are promised."""
_FIRST_COST = 0.005, 2e-8
"""Seconds that the first update is expected to take, for every picture and for each of its pixels."""
_SMALLEST_SIDE, _SMALLEST_WIDTH = 32, 240
_QUALITY = 85


class Budget:
    """Says when the next update may be made.

    One is due ``INTERVAL`` after the last, as soon as the time of all updates so far, of this one and of the last one
    of the run, which is always made, is within ``SHARE`` of the time of the run.

    Args:
        now: seconds, of any clock.
        pixels: the size of the picture. The first update, and the first at each scale, are expected to take a time that
            depends on it; others take the time of the one before.
    """

    def __init__(self, now: float, pixels: int) -> None:
        self.start, self.shown, self.spent = now, now, 0.0
        self._least = _FIRST_COST[0] + _FIRST_COST[1] * pixels
        self._cost, self._scale = self._least, 0

    def due(self, now: float, scale: int) -> bool:
        """Whether an update at ``scale`` may begin."""
        expected = self._cost if scale == self._scale else max(self._cost, self._least)
        return now - self.shown >= INTERVAL and self.spent + 2 * expected <= SHARE * (now - self.start)

    def add(self, before: float, after: float, scale: int) -> None:
        """Account for an update."""
        self.shown, self._cost, self._scale = after, after - before, scale
        self.spent += after - before


class watch:
    """Show the picture and the loss of a run while it is going on, in a notebook. A callback of :func:`stylize`.

    Below the cell appear the picture, the curve of its loss, the step and the time left. They are updated at most twice
    a second, and less often if updates would take more than 1.5 % of the time of the run; the last step is always
    shown. The curve is logarithmic where all losses are above zero. The picture is ``Step.image``: as it is optimized,
    before ``keep_color``. Outside a notebook nothing is shown.

    Args:
        size: the longest side of the shown picture, in pixels of the page; at least 32.

    Raises:
        UsageError: IPython is not installed: ``pip install 'fastnst[notebook]'``.

    Example::

        fastnst.stylize("photo.jpg", "painting.jpg", callback=fastnst.watch())
    """

    def __init__(self, size: int = 512) -> None:
        self.size = check_integer("size", size, least=_SMALLEST_SIDE)
        self._shell = _shell()
        if self._shell is None:
            log.warning("watch: shows a run in a notebook, and this is none; nothing is shown")
        self._display: str | None = None

    def __call__(self, step: Step) -> None:
        if self._shell is None:
            return
        now = time.perf_counter()
        if self._display is None or step.count <= self._count:
            self._begin(now, step)
        elif step.step == 1:
            self._marks.append(len(self._losses))
        self._count = step.count
        self._losses.append(step.losses.total)
        begun = len(self._losses) > 1
        if begun and not step.last and not self._budget.due(now, step.scale):
            return
        try:
            self._update(step, with_picture=begun or step.last)
        except Exception as error:  # the page has gone, or cannot show it: no reason to end the run
            log.warning("watch: %s; nothing more is shown", one_line(error))
            self._shell = None
        if begun:  # the first shows words alone
            self._budget.add(now, time.perf_counter(), step.scale)

    def _begin(self, now: float, step: Step) -> None:
        """Start the display of a run; a watch may be used for several runs, one after another."""
        self._display = f"fastnst-{uuid.uuid4().hex}"
        self._losses: list[float] = []
        self._marks: list[int] = []  # the first step of each scale but the first
        self._picture = ""
        self._budget = Budget(now, step.size[0] * step.size[1])
        self._publish = _display
        self._shell.events.register("post_run_cell", self._end)

    def _update(self, step: Step, with_picture: bool) -> None:
        height, width = fit(*step.size, self.size)
        if with_picture:
            picture = showing.to_pil(showing.reduced(step.image, self.size, exact=False))
            kind, data = showing.encode(picture, _QUALITY)
            self._picture = showing.img(kind, data, f"the picture after step {step.count}", (height, width))
        self._ended = f"{_where(step)}, {showing.duration(step.seconds)}"
        left = "" if step.last else f", {showing.duration(step.remaining)} left"
        self._send(self._ended + left, width)
        self._running = not step.last

    def _send(self, caption: str, width: int = 0) -> None:
        self._width = max(width or self._width, _SMALLEST_WIDTH)
        inside = self._picture + curve(self._losses, self._marks, self._width)
        bundle = {"text/html": showing.figure(inside, caption, self._width), "text/plain": caption}
        self._publish(bundle, raw=True, display_id=self._display)
        self._publish = _update_display

    def _end(self, *_: Any) -> None:
        """The cell has ended. If the run did not reach its last step, no time is left to show."""
        shell, display = self._shell, self._display
        if shell is None or display is None:
            return
        shell.events.unregister("post_run_cell", self._end)
        if self._running:
            self._send(self._ended)
        self._display, self._picture = None, ""


def _where(step: Step) -> str:
    scale = f"scale {step.scale}/{step.scales}, " if step.scales > 1 else ""
    return f"{scale}step {step.step}/{step.steps}, loss {step.losses.total:.4g}"


def _shell() -> Any:
    """The IPython shell of a notebook's kernel; None in a terminal or a plain program."""
    try:
        from IPython import get_ipython
    except ImportError as error:
        raise UsageError("watch: needs IPython, which notebooks have; pip install 'fastnst[notebook]'") from error
    shell = get_ipython()
    return shell if getattr(shell, "kernel", None) is not None else None


def _display(bundle: dict[str, str], **options: Any) -> None:
    from IPython.display import display

    display(bundle, **options)


def _update_display(bundle: dict[str, str], **options: Any) -> None:
    from IPython.display import update_display

    update_display(bundle, **options)

"""``watch``: the picture and the loss of a run, live in a notebook."""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable
from typing import Any

from fastnst.errors import UsageError
from fastnst.images.guards import one_line
from fastnst.images.scaling import check_integer, fit
from fastnst.notebook.curve import curve
from fastnst.optim.progress import Step
from fastnst.run import showing
from fastnst.run.pacing import Budget

log = logging.getLogger("fastnst")

_SMALLEST_SIDE, _SMALLEST_WIDTH = 32, 320
_QUALITY = 85


class watch:
    """Show the picture and the loss of a run in a notebook while it is going on. A callback of :func:`fastnst.stylize`.

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
        self._shell = _find_shell()
        if self._shell is None:
            log.warning("watch: shows a run in a notebook, and this is none; nothing is shown")
        self._run: _Run | None = None

    def __call__(self, step: Step) -> None:
        if self._shell is None:
            return
        now = time.perf_counter()
        if self._run is None or step.count <= self._run.count:  # one watch may show several runs, one after another
            self._run = _Run(now, step, self.size)
            self._shell.events.register("post_run_cell", self._end)
        run = self._run
        run.add(step)
        if not (run.begins or step.last or run.budget.due(now, step.scale)):
            return
        self._try(lambda: run.show(step))
        if not run.begins:  # the first update shows words alone
            run.budget.add(now, time.perf_counter(), step.scale)

    def _end(self, *_: Any) -> None:
        """The cell has ended: without its last step, the run was stopped, and no time is left to show."""
        shell, run = self._shell, self._run
        self._run = None
        if shell is not None and run is not None:
            shell.events.unregister("post_run_cell", self._end)
            self._try(run.end)

    def _try(self, show: Callable[[], None]) -> None:
        try:
            show()
        except Exception as error:  # the page has gone, or cannot show it: no reason to end the run
            log.warning("watch: %s; nothing more is shown", one_line(error))
            self._shell = None


class _Run:
    """What is shown of one run."""

    def __init__(self, now: float, step: Step, size: int) -> None:
        height, width = fit(*step.size, min(size, max(step.size)))
        self.budget = Budget(now, step.size[0] * step.size[1])
        self.count = 0
        self._side, self._shape, self._width = size, (height, width), max(width, _SMALLEST_WIDTH)
        self._losses: list[float] = []
        self._marks: list[int] = []  # the first step of each scale but the first
        self._picture, self._state, self._last = "", "", False
        self._name, self._shown = f"fastnst-{uuid.uuid4().hex}", False

    @property
    def begins(self) -> bool:
        """Whether one step was added."""
        return len(self._losses) == 1

    def add(self, step: Step) -> None:
        if self._losses and step.step == 1:
            self._marks.append(len(self._losses))
        self._losses.append(step.losses.total)
        self.count = step.count

    def show(self, step: Step) -> None:
        """Show the step; with the picture unless it is the first of several."""
        if not self.begins or step.last:
            picture = showing.to_pil(showing.reduced(step.image, self._side, exact=False))
            alt = f"the picture after step {step.count}"
            self._picture = showing.img(*showing.encode(picture, _QUALITY), alt, self._shape)
        self._state, self._last = f"{_where(step)}, {showing.duration(step.seconds)}", step.last
        self._send(self._state + ("" if step.last else f", {showing.duration(step.remaining)} left"))

    def end(self) -> None:
        """Show the state that was shown last, without the time left."""
        if not self._last:
            self._send(self._state)

    def _send(self, caption: str) -> None:
        from IPython import display

        inside = self._picture + curve(self._losses, self._marks, self._width)
        bundle = {"text/html": showing.figure(inside, caption), "text/plain": caption}
        publish: Any = display.update_display if self._shown else display.display
        publish(bundle, raw=True, display_id=self._name)
        self._shown = True


def _where(step: Step) -> str:
    scale = f"scale {step.scale}/{step.scales}, " if step.scales > 1 else ""
    return f"{scale}step {step.step}/{step.steps}, loss {step.losses.total:.4g}"


def _find_shell() -> Any:
    """The IPython shell of a notebook's kernel; None in a terminal or a plain program."""
    try:
        from IPython import get_ipython
    except ImportError as error:
        raise UsageError("watch: needs IPython, which notebooks have; pip install 'fastnst[notebook]'") from error
    shell = get_ipython()
    return shell if getattr(shell, "kernel", None) is not None else None

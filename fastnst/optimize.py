"""The loop: an image, an objective, an optimiser, and what happens when a step goes wrong."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from fastnst import memory
from fastnst.errors import FastnstError
from fastnst.graph import Capturer, choose_backend
from fastnst.objective import Losses
from fastnst.settings import Settings
from fastnst.walk import ValueAndGrad

log = logging.getLogger("fastnst")

# A step is taken back when the loss stops being finite or, with L-BFGS whose steps are not searched, grows this much.
EXPLOSION = 10.0
MOST_RETRIES = 20


@dataclass(frozen=True)
class Step:
    """What a callback learns of one step. Scales and steps count from 1.

    ``losses`` are those of the image the step started from; ``image`` is the image after it, ``[1, 3, H, W]`` in 0..1,
    made when asked for (ask inside the callback: later the run has gone on). ``seconds`` and ``remaining`` are for the
    whole run, ``memory`` is what the process holds, in bytes (on CUDA: the peak of the device). ``retries`` counts how
    often this step was taken back and shortened.
    """

    scale: int
    scales: int
    step: int
    steps: int
    losses: Losses
    seconds: float
    remaining: float
    memory: int
    retries: int
    _image: Tensor = field(repr=False)

    @property
    def image(self) -> Tensor:
        return to_picture(self._image)

    @property
    def count(self) -> int:
        """The steps taken so far, over all scales."""
        return (self.scale - 1) * self.steps + self.step

    @property
    def last(self) -> bool:
        """Whether the run ends with this step."""
        return (self.scale, self.step) == (self.scales, self.steps)


Callback = Callable[[Step], "bool | None"]
"""Called after each step; returning True stops the run, which then returns what it has."""


@dataclass
class Clock:
    """Progress of a whole run in units of work (pixels times steps), for the time that is left."""

    total: float
    done: float = 0.0
    start: float = field(default_factory=time.perf_counter)

    def advance(self, work: float) -> tuple[float, float]:
        """Count ``work`` as done; return seconds since the start and an estimate of the seconds left."""
        self.done += work
        seconds = time.perf_counter() - self.start
        return seconds, seconds * max(self.total - self.done, 0.0) / self.done


def to_picture(image: Tensor) -> Tensor:
    """Pixels in 0..255, as optimised, to a picture in 0..1 on the CPU."""
    return (image.detach().float().cpu() / 255).clamp(0, 1)


@dataclass
class Run:
    """One scale of a run: the image as it stands, the losses of each step, and why it stopped early, if it did."""

    image: Tensor
    trace: list[Losses]
    stopped: str | None = None


def optimize(
    objective: ValueAndGrad,
    image: Tensor,
    settings: Settings,
    *,
    callback: Callback | None = None,
    clock: Clock | None = None,
    scale: int = 1,
    scales: int = 1,
    capturer: Capturer | None = None,
) -> Run:
    """Take ``settings.steps`` steps from ``image``, pixels ``[1, 3, H, W]`` in 0..255; the argument is not changed.

    A step whose loss is not finite, or with L-BFGS more than ten times the last, is taken back and retried at half its
    length, with a warning through the logger ``fastnst``. Ctrl-C and a callback that returns True end the run early;
    the result is then the image so far.

    Where no shorter step helps either, as at a minimum, the run ends with the last good image and ``stopped`` is
    ``"stalled"``. Raises FastnstError where the start image has no finite loss.

    ``capturer`` says what captures steps as CUDA graphs, for all scales of a run; None: what ``settings.graph`` says.
    """
    capturer = capturer or Capturer(choose_backend(settings.graph, image.device))
    walk = capturer.walk(objective, image.detach().clone(), settings)
    image = walk.image
    clock = clock or Clock(total=float(settings.steps * image.numel()))
    run = Run(walk.good, [])
    last = math.inf
    try:
        for number in range(1, settings.steps + 1):
            losses, finite = walk.look()
            retries, refused = 0, losses.total
            while not finite or _explodes(losses, last, settings):
                retries += 1
                if number == 1:
                    raise FastnstError("the loss of the start image is not finite; check the weights of the losses")
                if retries > MOST_RETRIES:
                    log.warning("step %d: no step from loss %.4g helps, however short; stopped there", number, last)
                    run.stopped = "stalled"
                    return run
                if retries == 1:
                    walk.calm()
                walk.turn_back()
                losses, finite = walk.look()
            if retries:
                told = "step %d: loss %.4g after %.4g; taken back and retried at 1/%d of its length"
                log.warning(told, number, refused, last, 2**retries)
            walk.go()
            last = losses.total
            run.trace.append(losses)
            seconds, remaining = clock.advance(image.numel())
            if callback is None:
                continue
            step = Step(scale, scales, number, settings.steps, losses, seconds, remaining, _held(image), retries, image)
            if callback(step):
                run.stopped = "callback"
                break
    except KeyboardInterrupt:
        run.stopped = "interrupt"
    if run.stopped != "interrupt" and bool(image.isfinite().all()):
        run.image = image
    return run


def _explodes(losses: Losses, last: float, settings: Settings) -> bool:
    return settings.optimizer == "lbfgs" and losses.total > EXPLOSION * last


def _held(image: Tensor) -> int:
    return int(torch.cuda.max_memory_allocated(image.device)) if image.is_cuda else memory.resident()

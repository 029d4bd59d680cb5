"""The loop: an image, an objective, an optimiser, and what happens when a step goes wrong."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from fastnst import memory
from fastnst.averaging import Average
from fastnst.errors import FastnstError
from fastnst.graph import Capturer, choose_backend
from fastnst.interrupts import uninterrupted
from fastnst.objective import Losses
from fastnst.settings import Settings
from fastnst.walk import ValueAndGrad, Walk

log = logging.getLogger("fastnst")

# A step is taken back when the loss stops being finite or, with L-BFGS whose steps are not searched, grows to this many
# times the last; where parts are below zero, grows by as much against their magnitudes.
EXPLOSION = 10.0
MOST_RETRIES = 20


@dataclass(frozen=True)
class Step:
    """What a callback learns of one step. Scales and steps count from 1.

    ``losses`` are those of the image the step started from; ``image`` is the image after it, ``[1, 3, H, W]`` in 0..1,
    made when asked for (ask inside the callback: later the run has gone on), with ``settings.average`` the average of
    those so far. ``seconds`` and ``remaining`` are for the whole run, ``memory`` is what the process holds, in bytes
    (on CUDA: the peak of the device). ``retries`` counts how often this step was taken back and shortened. ``before``
    is the number of steps of the scales before this one.
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
    before: int
    _image: Tensor = field(repr=False)
    _average: Average = field(repr=False)

    @property
    def image(self) -> Tensor:
        return to_picture(self._average.after(self._image))

    @property
    def count(self) -> int:
        """The steps taken so far, over all scales."""
        return self.before + self.step

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

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self.start

    def advance(self, work: float) -> tuple[float, float]:
        """Count ``work`` as done; return seconds since the start and an estimate of the seconds left."""
        self.done += work
        seconds = self.seconds
        return seconds, seconds * max(self.total - self.done, 0.0) / self.done


def to_picture(image: Tensor) -> Tensor:
    """Pixels in 0..255, as optimised, to a picture in 0..1 on the CPU."""
    return (image.detach().float().cpu() / 255).clamp(0, 1)


@dataclass
class Run:
    """One scale of a run: the image as it stands, the losses of each step, why it stopped early, if it did, and what of
    the optimiser's state serves another size."""

    image: Tensor
    trace: list[Losses]
    stopped: str | None = None
    carried: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Place:
    """Where a scale stands between two steps, all that the steps to come depend on: the losses of the steps so far, and
    by name the image, the last good one, the optimiser's state and the average. Tensors are the run's own.

    To begin with, a place holds no losses, and of the rest what was carried over from another size.
    """

    trace: list[Losses] = field(default_factory=list)
    memory: dict[str, Any] = field(default_factory=dict)


class Keeper(Protocol):
    """Keeps the places of a run, so that it can be gone on with."""

    @property
    def every(self) -> int:
        """Steps from one place to the next, counted over all scales."""

    def keep(self, place: Place) -> None: ...


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
    place: Place | None = None,
    keeper: Keeper | None = None,
    overwrite: bool = False,
) -> Run:
    """Take the steps of ``scale`` from ``image``, pixels ``[1, 3, H, W]`` in 0..255; the argument is not changed,
    unless ``overwrite`` says that nobody needs it.

    A step whose loss is not finite, or with L-BFGS more than ten times the last, is taken back and retried at half its
    length, with a warning through the logger ``fastnst``. The image after the last step is evaluated as well, and held
    to the same. Ctrl-C and a callback that returns True end the run early; the result is then the image so far.

    Where no shorter step helps either, as at a minimum, the run ends with the last good image and ``stopped`` is
    ``"stalled"``. Raises StartError where the start image has no finite loss.

    ``capturer`` says what captures steps as CUDA graphs, for all scales of a run; None: what ``settings.graph`` says.

    ``place`` is one to go on from, of the same scale; the run is then the one that would have been without the break.
    Its memory is used up.
    ``keeper`` is given the places after every so many steps, after the last and where the run is stopped; with one,
    Ctrl-C waits for the end of the step.
    """
    place = place or Place()
    capturer = capturer or Capturer(choose_backend(settings.graph, image.device))
    image = image.detach() if overwrite else image.detach().clone()
    walk = capturer.walk(objective, image, settings.at(scale), place.memory)
    image = walk.image
    average = Average(image, settings.average)
    average.restore(place.memory)
    place.memory.clear()  # all of it is copied, and L-BFGS's pairs are large
    steps, before = settings.steps_at(scale), sum(map(settings.steps_at, range(1, scale)))
    clock = clock or Clock(total=float(steps * image.numel()))
    run = Run(walk.good, list(place.trace))
    taken = number = len(run.trace)

    def here() -> Place:
        return Place(run.trace, {**walk.state(), **average.state()})

    try:
        for number in range(taken + 1, steps + 1):
            with nullcontext() if keeper is None else uninterrupted():
                found = _look(walk, walk.look, run.trace[-1] if run.trace else None, number, settings)
                if found is None:
                    run.stopped = "stalled"
                    break
                losses, retries = found
                walk.go()
                average.add(walk.good)
                run.trace.append(losses)
                seconds, remaining = clock.advance(image.numel())
                if callback is not None:
                    times = (seconds, remaining, _held(image), retries, before)
                    if callback(Step(scale, scales, number, steps, losses, *times, image, average)):
                        run.stopped = "callback"
                if keeper is not None and (run.stopped or number == steps or (before + number) % keeper.every == 0):
                    keeper.keep(here())
                if run.stopped:
                    break
        if run.stopped != "stalled":
            with nullcontext() if keeper is None else uninterrupted():
                if run.trace and _look(walk, walk.check, run.trace[-1], number + 1, settings) is None:
                    run.stopped = "stalled"
    except KeyboardInterrupt:
        run.stopped = "interrupt"
        if keeper is not None and number == len(run.trace):  # else in the middle of a step: the last place kept stands
            keeper.keep(here())
    if run.stopped in (None, "callback"):
        run.image = average.after(image)
    else:
        run.image = average.among(walk.good)
    if settings.carry and scale < scales:
        run.carried = walk.carried()
    return run


class StartError(FastnstError):
    """The start image of a scale has no finite loss."""


def _look(
    walk: Walk, look: Callable[[], tuple[Losses, bool]], last: Losses | None, number: int, settings: Settings
) -> tuple[Losses, int] | None:
    """The losses where the walk stands, after ``last``, and how often it was turned back to have them; None where that
    does not help. ``look`` is the walk's way to find them, ``number`` that of the step that begins there."""
    losses, finite = look()
    retries, refused = 0, losses.total
    while not finite or (last is not None and _explodes(losses, last, settings)):
        retries += 1
        if last is None:
            raise StartError("the loss of the start image is not finite; check the weights of the losses")
        if retries > MOST_RETRIES:
            log.warning("step %d: no step from loss %.4g helps, however short; stopped there", number, last.total)
            return None
        if retries == 1:
            walk.calm()
        walk.turn_back()
        losses, finite = look()
    if retries and last is not None:
        told = "step %d: loss %.4g after %.4g; taken back and retried at 1/%d of its length"
        log.warning(told, number, refused, last.total, 2**retries)
    return losses, retries


def _explodes(losses: Losses, last: Losses, settings: Settings) -> bool:
    return settings.optimizer == "lbfgs" and losses.total - last.total > (EXPLOSION - 1) * last.magnitude


def _held(image: Tensor) -> int:
    return int(torch.cuda.max_memory_allocated(image.device)) if image.is_cuda else memory.resident()

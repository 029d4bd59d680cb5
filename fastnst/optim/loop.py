"""The loop of one scale: evaluate the objective, accept or shorten the step, update the image."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor

from fastnst import devices, process
from fastnst.config.settings import Settings
from fastnst.errors import FastnstError
from fastnst.objective.protocol import Losses, ValueAndGrad
from fastnst.optim.averaging import Average
from fastnst.optim.cuda_graph import StepCapture, choose_backend
from fastnst.optim.progress import Callback, Clock, Step
from fastnst.process import signals_held
from fastnst.spill import FileTensor

log = logging.getLogger("fastnst")

# A step is rejected when the loss is not finite or, with L-BFGS, which has no line search, when it grows to this many
# times the last loss. Where parts of the loss are negative, their magnitudes count.
EXPLOSION = 10.0
MOST_RETRIES = 20


@dataclass(frozen=True)
class LoopState:
    """The state of a scale between two steps: everything that the following steps depend on.

    Attributes:
        trace: the losses of each step so far.
        state: nested by owner: ``{"loop": {"image", "good"}, "optimizer": {...}, "average": {...}}``. The loop also
            has ``"start"``, the image that the scale began from, if the losses depend on it. Tensors are not copied.
            Empty at the start of a run; at the start of a later scale it holds the optimizer's state alone, if the
            optimizer carries it over.
    """

    trace: list[Losses] = field(default_factory=list)
    state: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def image(self) -> Tensor | None:
        """The image, ``[1, 3, H, W]`` in 0..255; None at the start of a scale."""
        image: Tensor | None = self.state.get("loop", {}).get("image")
        return image


class CheckpointWriter(Protocol):
    """Saves states of a run, so that the run can be resumed."""

    @property
    def every(self) -> int:
        """Number of steps between two states, counted over all scales."""

    def write(self, state: LoopState) -> None: ...


@dataclass(frozen=True)
class LoopContext:
    """What the loop of a scale needs to know of the run that it is part of.

    Attributes:
        scale, scales: number of the scale, from 1, and number of scales.
        callback: called with a :class:`~fastnst.optim.progress.Step` after each step.
        clock: the clock of the whole run; None starts one for this scale.
        capture: captures steps as CUDA graphs for all scales of a run; None follows ``settings.graph``.
        writer: receives a state after every ``writer.every`` steps, after the last step, and when the run is stopped.
            With a writer, Ctrl-C waits for the end of the step.
        size: height and width of the picture that the run makes; None for that of this scale.
    """

    scale: int = 1
    scales: int = 1
    callback: Callback | None = None
    clock: Clock | None = None
    capture: StepCapture | None = None
    writer: CheckpointWriter | None = None
    size: tuple[int, int] | None = None


@dataclass
class ScaleResult:
    """The result of one scale.

    Attributes:
        image: ``[1, 3, H, W]`` in 0..255.
        trace: the losses of each step.
        stopped: None, ``"callback"``, ``"interrupt"`` or ``"stalled"`` (no step reduced the loss any more).
        carried: the part of the optimizer's state that a scale of another size can start from.
    """

    image: Tensor
    trace: list[Losses]
    stopped: str | None = None
    carried: Mapping[str, Any] = field(default_factory=dict)


class StartError(FastnstError):
    """The loss of the start image of a scale is not finite."""


def optimize(
    objective: ValueAndGrad,
    image: Tensor,
    settings: Settings,
    context: LoopContext | None = None,
    *,
    state: LoopState | None = None,
    overwrite: bool = False,
) -> ScaleResult:
    """Run the steps of one scale.

    A step whose loss is not finite, or with L-BFGS more than ten times the last loss, is halved and evaluated again,
    with a warning through the logger ``fastnst``. The image after the last step is evaluated and held to the same rule.
    If no shorter step helps, as at a minimum, the run ends with the last good image and ``stopped`` is ``"stalled"``.
    Ctrl-C and a callback that returns True end the run early with the image so far.

    Args:
        objective: gives the losses of an image and their gradient.
        image: the start, ``[1, 3, H, W]`` in 0..255; not modified unless ``overwrite`` is True.
        settings: the settings of the run.
        context: which scale this is, the callback, the writer of checkpoints.
        state: the state of this scale to resume from; the result is that of an uninterrupted run. Its tensors become
            the run's, and it is emptied.
        overwrite: whether ``image`` may be used as the working buffer.

    Raises:
        StartError: the loss of the start image is not finite.
    """
    loop = _ScaleLoop(objective, image.detach() if overwrite else image.detach().clone(), settings, context, state)
    try:
        loop.run()
    except KeyboardInterrupt:
        loop.interrupt()
    return loop.result()


class _ScaleLoop:
    def __init__(
        self,
        objective: ValueAndGrad,
        image: Tensor,
        settings: Settings,
        context: LoopContext | None,
        state: LoopState | None,
    ) -> None:
        self.settings, self.context, state = settings, context or LoopContext(), state or LoopState()
        scale = self.context.scale
        # The losses of several layers, which may depend on the image that the scale starts from, and on the step.
        self.stages = getattr(objective, "stages", None)
        if self.stages is not None:
            self.start = FileTensor(state.state.get("loop", {}).get("start", image))
            self.stages.begin(self.start.tensor, scale, self.context.scales, settings.steps_at(scale))
        capture = self.context.capture or StepCapture(choose_backend(settings.graph, image.device))
        self.stepper = capture.make_stepper(objective, image, settings.at(scale), state.state)
        self.average = Average(self.stepper.image, settings.average)
        self.average.load_state_dict(state.state.get("average", {}))
        self.trace = list(state.trace)
        state.state.clear()  # what was copied is released; the pairs of L-BFGS are large
        self.steps = settings.steps_at(scale)
        self.steps_before = sum(map(settings.steps_at, range(1, scale)))
        self.clock = self.context.clock or Clock(total=float(self.steps * image.numel()))
        self.stopped: str | None = None
        self.number = len(self.trace)

    def run(self) -> None:
        for number in range(len(self.trace) + 1, self.steps + 1):
            self.number = number
            with self._uninterruptible():
                self._step()
            if self.stopped:
                break
        if self.stopped != "stalled" and self.trace:
            with self._uninterruptible():
                if self._evaluate(self.stepper.check, self.number + 1) is None:
                    self.stopped = "stalled"

    def interrupt(self) -> None:
        """End the run after Ctrl-C."""
        self.stopped = "interrupt"
        # In the middle of a step the state is not consistent: the last one written remains.
        if self.context.writer is not None and self.number == len(self.trace):
            self.context.writer.write(self._state())

    def result(self) -> ScaleResult:
        image = self.stepper.image
        if self.stopped in (None, "callback"):
            image = self.average.with_image(image)
        else:
            image = self.average.value(self.stepper.good)
        carries = self.settings.carry and self.context.scale < self.context.scales
        return ScaleResult(image, self.trace, self.stopped, self.stepper.carried() if carries else {})

    def _uninterruptible(self) -> AbstractContextManager[None]:
        return nullcontext() if self.context.writer is None else signals_held()

    def _step(self) -> None:
        found = self._evaluate(self.stepper.evaluate, self.number)
        if found is None:
            self.stopped = "stalled"
            return
        losses, retries = found
        self.stepper.accept()
        self.average.add(self.stepper.good)
        self.trace.append(losses)
        if self._report(losses, retries):
            self.stopped = "callback"
        writer, count = self.context.writer, self.steps_before + self.number
        if writer is not None and (self.stopped or self.number == self.steps or count % writer.every == 0):
            writer.write(self._state())

    def _report(self, losses: Losses, retries: int) -> bool:
        """Tell the callback; return whether it asks to stop."""
        image, context = self.stepper.image, self.context
        seconds, remaining = self.clock.advance(image.numel())
        if context.callback is None:
            return False
        step = Step(
            scale=context.scale,
            scales=context.scales,
            step=self.number,
            steps=self.steps,
            losses=losses,
            seconds=seconds,
            remaining=remaining,
            memory=_memory_held(image),
            retries=retries,
            steps_before=self.steps_before,
            size=context.size or (image.shape[2], image.shape[3]),
            _image=image,
            _average=self.average,
        )
        try:
            return bool(context.callback(step))
        finally:
            step.release()

    def _state(self) -> LoopState:
        state = {**self.stepper.state_dict(), "average": self.average.state_dict()}
        if self.stages is not None:
            state["loop"] = {**state["loop"], "start": self.start.tensor}
        return LoopState(self.trace, state)

    def _evaluate(self, evaluate: Callable[[], tuple[Losses, bool]], number: int) -> tuple[Losses, int] | None:
        """Evaluate the image, shortening the step before it until the loss is acceptable.

        Returns the losses and the number of retries; None if no shorter step helps.
        """
        last = self.trace[-1] if self.trace else None
        if self.stages is not None:
            self.stages.set_step(number)
        losses, finite = evaluate()
        retries, refused = 0, losses.total
        while not finite or (last is not None and self._explodes(losses, last)):
            retries += 1
            if last is None:
                raise StartError("the loss of the start image is not finite; check the weights of the losses")
            if retries > MOST_RETRIES:
                log.warning("step %d: no step reduces the loss of %.4g, however short; stopped", number, last.total)
                return None
            if retries == 1:
                self.stepper.reduce_rate()
            self.stepper.backtrack()
            losses, finite = evaluate()
        if retries and last is not None:
            message = "step %d: loss %.4g after %.4g; step rejected and retried at 1/%d of its length"
            log.warning(message, number, refused, last.total, 2**retries)
        return losses, retries

    def _explodes(self, losses: Losses, last: Losses) -> bool:
        return self.settings.optimizer == "lbfgs" and losses.total - last.total > (EXPLOSION - 1) * last.magnitude


def _memory_held(image: Tensor) -> int:
    peak = devices.peak_memory(image.device)
    return process.resident() if peak is None else peak

"""A step as one CUDA graph: about 65 launches become one, and the host reads one small tensor per step.

A graph holds addresses, so image, gradient, losses and the optimizer's state are in buffers that do not move; another
size needs another objective and another graph. With Adam the graph holds the whole step, with L-BFGS the evaluation,
because the host decides which pairs of the history are used. If capture fails, the run continues op by op with a
warning.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from fastnst.config.settings import Settings
from fastnst.errors import UsageError
from fastnst.objective.protocol import DeviceObjective, Losses, ValueAndGrad
from fastnst.optim.adam import Adam
from fastnst.optim.stepper import Stepper

log = logging.getLogger("fastnst")

# In their first runs libraries choose algorithms and allocate workspaces, which cannot be captured.
WARM_UP = 3


class Backend(Protocol):
    """Captures a function without arguments or result, possibly running it; returns a function that replays it."""

    def capture(self, function: Callable[[], None]) -> Callable[[], None]: ...


class CudaGraphs:
    """CUDA graphs on one device."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def capture(self, function: Callable[[], None]) -> Callable[[], None]:
        with torch.cuda.device(self.device):
            current, side = torch.cuda.current_stream(), torch.cuda.Stream()
            side.wait_stream(current)
            with torch.cuda.stream(side):
                for _ in range(WARM_UP):
                    function()
            current.wait_stream(side)
            graph = torch.cuda.CUDAGraph()
            # Other threads may use CUDA at the same time.
            with torch.cuda.graph(graph, stream=side, capture_error_mode="thread_local"):
                function()
        return graph.replay


def choose_backend(name: str, device: torch.device) -> Backend | None:
    """The backend for a device and the setting ``graph``: ``"auto"``, ``"on"`` or ``"off"``; None for no capture.

    Raises UsageError for ``"on"`` and a device without CUDA graphs.
    """
    if device.type == "cuda":
        return None if name == "off" else CudaGraphs(device)
    if name == "on":
        raise UsageError(f"graph 'on': device {str(device)!r} has no CUDA graphs; use auto or off")
    return None


class StepCapture:
    """Makes steppers whose steps are captured as graphs, until a capture fails; ``backend=None`` captures nothing."""

    def __init__(self, backend: Backend | None) -> None:
        self.backend = backend

    def make_stepper(
        self,
        objective: ValueAndGrad,
        image: Tensor,
        settings: Settings,
        state: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> Stepper:
        """A stepper for ``image``: arguments as for :class:`fastnst.optim.stepper.Stepper`."""
        # Losses of several layers change from step to step.
        changes = getattr(objective, "stages", None) is not None
        if self.backend is None or changes or not isinstance(objective, DeviceObjective):
            return Stepper(objective, image, settings, state)
        make = CapturedAdam if settings.optimizer == "adam" else CapturedEvaluation
        try:
            return make(objective, image, settings, self.backend, state)
        except RuntimeError as error:
            log.warning("the step cannot be captured as a CUDA graph (%s); running op by op", _reason(error))
            self.backend = None
            return Stepper(objective, image, settings, state)


class CapturedEvaluation(Stepper):
    """Losses and gradient from a graph, the optimizer op by op."""

    def __init__(
        self,
        objective: ValueAndGrad,
        image: Tensor,
        settings: Settings,
        backend: Backend,
        state: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        assert isinstance(objective, DeviceObjective)
        super().__init__(objective, image, settings, state)
        self._device_objective: DeviceObjective = objective
        # The values of the parts, and 1 if they and the gradient are finite: float64 represents every float32.
        self._values = torch.zeros(len(objective.parts) + 1, dtype=torch.float64, device=image.device)
        self._prepare()
        self._replay = _capture(backend, self._run, self._buffers())

    def _prepare(self) -> None:
        """Allocate what :meth:`_run` needs besides the values and the optimizer's state."""
        self._gradient = torch.zeros_like(self.image)

    def evaluate(self) -> tuple[Losses, bool]:
        self._replay()
        *values, finite = self._values.tolist()
        self.gradient = self._gradient
        return self._device_objective.losses(values), bool(finite)

    def _buffers(self) -> list[Tensor]:
        """The tensors that :meth:`_run` updates."""
        return []

    def _run(self) -> None:
        values, gradient = self._device_objective.evaluate(self.image)
        self._gradient.copy_(gradient)
        self._values[:-1].copy_(values)
        self._values[-1:].copy_(self._values[:-1].sum().isfinite() & gradient.isfinite().all())


class CapturedAdam(CapturedEvaluation):
    """A whole step from a graph: the evaluation and, if everything is finite, the accepted image and Adam's update.

    :meth:`evaluate` has therefore taken the step already, and :meth:`accept` does nothing.
    """

    def _prepare(self) -> None:
        assert isinstance(self.optimizer, Adam)
        self._adam, self._most, device = self.optimizer, self.settings.steps_at(1), self.image.device
        # One row per step, computed on the host so that the factors equal those of a run op by op; row 0 is not used.
        counts = range(self._adam.count + 1, self._adam.count + self._most + 1)
        rows = [(0.0, 1.0), *(self._adam.factors(count) for count in counts)]
        self._factors = torch.tensor(rows, dtype=torch.float64, device=device)
        self._count = torch.zeros(1, dtype=torch.int32, device=device)
        self._rate_factor = torch.ones((), dtype=torch.float64, device=device)

    def evaluate(self) -> tuple[Losses, bool]:
        self._replay()
        *values, finite = self._values.tolist()
        return self._device_objective.losses(values), bool(finite)

    def accept(self) -> None:
        """Nothing: see above."""

    def reduce_rate(self) -> None:
        self._rate_factor.mul_(0.5)

    def state_dict(self) -> dict[str, dict[str, Any]]:
        state = super().state_dict()
        count, rate = self._adam.count + int(self._count), self._adam.learning_rate * float(self._rate_factor)
        return {**state, "optimizer": {**state["optimizer"], "count": count, "learning_rate": rate}}

    def _buffers(self) -> list[Tensor]:
        return [self.image, self.good, self._adam.mean, self._adam.square, self._count]

    def _run(self) -> None:
        adam = self._adam
        losses, gradient = self._device_objective.evaluate(self.image)
        state = (self.image, self.good, adam.mean, adam.square, self._count, self._values)
        schedule = (self._factors, self._rate_factor)
        torch.ops.fastnst.adam_step_(*state, losses, gradient, *schedule, *adam.constants, self.settings.clamp)


def _capture(backend: Backend, function: Callable[[], None], buffers: Sequence[Tensor]) -> Callable[[], None]:
    """Capture ``function`` and restore ``buffers`` after its trial runs, also if they fail."""
    before = [tensor.clone() for tensor in buffers]
    try:
        return backend.capture(function)
    finally:
        for tensor, old in zip(buffers, before, strict=True):
            tensor.copy_(old)


def _reason(error: BaseException) -> str:
    """The first line of the original error: ending a failed capture raises another one."""
    while error.__context__ is not None:
        error = error.__context__
    return (str(error).splitlines() or [type(error).__name__])[0].split(". ")[0].rstrip(".")

"""A step as one CUDA graph: some two hundred launches become one, and the host reads one small tensor a step.

A graph holds addresses, so image, gradient, losses and the optimiser's state stand in buffers that stay where they are;
another size is another objective and another graph. With Adam the whole step is in the graph, with L-BFGS the
evaluation: which of its pairs count is decided on the host. Where capture fails the run goes on op by op and says so.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from fastnst.adam import Adam
from fastnst.errors import UsageError
from fastnst.objective import Losses
from fastnst.settings import Settings
from fastnst.walk import ValueAndGrad, Walk

log = logging.getLogger("fastnst")

# Libraries choose their algorithms and reserve their workspaces in the first runs, which a graph cannot hold.
WARM_UP = 3


@runtime_checkable
class OnDevice(Protocol):
    """An objective whose evaluation does not wait for the device: see :class:`fastnst.objective.Objective`."""

    parts: tuple[tuple[str, str], ...]

    def evaluate(self, image: Tensor) -> tuple[Tensor, Tensor]: ...

    def losses(self, values: Sequence[float]) -> Losses: ...


class Backend(Protocol):
    """Captures a function without arguments or result, which it may run; what comes back runs it again."""

    def capture(self, function: Callable[[], None]) -> Callable[[], None]: ...


class CudaGraphs:
    """CUDA graphs on one device."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def capture(self, function: Callable[[], None]) -> Callable[[], None]:
        with torch.cuda.device(self.device):
            here, aside = torch.cuda.current_stream(), torch.cuda.Stream()
            aside.wait_stream(here)
            with torch.cuda.stream(aside):
                for _ in range(WARM_UP):
                    function()
            here.wait_stream(aside)
            graph = torch.cuda.CUDAGraph()
            # Other threads may go on using CUDA meanwhile.
            with torch.cuda.graph(graph, stream=aside, capture_error_mode="thread_local"):
                function()
        return graph.replay


def choose_backend(name: str, device: torch.device) -> Backend | None:
    """What captures steps on ``device`` for a setting ``"auto"``, ``"on"`` or ``"off"``; None: nothing does.

    Raises UsageError where ``"on"`` asks for what the device has not.
    """
    if device.type == "cuda":
        return None if name == "off" else CudaGraphs(device)
    if name == "on":
        raise UsageError(f"graph 'on': device {str(device)!r} has no CUDA graphs; use auto or off")
    return None


class Capturer:
    """Makes walks, captured as long as that works; ``backend=None`` captures nothing."""

    def __init__(self, backend: Backend | None) -> None:
        self.backend = backend

    def walk(
        self, objective: ValueAndGrad, image: Tensor, settings: Settings, memory: Mapping[str, Any] | None = None
    ) -> Walk:
        """A walk from ``image``, which it overwrites, or from where ``memory`` says: see :class:`fastnst.walk.Walk`."""
        if self.backend is None or not isinstance(objective, OnDevice):
            return Walk(objective, image, settings, memory)
        make = AdamInGraph if settings.optimizer == "adam" else EvaluationInGraph
        try:
            return make(objective, image, settings, self.backend, memory)
        except RuntimeError as error:
            log.warning("the step cannot be captured as a CUDA graph (%s); running op by op", _reason(error))
            self.backend = None
            return Walk(objective, image, settings, memory)


class EvaluationInGraph(Walk):
    """Loss and gradient from a graph, the optimiser op by op."""

    def __init__(
        self,
        objective: ValueAndGrad,
        image: Tensor,
        settings: Settings,
        backend: Backend,
        memory: Mapping[str, Any] | None = None,
    ) -> None:
        assert isinstance(objective, OnDevice)
        super().__init__(objective, image, settings, memory)
        self._asked: OnDevice = objective
        self._slope = torch.zeros_like(image)
        # The values of the parts, and 1 where they and the gradient are finite: float64 holds every float32.
        self._found = torch.zeros(len(objective.parts) + 1, dtype=torch.float64, device=image.device)
        self._prepare()
        self._replay = _capture(backend, self._run, self._state())

    def _prepare(self) -> None:
        """Make what :meth:`_run` needs beside the buffers."""

    def look(self) -> tuple[Losses, bool]:
        self._replay()
        *values, finite = self._found.tolist()
        self.gradient = self._slope
        return self._asked.losses(values), bool(finite)

    def _state(self) -> list[Tensor]:
        """What :meth:`_run` writes and reads again."""
        return []

    def _run(self) -> None:
        self._evaluate()

    def _evaluate(self) -> Tensor:
        """Fill the buffers; whether all is finite."""
        values, gradient = self._asked.evaluate(self.image)
        self._slope.copy_(gradient)
        self._found[:-1].copy_(values)
        finite = self._found[:-1].sum().isfinite() & gradient.isfinite().all()
        self._found[-1:].copy_(finite)
        return finite


class AdamInGraph(EvaluationInGraph):
    """A whole step from a graph: evaluation, the good place, Adam's update; neither of these where all is not finite.

    So :meth:`look` has gone on already, and :meth:`go` has nothing to do.
    """

    def _prepare(self) -> None:
        assert isinstance(self.optimizer, Adam)
        self._adam, self._most, device = self.optimizer, self.settings.steps_at(1), self.image.device
        # A row a step, worked out on the host so that they are the numbers of a run op by op; row 0 is never read.
        counts = range(self._adam.count + 1, self._adam.count + self._most + 1)
        rows = [(0.0, 1.0), *(self._adam.factors(count) for count in counts)]
        self._factors = torch.tensor(rows, dtype=torch.float64, device=device)
        self._count = torch.zeros(1, dtype=torch.int64, device=device)
        self._calm = torch.ones((), dtype=torch.float64, device=device)

    def go(self) -> None:
        self.gradient = None

    def calm(self) -> None:
        self._calm.mul_(0.5)

    def state(self) -> dict[str, Any]:
        count, rate = self._adam.count + int(self._count), self._adam.learning_rate * float(self._calm)
        return {**super().state(), "count": count, "learning_rate": rate}

    def _state(self) -> list[Tensor]:
        return [self.image, self.good, self._adam.mean, self._adam.square, self._count]

    def _run(self) -> None:
        finite = self._evaluate()
        moved = [self.image, self._adam.mean, self._adam.square]
        self.good.copy_(torch.where(finite, self.image, self.good))
        before = [tensor.clone() for tensor in moved]
        self._count.add_(finite).clamp_(max=self._most)
        rate, width = self._factors.index_select(0, self._count)[0].unbind()
        self._adam.update(self.image, self._slope, rate * self._calm, width)
        if self.settings.clamp:
            self.image.clamp_(0, 255)
        for tensor, old in zip(moved, before, strict=True):
            tensor.copy_(torch.where(finite, tensor, old))


def _capture(backend: Backend, function: Callable[[], None], state: Sequence[Tensor]) -> Callable[[], None]:
    """Capture ``function``, whose trial runs leave no trace in ``state``, also where they fail."""
    before = [tensor.clone() for tensor in state]
    try:
        return backend.capture(function)
    finally:
        for tensor, old in zip(state, before, strict=True):
            tensor.copy_(old)


def _reason(error: BaseException) -> str:
    """The first line of what went wrong first: ending a capture that failed is an error of its own."""
    while error.__context__ is not None:
        error = error.__context__
    return (str(error).splitlines() or [type(error).__name__])[0].split(". ")[0].rstrip(".")

"""Seconds per step and peak memory of the whole loop: eager PyTorch, the fused ops, and the step as one CUDA graph.

All take steps of Adam through the same loop from the same pictures. Before any is timed, loss and gradient of the start
are compared with autograd in float64 (in exact float32 above 1024^2, where float64 does not fit on a card).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.common.contest import Spread, in_turn, reason
from bench.common.pictures import PAINTING, PHOTO
from bench.gpu.problems import DTYPES, matmul_precision
from fastnst import images, weights
from fastnst.config.settings import Settings
from fastnst.errors import FastnstError
from fastnst.losses.forms import content_form, style_form
from fastnst.network.cudnn import timed_algorithms
from fastnst.network.vgg import VGG
from fastnst.objective.protocol import Losses
from fastnst.objective.targets import StyleTargets, style_targets
from fastnst.objective.whole import Objective
from fastnst.optim.cuda_graph import StepCapture, choose_backend
from fastnst.optim.loop import LoopContext, optimize
from fastnst.optim.progress import Step
from fastnst.weights import Weights

Reference = tuple[float, Tensor]  # loss and gradient
CONTENDERS = ("eager", "fused", "fused + graph")
WARM_UP = 3
# Bounds on the relative errors of the loss and of its gradient at the start. Rounding grows through a dozen layers, and
# where it changes the argmax of a pool, the gradient goes to another position; the eager loop has both errors too.
BOUNDS = {"float32": (1e-4, 1e-3), "tf32": (2e-3, 5e-2), "half": (5e-3, 1e-1), "bfloat16": (2e-2, 3e-1)}


@dataclass(frozen=True)
class LoopRow:
    """One contender at one size; ``seconds`` is None where it was refused, and ``refused`` says why.

    ``error`` is that of the gradient.
    """

    side: int
    precision: str
    contender: str
    error: float | None
    refused: str | None
    seconds: Spread | None
    peak_bytes: int | None

    def to_dict(self) -> dict[str, object]:
        return asdict(self)


class EagerObjective:
    """The same losses by autograd through the network, without fused ops, as in most implementations."""

    def __init__(self, network: VGG, content: Tensor, targets: StyleTargets, settings: Settings) -> None:
        self.network, self.settings, self.targets = network, settings, targets
        self.dtype = torch.float64 if network.dtype == torch.float64 else torch.float32
        with torch.no_grad():
            kept = network.features(content, [name for name, _ in settings.content_layers])
        self.content = {name: f.to(self.dtype) for name, f in kept.items()}

    def value_and_grad(self, image: Tensor) -> tuple[Losses, Tensor]:
        image = image.detach().requires_grad_(True)
        with torch.enable_grad():
            loss = self._loss(image)
        (gradient,) = torch.autograd.grad(loss, image)
        return Losses(total=float(loss.detach())), gradient

    def _loss(self, image: Tensor) -> Tensor:
        settings, total = self.settings, image.new_zeros(())
        features = self.network.features(image, settings.layer_names())
        form, kept = style_form(settings.style_form), content_form(settings.content_form)
        for name, weight in settings.style_layers:
            f = features[name].flatten(2).to(self.dtype)
            c, n = f.shape[1], f.shape[2]
            residual = form.gram(c, n) * (f @ f.mT) - self.targets[name][0]
            total = total + settings.style_weight * weight * form.loss(c) * residual.square().sum()
        for name, weight in settings.content_layers:
            f, target = features[name].to(self.dtype), self.content[name]
            factor = settings.content_weight * weight * kept(f.shape[1], f.shape[2:].numel())
            total = total + factor * F.mse_loss(f, target, reduction="sum")
        variation = image.diff(dim=3).abs().sum() + image.diff(dim=2).abs().sum()
        return total + settings.tv_weight * variation


def _pixels(path: Path, side: int, device: torch.device) -> Tensor:
    picture = images.load(path).pixels
    return (images.resize(picture, side, side).to(device) * 255).clamp(0, 255)


class Contest:
    """The pictures and networks of one size and precision."""

    def __init__(self, loaded: Weights, side: int, precision: str, device: torch.device, steps: int) -> None:
        self.loaded, self.side, self.precision, self.device = loaded, side, precision, device
        self.settings = Settings.from_preset(optimizer="adam", steps=WARM_UP + steps, device=str(device), scales=1)
        self.network = VGG(loaded, self.settings.layer_names(), device=device, dtype=DTYPES[precision])
        self.style = _pixels(PAINTING, side, device)
        self.content = _pixels(PHOTO, side, device)
        with timed_algorithms(device):  # for all contenders: a process keeps what it chose first for a size
            self.targets = style_targets(self.network, self.style, self.settings)

    def reference(self) -> Reference:
        """Loss and gradient of the start, by autograd in a wider type."""
        dtype = torch.float64 if self.side <= 1024 else torch.float32
        network = VGG(self.loaded, self.settings.layer_names(), device=self.device, dtype=dtype)
        style, content = self.style.to(dtype), self.content.to(dtype)
        with matmul_precision("float32"):
            targets = style_targets(network, style, self.settings)
            losses, gradient = EagerObjective(network, content, targets, self.settings).value_and_grad(content)
        return losses.total, gradient

    def objective(self, contender: str) -> EagerObjective | Objective:
        make = EagerObjective if contender == "eager" else Objective
        return make(self.network, self.content, self.targets, self.settings)

    def run(self, contender: str) -> tuple[list[float], int | None]:
        """Seconds of each step after the first few, and the most memory held on the device."""
        graph = "on" if contender == "fused + graph" else "off"
        capture = StepCapture(choose_backend(graph, self.device))
        objective, stamps = self.objective(contender), []

        def stamp(step: Step) -> None:
            self._wait()
            stamps.append(time.perf_counter())

        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        optimize(objective, self.content, self.settings, context=LoopContext(callback=stamp, capture=capture))
        if graph == "on" and capture.backend is None:
            raise RuntimeError("the step could not be captured as a CUDA graph")
        peak = torch.cuda.max_memory_allocated(self.device) if self.device.type == "cuda" else None
        return [b - a for a, b in zip(stamps[WARM_UP - 1 :], stamps[WARM_UP:], strict=False)], peak

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def check(
    objective: EagerObjective | Objective, image: Tensor, reference: Reference, precision: str
) -> tuple[float, str | None]:
    """The relative error of the gradient, and why the contender is refused, if it is."""
    with timed_algorithms(image.device):
        losses, gradient = objective.value_and_grad(image)
    exact, wanted = reference
    gradient_error = float((gradient.double() - wanted.double()).norm() / wanted.double().norm())
    errors = {"loss": abs(losses.total / exact - 1), "gradient": gradient_error}
    for (name, error), bound in zip(errors.items(), BOUNDS[precision], strict=True):
        if not error <= bound:
            return gradient_error, f"error of the {name} {error:.1e} above {bound:.0e}"
    return gradient_error, None


class Entry:
    """One contender of a contest: checked once, then run once a round until it fails."""

    def __init__(self, contest: Contest, name: str) -> None:
        self.contest, self.name = contest, name
        self.error: float | None = None
        self.refused: str | None = None
        self.seconds: list[float] = []
        self.peak: int | None = None

    def check(self, make_objective: Callable[[Contest, str], EagerObjective | Objective], reference: Reference) -> None:
        try:
            objective = make_objective(self.contest, self.name)
            self.error, self.refused = check(objective, self.contest.content, reference, self.contest.precision)
        except RuntimeError as problem:
            self.refused = reason(problem)

    def run(self) -> None:
        if self.refused is not None:
            return
        try:
            seconds, self.peak = self.contest.run(self.name)
            self.seconds += seconds
        except (RuntimeError, FastnstError) as problem:  # a row of the table, not the end of the benchmark
            self.refused = reason(problem)

    def row(self) -> LoopRow:
        right = self.refused is None
        return LoopRow(
            self.contest.side,
            self.contest.precision,
            self.name,
            self.error,
            self.refused,
            Spread.of(self.seconds) if right else None,
            self.peak if right else None,
        )


def race(
    side: int,
    precision: str,
    device: torch.device,
    *,
    steps: int = 12,
    rounds: int = 2,
    make_objective: Callable[[Contest, str], EagerObjective | Objective] = Contest.objective,
) -> list[LoopRow]:
    """A row for each contender."""
    with matmul_precision(precision):
        contest = Contest(weights.load(), side, precision, device, steps)
        reference = contest.reference()
        entries = [Entry(contest, name) for name in CONTENDERS]
        for entry in entries:
            entry.check(make_objective, reference)
        del reference
        in_turn({entry.name: entry.run for entry in entries}, rounds)
    return [entry.row() for entry in entries]

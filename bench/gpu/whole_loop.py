"""Seconds per step and peak memory of the whole loop: eager PyTorch, the fused ops, and the step as one CUDA graph.

All take Adam's steps through the same loop from the same pictures. Before any is timed, loss and gradient of the start
are held to autograd in float64 (in exact float32 above 1024^2, where float64 does not fit a card).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from measure import first_line
from problems import DTYPES, multiplied
from timing import Spread
from torch import Tensor

from fastnst import images, ops, weights
from fastnst.errors import FastnstError
from fastnst.graph import Capturer, choose_backend
from fastnst.losses import content_form, style_form
from fastnst.objective import Losses, Objective, StyleTargets, style_targets
from fastnst.optimize import Step, optimize
from fastnst.settings import Settings
from fastnst.vgg import VGG
from fastnst.weights import Weights

ASSETS = Path(ops.__file__).parents[1] / "assets"
CONTENDERS = ("eager", "fused", "fused + graph")
WARM_UP = 3
# Relative errors of the loss and of its gradient at the start. Rounding grows through a dozen layers, and a maximum of
# a pool that rounding moves takes its gradient along; the eager loop has as much of both.
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
    """The same losses by autograd through the network, with no op of ours: what most implementations do."""

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
            apart = form.gram(c, n) * (f @ f.mT) - self.targets[name][0]
            total = total + settings.style_weight * weight * form.loss(c) * apart.square().sum()
        for name, weight in settings.content_layers:
            f, target = features[name].to(self.dtype), self.content[name]
            factor = settings.content_weight * weight * kept(f.shape[1], f.shape[2:].numel())
            total = total + factor * F.mse_loss(f, target, reduction="sum")
        variation = image.diff(dim=3).abs().sum() + image.diff(dim=2).abs().sum()
        return total + settings.tv_weight * variation


def _pixels(name: str, side: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    picture = images.load(ASSETS / name).pixels
    return (images.resize(picture, side, side).to(device, dtype) * 255).clamp(0, 255)


class Contest:
    """The pictures and networks of one size and precision."""

    def __init__(self, loaded: Weights, side: int, precision: str, device: torch.device, steps: int) -> None:
        self.loaded, self.side, self.precision, self.device = loaded, side, precision, device
        self.settings = Settings.of(optimizer="adam", steps=WARM_UP + steps, device=str(device), scales=1)
        self.network = VGG(loaded, self.settings.layer_names(), device=device, dtype=DTYPES[precision])
        self.style = _pixels("demo_painting.jpg", side, device, torch.float32)
        self.content = _pixels("demo_photo.jpg", side, device, torch.float32)
        self.targets = style_targets(self.network, self.style, self.settings)

    def reference(self) -> tuple[float, Tensor]:
        """Loss and gradient of the start, by autograd in a wider type."""
        dtype = torch.float64 if self.side <= 1024 else torch.float32
        network = VGG(self.loaded, self.settings.layer_names(), device=self.device, dtype=dtype)
        style, content = self.style.to(dtype), self.content.to(dtype)
        with multiplied("float32"):
            targets = style_targets(network, style, self.settings)
            losses, gradient = EagerObjective(network, content, targets, self.settings).value_and_grad(content)
        return losses.total, gradient

    def objective(self, contender: str) -> EagerObjective | Objective:
        make = EagerObjective if contender == "eager" else Objective
        return make(self.network, self.content, self.targets, self.settings)

    def run(self, contender: str) -> tuple[list[float], int | None]:
        """Seconds of each step after the first few, and the most memory held on the device."""
        graph = "on" if contender == "fused + graph" else "off"
        capturer = Capturer(choose_backend(graph, self.device))
        objective, stamps = self.objective(contender), []

        def stamp(step: Step) -> None:
            self._wait()
            stamps.append(time.perf_counter())

        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        optimize(objective, self.content, self.settings, callback=stamp, capturer=capturer)
        if graph == "on" and capturer.backend is None:
            raise RuntimeError("the step could not be captured as a CUDA graph")
        peak = torch.cuda.max_memory_allocated(self.device) if self.device.type == "cuda" else None
        return [b - a for a, b in zip(stamps[WARM_UP - 1 :], stamps[WARM_UP:], strict=False)], peak

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def check(
    objective: EagerObjective | Objective, image: Tensor, reference: tuple[float, Tensor], precision: str
) -> tuple[float, str | None]:
    """The relative error of the gradient, and why the contender is refused, if it is."""
    losses, gradient = objective.value_and_grad(image)
    exact, slope = reference
    of_slope = float((gradient.double() - slope.double()).norm() / slope.double().norm())
    errors = {"loss": abs(losses.total / exact - 1), "gradient": of_slope}
    for (what, error), bound in zip(errors.items(), BOUNDS[precision], strict=True):
        if not error <= bound:
            return of_slope, f"error of the {what} {error:.1e} above {bound:.0e}"
    return of_slope, None


def race(
    side: int,
    precision: str,
    device: torch.device,
    *,
    steps: int = 12,
    rounds: int = 2,
    loaded: Weights | None = None,
    make_objective: Callable[[Contest, str], EagerObjective | Objective] = Contest.objective,
) -> list[LoopRow]:
    """A row for each contender; rounds alternate between them."""
    with multiplied(precision):
        contest = Contest(loaded or weights.load(), side, precision, device, steps)
        reference = contest.reference()
        errors: dict[str, float | None] = {}
        refused: dict[str, str | None] = {}
        for name in CONTENDERS:
            try:
                objective = make_objective(contest, name)
                errors[name], refused[name] = check(objective, contest.content, reference, precision)
            except RuntimeError as problem:
                errors[name], refused[name] = None, first_line(problem)
        del reference
        seconds: dict[str, list[float]] = {name: [] for name in CONTENDERS}
        peaks: dict[str, int | None] = dict.fromkeys(CONTENDERS)
        for _ in range(rounds):
            for name in CONTENDERS:
                if refused[name] is not None:
                    continue
                try:
                    found, peaks[name] = contest.run(name)
                    seconds[name] += found
                except (RuntimeError, FastnstError) as problem:  # a row, not the end of the run
                    refused[name] = first_line(problem)
    return [
        LoopRow(
            side,
            precision,
            name,
            errors[name],
            refused[name],
            Spread.of(seconds[name]) if refused[name] is None else None,
            peaks[name] if refused[name] is None else None,
        )
        for name in CONTENDERS
    ]

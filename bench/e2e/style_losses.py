"""How long a step with each style loss takes, relative to one with the Gram loss.

    python bench/e2e/style_losses.py [--sizes 256,512] [--rounds 5]

A step is an evaluation of loss and gradient and an update of Adam, in float32, with the preset `johnson` on the shipped
pictures. Every loss has an image of its own; they take turns, every second round backwards. Before the clock starts,
the gradient of each is held to the slope of its loss in float64 at SIDE x SIDE: along the gradient that is its length.
After it has stopped, each loss must have come down.

Prints medians, spreads and ratios, round by round, to Gram, and writes style_losses.json and style_losses.md to
bench/results.
"""

from __future__ import annotations

import argparse
import gc
import os
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from machine import RESULTS, ROOT, machine, plain, write
from torch import Tensor

from fastnst import images
from fastnst.adam import Adam
from fastnst.objective import Objective, style_targets
from fastnst.settings import Settings
from fastnst.styles import style_losses
from fastnst.transfer import Stylizer

REFERENCE = "gram"
SIDE = 64  # of the pictures in float64
REACH = 1e-2  # of a difference: root mean square over the pixels, in 0..255
BOUND = 1e-2  # relative, of a slope: ReLUs, pools and sorted values have kinks


def pictures(size: int) -> tuple[Tensor, Tensor]:
    """Content and style as pixels ``[1, 3, size, size]`` in 0..255."""
    assets = ROOT / "fastnst" / "assets"
    content, style = (
        images.load(assets / name, crop=size).pixels * 255 for name in ("demo_photo.jpg", "demo_painting.jpg")
    )
    return content, style


def objective(stylizer: Stylizer, size: int) -> Objective:
    content, style = (x.to(stylizer.image_dtype) for x in pictures(size))
    return Objective(
        stylizer.network, content, style_targets(stylizer.network, style, stylizer.settings), stylizer.settings
    )


def settings(loss: str, precision: str) -> Settings:
    return Settings.of("johnson", style_loss=loss, precision=precision, device="cpu")


def check(loss: str) -> None:
    """Refuse to time a gradient that is wrong."""
    image = pictures(SIDE)[0]
    image = (image + 4 * torch.randn(image.shape, generator=torch.Generator().manual_seed(0))).clamp(0, 255)
    _, gradient = objective(Stylizer(settings(loss, "float32")), SIDE).value_and_grad(image)
    length = gradient.double().norm().item()
    exact = objective(Stylizer(settings(loss, "float64")), SIDE)
    step = gradient.double() / length * REACH * gradient.numel() ** 0.5
    above, below = (exact.value_and_grad(image.double() + offset)[0].total for offset in (step, -step))
    slope = (above - below) / (2 * step.norm().item())
    if not abs(length / slope - 1) <= BOUND:
        sys.exit(f"{loss}: the slope of the loss is {slope:g}, its gradient says {length:g}")


class Contender:
    """A style loss with an image of its own."""

    def __init__(self, loss: str, size: int) -> None:
        self.loss = loss
        self.objective = objective(Stylizer(settings(loss, "float32")), size)
        self.image = pictures(size)[0]
        self.optimizer = Adam(self.image, 1.0)
        self.totals: list[float] = []

    def step(self) -> float:
        """Take a step; the seconds of it."""
        start = time.perf_counter()
        losses, gradient = self.objective.value_and_grad(self.image)
        self.optimizer.step(self.image, gradient)
        seconds = time.perf_counter() - start
        self.totals.append(losses.total)
        return seconds


@dataclass(frozen=True)
class Row:
    """A style loss at a size: the seconds of its steps, and their ratios to Gram's of the same round."""

    loss: str
    size: int
    seconds: list[float]
    ratios: list[float]


def measure(losses: Sequence[str], size: int, rounds: int) -> dict[str, list[float]]:
    """The seconds of each round; the first two, which build buffers, are not counted."""
    contenders = [Contender(loss, size) for loss in losses]
    seconds: dict[str, list[float]] = {loss: [] for loss in losses}
    gc.disable()
    for number in range(rounds + 2):
        for contender in contenders if number % 2 else reversed(contenders):
            seconds[contender.loss].append(contender.step())
        print(f"  {size}^2 round {number + 1}", file=sys.stderr)
    gc.enable()
    for contender in contenders:
        if not contender.totals[-1] < contender.totals[0]:
            sys.exit(f"{contender.loss}: began at {contender.totals[0]:g}, ended at {contender.totals[-1]:g}")
    return {loss: taken[2:] for loss, taken in seconds.items()}


def rows(size: int, seconds: Mapping[str, Sequence[float]]) -> list[Row]:
    reference = seconds[REFERENCE]
    return [
        Row(loss, size, list(taken), [mine / its for mine, its in zip(taken, reference, strict=True)])
        for loss, taken in seconds.items()
    ]


def table(found: Sequence[Row]) -> str:
    lines = [f"| style loss | size | s/step (min-max) | relative to {REFERENCE} (min-max) |", "|---|---|---|---|"]
    for row in found:
        time_shown, ratio_shown = (
            f"{statistics.median(x):.3g} ({min(x):.3g}-{max(x):.3g})" for x in (row.seconds, row.ratios)
        )
        lines.append(f"| {row.loss} | {row.size}^2 | {time_shown} | {ratio_shown} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sizes", default="256,512", help="sides of the square pictures")
    parser.add_argument("--losses", default=",".join(style_losses()), help=f"names; {REFERENCE} is always among them")
    parser.add_argument("--rounds", type=int, default=5, help="steps timed of each loss (default 5)")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results (default bench/results)")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    losses = list(dict.fromkeys((REFERENCE, *options.losses.split(","))))
    for loss in losses:
        check(loss)
    found = [
        row for size in map(int, options.sizes.split(",")) for row in rows(size, measure(losses, size, options.rounds))
    ]
    report: dict[str, object] = {
        "machine": machine(),
        "options": plain(options),
        "rows": [asdict(row) for row in found],
    }
    print(write(options.out, "style_losses", report, [table(found)]))


if __name__ == "__main__":
    main()

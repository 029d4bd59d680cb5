"""How long a step with each style loss takes, relative to one with the Gram loss.

    python -m bench.e2e.style_losses [--sizes 256,512] [--rounds 5] [--masks 2]

A step is an evaluation of loss and gradient and an update of Adam, in float32, with the preset `johnson` on the shipped
pictures. Every loss has an image of its own, and they take turns. With `--masks N` there are N styles with a mask each,
and Gram with a mask of the content. Before the clock starts, the gradient of each is compared with a difference of its
loss in float64 at SIDE x SIDE: along the gradient, the derivative is the gradient's length. After the last step, each
loss must be lower than before the first.

Prints medians, spreads and ratios, round by round, to Gram without masks, and writes style_losses.json and
style_losses.md, or masks.json and masks.md, to bench/results.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import torch

from bench.common import contest, results
from bench.common.contest import Clock, Spread, ratios
from bench.common.machine import machine
from bench.common.options import numbers, parser, plain
from bench.common.pictures import shipped
from bench.common.results import Report, Section, Table
from fastnst.config.settings import Settings
from fastnst.losses.style import style_losses
from fastnst.objective.targets import Region, style_targets
from fastnst.objective.whole import Objective
from fastnst.optim.adam import Adam
from fastnst.run.stylizer import Stylizer

REFERENCE = "gram"
SIDE = 64  # of the pictures in float64
REACH = 1e-2  # of a difference: root mean square over the pixels, in 0..255
BOUND = 1e-2  # relative, of a derivative: ReLUs, pools and sorted values have kinks
WARM_UP = 2  # rounds that build buffers


@dataclass(frozen=True)
class Variant:
    """A style loss, of several styles with masks or of one, and with a mask of the content or without."""

    loss: str
    masks: int = 0
    content_mask: bool = False

    def __str__(self) -> str:
        extras = [f"{self.masks} masks"] * (self.masks > 0) + ["content mask"] * self.content_mask
        return ", ".join([self.loss, *extras])

    def settings(self, precision: str) -> Settings:
        return Settings.from_preset("johnson", style_loss=self.loss, precision=precision, device="cpu")

    def objective(self, precision: str, size: int) -> Objective:
        stylizer = Stylizer(self.settings(precision))
        content, style = (x.to(stylizer.setup.image_dtype) for x in shipped(size))
        targets = style_targets(stylizer.network, style, stylizer.settings)
        # Soft edges everywhere, as of a mask painted with a brush.
        across = torch.linspace(0, 1, size, dtype=content.dtype)
        masks = [(1 - (self.masks - 1) * (across - i / (self.masks - 1)).abs()).clamp(0) for i in range(self.masks)]
        regions = [Region(targets, mask.expand(1, 1, size, size).contiguous()) for mask in masks]
        held = across.expand(1, 1, size, size).contiguous() if self.content_mask else None
        return Objective(stylizer.network, content, regions or targets, stylizer.settings, content_mask=held)


def check(variant: Variant) -> None:
    """Exit where the gradient is wrong."""
    image = shipped(SIDE)[0]
    image = (image + 4 * torch.randn(image.shape, generator=torch.Generator().manual_seed(0))).clamp(0, 255)
    _, gradient = variant.objective("float32", SIDE).value_and_grad(image)
    length = gradient.double().norm().item()
    exact = variant.objective("float64", SIDE)
    step = gradient.double() / length * REACH * gradient.numel() ** 0.5
    above, below = (exact.value_and_grad(image.double() + offset)[0].total for offset in (step, -step))
    derivative = (above - below) / (2 * step.norm().item())
    if not abs(length / derivative - 1) <= BOUND:
        sys.exit(
            f"{variant}: the loss has the derivative {derivative:g} along its gradient, whose length is {length:g}"
        )


class Contender:
    """A style loss with an image of its own."""

    def __init__(self, variant: Variant, size: int) -> None:
        self.name = str(variant)
        self.objective = variant.objective("float32", size)
        self.image = shipped(size)[0]
        self.optimizer = Adam(self.image, 1.0)
        self.totals: list[float] = []

    def step(self) -> None:
        losses, gradient = self.objective.value_and_grad(self.image)
        self.optimizer.step(self.image, gradient)
        self.totals.append(losses.total)


@dataclass(frozen=True)
class Row:
    """A style loss at a size: the seconds of its steps, and their ratios to Gram's of the same round."""

    loss: str
    size: int
    seconds: list[float]
    ratios: list[float]


def measure(variants: Sequence[Variant], size: int, rounds: int) -> dict[str, list[float]]:
    """The seconds of each round by name."""
    contenders = [Contender(variant, size) for variant in variants]
    timed = [contest.Contender(contender.name, contender.step) for contender in contenders]
    seconds = Clock(f"{size}^2").seconds(timed, rounds + WARM_UP)
    for contender in contenders:
        if not contender.totals[-1] < contender.totals[0]:
            sys.exit(f"{contender.name}: began at {contender.totals[0]:g}, ended at {contender.totals[-1]:g}")
    return {one.name: of_one[WARM_UP:] for one, of_one in zip(contenders, seconds, strict=True)}


def rows(size: int, seconds: Mapping[str, Sequence[float]]) -> list[Row]:
    reference = seconds[REFERENCE]
    return [Row(loss, size, list(of_one), ratios(of_one, reference)) for loss, of_one in seconds.items()]


def tables(report: Report) -> list[Section]:
    lines = [
        (row["loss"], f"{row['size']}^2", Spread.of(row["seconds"]).text(), Spread.of(row["ratios"]).text())
        for row in report["rows"]
    ]
    return [Table(("style loss", "size", "s/step (min-max)", f"relative to {REFERENCE} (min-max)"), lines, keys=2)]


def main() -> None:
    arguments = parser(__doc__, threads=True, out=True)
    arguments.add_argument("--sizes", default="256,512", help="sides of the square pictures")
    arguments.add_argument("--losses", default=",".join(style_losses()), help=f"names; {REFERENCE} is always included")
    arguments.add_argument("--rounds", type=int, default=5, help="steps timed of each loss (default 5)")
    arguments.add_argument(
        "--masks", type=int, default=0, help="styles with a mask each, 2 or more (default: no masks)"
    )
    options = arguments.parse_args()
    if options.masks == 1 or options.masks < 0:
        arguments.error(f"--masks {options.masks}: expected 2 or more, or 0 for none")
    torch.set_num_threads(options.threads)
    names = list(dict.fromkeys((REFERENCE, *options.losses.split(","))))
    variants = [Variant(REFERENCE)]
    if options.masks:
        variants += [Variant(REFERENCE, content_mask=True), *(Variant(name, options.masks) for name in names)]
    else:
        variants += [Variant(name) for name in names[1:]]
    for variant in variants:
        check(variant)
    found = [row for size in numbers(options.sizes) for row in rows(size, measure(variants, size, options.rounds))]
    report: Report = {"machine": machine(), "options": plain(options), "rows": [asdict(row) for row in found]}
    results.write(options.out, "masks" if options.masks else "style_losses", report, tables)


if __name__ == "__main__":
    main()

"""Race fastnst's whole steps against style transfer packages of PyPI: same weights, pictures, loss and start, in turn.

    python -m bench.e2e.race [--sizes 512] [--steps 12] [--rounds 3] [--contenders neural-style,fastnst]

Each contender runs in a process and with a package folder of its own (contenders.py). The loss is neural-style's
default (content 5, style 100, total variation 1e-3), started from the content picture, with Adam and with L-BFGS.
Before any time is printed the results are checked by one evaluator (fastnst in float32 with PyTorch's convolutions):
the losses reported for the start image must be within 2 % of its own, the final pictures must have lower losses, and
fastnst's must be at most 5 % above neural-style's.

Prints medians and spreads with the ratio to neural-style, and writes race.json, race.md and race.png to bench/results.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

import torch

from bench.common import results
from bench.common.contest import Spread, in_turn, ratios
from bench.common.machine import machine
from bench.common.options import numbers, parser, plain
from bench.common.pictures import PAINTING, PHOTO
from bench.e2e import contenders, race_report
from bench.e2e.contenders import REFERENCE, Contender, Outcome
from fastnst import images, weights
from fastnst.config.settings import Settings
from fastnst.objective.targets import style_targets
from fastnst.objective.whole import Objective
from fastnst.run.stylizer import Stylizer


def make_inputs(folder: Path, size: int) -> None:
    """Write square crops of the shipped pictures, and the bundled weights in neural-style's own file format."""
    for name, source in (("content", PHOTO), ("style", PAINTING)):
        images.save(folder / f"{name}.png", images.load(source, crop=size).pixels)
    convolutions = [i for i, kind in enumerate(_vgg19_sequence()) if kind == "conv"]
    state = {}
    for index, (name, (weight, bias)) in zip(convolutions, weights.load().convs.items(), strict=False):
        bgr = weight.flip(1) if name == "conv1_1" else weight
        state[f"features.{index}.weight"], state[f"features.{index}.bias"] = bgr.contiguous(), bias
    torch.save(state, folder / "vgg19.pth")


def _vgg19_sequence() -> Iterator[str]:
    for count in (2, 2, 4, 4, 4):
        for _ in range(count):
            yield from ("conv", "relu")
        yield "pool"


def evaluator(folder: Path, **changes: str) -> Objective:
    """The race's loss of pixels 0..255, in float32."""
    stylizer = Stylizer(Settings.from_preset("johnson", precision="float32", **changes))
    content, style = (images.load(folder / f"{name}.png").pixels * 255 for name in ("content", "style"))
    targets = style_targets(stylizer.network, style, stylizer.settings)
    return Objective(stylizer.network, content, targets, stylizer.settings)


def evaluate(folder: Path, pictures: Sequence[str]) -> list[float]:
    """The loss of each picture, with PyTorch's convolutions."""
    objective = evaluator(folder, convolution="direct")
    return [objective.value_and_grad(images.load(path).pixels * 255)[0].total for path in pictures]


def check(race: str, first: dict[str, float], final: dict[str, float], start: float) -> None:
    """Exit where a result is wrong, before any time is printed.

    ``first`` are the losses that contenders report for the start image, whose loss by the evaluator is ``start``.
    """
    for name, loss in first.items():
        if not abs(loss / start - 1) <= 0.02:
            sys.exit(f"{race}: {name} starts at loss {loss:g}, expected {start:g} within 2 %")
        if not final[name] < start:
            sys.exit(f"{race}: {name} ends at loss {final[name]:g}, started at {start:g}")
        if name.startswith("fastnst") and not final[name] <= 1.05 * final.get(REFERENCE, start):
            sys.exit(f"{race}: {name} ends at {final[name]:g}, {REFERENCE} at {final[REFERENCE]:g}")


def race(
    folder: Path, size: int, optimizer: str, entrants: Sequence[Contender], options: argparse.Namespace
) -> list[dict[str, object]]:
    """A row for each contender with one optimizer at one size."""

    def enter(contender: Contender, numbers: Iterator[int]) -> Outcome:
        out = folder / f"{optimizer}-{next(numbers)}-{contender.name.replace(' ', '-')}.png"
        return contenders.run(contender, folder, optimizer, options.steps, options.threads, out)

    entered = {c.name: partial(enter, c, itertools.count()) for c in entrants if optimizer in c.optimizers}
    title = f"{size}^2 {optimizer}"
    outcomes = in_turn(entered, options.rounds, title)
    start, *finals = evaluate(folder, [str(folder / "content.png"), *(runs[0].picture for runs in outcomes.values())])
    final = dict(zip(outcomes, finals, strict=True))
    check(title, {name: runs[0].first_loss for name, runs in outcomes.items()}, final, start)
    return [{"size": size, "optimizer": optimizer, **row} for row in summaries(outcomes, final)]


def summaries(outcomes: dict[str, list[Outcome]], final: dict[str, float]) -> list[dict[str, object]]:
    """For each contender medians and spreads over its runs, and ratios, round by round, to the reference."""
    reference = outcomes.get(REFERENCE) or next(iter(outcomes.values()))
    rows: list[dict[str, object]] = []
    for name, runs in outcomes.items():
        medians, theirs = ([Spread.of(run.seconds).median for run in side] for side in (runs, reference))
        seconds, ratio = Spread.of(medians), Spread.of(ratios(medians, theirs))
        rows.append(
            {
                "contender": name,
                "time_ratio": ratio.median,
                "time_ratio_spread": [ratio.least, ratio.most],
                "seconds_per_step": seconds.median,
                "seconds_spread": [seconds.least, seconds.most],
                "memory_ratio": max(run.peak for run in runs) / max(run.peak for run in reference),
                "peak_resident_bytes": max(run.peak for run in runs),
                "steady_resident_bytes": max(run.resident for run in runs),
                "first_loss": runs[0].first_loss,
                "final_loss": final[name],
                "runs": [asdict(run) | {"picture": Path(run.picture).name} for run in runs],
            }
        )
    return rows


def main() -> None:
    arguments = parser(__doc__, threads=True, out=True)
    arguments.add_argument("--sizes", default="512", help="sides of the square pictures, such as 256,512,1024")
    arguments.add_argument("--steps", type=int, default=12, help="steps of each process; the first 3 are not counted")
    arguments.add_argument("--rounds", type=int, default=3, help="processes of each contender (default 3)")
    arguments.add_argument("--optimizers", default="adam,lbfgs")
    arguments.add_argument(
        "--contenders", help="names or prefixes of names, such as neural-style,fastnst (default: all)"
    )
    arguments.add_argument("--name", default="race", help="of the files (default race)")
    options = arguments.parse_args()
    if options.steps < contenders.WARM_UP + 2:
        arguments.error(f"--steps {options.steps}: expected at least {contenders.WARM_UP + 2}, or no step is counted")
    torch.set_num_threads(options.threads)
    entrants = contenders.named(options.contenders)
    for contender in entrants:
        contenders.install(contender)
    rows: list[dict[str, object]] = []
    for size in numbers(options.sizes):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            make_inputs(folder, size)
            for optimizer in options.optimizers.split(","):
                rows += race(folder, size, optimizer, entrants, options)
    raced = {row["contender"] for row in rows}
    notes = {c.name: c.differs for c in entrants if c.differs and c.name in raced}
    report: results.Report = {"machine": machine(), "options": plain(options), "differs": notes, "rows": rows}
    path = results.write(options.out, options.name, report, race_report.tables)
    race_report.plot(path.with_suffix(".png"), rows)


if __name__ == "__main__":
    main()

"""How the time of a step grows with the picture: seconds = a * pixels^p, fitted over several sizes.

    python -m bench.e2e.scaling_pixels [--sizes 256,512,1024,2048] [--contenders 'fastnst float32'] [--rounds 2]

Sizes take turns, each in a process of its own, and larger ones take fewer steps. p is the slope of the least-squares
line through the logarithms; the aim is at most 1.05. Prints the medians and p, and writes scaling.json, scaling.md and
scaling.png to bench/results.
"""

from __future__ import annotations

import math
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from bench.common import results
from bench.common.contest import Spread, in_turn
from bench.common.machine import machine
from bench.common.options import numbers, parser, plain
from bench.common.results import Report, Section, Table
from bench.e2e import contenders
from bench.e2e.contenders import Contender
from bench.e2e.race import make_inputs

AIM = 1.05


@dataclass(frozen=True)
class Fit:
    """seconds = factor * pixels^power; ``worst`` is the largest relative distance of a point from it."""

    factor: float
    power: float
    worst: float


def fit(seconds: Mapping[int, float]) -> Fit:
    """The least-squares line through log(pixels) and log(seconds); ``seconds`` by side."""
    if len(seconds) < 2:
        raise ValueError(f"a power needs two sizes or more, got {len(seconds)}")
    x = [2 * math.log(side) for side in seconds]
    y = [math.log(s) for s in seconds.values()]
    power, intercept = statistics.linear_regression(x, y)
    worst = max(abs(math.expm1(b - (intercept + power * a))) for a, b in zip(x, y, strict=True))
    return Fit(math.exp(intercept), power, worst)


def steps_at(side: int) -> int:
    """Steps of one process: a dozen counted ones for a small picture, two for a large one."""
    return contenders.WARM_UP + 1 + min(12, max(2, 4 * 1024**2 // side**2))


def measure(contender: Contender, folders: Mapping[int, Path], threads: int, rounds: int) -> dict[int, list[float]]:
    """Median seconds of a step at each side, a value for each round."""

    def run(side: int) -> float:
        out = folders[side] / "out.png"
        return Spread.of(contenders.run(contender, folders[side], "adam", steps_at(side), threads, out).seconds).median

    return in_turn({side: partial(run, side) for side in folders}, rounds, contender.name)


def tables(report: Report) -> list[Section]:
    fits = {name: Fit(**found) for name, found in report["fits"].items()}
    return [table(report["seconds"], fits)]


def table(seconds: Mapping[str, Mapping[str, Sequence[float]]], fits: Mapping[str, Fit]) -> Table:
    """A row for each contender; ``seconds`` by contender and side."""
    sides = list(next(iter(seconds.values())))
    rows = []
    for name, of_sides in seconds.items():
        verdict = "" if fits[name].power <= AIM else f" (above {AIM})"
        cells = (Spread.of(s).text() for s in of_sides.values())
        rows.append((name, f"{fits[name].power:.3f}{verdict}", *cells, f"{100 * fits[name].worst:.0f} %"))
    return Table(("contender", "p", *(f"{side}^2: s/step (min-max)" for side in sides), "off the line"), rows)


def plot(path: Path, seconds: Mapping[str, Mapping[int, Sequence[float]]], fits: Mapping[str, Fit]) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(4.5, 3.2), layout="constrained")
    for name, of_sides in seconds.items():
        pixels = [side**2 for side in of_sides]
        (points,) = axes.loglog(pixels, [statistics.median(s) for s in of_sides.values()], "o", markersize=4)
        line = [fits[name].factor * n ** fits[name].power for n in pixels]
        axes.loglog(pixels, line, color=points.get_color(), label=f"{name}: p = {fits[name].power:.3f}", linewidth=1)
    sides = list(next(iter(seconds.values())))
    axes.set_xticks([side**2 for side in sides], [f"{side}^2" for side in sides], minor=False)
    axes.set_xticks([], minor=True)
    axes.set_xlabel("pixels")
    axes.set_ylabel("seconds per step")
    axes.legend(fontsize=7)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> None:
    arguments = parser(__doc__, threads=True, out=True)
    arguments.add_argument("--sizes", default="256,512,1024,2048", help="sides of the square pictures")
    arguments.add_argument("--contenders", default="fastnst float32,fastnst auto", help="names or prefixes of names")
    arguments.add_argument("--rounds", type=int, default=2, help="processes at each size (default 2)")
    options = arguments.parse_args()
    torch.set_num_threads(options.threads)
    sides = numbers(options.sizes)
    if len(set(sides)) < 2:
        arguments.error(f"--sizes {options.sizes}: a power needs two sizes or more")
    entrants = contenders.named(options.contenders)
    for contender in entrants:
        contenders.install(contender)
    with tempfile.TemporaryDirectory() as name:
        folders = {side: Path(name, str(side)) for side in sides}
        for side, folder in folders.items():
            folder.mkdir()
            make_inputs(folder, side)
        seconds = {c.name: measure(c, folders, options.threads, options.rounds) for c in entrants}
    fits = {name: fit({side: statistics.median(s) for side, s in of.items()}) for name, of in seconds.items()}
    report: Report = {
        "machine": machine(),
        "options": plain(options),
        "seconds": seconds,
        "fits": {name: vars(found) for name, found in fits.items()},
    }
    path = results.write(options.out, "scaling", report, tables)
    plot(path.with_suffix(".png"), seconds, fits)


if __name__ == "__main__":
    main()

"""How the time of a step grows with the picture: seconds = a * pixels^p, fitted over several sizes.

    python bench/e2e/scaling_pixels.py [--sizes 256,512,1024,2048] [--contenders 'fastnst float32'] [--rounds 2]

Sizes take turns, each in a process of its own, and larger ones take fewer steps. p is the slope of the least-squares
line through the logarithms; 1.05 is the most that is aimed at. Prints the medians and p, and writes scaling.json,
scaling.md and scaling.png to bench/results.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import contenders
import torch
from contenders import Contender
from machine import RESULTS, machine, plain, write
from race import make_inputs

AIM = 1.05


@dataclass(frozen=True)
class Fit:
    """seconds = factor * pixels^power; ``worst`` is the largest relative distance of a point from it."""

    factor: float
    power: float
    worst: float


def fit(seconds: Mapping[int, float]) -> Fit:
    """The least-squares line through log(pixels) and log(seconds), of the seconds at each side."""
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
    medians: dict[int, list[float]] = {side: [] for side in folders}
    for number in range(rounds):
        for side, folder in folders.items():
            outcome = contenders.run(contender, folder, "adam", steps_at(side), threads, folder / "out.png")
            medians[side].append(statistics.median(outcome.seconds))
            print(f"  round {number + 1}: {contender.name} {side}^2", file=sys.stderr)
    return medians


def table(medians: Mapping[str, Mapping[int, Sequence[float]]], fits: Mapping[str, Fit]) -> str:
    sides = list(next(iter(medians.values())))
    lines = ["| contender | p | " + " | ".join(f"{side}^2: s/step (min-max)" for side in sides) + " | off the line |"]
    lines.append("|---" * (3 + len(sides)) + "|")
    for name, of_sides in medians.items():
        cells = [f"{statistics.median(s):.3g} ({min(s):.3g}-{max(s):.3g})" for s in of_sides.values()]
        verdict = "" if fits[name].power <= AIM else f" (above {AIM})"
        power, off = f"{fits[name].power:.3f}{verdict}", f"{100 * fits[name].worst:.0f} %"
        lines.append(" | ".join([f"| {name}", power, *cells, off]) + " |")
    return "\n".join(lines)


def plot(path: Path, medians: Mapping[str, Mapping[int, Sequence[float]]], fits: Mapping[str, Fit]) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(4.5, 3.2), layout="constrained")
    for name, of_sides in medians.items():
        pixels = [side**2 for side in of_sides]
        (points,) = axes.loglog(pixels, [statistics.median(s) for s in of_sides.values()], "o", markersize=4)
        line = [fits[name].factor * n ** fits[name].power for n in pixels]
        axes.loglog(pixels, line, color=points.get_color(), label=f"{name}: p = {fits[name].power:.3f}", linewidth=1)
    sides = list(next(iter(medians.values())))
    axes.set_xticks([side**2 for side in sides], [f"{side}^2" for side in sides], minor=False)
    axes.set_xticks([], minor=True)
    axes.set_xlabel("pixels")
    axes.set_ylabel("seconds per step")
    axes.legend(fontsize=7)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sizes", default="256,512,1024,2048", help="sides of the square pictures")
    parser.add_argument("--contenders", default="fastnst float32,fastnst auto", help="names, or their beginnings")
    parser.add_argument("--rounds", type=int, default=2, help="processes at each size (default 2)")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the files (default bench/results)")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    sides = [int(side) for side in options.sizes.split(",")]
    if len(set(sides)) < 2:
        parser.error(f"--sizes {options.sizes}: a power needs two sizes or more")
    entrants = contenders.named(options.contenders)
    for contender in entrants:
        contenders.install(contender)
    with tempfile.TemporaryDirectory() as name:
        folders = {side: Path(name, str(side)) for side in sides}
        for side, folder in folders.items():
            folder.mkdir()
            make_inputs(folder, side)
        medians = {c.name: measure(c, folders, options.threads, options.rounds) for c in entrants}
    fits = {name: fit({side: statistics.median(s) for side, s in of.items()}) for name, of in medians.items()}
    report: dict[str, object] = {
        "machine": machine(),
        "options": plain(options),
        "seconds": medians,
        "fits": {name: vars(found) for name, found in fits.items()},
    }
    print(write(options.out, "scaling", report, [table(medians, fits)]))
    plot(options.out / "scaling.png", medians, fits)


if __name__ == "__main__":
    main()

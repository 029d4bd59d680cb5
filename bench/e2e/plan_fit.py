"""Fit what ``fastnst.memory`` and ``fastnst.planning`` predict from to small runs, and write fastnst/assets/plan.json.

    python bench/e2e/plan_fit.py [--part memory|seconds] [--sizes 256,512,768] [--held-out 640]

Every run is a process of its own, on square crops of the shipped pictures, with the default losses. `memory` runs each
of CASES at each size and reads the most that the process ever held resident. Predicted is the greater of

    base (+ direct) + network + workspace + maps * M + images * I + history    and    loading

where network, workspace, M, I and history are counted (see fastnst/memory.py) and `loading` is the peak of a run so
small that reading the weights makes it. The others are fitted by least squares on relative errors to the runs above
that (`direct` for PyTorch's convolutions only), and the whole is then raised until no run of the fit is above its
prediction, and by MARGIN more. Sizes held out are predicted too, and take no part in the fit.

`seconds` times steps of each convolution and precision at the sizes TIMED and fits seconds = a * (pixels + p): p says
how the time of a step grows from a small picture on; a is each machine's own. It needs a quiet machine.

Prints measured against predicted; the part that is not run keeps the numbers it has.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import progress
import torch
from machine import headline, machine, run_apart

from fastnst import memory, vgg
from fastnst.choices import choose_precision
from fastnst.optimize import Step
from fastnst.settings import Settings
from fastnst.transfer import stylize

ASSETS = Path(memory.__file__).parent / "assets"
# The fewest steps with which all there is to hold is held: maps lie in an arena from the second evaluation on, and
# L-BFGS takes in a pair at each step but the first.
ADAM = {"optimizer": "adam", "steps": 2}
LBFGS = {"optimizer": "lbfgs", "steps": 3, "history": 2}
KINDS = [
    {"convolution": convolution, "precision": precision}
    for convolution, precision in itertools.product(("winograd", "direct"), ("float32", "bfloat16"))
]
CASES: list[dict[str, Any]] = [
    *({**kind, **ADAM} for kind in KINDS),
    *({**kind, **LBFGS} for kind in KINDS[:2]),
    {**KINDS[0], **ADAM, "average": 0.9},
    {**KINDS[0], **LBFGS, "history_dtype": "bfloat16"},
]
TIMED = (192, 320, 576)
SMALLEST = 64  # whose maps are nothing beside reading the weights
BEYOND = 1.05  # of the peak of reading the weights: runs below it say nothing of maps
MARGIN = 1.02  # so that a size not fitted is rarely above its prediction
NOT_COUNTED = 2  # steps at the beginning of a process


@dataclass(frozen=True)
class Row:
    """A run: its settings, and what was measured of it."""

    settings: Settings
    side: int
    peak: int
    seconds: list[float]


def run_here(given: str) -> None:
    """One run, in a process for it alone; prints what was measured."""
    stamps: list[float] = []

    def watch(step: Step) -> None:
        stamps.append(time.perf_counter())

    pictures = (ASSETS / "demo_photo.jpg", ASSETS / "demo_painting.jpg")
    stylize(*pictures, settings=Settings.of(**json.loads(given)), callback=watch)
    seconds = [after - before for before, after in itertools.pairwise(stamps)]
    print(json.dumps({"peak": progress.peak_memory(), "seconds": seconds}))


def measure(case: Mapping[str, Any], side: int, threads: int) -> Row:
    """A run of ``case`` at a size. Exits if it fails."""
    given = {**case, "crop": side, "scales": 1, "device": "cpu"}
    row = Row(Settings.of(**given), side, **run_apart(__file__, given, threads))
    print(f"  {side}^2 {named(case)}: {row.peak / 1e6:.0f} MB", file=sys.stderr)
    return row


def named(case: Mapping[str, Any]) -> str:
    return ", ".join(f"{value}" if isinstance(value, str) else f"{name} {value}" for name, value in case.items())


def terms(row: Row) -> memory.Terms:
    chain = vgg.chain_to("vgg19", row.settings.layer_names())
    dtype = choose_precision(row.settings.precision, torch.device("cpu"))
    return memory.terms(chain, row.side, row.side, dtype, row.settings)


def fit_memory(rows: Sequence[Row]) -> dict[str, float]:
    """``base`` and ``direct`` in bytes and the factors ``maps`` and ``images``."""
    counted = [terms(row) for row in rows]
    left = [[1.0, of.direct, of.maps, of.images] for of in counted]
    right = [row.peak - of.exact for row, of in zip(rows, counted, strict=True)]
    peaks = torch.tensor([row.peak for row in rows], dtype=torch.float64)
    a = torch.tensor(left, dtype=torch.float64) / peaks[:, None]
    scale = a.abs().amax(0)
    b = torch.tensor(right, dtype=torch.float64) / peaks
    found = torch.linalg.lstsq(a / scale, b[:, None]).solution[:, 0] / scale
    most = max(y / float(torch.tensor(x, dtype=torch.float64) @ found) for x, y in zip(left, right, strict=True))
    base, direct, maps, images = (found * max(most, 1.0) * MARGIN).tolist()
    return {"base": round(base), "direct": round(direct), "maps": round(maps, 4), "images": round(images, 4)}


def fit_seconds(seconds: Mapping[int, float]) -> float:
    """The p of seconds = a * (pixels + p), by least squares on relative errors; never below zero."""
    a = torch.tensor([[side**2 / s, 1 / s] for side, s in seconds.items()], dtype=torch.float64)
    slope, rest = torch.linalg.lstsq(a, torch.ones(len(seconds), 1, dtype=torch.float64)).solution[:, 0].tolist()
    return max(0.0, float(rest / slope))


def memory_table(rows: Sequence[Row], model: Mapping[str, float], held_out: Sequence[int]) -> str:
    lines = ["| side | run | measured MB | predicted MB | error |", "|---|---|---|---|---|"]
    for row in rows:
        said = terms(row).bytes(model)
        settings = row.settings
        run = [settings.convolution, settings.precision, settings.optimizer]
        run += [f"average {settings.average}"] if settings.average else []
        run += [f"history in {settings.history_dtype}"] if settings.history_dtype != "auto" else []
        side = f"{row.side}{' (held out)' if row.side in held_out else ''}"
        lines.append(
            f"| {side} | {', '.join(run)} | {row.peak / 1e6:.0f} | {said / 1e6:.0f} | {said / row.peak - 1:+.1%} |"
        )
    return "\n".join(lines)


def seconds_table(timed: Mapping[str, Mapping[int, float]], pixels: Mapping[str, float]) -> str:
    lines = ["| run | p | " + " | ".join(f"{side}^2: s/step (predicted from the least)" for side in TIMED) + " |"]
    lines.append("|---" * (2 + len(TIMED)) + "|")
    for name, seconds in timed.items():
        least, p = min(seconds), pixels[name]
        said = {side: seconds[least] * (side**2 + p) / (least**2 + p) for side in seconds}
        cells = [f"{s:.3g} ({said[side]:.3g}, {said[side] / s - 1:+.0%})" for side, s in seconds.items()]
        lines.append(" | ".join([f"| {name}", f"{p:.0f}", *cells]) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--part", choices=("memory", "seconds", "both"), default="both")
    parser.add_argument("--sizes", default="256,512,768", help="sides of the runs that memory is fitted to")
    parser.add_argument("--held-out", default="640", help="sides that are predicted only")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--out", type=Path, default=ASSETS / "plan.json", help="the file written")
    parser.add_argument("--run", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        run_here(options.run)
        return
    torch.set_num_threads(options.threads)
    model: dict[str, Any] = {"made by": "bench/e2e/plan_fit.py", "on": headline(machine())}
    tables = []
    if options.part != "seconds":
        held_out = [int(side) for side in options.held_out.split(",") if side]
        sides = [int(side) for side in options.sizes.split(",")]
        rows = [measure(case, side, options.threads) for side in (*sides, *held_out) for case in CASES]
        loading = measure(CASES[0], SMALLEST, options.threads).peak
        larger = [row for row in rows if row.side not in held_out and row.peak > BEYOND * loading]
        model["memory"] = {"loading": loading, **fit_memory(larger)}
        tables.append(memory_table(rows, model["memory"], held_out))
    if options.part != "memory":
        timed = {}
        for kind in KINDS:
            case = {**kind, "optimizer": "adam", "steps": NOT_COUNTED + 3}
            rows = [measure(case, side, options.threads) for side in TIMED]
            name = f"{kind['convolution']} {kind['precision']}"
            timed[name] = {row.side: statistics.median(row.seconds[NOT_COUNTED - 1 :]) for row in rows}
        model["pixels"] = {name: round(fit_seconds(seconds)) for name, seconds in timed.items()}
        tables.append(seconds_table(timed, model["pixels"]))
    kept = json.loads(options.out.read_text()) if options.out.exists() else {}
    options.out.write_text(json.dumps({**kept, **model}, indent=1) + "\n")
    print("\n\n".join(tables))


if __name__ == "__main__":
    main()

"""Fit the constants of ``fastnst.run.memory_model`` and ``fastnst.run.planning`` to small runs.

    python -m bench.e2e.plan_fit [--part memory|seconds] [--sizes 256,512,768] [--held-out 640]

Writes fastnst/assets/plan.json. Every run is a process of its own, on square crops of the shipped pictures, with the
default losses. `memory` runs each of CASES at each size and reads its peak resident memory. The prediction is the
greater of

    base (+ direct) + network + workspace + maps * M + images * I + history    and    loading

where network, workspace, M, I and history are counted (see fastnst/run/memory_model.py) and `loading` is the peak of a
run so small that reading the weights determines it. The other constants are fitted by least squares on relative errors
to the runs above `loading` (`direct` to those with PyTorch's convolutions), and then scaled until no fitted run is
above its prediction, and by MARGIN more. Held-out sizes are predicted but not fitted.

`seconds` times steps of each convolution and precision at the sizes TIMED and fits seconds = a * (pixels + p): p says
how the time of a step grows from a small picture on; a differs from machine to machine. It needs a quiet machine.

Prints measured against predicted. A part that is not run keeps its constants, which must be of the same machine.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from bench.common.machine import ROOT, headline, machine
from bench.common.options import numbers, parser
from bench.common.pictures import PAINTING, PHOTO
from bench.common.results import Table
from bench.common.worker import run_module
from bench.e2e.progress import peak_memory
from fastnst.config.resolve import choose_precision
from fastnst.config.settings import Settings
from fastnst.network import vgg
from fastnst.optim.progress import Step
from fastnst.run.memory_model import MemoryTerms, Workload
from fastnst.run.stylizer import stylize

# The fewest steps that allocate everything: maps are in an arena from the second evaluation on, and L-BFGS adds a pair
# at each step but the first.
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
SMALLEST = 64  # its maps are small beside reading the weights
BEYOND = 1.05  # of the peak of reading the weights: lower peaks do not depend on maps
MARGIN = 1.02  # so that the peak of a size not fitted is rarely above its prediction
NOT_COUNTED = 2  # steps at the beginning of a process


@dataclass(frozen=True)
class Row:
    """A run: its settings, and what was measured of it."""

    settings: Settings
    side: int
    peak: int
    seconds: list[float]


def run_here(given: Mapping[str, Any]) -> None:
    """One run, in a process of its own; prints what was measured."""
    stamps: list[float] = []

    def stamp(step: Step) -> None:
        stamps.append(time.perf_counter())

    stylize(PHOTO, PAINTING, settings=Settings.from_preset(**given), callback=stamp)
    seconds = [after - before for before, after in itertools.pairwise(stamps)]
    print(json.dumps({"peak": peak_memory(), "seconds": seconds}))


def measure(case: Mapping[str, Any], side: int, threads: int) -> Row:
    """A run of ``case`` at a size. Exits if it fails."""
    given = {**case, "crop": side, "scales": 1, "device": "cpu"}
    row = Row(Settings.from_preset(**given), side, **run_module("bench.e2e.plan_fit", given, threads))
    print(f"  {side}^2 {named(case)}: {row.peak / 1e6:.0f} MB", file=sys.stderr)
    return row


def named(case: Mapping[str, Any]) -> str:
    return ", ".join(f"{value}" if isinstance(value, str) else f"{name} {value}" for name, value in case.items())


def terms(row: Row) -> MemoryTerms:
    chain = vgg.chain_to("vgg19", row.settings.layer_names())
    dtype = choose_precision(row.settings.precision, torch.device("cpu"))
    return Workload(chain, row.side, row.side, dtype, row.settings).terms()


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
    factor, rest = torch.linalg.lstsq(a, torch.ones(len(seconds), 1, dtype=torch.float64)).solution[:, 0].tolist()
    return max(0.0, float(rest / factor))


def memory_table(rows: Sequence[Row], model: Mapping[str, float], held_out: Sequence[int]) -> Table:
    lines = []
    for row in rows:
        predicted, settings = terms(row).bytes(model), row.settings
        run = [settings.convolution, settings.precision, settings.optimizer]
        run += [f"average {settings.average}"] if settings.average else []
        run += [f"history in {settings.history_dtype}"] if settings.history_dtype != "auto" else []
        side = f"{row.side}{' (held out)' if row.side in held_out else ''}"
        sizes = (f"{row.peak / 1e6:.0f}", f"{predicted / 1e6:.0f}", f"{predicted / row.peak - 1:+.1%}")
        lines.append((side, ", ".join(run), *sizes))
    return Table(("side", "run", "measured MB", "predicted MB", "error"), lines, keys=2)


def seconds_table(timed: Mapping[str, Mapping[int, float]], pixels: Mapping[str, float]) -> Table:
    rows = []
    for name, seconds in timed.items():
        least, p = min(seconds), pixels[name]
        predicted = {side: seconds[least] * (side**2 + p) / (least**2 + p) for side in seconds}
        cells = (f"{s:.3g} ({predicted[side]:.3g}, {predicted[side] / s - 1:+.0%})" for side, s in seconds.items())
        rows.append((name, f"{p:.0f}", *cells))
    return Table(("run", "p", *(f"{side}^2: s/step (predicted from the smallest)" for side in TIMED)), rows)


def memory_part(options: argparse.Namespace) -> tuple[dict[str, float], Table]:
    """The constants of memory, and predictions beside measurements."""
    held_out = numbers(options.held_out)
    sides = (*numbers(options.sizes), *held_out)
    rows = [measure(case, side, options.threads) for side in sides for case in CASES]
    loading = measure(CASES[0], SMALLEST, options.threads).peak
    larger = [row for row in rows if row.side not in held_out and row.peak > BEYOND * loading]
    model = {"loading": loading, **fit_memory(larger)}
    return model, memory_table(rows, model, held_out)


def seconds_part(options: argparse.Namespace) -> tuple[dict[str, int], Table]:
    """The constants of time, and predictions beside measurements."""
    timed = {}
    for kind in KINDS:
        case = {**kind, "optimizer": "adam", "steps": NOT_COUNTED + 3}
        rows = [measure(case, side, options.threads) for side in TIMED]
        name = f"{kind['convolution']} {kind['precision']}"
        timed[name] = {row.side: statistics.median(row.seconds[NOT_COUNTED - 1 :]) for row in rows}
    pixels = {name: round(fit_seconds(seconds)) for name, seconds in timed.items()}
    return pixels, seconds_table(timed, pixels)


def kept_part(path: Path, part: str) -> dict[str, Any]:
    """The file's constants that ``part`` leaves in place. Exits where they are of another machine."""
    if part == "both" or not path.exists():
        return {}
    kept: dict[str, Any] = json.loads(path.read_text())
    facts = machine()
    if not (kept["on"].startswith(f"{facts['cpu']}") and f"{facts['kernels']} kernels" in kept["on"]):
        sys.exit(f"{path} is of {kept['on']}: run --part both, or name another file with --out")
    return kept


def main() -> None:
    arguments = parser(__doc__, threads=True)
    arguments.add_argument("--part", choices=("memory", "seconds", "both"), default="both")
    arguments.add_argument("--sizes", default="256,512,768", help="sides of the runs that memory is fitted to")
    arguments.add_argument("--held-out", default="640", help="sides that are only predicted")
    arguments.add_argument(
        "--out", type=Path, default=ROOT / "fastnst" / "assets" / "plan.json", help="the file written"
    )
    arguments.add_argument("--run", type=json.loads, help=argparse.SUPPRESS)
    options = arguments.parse_args()
    if options.run:
        run_here(options.run)
        return
    torch.set_num_threads(options.threads)
    kept = kept_part(options.out, options.part)
    model: dict[str, Any] = {"made by": "bench/e2e/plan_fit.py", "on": headline(machine())}
    tables = []
    if options.part != "seconds":
        model["memory"], table = memory_part(options)
        tables.append(table)
    if options.part != "memory":
        model["pixels"], table = seconds_part(options)
        tables.append(table)
    options.out.write_text(json.dumps({**kept, **model}, indent=1) + "\n")
    print("\n\n".join(map(str, tables)))


if __name__ == "__main__":
    main()

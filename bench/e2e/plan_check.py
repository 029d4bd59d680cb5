"""What the planner predicts for a run, beside what the run takes: seconds and peak memory.

    python -m bench.e2e.plan_check [--threads 2]

Each of RUNS is planned here, then run in a process of its own, on the shipped pictures. The plan's interval of time
should contain the seconds, and its memory should be at least the peak resident memory and at most SPARE above it; each
row says whether. A run without a picture is an error.

Prints the table and writes plan_check.json and plan_check.md to bench/results.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch

from bench.common import results
from bench.common.machine import machine
from bench.common.options import parser, plain
from bench.common.pictures import PAINTING, PHOTO
from bench.common.results import Report, Section, Table
from bench.common.worker import run_module
from bench.e2e.progress import peak_memory
from fastnst import Settings, plan, stylize

RUNS: Mapping[str, Mapping[str, Any]] = {
    "320, as it comes": {"size": 320},
    "448, Adam, one scale": {"size": 448, "scales": 1, "optimizer": "adam", "steps": 40},
    "512, few steps, three scales": {"size": 512, "scales": 3, "steps": 15},
}
SPARE = 0.15  # of the memory


@dataclass(frozen=True)
class Row:
    """A run: the planned least, expected and most seconds and bytes, and the measured ones."""

    run: str
    planned: tuple[float, float, float]
    seconds: float
    planned_bytes: int
    peak: int

    @property
    def in_time(self) -> bool:
        return self.planned[0] <= self.seconds <= self.planned[2]

    @property
    def in_memory(self) -> bool:
        return self.peak <= self.planned_bytes <= self.peak * (1 + SPARE)

    def cells(self) -> tuple[str, ...]:
        least, expected, most = self.planned
        return (
            self.run,
            f"{expected:.1f} ({least:.1f}-{most:.1f})",
            f"{self.seconds:.1f}",
            f"{expected / self.seconds - 1:+.0%}",
            _yes(self.in_time),
            f"{self.planned_bytes / 1e6:.0f}",
            f"{self.peak / 1e6:.0f}",
            f"{self.planned_bytes / self.peak - 1:+.0%}",
            _yes(self.in_memory),
        )


def _yes(held: bool) -> str:
    return "yes" if held else "no"


def run_here(given: Mapping[str, Any]) -> None:
    """One run, in a process of its own; prints what was measured."""
    result = stylize(PHOTO, PAINTING, settings=Settings.from_preset(**given))
    if not (result.stopped in (None, "stalled") and bool(torch.isfinite(result.image).all())):
        sys.exit(f"no picture: stopped by {result.stopped}, or values that are not finite")
    print(json.dumps({"seconds": result.seconds, "peak": peak_memory()}))


def measure(name: str, changes: Mapping[str, Any], threads: int) -> Row:
    """Plan a run, then make it. Exits if it fails."""
    given = {**changes, "device": "cpu"}
    planned = plan(PHOTO, PAINTING, settings=Settings.from_preset(**given))
    measured = run_module("bench.e2e.plan_check", given, threads)
    row = Row(name, planned.seconds, planned_bytes=planned.bytes, **measured)
    print(f"  {name}: {row.seconds:.1f} s", file=sys.stderr)
    return row


def tables(report: Report) -> list[Section]:
    rows = [Row(**{name: value for name, value in row.items() if name != "settings"}) for row in report["rows"]]
    time = ("planned s (least-most)", "measured s", "off", "within")
    return [Table(("run", *time, "planned MB", "peak MB", "off", "within"), [row.cells() for row in rows])]


def main() -> None:
    arguments = parser(__doc__, threads=True, out=True)
    arguments.add_argument("--shrink", type=float, default=1.0, help="sizes relative to those of the runs (default 1)")
    arguments.add_argument("--run", type=json.loads, help=argparse.SUPPRESS)
    options = arguments.parse_args()
    if options.run:
        run_here(options.run)
        return
    torch.set_num_threads(options.threads)
    sized = {name: {**of, "size": math.ceil(of["size"] * options.shrink)} for name, of in RUNS.items()}
    rows = [measure(name, changes, options.threads) for name, changes in sized.items()]
    report: Report = {
        "machine": machine(),
        "options": plain(options),
        "rows": [{**asdict(row), "settings": sized[row.run]} for row in rows],
    }
    results.write(options.out, "plan_check", report, tables)


if __name__ == "__main__":
    main()

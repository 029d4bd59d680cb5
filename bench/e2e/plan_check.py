"""What the planner says before a run, beside what the run then takes: seconds and the most memory held.

    python bench/e2e/plan_check.py [--threads 2]

Each of RUNS is planned here, then made whole in a process of its own, on the shipped pictures. The plan's interval of
time should hold the seconds, and its memory should be no less than the peak resident, nor more than SPARE above it;
each row says whether. A run that leaves no picture is an error.

Prints the table and writes plan_check.json and plan_check.md to bench/results.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import progress
import torch
from machine import RESULTS, ROOT, machine, plain, run_apart, write

from fastnst import Settings, plan, stylize

RUNS: Mapping[str, Mapping[str, Any]] = {
    "320, as it comes": {"size": 320},
    "448, Adam, one scale": {"size": 448, "scales": 1, "optimizer": "adam", "steps": 40},
    "512, few steps, three scales": {"size": 512, "scales": 3, "steps": 15},
}
PICTURES = tuple(ROOT / "fastnst" / "assets" / name for name in ("demo_photo.jpg", "demo_painting.jpg"))
SPARE = 0.15  # of the memory


@dataclass(frozen=True)
class Row:
    """A run: seconds at least, expected and at most and bytes as planned, and as measured."""

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


def run_here(given: str) -> None:
    """One run, in a process for it alone; prints what was measured."""
    result = stylize(*PICTURES, settings=Settings.of(**json.loads(given)))
    if not (result.stopped in (None, "stalled") and bool(torch.isfinite(result.image).all())):
        sys.exit(f"no picture: stopped by {result.stopped}, or values that are not finite")
    print(json.dumps({"seconds": result.seconds, "peak": progress.peak_memory()}))


def measure(name: str, changes: Mapping[str, Any], threads: int) -> Row:
    """Plan a run, then make it. Exits if it fails."""
    given = {**changes, "device": "cpu"}
    planned = plan(*PICTURES, settings=Settings.of(**given))
    row = Row(name, planned.seconds, planned_bytes=planned.bytes, **run_apart(__file__, given, threads))
    print(f"  {name}: {row.seconds:.1f} s", file=sys.stderr)
    return row


def table(rows: Sequence[Row]) -> str:
    lines = [
        "| run | planned s (least-most) | measured s | off | within | planned MB | peak MB | off | within |",
        "|---" * 9 + "|",
    ]
    for row in rows:
        least, expected, most = row.planned
        lines.append(
            f"| {row.run} | {expected:.1f} ({least:.1f}-{most:.1f}) | {row.seconds:.1f} "
            f"| {expected / row.seconds - 1:+.0%} | {_yes(row.in_time)} "
            f"| {row.planned_bytes / 1e6:.0f} | {row.peak / 1e6:.0f} "
            f"| {row.planned_bytes / row.peak - 1:+.0%} | {_yes(row.in_memory)} |"
        )
    return "\n".join(lines)


def _yes(held: bool) -> str:
    return "yes" if held else "no"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--shrink", type=float, default=1.0, help="sizes relative to those of the runs (default 1)")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results (default bench/results)")
    parser.add_argument("--run", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        run_here(options.run)
        return
    torch.set_num_threads(options.threads)
    sized = {name: {**of, "size": math.ceil(of["size"] * options.shrink)} for name, of in RUNS.items()}
    rows = [measure(name, changes, options.threads) for name, changes in sized.items()]
    report: dict[str, object] = {
        "machine": machine(),
        "options": plain(options),
        "rows": [{**asdict(row), "settings": sized[row.run]} for row in rows],
    }
    print(write(options.out, "plan_check", report, [table(rows)]))


if __name__ == "__main__":
    main()

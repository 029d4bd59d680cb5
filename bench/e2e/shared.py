"""Steps on a machine that is not ours alone: beside busy processes, each of which would keep one core to itself.

    python -m bench.e2e.shared [--size 128] [--steps 22] [--rounds 3] [--busy 0,1,2] [--threads 2]

A step is that of race.py, with Adam. Contenders and numbers of busy processes take turns. "waits" is fastnst as its
command line runs it, where threads that wait sleep (OMP_WAIT_POLICY=passive); the others have OpenMP's default, by
which they spin first. A run is the mean of its steps, because under load single steps differ. Prints the seconds of a
step, the ratio to the same contender alone, and to neural-style under the same load; writes shared.json and shared.md
to bench/results. With n busy processes on m cores, a fair share is m / (m + n) of the machine: steps take 1.5 times as
long with one, and 2 times with two, on two cores.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import torch

from bench.common import results
from bench.common.contest import Spread, in_turn, ratios
from bench.common.machine import machine
from bench.common.options import numbers, parser, plain
from bench.common.results import Report, Section, Table
from bench.e2e import contenders
from bench.e2e.contenders import REFERENCE, Contender
from bench.e2e.race import check, evaluate, make_inputs

NAMES = (REFERENCE, "fastnst, spins", "fastnst, waits")
POLICIES: dict[str, dict[str, str]] = {REFERENCE: {}, NAMES[1]: {}, NAMES[2]: {"OMP_WAIT_POLICY": "passive"}}
LIMITS = {1: 1.5, 2: 2.2}  # of the time alone, by busy processes, on two cores


@contextmanager
def busy_processes(count: int) -> Iterator[None]:
    """Processes that compute until the context ends."""
    with ExitStack() as stack:
        for _ in range(count):
            process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
            stack.callback(process.wait)
            stack.callback(process.kill)
        yield


def contender_of(name: str) -> Contender:
    return contenders.named(REFERENCE if name == REFERENCE else "fastnst float32")[0]


def measure(folder: Path, options: argparse.Namespace) -> dict[str, dict[int, list[float]]]:
    """Mean seconds of a step of each run, by contender and number of busy processes."""
    count = itertools.count()
    first: dict[str, float] = {}
    pictures: dict[str, str] = {}

    def enter(name: str, busy: int) -> float:
        out = folder / f"{next(count)}.png"
        with busy_processes(busy):
            outcome = contenders.run(
                contender_of(name), folder, "adam", options.steps, options.threads, out, POLICIES[name]
            )
        first[name], pictures[name] = outcome.first_loss, str(out)
        return statistics.mean(outcome.seconds)

    cases = list(itertools.product(NAMES, numbers(options.busy)))
    found = in_turn({case: partial(enter, *case) for case in cases}, options.rounds, f"{options.size}^2")
    start, *finals = evaluate(folder, [str(folder / "content.png"), *pictures.values()])
    check("shared", first, dict(zip(pictures, finals, strict=True)), start)
    return {name: {busy: found[name, busy] for busy in numbers(options.busy)} for name in NAMES}


def tables(report: Report) -> list[Section]:
    seconds = report["seconds"]
    rows: list[tuple[str, ...]] = []
    for name, by_load in seconds.items():
        alone = next(iter(by_load.values()))
        for busy, values in by_load.items():
            limit = str(LIMITS.get(int(busy), "")) if name == NAMES[2] else ""
            rows.append(
                (
                    name,
                    busy,
                    Spread.of(values).text(".3g"),
                    Spread.of(ratios(values, alone)).text(".2f"),
                    limit,
                    Spread.of(ratios(values, seconds[REFERENCE][busy])).text(".2f"),
                )
            )
    head = ("contender", "busy processes", "s/step (min-max)", "relative to alone (min-max)", "at most")
    return [Table((*head, f"relative to {REFERENCE} (min-max)"), rows, keys=2)]


def main() -> None:
    arguments = parser(__doc__, threads=True, out=True)
    arguments.add_argument("--size", type=int, default=128, help="side of the square pictures (default 128)")
    arguments.add_argument("--steps", type=int, default=22, help="steps of a run; the first 3 are not counted")
    arguments.add_argument("--rounds", type=int, default=3, help="default 3")
    arguments.add_argument("--busy", default="0,1,2", help="numbers of busy processes; the first is the reference")
    options = arguments.parse_args()
    torch.set_num_threads(options.threads)
    for name in NAMES:
        contenders.install(contender_of(name))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_inputs(folder, options.size)
        seconds = measure(folder, options)
    text = {name: {str(busy): values for busy, values in by_load.items()} for name, by_load in seconds.items()}
    report: Report = {"machine": machine(), "options": plain(options), "seconds": text}
    results.write(options.out, "shared", report, tables)


if __name__ == "__main__":
    main()

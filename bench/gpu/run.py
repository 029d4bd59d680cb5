"""Every op and the whole loop on a GPU, checked first and timed second, beside the peaks of the card.

    python -m bench.gpu.run [--out bench/gpu/results] [--quick] [--layout channels_last] [--minutes 9.5]
                            [--precisions bfloat16,float32] [--sides 512,1024] [--layers relu1_1] [--no-compile]

Measures the card's peaks, then the loop (eager, fused, fused in one CUDA graph), then each op forward and backward at
the five style layers of pictures of 512^2, 1024^2 and 2048^2 in float32 (3xTF32 in fastnst), tf32, half and bfloat16,
against eager PyTorch, torch.compile and cuBLAS. A wrong result is refused and has no time. Contenders take turns, the
L2 cache is flushed between them, and medians are printed with minimum and maximum. Problems for which the time is too
short are listed. The milliseconds per step are printed last. Writes JSON, tables and a plot, named after the card, to
the folder of results.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast

import torch

from bench.common import results
from bench.common.contest import Clock, Timer, reason
from bench.common.machine import ROOT, device_machine, slug
from bench.common.options import numbers, parser, some_of
from bench.gpu import report
from bench.gpu.ceilings import measure_card
from bench.gpu.measure import Row, measure
from bench.gpu.problems import Problem, matmul_precision
from bench.gpu.roofline import CARDS, LAYERS, PRECISIONS, Card, named
from bench.gpu.tasks import IMAGE_OPS, TASKS, Task
from bench.gpu.timing import Budget, EventTimer
from bench.gpu.whole_loop import LoopRow, race

# The loop comes first; no size of it starts after this share of the time.
LOOP_SHARE = 0.4
LAYOUTS = {"channels_last": torch.channels_last, "contiguous": torch.contiguous_format}


@dataclass(frozen=True)
class Plan:
    """What to measure, in order; where time runs short, the last problems are left out."""

    sides: Sequence[int] = (1024, 512, 2048)
    precisions: Sequence[str] = PRECISIONS
    layers: Sequence[str] = tuple(LAYERS)
    ops: Sequence[str] = tuple(TASKS)
    loop_sides: Sequence[int] = (512, 1024, 2048)
    repeats: int = 15
    steps: int = 12
    layout: torch.memory_format = torch.channels_last
    tasks: dict[str, Callable[[Problem], Task]] = field(default_factory=lambda: dict(TASKS))
    compiles: bool = True  # whether torch.compile is measured

    def problems(self, device: torch.device) -> Iterator[tuple[str, Problem]]:
        for side in self.sides:
            for precision in self.precisions:
                for op in self.ops:
                    for layer in ("image",) if op in IMAGE_OPS else self.layers:
                        yield op, Problem(layer, side, precision, self.layout, device)


QUICK = Plan(sides=(512,), loop_sides=(512,), repeats=5, steps=5)


def measure_ops(plan: Plan, device: torch.device, timer: Timer, card: Card, budget: Budget) -> Iterator[Row]:
    for op, problem in plan.problems(device):
        if not budget.allows(f"{op} {problem}"):
            continue
        try:
            with matmul_precision(problem.precision):
                task = plan.tasks[op](problem)
                if not plan.compiles:
                    task = replace(task, contenders=tuple(c for c in task.contenders if c.name != "compile"))
                yield from measure(task, timer, card, plan.repeats)
        except RuntimeError as error:  # such as a card too small for the largest size
            key = (op, problem.layer, problem.side, problem.precision, "all")
            yield Row(*key, None, reason(error), None, None, None, None)


def measure_loops(plan: Plan, device: torch.device, budget: Budget) -> Iterator[LoopRow]:
    for side in plan.loop_sides:
        for precision in plan.precisions:
            if not budget.allows(f"loop {side}^2 {precision}", LOOP_SHARE):
                continue
            try:
                yield from race(side, precision, device, steps=plan.steps)
            except RuntimeError as error:
                yield LoopRow(side, precision, "all", None, reason(error), None, None)


def logged(rows: Iterable[Row | LoopRow], log: Callable[[str], None]) -> list[Row | LoopRow]:
    """The rows as a list; each is logged when it is measured."""
    found = []
    for row in rows:
        name = row.op + " " + row.layer if isinstance(row, Row) else "loop"
        time = f"{1e3 * row.seconds.median:.3f} ms" if row.seconds else f"refused: {row.refused}"
        log(f"{name} {row.side}^2 {row.precision} {row.contender}: {time}")
        found.append(row)
    return found


def run(
    plan: Plan,
    device: torch.device,
    timer: Timer,
    card: Card,
    budget: Budget,
    *,
    out: Path,
    log: Callable[[str], None] = lambda line: print(line, file=sys.stderr, flush=True),
) -> Path:
    """Measure, print the tables, write the files; returns the path of the JSON file."""
    loops = logged(measure_loops(plan, device, budget), log)
    rows = logged(measure_ops(plan, device, timer, card, budget), log)
    facts = device_machine(device) | {"card": card.name}
    found = report.report(facts, (card, named(card.name)), rows, loops, budget.dropped)
    path = results.write(out, slug(facts), found, report.tables)
    if not report.plot(path.with_suffix(".png"), card.name, rows):
        print("\nno plot: it needs matplotlib and at least one time (pip install 'fastnst[plot]')", file=sys.stderr)
    return path


def options_parser() -> argparse.ArgumentParser:
    arguments = parser(__doc__)
    arguments.add_argument("--out", type=Path, default=ROOT / "bench" / "gpu" / "results", help="folder of the results")
    arguments.add_argument("--quick", action="store_true", help="512^2 only, few repeats")
    arguments.add_argument(
        "--layout", default="channels_last", choices=LAYOUTS, help="of features (default: the loop's)"
    )
    arguments.add_argument("--minutes", type=float, default=9.5, help="limit of the run's time (default 9.5)")
    arguments.add_argument("--precisions", type=some_of(PRECISIONS), help=f"default: {','.join(PRECISIONS)}")
    arguments.add_argument("--layers", type=some_of(LAYERS), help=f"default: {','.join(LAYERS)}")
    arguments.add_argument("--sides", type=numbers, help="sides of the pictures, in this order")
    arguments.add_argument(
        "--no-compile", action="store_true", help="leave out torch.compile, which takes long to start"
    )
    arguments.add_argument(
        "--device", choices=("cuda", "cpu"), default="cuda", help="cpu: a rehearsal, by the host's clock"
    )
    return arguments


def plan_of(options: argparse.Namespace) -> Plan:
    plan = replace(QUICK if options.quick else Plan(), layout=LAYOUTS[options.layout], compiles=not options.no_compile)
    if options.precisions:
        plan = replace(plan, precisions=options.precisions)
    if options.layers:
        plan = replace(plan, layers=options.layers)
    if options.sides:
        plan = replace(plan, sides=options.sides, loop_sides=options.sides)
    return plan


def main() -> None:
    options = options_parser().parse_args()
    budget = Budget(60 * options.minutes)
    plan, timer = plan_of(options), cast(Timer, Clock())
    if options.device == "cpu":
        device, card = torch.device("cpu"), replace(CARDS[0], name="rehearsal on the CPU")
    elif not torch.cuda.is_available():
        sys.exit("bench.gpu.run needs a CUDA device and a CUDA build of torch; bench.gpu.roofline runs anywhere")
    else:
        device = torch.device("cuda", torch.cuda.current_device())
        timer = EventTimer(device)
        card = measure_card(torch.cuda.get_device_name(device), device, timer)
    if plan.compiles:
        torch._dynamo.config.recompile_limit = 64  # one function is compiled for every dtype and precision
    path = run(plan, device, timer, card, budget, out=options.out)
    print(f"{path}\n\n{report.loop_table(json.loads(path.read_text())['loop'])}")


if __name__ == "__main__":
    main()

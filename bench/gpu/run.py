"""Every op and the whole loop on a GPU, checked first and timed second, beside what the card can do.

    python bench/gpu/run.py [--out bench/gpu/results] [--quick] [--layout channels_last] [--minutes 9.5]

Measures the card's ceilings, then the loop (eager, fused, fused in one CUDA graph), then each op forward and backward
at the five style layers of pictures of 512^2, 1024^2 and 2048^2 in float32 (3xTF32 in fastnst), tf32, half and
bfloat16, against eager PyTorch, torch.compile and cuBLAS. A result that is not right is refused and has no time.
Contenders take turns, the L2 cache is flushed between them, and medians are printed with least and most. What does
not fit into the time is named. Writes a JSON file and a plot for the card into the folder of results.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import report
import torch
from ceilings import measure_card
from measure import Row, first_line, measure
from problems import Problem, multiplied
from roofline import LAYERS, PRECISIONS, Card, named
from tasks import IMAGE_OPS, TASKS, Task
from timing import Budget, EventTimer, Timer
from whole_loop import LoopRow, race

HERE = Path(__file__).resolve().parent
# The loop comes first; no size of it starts after this share of the time.
LOOP_SHARE = 0.4
LAYOUTS = {"channels_last": torch.channels_last, "contiguous": torch.contiguous_format}


@dataclass(frozen=True)
class Plan:
    """What to measure; the order is the order in which things are left out when time runs short, from the end."""

    sides: Sequence[int] = (1024, 512, 2048)
    precisions: Sequence[str] = PRECISIONS
    layers: Sequence[str] = tuple(LAYERS)
    ops: Sequence[str] = tuple(TASKS)
    loop_sides: Sequence[int] = (512, 1024, 2048)
    repeats: int = 15
    steps: int = 12
    layout: torch.memory_format = torch.channels_last
    tasks: dict[str, Callable[[Problem], Task]] = field(default_factory=lambda: dict(TASKS))

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
            with multiplied(problem.precision):
                yield from measure(plan.tasks[op](problem), timer, card, plan.repeats)
        except RuntimeError as error:  # such as a card too small for the largest size
            place = (op, problem.layer, problem.side, problem.precision, "all")
            yield Row(*place, None, first_line(error), None, None, None, None)


def measure_loops(plan: Plan, device: torch.device, budget: Budget) -> Iterator[LoopRow]:
    for side in plan.loop_sides:
        for precision in plan.precisions:
            if not budget.allows(f"loop {side}^2 {precision}", LOOP_SHARE):
                continue
            try:
                yield from race(side, precision, device, steps=plan.steps)
            except RuntimeError as error:
                yield LoopRow(side, precision, "all", None, first_line(error), None, None)


def told(rows: Iterable[Row | LoopRow], say: Callable[[str], None]) -> list[Row | LoopRow]:
    """The rows as a list, with a word about each on the way."""
    found = []
    for row in rows:
        what = row.op + " " + row.layer if isinstance(row, Row) else "loop"
        time = f"{1e3 * row.seconds.median:.3f} ms" if row.seconds else f"refused: {row.refused}"
        say(f"{what} {row.side}^2 {row.precision} {row.contender}: {time}")
        found.append(row)
    return found


def run(
    plan: Plan,
    device: torch.device,
    timer: Timer,
    card: Card,
    budget: Budget,
    out: Path,
    say: Callable[[str], None] = lambda line: print(line, file=sys.stderr, flush=True),
) -> Path:
    """Measure, print the tables, write the files; the path of the JSON file."""
    facts, published = report.machine(device), named(card.name)
    loops = told(measure_loops(plan, device, budget), say)
    rows = told(measure_ops(plan, device, timer, card, budget), say)
    print(f"{facts}\n")
    print("\n".join(report.ceilings_table(card, published)) + "\n")
    print("\n".join(report.loop_table(loops)) + "\n")
    print("\n".join(report.ops_table(rows, card)))
    if budget.dropped:
        print(f"\nLeft out, for want of time: {', '.join(budget.dropped)}")
    out.mkdir(parents=True, exist_ok=True)
    name = re.sub(r"[^a-z0-9]+", "-", card.name.lower()).strip("-")
    path = out / f"{name}.json"
    report.write_json(path, facts, (card, published), rows, loops, budget.dropped)
    if not report.plot(path.with_suffix(".png"), card.name, rows):
        print("\nno plot: it needs matplotlib and at least one time (pip install 'fastnst[plot]')", file=sys.stderr)
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=HERE / "results", help="folder of the results")
    parser.add_argument("--quick", action="store_true", help="512^2 only, few repeats")
    parser.add_argument("--layout", default="channels_last", choices=LAYOUTS, help="of features (default: the loop's)")
    parser.add_argument("--minutes", type=float, default=9.5, help="what does not fit is left out (default 9.5)")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("bench/gpu/run.py needs a CUDA device and a CUDA build of torch; roofline.py runs anywhere")
    torch._dynamo.config.recompile_limit = 64  # one function meets every dtype and precision
    budget = Budget(60 * options.minutes)
    device = torch.device("cuda", torch.cuda.current_device())
    timer = EventTimer(device)
    plan = QUICK if options.quick else Plan()
    plan = Plan(**{**vars(plan), "layout": LAYOUTS[options.layout]})
    card = measure_card(torch.cuda.get_device_name(device), device, timer)
    print(run(plan, device, timer, card, budget, options.out))


if __name__ == "__main__":
    main()

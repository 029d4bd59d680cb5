"""Predicted time of the kernels on cards that are not here, from their machine code and launches.

    python -m tools.kernel_model [--card H200] [--side 512] [--precision bfloat16] [--layout channels_last]
                                 [--binary FILE] [--facts FILE] [--launches FILE] [--json FILE] [--check] [--all]

Needs no GPU. Machine code comes from the built module, or from ``--binary``, which may be a library or an object;
``--facts`` takes a file of `facts.to_json` instead. Launches come from the C++ host code, run by the emulator of
tests/emulator without running kernels.

``--all`` prints the sums of the five layers for every card, side, layout and precision instead. Beside each layer are
its roofline and the same in PyTorch, eager and by hand (eager.py). ``--check`` also computes a whole step (step.py) and
fails, with the list, where a prediction misses its target (targets.py).

The time of a launch is a gap, the largest of the terms below, and the tail:

- latency: waves x the cycles of one warp from its first to its last instruction, loads included. An in-order
  simulation gives them for each loop (scoreboard.py); work.py says how often each loop runs.
- issue: instructions of the busiest multiprocessor, four a cycle.
- tensor: its tensor-core instructions, at the rate of mma.sync.
- shared: its accesses to shared memory, 128 bytes a cycle, without bank conflicts.
- memory, L2: bytes over bandwidth.
- tail: what only the last block does: dependent reads from L2, one after the other.

Nothing here was measured on a GPU. Expect errors of 40 %; ratios of two versions of a kernel are better than that. Not
considered: bank conflicts, the throughput of units other than issue and tensor cores, clocks below boost, contention
between latency and bandwidth.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench.common.machine import ROOT
from bench.common.results import Table
from bench.gpu import step_launches
from bench.gpu.roofline import PRECISIONS
from tools import kernel_report
from tools.kernel_model import cards, eager, facts, model, targets
from tools.kernel_model.cases import Case, case_of, entry_of

OPS = ("style_loss", "layer_backward_", "gram_backward")


def recorded(sides: set[int], chips: list[cards.Chip]) -> list[Case]:
    """The cases that the host code of this checkout launches."""
    file = ROOT / "build" / "launches.json"
    script = ROOT / "tests" / "kernels" / "record_launches.py"
    numbers = [",".join(map(str, sorted(n))) for n in (sides, {chip.sms for chip in chips})]
    command = [sys.executable, str(script), str(file), "--sides", numbers[0], "--multiprocessors", numbers[1]]
    subprocess.run(command, check=True)
    return read_cases(file)


def read_cases(file: Path) -> list[Case]:
    return [case_of(entry) for entry in json.loads(file.read_text())]


def micro(parts: dict[str, float]) -> str:
    """Seconds by name, as microseconds."""
    return ", ".join(f"{name} {1e6 * seconds:.1f}" for name, seconds in parts.items())


def table(chip: cards.Chip, cases: list[Case], kernels: model.Kernels) -> Table:
    """One row per launch, microseconds; the first of a layer has the layer's sums."""
    rows, totals = [], [0.0] * 4
    for case in cases:
        times = model.op_times(chip, case, kernels)
        total = sum(t.seconds for t in times)
        others = [f(chip, case) for f in (model.roof, eager.seconds, eager.by_hand)]
        sums_of_layer = [f"{1e6 * seconds:.1f}" for seconds in (total, *others)]
        slower = "slower than eager" if total > others[1] else ""
        for n, t in enumerate(times):
            launch = f"{t.kernel.partition('<')[0]}, {t.blocks} blocks, {t.resident} at once, {t.waves:.2f} waves"
            first = [""] * 6 if n else (case.layer, *sums_of_layer, slower)
            moved = f"{t.in_flight / 1024:.0f} KiB"
            rows.append((*first, launch, moved, t.binds, micro(t.terms), micro(t.chain), f"{1e6 * t.tail:.1f}"))
        totals = [a + b for a, b in zip(totals, (total, *others), strict=True)]
    rows.append(("sum", *(f"{1e6 * seconds:.0f}" for seconds in totals), *[""] * 7))
    head = ("layer", "us", "roofline", "eager", "by hand", "", "launch", "in flight", "binds", "terms, us")
    return Table((*head, "latency by part, us", "tail"), rows)


def sums(cases: list[Case], kernels: model.Kernels) -> Table:
    """Microseconds of the five layers, predicted / roofline / eager, of everything that was recorded."""
    rows = []
    for chip in cards.CHIPS:
        mine = [case for case in cases if case.multiprocessors == chip.sms]
        for op, side, layout in sorted(
            {(c.op, c.side, c.layout) for c in mine}, key=lambda k: (OPS.index(k[0]), k[1:])
        ):
            cells = []
            for precision in PRECISIONS:
                five = [c for c in mine if (c.op, c.side, c.layout, c.precision) == (op, side, layout, precision)]
                ours = sum(model.op_seconds(chip, case, kernels) for case in five)
                others = (sum(f(chip, case) for case in five) for f in (model.roof, eager.seconds))
                cells.append(" / ".join(f"{1e6 * seconds:.0f}" for seconds in (ours, *others)))
            rows.append((chip.name, op, f"{side}^2", layout, *cells))
    return Table(("card", "op", "side", "layout", *PRECISIONS), rows)


def report(chip: cards.Chip, cases: list[Case], kernels: model.Kernels) -> list[dict[str, Any]]:
    """Everything about each op, for a file."""
    return [
        {
            **{name: getattr(case, name) for name in ("op", "side", "layer", "precision", "layout")},
            "card": chip.name,
            "seconds": model.op_seconds(chip, case, kernels),
            "roofline": model.roof(chip, case),
            "eager": eager.seconds(chip, case),
            "launches": [{**asdict(time), "binds": time.binds} for time in model.op_times(chip, case, kernels)],
        }
        for case in cases
    ]


def snapshot(stem: Path, cases: list[Case], found: list[facts.Kernel]) -> None:
    """Write the losses' ops and the machine code they launch, to be read by ``--facts`` and ``--launches``."""
    kept = [case for case in cases if case.op != "gram_backward"]
    names = {launch.kernel for case in kept for launch in case.launches}
    code = facts.to_json([kernel for kernel in found if kernel.name in names])
    stem.with_name(f"{stem.name}_facts.json").write_text(code)
    entries = ",\n".join(json.dumps(entry_of(case)) for case in kept)
    stem.with_name(f"{stem.name}_launches.json").write_text(f"[\n{entries}\n]\n")


def check(cases: list[Case], kernels: model.Kernels) -> None:
    """Print the whole step, and exit with what misses its target."""
    from tools.kernel_model import step

    chip = cards.named(targets.CARD)
    mine = [c for c in cases if (c.side, c.precision, c.layout) == (step.SIDE, "bfloat16", targets.LAYOUT)]
    mine = [c for c in mine if c.multiprocessors == chip.sms]
    whole = step.step_time(chip, step_launches.step(step.SIDE), mine, kernels)
    print(f"\na whole step, {step.SIDE}^2, bfloat16, {chip.name}: {step.line(whole)}")
    found = targets.misses(cases, kernels, whole.seconds)
    for miss in found:
        print(f"  {miss}")
    if wrong := targets.check(found):
        sys.exit("\n  ".join([f"kernel_model: {len(wrong)} predictions without an exception in targets.py", *wrong]))
    print("every prediction meets its target or has an exception in targets.py")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--card", default="H200", help=", ".join(chip.name for chip in cards.CHIPS))
    parser.add_argument("--side", type=int, default=512, help="side of the square picture (default 512)")
    parser.add_argument("--precision", default="bfloat16", choices=PRECISIONS)
    parser.add_argument("--layout", default="channels_last", choices=("channels_last", "nchw"))
    parser.add_argument("--binary", type=Path, action="append", help="library or object; default: the built module")
    parser.add_argument("--facts", type=Path, help="JSON of an earlier reading of the machine code")
    parser.add_argument("--snapshot", type=Path, help="write STEM_facts.json and STEM_launches.json", metavar="STEM")
    parser.add_argument("--launches", type=Path, help="JSON of tests/kernels/record_launches.py")
    parser.add_argument("--json", type=Path, help="also write everything to this file")
    parser.add_argument("--all", action="store_true", help="sums for every card, side, layout and precision")
    parser.add_argument("--check", action="store_true", help="fail where a prediction misses its target")
    options = parser.parse_args()
    chips = [cards.named(options.card), *([cards.named(targets.CARD)] if options.check else [])]
    sides = {options.side, *((side for _, side in targets.SUMS) if options.check else ())}
    if options.all:
        chips, sides = [chips[0], *cards.CHIPS], {512, 1024, 2048}
    cases = read_cases(options.launches) if options.launches else recorded(sides, chips)
    if options.facts:
        found = facts.from_json(options.facts.read_text())
    else:
        wanted = " ".join({launch.family + "<" for case in cases for launch in case.launches})
        architectures = sorted({chip.architecture for chip in chips})
        binaries = options.binary or kernel_report.installed()
        found = [kernel for binary in binaries for kernel in facts.from_binary(binary, architectures, wanted)]
    kernels = {(kernel.name, kernel.architecture): kernel for kernel in found}
    chip, chosen = chips[0], (options.side, options.precision, options.layout)
    mine = [case for case in cases if (case.side, case.precision, case.layout) == chosen]
    mine = [case for case in mine if case.multiprocessors == chip.sms]
    if options.snapshot:
        snapshot(options.snapshot, [c for c in cases if (c.precision, c.layout) == chosen[1:]], found)
    if options.all:
        print("five layers, microseconds: predicted, +-40 % / roofline / eager\n")
        print(sums(cases, kernels))
    for op in () if options.all else [op for op in OPS if any(case.op == op for case in mine)]:
        print(f"\n{op}, {options.side}^2, {options.precision}, {options.layout}, {chip.name}: predicted, +-40 %\n")
        print(table(chip, [case for case in mine if case.op == op], kernels))
    if options.json:
        options.json.write_text(json.dumps(report(chip, mine, kernels), indent=1) + "\n")
    if options.check:
        check(cases, kernels)


if __name__ == "__main__":
    try:
        main()
    except LookupError as error:
        sys.exit(f"kernel_model: {error}")

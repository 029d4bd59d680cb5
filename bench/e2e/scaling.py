"""Several ranks on one picture: seconds of an evaluation for one and two processes of one thread, and a model of more.

    python -m bench.e2e.scaling [--side 2048] [--rows 128] [--steps 2] [--rounds 2]

Starts torchrun with one and two ranks in turn. Efficiency is the time of one over twice the time of two; the aim is
0.85. The model adds three terms to the share of the rank with most work: the rows of each layer that two neighboring
bands exchange, three times; the sum of the statistics; and the gradients that are gathered. All are sent at
``--bandwidth`` bytes a second, without overlap. Only the time of one rank is fitted; the prediction for two is printed
beside the measurement. Those for 8 and 64 GPUs assume that a device's time grows as pixels do; they were not measured.
Prints the table and writes ranks.json and ranks.md to bench/results.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import torch

from bench.common import results, worker
from bench.common.contest import Spread, in_turn
from bench.common.machine import machine
from bench.common.options import parser, plain
from bench.common.results import Report, Section, Table
from bench.e2e.tiles import noise_problem
from fastnst import Settings, process, weights
from fastnst.distributed import Ranks, from_torchrun
from fastnst.network.fusion import FusionPlan
from fastnst.network.vgg import VGG
from fastnst.strips.layout import StripLayout, receptive_offset
from fastnst.strips.objective import StripObjective

AIM = 0.85
UNMEASURED = ((8, 8192), (64, 32768))  # ranks and side


def run_rank(side: int, rows: int, steps: int, path: Path) -> None:
    """One rank. The first writes the seconds of each evaluation to ``path``."""
    torch.set_num_threads(1)
    process.limit_kept_memory()
    arguments, image = noise_problem(side)
    with from_torchrun() as world:
        objective = StripObjective(*arguments, rows, ranks=world)
        seconds = []
        for _ in range(steps):
            world.barrier()
            start = time.perf_counter()
            losses, _ = objective.value_and_grad(image)
            seconds.append(time.perf_counter() - start)
        facts = {"seconds": seconds, "loss": losses.total}
        world.barrier()
        if world.first:
            path.write_text(json.dumps(facts))


def measure(options: argparse.Namespace, count: int) -> dict[str, float]:
    """Seconds and loss with ``count`` ranks."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "found.json")
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}"]
        command += ["--module", "bench.e2e.scaling", "--worker", str(path)]
        for name in ("side", "rows", "steps"):
            command += [f"--{name}", str(getattr(options, name))]
        subprocess.run(command, env=worker.environment(1), check=True, stderr=subprocess.DEVNULL)
        facts = json.loads(path.read_text())
    return {"seconds": Spread.of(facts["seconds"]).median, "loss": facts["loss"]}


def predicted(one: float, side: int, count: int, network: VGG, bandwidth: float) -> float:
    """Seconds with ``count`` ranks, from those of one."""
    if count == 1:
        return one
    offset = receptive_offset(network, network.chain, side)
    bands = Ranks(0, count).bands(side, offset)
    plan = FusionPlan(network.chain, frozenset(), network.pooling, network.winograd)
    halo = StripLayout(plan, (side, side), side, bands[-1]).halo_above
    inputs = [(3, 1), *((layer.channels, layer.stride) for layer in network.chain)]
    shared = sum(4 * (rows.stop - rows.start) * inputs[i][0] * side // inputs[i][1] for i, rows in halo.items())
    statistics_bytes = 8 * sum(c * c for c in (64, 128, 256, 512, 512))
    gradient_bytes = 3 * 4 * side * side
    work = max(Ranks(0, count).work(side, offset)) / side
    return one * work + (3 * shared + 2 * statistics_bytes + gradient_bytes) / bandwidth


def tables(report: Report) -> list[Section]:
    options, network = report["options"], VGG(weights.load(), Settings().layer_names(), winograd=True)
    measured = {
        int(count): Spread.of([run["seconds"] for run in runs]).median for count, runs in report["runs"].items()
    }
    rows = []
    for count, side in (*((count, options["side"]) for count in measured), *UNMEASURED):
        alone = measured[1] * (side / options["side"]) ** 2
        model = predicted(alone, side, count, network, options["bandwidth"])
        seconds = measured.get(count)
        cells = ("-", "-") if seconds is None else (f"{seconds:.2f}", f"{measured[1] / seconds / count:.2f}")
        rows.append((str(count), str(side), *cells, f"{model:.2f}", f"{alone / model / count:.2f}"))
    head = ("ranks", "side", "seconds", "efficiency", "model: seconds", "efficiency")
    return [Table(head, rows, keys=2), f"Aim: {AIM} for two. Ranks of 8 and 64 were not measured."]


def main() -> None:
    arguments = parser(__doc__, out=True)
    arguments.add_argument("--side", type=int, default=2048, help="of the picture (default 2048)")
    arguments.add_argument("--rows", type=int, default=128, help="of a strip (default 128)")
    arguments.add_argument("--steps", type=int, default=2, help="evaluations of each process (default 2)")
    arguments.add_argument("--rounds", type=int, default=2, help="runs with one rank and with two (default 2)")
    arguments.add_argument("--bandwidth", type=float, default=2e9, help="bytes a second between ranks (default 2e9)")
    arguments.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    options = arguments.parse_args()
    if options.worker:
        run_rank(options.side, options.rows, options.steps, options.worker)
        return
    torch.set_num_threads(1)
    runs = in_turn({count: partial(measure, options, count) for count in (1, 2)}, options.rounds)
    losses = [run["loss"] for of_count in runs.values() for run in of_count]
    if max(losses) - min(losses) > 1e-6 * min(losses):
        sys.exit(f"the ranks do not agree: {losses}")
    results.write(options.out, "ranks", {"machine": machine(), "options": plain(options), "runs": runs}, tables)


if __name__ == "__main__":
    main()

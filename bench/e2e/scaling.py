"""Several ranks on one picture: seconds of an evaluation for one and two processes of one thread, and a model of more.

    python bench/e2e/scaling.py [--side 2048] [--rows 128] [--steps 2] [--rounds 2]

Starts torchrun with one and two ranks by turns. Efficiency is the time of one over the time of two, over two; 0.85 is
aimed at. The model: the rank with most work takes its share of the time of one; three times the few rows of each layer
that two bands share cross an edge; statistics are added up and gradients gathered. All go at ``--bandwidth`` bytes a
second, and nothing is taken to go on at the same time. It is fitted to nothing but the time of one rank; its prediction
for two is printed beside the measurement. Those for 8 and 64 GPUs suppose that a device's time grows as pixels do; they
were not measured. Prints the table and writes ranks.json and ranks.md to bench/results.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from machine import RESULTS, machine, plain, write
from tiles import asked

from fastnst import Settings, heap, weights
from fastnst.cuts import Cuts, lag
from fastnst.ranks import Ranks, of_torchrun
from fastnst.tiled import TiledObjective
from fastnst.vgg import VGG

AIM = 0.85


def worker(side: int, rows: int, steps: int, path: Path) -> None:
    """One rank: the seconds of each evaluation go to ``path``."""
    torch.set_num_threads(1)
    heap.return_unused()
    arguments, image = asked(side)
    with of_torchrun() as world:
        objective = TiledObjective(*arguments, rows, ranks=world)
        seconds = []
        for _ in range(steps):
            world.meet()
            start = time.perf_counter()
            losses, _ = objective.value_and_grad(image)
            seconds.append(time.perf_counter() - start)
        facts = {"seconds": seconds, "loss": losses.total}
        world.meet()
        if world.first:
            path.write_text(json.dumps(facts))


def measure(options: argparse.Namespace, count: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "found.json")
        launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}"]
        command = [*launcher, __file__, "--worker", str(path), "--side", str(options.side), "--rows", str(options.rows)]
        command += ["--steps", str(options.steps)]
        subprocess.run(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, check=True, stderr=subprocess.DEVNULL)
        facts = json.loads(path.read_text())
    return {"seconds": statistics.median(facts["seconds"]), "loss": facts["loss"]}


def predicted(one: float, side: int, count: int, network: VGG, bandwidth: float) -> float:
    """Seconds with ``count`` ranks, from those of one."""
    if count == 1:
        return one
    behind = lag(network, network.chain)
    bands = Ranks(0, count).bands(side, behind)
    edge = Cuts(network, network.chain, (), side, side, bands[-1]).above
    inputs = [(3, 1), *((layer.channels, layer.stride) for layer in network.chain)]
    shared = sum(4 * (rows.stop - rows.start) * inputs[i][0] * side // inputs[i][1] for i, rows in edge.items())
    statistics_bytes = 8 * sum(c * c for c in (64, 128, 256, 512, 512))
    gradient_bytes = 3 * 4 * side * side
    work = max(Ranks(0, count).work(side, behind)) / side
    return one * work + (3 * shared + 2 * statistics_bytes + gradient_bytes) / bandwidth


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--side", type=int, default=2048)
    parser.add_argument("--rows", type=int, default=128)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--bandwidth", type=float, default=2e9, help="bytes a second between ranks (default 2e9)")
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the files (default bench/results)")
    options = parser.parse_args()
    if options.worker:
        worker(options.side, options.rows, options.steps, options.worker)
        return
    torch.set_num_threads(1)
    found: dict[int, list[dict[str, float]]] = {1: [], 2: []}
    for _ in range(options.rounds):
        for count, runs in found.items():
            runs.append(measure(options, count))
    losses = [run["loss"] for runs in found.values() for run in runs]
    if max(losses) - min(losses) > 1e-6 * min(losses):
        raise SystemExit(f"the ranks do not agree: {losses}")
    network = VGG(weights.load(), Settings().layer_names(), winograd=True)
    one, two = (statistics.median(run["seconds"] for run in found[count]) for count in (1, 2))
    lines = ["| ranks | side | seconds | efficiency | model: seconds | efficiency |", "|---|---|---|---|---|---|"]
    for count, side, seconds in ((1, options.side, one), (2, options.side, two), (8, 8192, None), (64, 32768, None)):
        alone = one * (side / options.side) ** 2
        model = predicted(alone, side, count, network, options.bandwidth)
        measured = ("-", "-") if seconds is None else (f"{seconds:.2f}", f"{one / seconds / count:.2f}")
        lines.append(f"| {count} | {side} | {' | '.join(measured)} | {model:.2f} | {alone / model / count:.2f} |")
    text = "\n".join([*lines, "", f"Aim: {AIM} for two. Ranks of 8 and 64 were not measured."])
    print(write(options.out, "ranks", {"machine": machine(), "options": plain(options), "runs": found}, [text]))


if __name__ == "__main__":
    main()

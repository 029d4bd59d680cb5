"""Several ranks on one picture: seconds of an evaluation for one and two processes of one thread, and a model of more.

    python bench/e2e/scaling.py [--side 2048] [--rows 128] [--steps 2] [--rounds 2]

Starts torchrun with one and two ranks by turns. Efficiency is the time of one over the time of two, over two; 0.85 is
aimed at. The model: a rank sweeps its band and the rows beside it that the band depends on, twice up and once down, and
on the way down only the layers' rows that pull at its band; then statistics are added up and gradients gathered at
``--bandwidth`` bytes a second. It is fitted to nothing but the time of one rank and its share of the way up, and its
prediction for two is printed beside the measurement; those for 8 and 64 GPUs suppose a device that keeps the shares and
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
from fastnst.ranks import Ranks, of_torchrun
from fastnst.strips import margin
from fastnst.tiled import TiledObjective
from fastnst.vgg import VGG

AIM = 0.85


def worker(side: int, rows: int, steps: int, path: Path) -> None:
    """One rank: the seconds of each evaluation and of a way up go to ``path``."""
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
        start = time.perf_counter()
        objective.strips.up(image, lambda *_: None)
        facts = {"seconds": seconds, "up": time.perf_counter() - start, "loss": losses.total}
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
    return {"seconds": statistics.median(facts["seconds"]), "up": facts["up"], "loss": facts["loss"]}


def predicted(one: float, up: float, side: int, count: int, beyond: int, bandwidth: float) -> float:
    """Seconds with ``count`` ranks, from those of one and of its way up."""
    bands = Ranks(0, count).bands(side, beyond)
    swept = max(min(bottom + beyond, side) - max(top - beyond, 0) for top, bottom in bands) / side
    pulled = max(bottom - top for top, bottom in bands) / side
    statistics_bytes = 8 * sum(c * c for c in (64, 128, 256, 512, 512))
    gradient_bytes = 3 * 4 * side * side
    return 2 * up * swept + (one - 2 * up) * pulled + (2 * statistics_bytes + gradient_bytes) / bandwidth


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
    beyond = margin(network, network.chain)
    one, two = (statistics.median(run["seconds"] for run in found[count]) for count in (1, 2))
    up = statistics.median(run["up"] for run in found[1])
    lines = ["| ranks | side | seconds | efficiency | model: seconds | efficiency |", "|---|---|---|---|---|---|"]
    for count, side, seconds in ((1, options.side, one), (2, options.side, two), (8, 8192, None), (64, 32768, None)):
        alone, alone_up = (value * (side / options.side) ** 2 for value in (one, up))
        model = predicted(alone, alone_up, side, count, beyond, options.bandwidth)
        measured = ("-", "-") if seconds is None else (f"{seconds:.2f}", f"{one / seconds / count:.2f}")
        lines.append(f"| {count} | {side} | {' | '.join(measured)} | {model:.2f} | {alone / model / count:.2f} |")
    text = "\n".join([*lines, "", f"Aim: {AIM} for two. Ranks of 8 and 64 were not measured."])
    print(write(options.out, "ranks", {"machine": machine(), "options": plain(options), "runs": found}, [text]))


if __name__ == "__main__":
    main()

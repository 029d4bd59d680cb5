"""A picture a strip at a time: the time against the same picture whole, and the most memory that a run holds.

    python bench/e2e/tiles.py [--side 2048] [--rows 512] [--rounds 3] [--threads 2]
    python bench/e2e/tiles.py --memory 4096,8192 [--steps 2]

The first takes loss and gradient of one noise picture in turn, whole and by strips; both must agree before anything is
timed. 512 rows of 2048 pixels are a tile of 1024 x 1024. The second makes whole runs with Adam in processes of their
own, on the shipped pictures enlarged, and reads their peak resident. Prints a table and writes tiles.json and tiles.md,
or tiles_memory.json and tiles_memory.md, to bench/results.
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
from machine import RESULTS, ROOT, machine, plain, write

from fastnst import Settings, heap, weights
from fastnst.objective import Objective, StyleTargets, style_targets
from fastnst.tiled import TiledObjective
from fastnst.vgg import VGG

AIM = 2.6  # times the picture whole, at 2048^2 with a tile of 1024^2
LIMITS = {4096: 2.5e9, 8192: 6e9}
AGREE = 1e-5
PICTURES = tuple(str(ROOT / "fastnst" / "assets" / name) for name in ("demo_photo.jpg", "demo_painting.jpg"))


def asked(side: int) -> tuple[tuple[VGG, torch.Tensor, StyleTargets, Settings], torch.Tensor]:
    """What an objective of the default preset takes, of noise, and an image to ask about."""
    settings = Settings()
    network = VGG(weights.load(), settings.layer_names(), winograd=True)
    generator = torch.Generator().manual_seed(0)
    content, style, image = (torch.rand(1, 3, n, n, generator=generator) * 255 for n in (side, 512, side))
    return (network, content, style_targets(network, style, settings), settings), image


def ratio(side: int, rows: int, rounds: int) -> tuple[dict[str, list[float]], dict[str, float]]:
    """Seconds of an evaluation, by turns, and how far the two are apart."""
    heap.return_unused()
    arguments, image = asked(side)
    whole, tiled = Objective(*arguments), TiledObjective(*arguments, rows)
    (losses, gradient), (others, slope) = whole.value_and_grad(image), tiled.value_and_grad(image)
    apart = {
        "loss": abs(losses.total - others.total) / losses.total,
        "gradient": float((slope - gradient).norm() / gradient.norm()),
    }
    if max(apart.values()) > AGREE:
        raise SystemExit(f"the two do not agree: {apart}")
    del gradient, slope
    seconds: dict[str, list[float]] = {"whole": [], "strips": []}
    for _ in range(rounds):
        for name, one in (("whole", whole), ("strips", tiled)):
            start = time.perf_counter()
            one.value_and_grad(image)
            seconds[name].append(time.perf_counter() - start)
    return seconds, apart


def peak(side: int, steps: int, threads: int) -> dict[str, float]:
    """Seconds and peak resident bytes of a run of its own."""
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable,
            "-m",
            "fastnst",
            "stylize",
            *PICTURES,
            "-o",
            f"{folder}/out.tif",
            "--crop",
            str(side),
        ]
        command += ["--scales", "1", "--steps", str(steps), "--optimizer", "adam", "--learning-rate", "10", "--json"]
        command += ["--tiles", "--memory", str(int(LIMITS.get(side, 8e9))), "--style-size", "1024", "--quiet"]
        done = subprocess.run(
            command, env=os.environ | {"OMP_NUM_THREADS": str(threads)}, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise SystemExit(done.stderr)
        facts = json.loads(done.stdout.splitlines()[-1])
    return {"seconds": facts["seconds"], "peak": facts["peak_memory"], "steps": facts["steps"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--side", type=int, default=2048)
    parser.add_argument("--rows", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--memory", help="sides of whole runs whose memory is read")
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the files (default bench/results)")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    report: dict[str, object] = {"machine": machine(), "options": plain(options)}
    if options.memory:
        found = {int(side): peak(int(side), options.steps, options.threads) for side in options.memory.split(",")}
        lines = ["| side | steps | seconds | peak resident | at most |", "|---|---|---|---|---|"]
        for side, one in found.items():
            limit = f"{LIMITS[side] / 1e9:.1f} GB" if side in LIMITS else "-"
            lines.append(f"| {side} | {one['steps']} | {one['seconds']:.0f} | {one['peak'] / 1e9:.2f} GB | {limit} |")
        print(write(options.out, "tiles_memory", report | {"runs": found}, ["\n".join(lines)]))
        return
    seconds, apart = ratio(options.side, options.rows, options.rounds)
    each = [b / a for a, b in zip(seconds["whole"], seconds["strips"], strict=True)]
    spread = f"{min(each):.2f} to {max(each):.2f}"
    text = "\n".join(
        [
            "| | seconds, median |",
            "|---|---|",
            *(f"| {name} | {statistics.median(values):.2f} |" for name, values in seconds.items()),
            f"| strips / whole | {statistics.median(each):.2f} ({spread}; at most {AIM}) |",
            f"| loss apart | {apart['loss']:.1e} |",
            f"| gradient apart | {apart['gradient']:.1e} |",
        ]
    )
    print(write(options.out, "tiles", report | {"seconds": seconds, "apart": apart}, [text]))


if __name__ == "__main__":
    main()

"""Race fastnst's loop against PyPI's neural-style 0.5.7: same weights, pictures, loss, optimiser and start, in turn.

    python bench/e2e/race.py [--size 512] [--steps 12] [--rounds 3] [--threads 2]

Each contender runs in a process of its own; rounds alternate between them, so that a machine whose speed drifts slows
all of them alike. The loss is neural-style's default (content 5, style 100, total variation 1e-3), started from the
content picture, with Adam and with L-BFGS. Before any time is printed the results are checked: the losses that all
report for the start image must lie within 2 % of ours in float32 (neural-style works at 256/255 of our pixel scale,
which the loss feels in its fourth power; bfloat16 rounds), and the pictures they end with, judged by one evaluator
(fastnst in float32), must have come down and ours be no more than 5 % worse.

Prints a table of medians and spreads and writes bench/results/race.json.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

import psutil
import torch

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
PEER = "neural-style==0.5.7"
PEER_NAME = "neural-style 0.5.7"
PEER_FOLDER = ROOT / "build" / "bench" / "neural-style"
WARMUP = 2  # steps not counted: they build thread pools, plans and buffers

CONTENDERS = {PEER_NAME: None, "fastnst float32": "float32", "fastnst auto": "auto"}


@dataclass
class Outcome:
    """One process: seconds of each counted step, its largest and its steady resident memory, and its losses."""

    seconds: list[float]
    peak: int
    resident: int
    first_loss: float
    picture: str


def install_peer() -> None:
    """neural-style in a folder of its own, with a stand-in for torchvision where that does not import."""
    if not (PEER_FOLDER / "neural_style").exists():
        command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(PEER_FOLDER), PEER]
        subprocess.run(command, check=True)


def make_inputs(folder: Path, size: int) -> None:
    """Square crops of the shipped pictures, and the bundled weights in neural-style's own file format."""
    from fastnst import images, weights

    assets = ROOT / "fastnst" / "assets"
    for name, source in (("content", "demo_photo.jpg"), ("style", "demo_painting.jpg")):
        images.save(folder / f"{name}.png", images.load(assets / source, crop=size).pixels)
    convolutions = [i for i, kind in enumerate(_vgg19_sequence()) if kind == "conv"]
    state = {}
    for index, (name, (weight, bias)) in zip(convolutions, weights.load().convs.items(), strict=False):
        bgr = weight.flip(1) if name == "conv1_1" else weight
        state[f"features.{index}.weight"], state[f"features.{index}.bias"] = bgr.contiguous(), bias
    torch.save(state, folder / "vgg19.pth")


def _vgg19_sequence() -> Iterator[str]:
    for count in (2, 2, 4, 4, 4):
        for _ in range(count):
            yield from ("conv", "relu")
        yield "pool"


def command_for(precision: str | None, folder: Path, optimizer: str, size: int, steps: int, out: Path) -> list[str]:
    """The command line of one contender; both print a line "Iteration k" per step."""
    if precision is not None:
        arguments = [str(folder), optimizer, precision, str(steps), str(out)]
        return [sys.executable, str(HERE / "run_fastnst.py"), *arguments]
    options = {
        "content_image": folder / "content.png",
        "style_image": folder / "style.png",
        "model_file": folder / "vgg19.pth",
        "output_image": out,
        "image_size": size,
        "optimizer": optimizer,
        "num_iterations": steps,
        "gpu": "c",
        "init": "image",
        "print_iter": 1,
        "save_iter": 0,
        "seed": 0,
    }
    flags = [part for name, value in options.items() for part in (f"-{name}", str(value))]
    return [sys.executable, str(HERE / "run_neural_style.py"), *flags, "-disable_check"]


def run(command: Sequence[str], threads: int, out: Path) -> Outcome:
    """Run one process, timing the lines it prints and watching its memory."""
    paths = [str(PEER_FOLDER), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "PYTHONPATH": os.pathsep.join(paths)}
    stamps, resident, first_loss = [], [], float("nan")
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment, text=True
    ) as process:
        assert process.stdout is not None
        watched = psutil.Process(process.pid)
        lines = []
        for line in process.stdout:
            lines.append(line)
            if line.startswith("Iteration"):
                stamps.append(time.perf_counter())
                resident.append(watched.memory_info().rss)
            found = re.match(r"\s*Total loss: ([0-9.e+-]+)", line)
            if found and len(stamps) == 1:
                first_loss = float(found[1])
            peak = re.match(r"PEAK (\d+)", line)
            if peak:
                peak_bytes = int(peak[1])
    if process.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{''.join(lines[-20:])}")
    gaps = [after - before for before, after in pairwise(stamps)][WARMUP:]
    return Outcome(gaps, peak_bytes, int(statistics.median(resident[WARMUP:])), first_loss, str(out))


def evaluate(folder: Path, pictures: Sequence[str]) -> list[float]:
    """The loss of each picture under one evaluator: fastnst in float32, checked against autograd by the tests."""
    from fastnst import images, transfer
    from fastnst.objective import Objective, style_targets
    from fastnst.settings import Settings

    stylizer = transfer.Stylizer(Settings.of("johnson", precision="float32"))
    content, style = (images.load(folder / f"{name}.png").pixels * 255 for name in ("content", "style"))
    targets = style_targets(stylizer.network, style, stylizer.settings)
    objective = Objective(stylizer.network, content, targets, stylizer.settings)
    return [objective.value_and_grad(images.load(path).pixels * 255)[0].total for path in pictures]


def check(name: str, outcomes: dict[str, list[Outcome]], losses: dict[str, float], start: float) -> None:
    """Refuse to print a time whose result was not right."""
    ours = outcomes["fastnst float32"][0].first_loss
    for contender, runs in outcomes.items():
        if abs(runs[0].first_loss / ours - 1) > 0.02:
            sys.exit(f"{name}: {contender} starts at loss {runs[0].first_loss:g}, fastnst float32 at {ours:g}")
        if not losses[contender] < start:
            sys.exit(f"{name}: {contender} ends at loss {losses[contender]:g}, started at {start:g}")
        if losses[contender] > 1.05 * losses[PEER_NAME]:
            sys.exit(
                f"{name}: {contender} ends at {losses[contender]:g}, neural-style at {losses['neural-style 0.5.7']:g}"
            )


def race(folder: Path, optimizer: str, options: argparse.Namespace) -> list[dict[str, object]]:
    """All contenders with one optimiser, in turn, `rounds` times; one row per contender."""
    outcomes: dict[str, list[Outcome]] = {name: [] for name in CONTENDERS}
    for number in range(options.rounds):
        for name, precision in CONTENDERS.items():
            out = folder / f"{optimizer}-{number}-{name.replace(' ', '-')}.png"
            command = command_for(precision, folder, optimizer, options.size, options.steps, out)
            outcomes[name].append(run(command, options.threads, out))
            print(f"  {optimizer} round {number + 1}: {name}", file=sys.stderr)
    finals = evaluate(folder, [str(folder / "content.png"), *(runs[0].picture for runs in outcomes.values())])
    losses = dict(zip(outcomes, finals[1:], strict=True))
    check(optimizer, outcomes, losses, finals[0])
    rows = []
    for name, runs in outcomes.items():
        medians = [statistics.median(run.seconds) for run in runs]
        ratios = [m / statistics.median(p.seconds) for m, p in zip(medians, outcomes[PEER_NAME], strict=True)]
        rows.append(
            {
                "optimizer": optimizer,
                "contender": name,
                "seconds_per_step": statistics.median(medians),
                "seconds_spread": [min(medians), max(medians)],
                "time_ratio": statistics.median(ratios),
                "peak_resident_bytes": max(run.peak for run in runs),
                "steady_resident_bytes": max(run.resident for run in runs),
                "memory_ratio": max(r.peak for r in runs) / max(r.peak for r in outcomes[PEER_NAME]),
                "final_loss": losses[name],
                "runs": [asdict(run) | {"picture": Path(run.picture).name} for run in runs],
            }
        )
    return rows


def table(rows: Sequence[dict[str, object]]) -> str:
    """The rows as the table that the README shows."""
    lines = [
        "| optimiser | contender | s/step (min-max of rounds) | time ratio | peak MB | steady MB | memory ratio "
        "| final loss |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        low, high = row["seconds_spread"]  # type: ignore[misc]
        lines.append(
            f"| {row['optimizer']} | {row['contender']} | {row['seconds_per_step']:.2f} ({low:.2f}-{high:.2f}) "
            f"| {row['time_ratio']:.2f} | {int(str(row['peak_resident_bytes'])) / 2**20:.0f} "
            f"| {int(str(row['steady_resident_bytes'])) / 2**20:.0f} | {row['memory_ratio']:.2f} "
            f"| {row['final_loss']:.4g} |"
        )
    return "\n".join(lines)


def machine() -> dict[str, object]:
    """What the numbers were measured on."""
    model = "unknown"
    if Path("/proc/cpuinfo").exists():
        model = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())[1]  # type: ignore[index]
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=ROOT)
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "commit": commit.stdout.strip(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--size", type=int, default=512, help="side of the square pictures (default 512)")
    parser.add_argument(
        "--steps", type=int, default=12, help="steps of each process, the first 2 not counted (default 12)"
    )
    parser.add_argument("--rounds", type=int, default=3, help="processes of each contender (default 3)")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--optimizers", default="adam,lbfgs")
    options = parser.parse_args()
    install_peer()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_inputs(folder, options.size)
        rows = [row for optimizer in options.optimizers.split(",") for row in race(folder, optimizer, options)]
    report = {"machine": machine(), "options": vars(options), "rows": rows}
    results = ROOT / "bench" / "results"
    results.mkdir(parents=True, exist_ok=True)
    (results / "race.json").write_text(json.dumps(report, indent=1) + "\n")
    facts = report["machine"]
    print(f"{options.size}x{options.size}, {options.threads} threads, {facts}\n\n{table(rows)}")


if __name__ == "__main__":
    main()

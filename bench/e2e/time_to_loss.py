"""Seconds to the loss that neural-style 0.5.7 reaches after 200 L-BFGS steps: neural-style's, and fastnst's.

    python bench/e2e/time_to_loss.py [--size 512] [--rounds 3] [--steps 200] [--variants 'scales=1;scales=2']

Both minimise neural-style's default loss on the same pictures and weights, from the content picture. neural-style goes
first, once: 200 steps take minutes, so that what came of them is kept in build/bench for its size; `--fresh` runs it
anew. Its picture, as floats before they are clamped and rounded, is judged by one evaluator, fastnst in float32; that
is the loss to reach. Each round then runs neural-style for a few steps, to see how fast the machine is now, and every
variant of fastnst until the picture at the final size, under the same evaluator, is as good. The time of coarser
scales and of the targets counts; that of judging does not.

Prints medians and spreads with the ratio to neural-style, and writes time_to_loss.json, .md and .png to bench/results.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import contenders
import torch
from contenders import CONTENDERS, REFERENCE, ROOT
from machine import RESULTS, machine, write
from race import make_inputs
from torch import Tensor

from fastnst import images
from fastnst.objective import Objective, style_targets
from fastnst.optimize import Step
from fastnst.settings import Settings
from fastnst.transfer import Stylizer

PEER = next(c for c in CONTENDERS if c.name == REFERENCE)
PROBE = 12  # steps of neural-style in each round
NEAR = 1.1  # an image whose loss in the run's own precision is further above the target than this is not judged


@dataclass
class Peer:
    """What a whole run of neural-style came to; ``probe`` is the median of its first steps, for later comparison."""

    loss: float
    seconds: float
    probe: float


@dataclass
class Reached:
    """A run of fastnst up to the target; ``curve`` has seconds and loss of each step at the final size."""

    seconds: float
    steps: list[int]
    loss: float
    curve: list[tuple[float, float]]


class Judge:
    """The loss of float pixels 0..255 under one evaluator: fastnst in float32, held to autograd by the tests."""

    def __init__(self, folder: Path) -> None:
        stylizer = Stylizer(Settings.of("johnson", precision="float32"))
        content, style = (images.load(folder / f"{name}.png").pixels * 255 for name in ("content", "style"))
        targets = style_targets(stylizer.network, style, stylizer.settings)
        self.objective = Objective(stylizer.network, content, targets, stylizer.settings)

    def __call__(self, pixels: Tensor) -> float:
        return self.objective.value_and_grad(pixels)[0].total


def peer_steps(folder: Path, steps: int, threads: int) -> tuple[list[float], Path]:
    """Seconds of each counted step of neural-style, and where its picture is, in floats."""
    out = folder / "peer.png"
    return contenders.run(PEER, folder, "lbfgs", steps, threads, out).seconds, out.with_suffix(".pt")


def run_peer(folder: Path, judge: Judge, options: argparse.Namespace) -> Peer:
    """A whole run of neural-style, or what was kept of one."""
    name = f"{PEER.folder.name}-{options.size}-{options.steps}-{options.threads}.pt"
    kept = ROOT / "build" / "bench" / f"{REFERENCE.split()[-1]}-{name}"
    if options.fresh or not kept.exists():
        print(f"  {REFERENCE}: {options.steps} steps", file=sys.stderr)
        seconds, picture = peer_steps(folder, options.steps, options.threads)
        torch.save({"seconds": seconds, "picture": torch.load(picture)}, kept)
    run = torch.load(kept)
    seconds = run["seconds"]
    probe = statistics.median(seconds[: PROBE - contenders.WARM_UP - 1])
    return Peer(judge(run["picture"]), statistics.mean(seconds) * options.steps, probe)


def run_ours(folder: Path, judge: Judge, target: float, options: argparse.Namespace, variant: str) -> Reached:
    """fastnst with the settings of ``variant`` until its picture is as good as ``target``. Exits if it never is."""
    changes = {name: _number(value) for name, _, value in (part.partition("=") for part in variant.split(","))}
    settings = Settings.of(
        "johnson",
        **{"optimizer": "lbfgs", "init": "content", "steps": 2 * options.steps, "size": options.size, **changes},
    )
    stylizer = Stylizer(settings)
    content = stylizer.load(folder / "content.png")
    curve: list[tuple[float, float]] = []
    found: list[tuple[int, float]] = []
    judging = 0.0

    def watch(step: Step) -> bool:
        nonlocal judging
        if step.scale < step.scales:
            return False
        curve.append((step.seconds - judging, step.losses.total))
        if step.losses.total > NEAR * target:
            return False
        start = time.perf_counter()
        loss = judge(step._image)  # what a callback is shown is clamped to 0..1
        judging += time.perf_counter() - start
        if loss <= target:
            found.append((step.step, loss))
        return bool(found)

    result = stylizer.run(stylizer.load_scene(content, [folder / "style.png"]), callback=watch)
    if not found:
        sys.exit(
            f"fastnst {variant}: still at loss {curve[-1][1]:g} after {len(curve)} steps; the target is {target:g}"
        )
    return Reached(curve[-1][0], [len(scale) for scale in result.trace], found[0][1], curve)


def _number(value: str) -> object:
    for kind in (int, float):
        try:
            return kind(value)
        except ValueError:
            continue
    return value


def summaries(peer: Peer, speeds: Sequence[float], runs: dict[str, list[Reached]]) -> list[dict[str, object]]:
    """Medians, spreads and ratios, round by round; the peer's time follows its speed in each round."""
    times = [peer.seconds * speed / peer.probe for speed in speeds]
    rows: list[dict[str, object]] = [
        {
            "contender": REFERENCE,
            **_spread(times, times),
            "loss": peer.loss,
            "run": asdict(peer),
            "probes": list(speeds),
        }
    ]
    for variant, reached in runs.items():
        rows.append(
            {
                "contender": f"fastnst auto, {variant}",
                **_spread([r.seconds for r in reached], times),
                "steps": reached[0].steps,
                "loss": reached[0].loss,
                "runs": [asdict(r) for r in reached],
            }
        )
    return rows


def _spread(seconds: Sequence[float], peer: Sequence[float]) -> dict[str, object]:
    ratios = [own / other for own, other in zip(seconds, peer, strict=True)]
    return {
        "time_ratio": statistics.median(ratios),
        "time_ratio_spread": [min(ratios), max(ratios)],
        "seconds": statistics.median(seconds),
        "seconds_spread": [min(seconds), max(seconds)],
    }


def table(rows: Sequence[dict[str, object]], steps: int) -> str:
    lines = [
        "| contender | time ratio (min-max of rounds) | seconds (min-max) | steps at each scale | loss |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        ratio, seconds = (
            f"{row[name]:.{digits}f} ({row[f'{name}_spread'][0]:.{digits}f}-{row[f'{name}_spread'][1]:.{digits}f})"
            for name, digits in (("time_ratio", 2), ("seconds", 1))
        )
        taken = ", ".join(map(str, row.get("steps", [steps])))
        lines.append(f"| {row['contender']} | {ratio} | {seconds} | {taken} | {row['loss']:.4g} |")
    return "\n".join(lines)


def plot(path: Path, peer: Peer, runs: dict[str, list[Reached]]) -> None:
    """Loss against seconds of each variant's first round, and where neural-style ends."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4.5), layout="constrained")
    for variant, reached in runs.items():
        axes.plot(*zip(*reached[0].curve, strict=True), label=f"fastnst auto, {variant}")
    axes.plot(peer.seconds, peer.loss, "k*", markersize=12, label=REFERENCE)
    axes.axhline(peer.loss, color="black", linewidth=0.5)
    axes.set(xlabel="seconds", ylabel="loss at the final size", yscale="log", xlim=(0, None))
    axes.legend(frameon=False)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--size", type=int, default=512, help="side of the square pictures (default 512)")
    parser.add_argument("--steps", type=int, default=200, help="of neural-style, whose loss then is the target")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each variant (default 3)")
    parser.add_argument("--variants", default="scales=1;scales=2", help="settings of fastnst, ';' between variants")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--fresh", action="store_true", help="run neural-style anew")
    options = parser.parse_args()
    if options.steps < PROBE:
        parser.error(f"--steps {options.steps}: expected at least {PROBE}")
    torch.set_num_threads(options.threads)
    contenders.install(PEER)
    variants = options.variants.split(";")
    runs: dict[str, list[Reached]] = {variant: [] for variant in variants}
    speeds: list[float] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_inputs(folder, options.size)
        judge = Judge(folder)
        peer = run_peer(folder, judge, options)
        for number in range(options.rounds):
            speeds.append(statistics.median(peer_steps(folder, PROBE, options.threads)[0]))
            for variant in variants:
                runs[variant].append(run_ours(folder, judge, peer.loss, options, variant))
                print(f"  round {number + 1}: fastnst {variant}", file=sys.stderr)
    rows = summaries(peer, speeds, runs)
    report: dict[str, object] = {"machine": machine(), "options": vars(options), "rows": rows}
    print(write(RESULTS, "time_to_loss", report, [f"{options.size} x {options.size}", table(rows, options.steps)]))
    plot(RESULTS / "time_to_loss.png", peer, runs)


if __name__ == "__main__":
    main()

"""Seconds to the loss that neural-style 0.5.7 reaches after 200 L-BFGS steps: neural-style's, and fastnst's.

    python -m bench.e2e.time_to_loss [--size 512] [--rounds 3] [--steps 200] [--variants 'scales=1;scales=2']

Both minimize neural-style's default loss on the same pictures and weights, from the content picture. neural-style runs
first, once; its 200 steps take minutes, so its result is cached in build/bench by size, and `--fresh` runs it again.
One evaluator, fastnst in float32, computes the loss of its picture, as floats before they are clamped and rounded; that
is the target. Each round then runs neural-style for a few steps, to measure the machine's current speed, and every
variant of fastnst until the picture at the final size has the target loss under the same evaluator. The time of coarser
scales and of the targets counts; the evaluator's does not.

Prints medians and spreads with the ratio to neural-style, and writes time_to_loss.json, .md and .png to bench/results.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from torch import Tensor

from bench.common import results
from bench.common.contest import Spread, in_turn, ratios
from bench.common.machine import ROOT, machine
from bench.common.options import parser, plain
from bench.common.results import Report, Section, Table
from bench.e2e import contenders
from bench.e2e.contenders import CONTENDERS, REFERENCE
from bench.e2e.race import evaluator, make_inputs
from fastnst.config.settings import Settings
from fastnst.optim.progress import Step
from fastnst.run.stylizer import Stylizer

PEER = next(c for c in CONTENDERS if c.name == REFERENCE)
PROBE = 12  # steps of neural-style in each round
NEAR = 1.1  # images whose loss in the run's own precision is further above the target are not evaluated


@dataclass
class Peer:
    """A whole run of neural-style; ``probe`` is the median of its first steps, for comparison with later ones."""

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


Judge = Callable[[Tensor], float]


class Watch:
    """A callback that stops a run of fastnst at the target loss; ``judging`` is the evaluator's time."""

    def __init__(self, judge: Judge, target: float) -> None:
        self.judge, self.target = judge, target
        self.curve: list[tuple[float, float]] = []
        self.loss: float | None = None
        self.judging = 0.0

    def __call__(self, step: Step) -> bool:
        if step.scale < step.scales:
            return False
        self.curve.append((step.seconds - self.judging, step.losses.total))
        if step.losses.total > NEAR * self.target:
            return False
        start = time.perf_counter()
        loss = self.judge(step._image)  # the public image is clamped to 0..1
        self.judging += time.perf_counter() - start
        if loss <= self.target:
            self.loss = loss
        return self.loss is not None


def peer_steps(folder: Path, steps: int, threads: int) -> tuple[list[float], Path]:
    """Seconds of each counted step of neural-style, and the path of its picture in floats."""
    out = folder / "peer.png"
    return contenders.run(PEER, folder, "lbfgs", steps, threads, out).seconds, out.with_suffix(".pt")


def probe(folder: Path, threads: int) -> float:
    """The median of neural-style's first steps."""
    return Spread.of(peer_steps(folder, PROBE, threads)[0]).median


def run_peer(folder: Path, judge: Judge, options: argparse.Namespace) -> Peer:
    """A whole run of neural-style, or a cached one."""
    name = f"{PEER.folder.name}-{options.size}-{options.steps}-{options.threads}.pt"
    cached = ROOT / "build" / "bench" / f"{REFERENCE.split()[-1]}-{name}"
    if options.fresh or not cached.exists():
        print(f"  {REFERENCE}: {options.steps} steps", file=sys.stderr)
        seconds, picture = peer_steps(folder, options.steps, options.threads)
        torch.save({"seconds": seconds, "picture": torch.load(picture)}, cached)
    run = torch.load(cached)
    seconds = run["seconds"]
    first = Spread.of(seconds[: PROBE - contenders.WARM_UP - 1]).median
    return Peer(judge(run["picture"]), mean(seconds) * options.steps, first)


def run_fastnst(folder: Path, judge: Judge, target: float, options: argparse.Namespace, variant: str) -> Reached:
    """fastnst with the settings of ``variant`` until its picture has the target loss. Exits if it never has."""
    changes = {name: _number(value) for name, _, value in (part.partition("=") for part in variant.split(","))}
    settings = Settings.from_preset(
        "johnson",
        **{"optimizer": "lbfgs", "init": "content", "steps": 2 * options.steps, "size": options.size, **changes},
    )
    stylizer = Stylizer(settings)
    content = stylizer.loader.content(folder / "content.png")
    watch = Watch(judge, target)
    result = stylizer.run(stylizer.load_scene(content, [folder / "style.png"]), callback=watch)
    curve = watch.curve
    if watch.loss is None:
        sys.exit(f"fastnst {variant}: at loss {curve[-1][1]:g} after {len(curve)} steps; the target is {target:g}")
    return Reached(curve[-1][0], [len(scale) for scale in result.trace], watch.loss, curve)


def _number(value: str) -> object:
    for kind in (int, float):
        try:
            return kind(value)
        except ValueError:
            continue
    return value


def summaries(peer: Peer, speeds: Sequence[float], runs: Mapping[str, Sequence[Reached]]) -> list[dict[str, object]]:
    """Medians, spreads and ratios, round by round; the peer's time is scaled by its speed in each round."""
    times = [peer.seconds * speed / peer.probe for speed in speeds]
    first = {"contender": REFERENCE, **_spread(times, times), "loss": peer.loss, "run": asdict(peer)}
    rows: list[dict[str, object]] = [{**first, "probes": list(speeds)}]
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
    ratio, own = Spread.of(ratios(seconds, peer)), Spread.of(seconds)
    return {
        "time_ratio": ratio.median,
        "time_ratio_spread": [ratio.least, ratio.most],
        "seconds": own.median,
        "seconds_spread": [own.least, own.most],
    }


def tables(report: Report) -> list[Section]:
    options, lines = report["options"], []
    for row in report["rows"]:
        ratio = Spread(row["time_ratio"], *row["time_ratio_spread"]).text(".2f")
        seconds = Spread(row["seconds"], *row["seconds_spread"]).text(".1f")
        steps = ", ".join(map(str, row.get("steps", [options["steps"]])))
        lines.append((row["contender"], ratio, seconds, steps, f"{row['loss']:.4g}"))
    head = ("contender", "time ratio (min-max of rounds)", "seconds (min-max)", "steps at each scale", "loss")
    return [f"{options['size']} x {options['size']}", Table(head, lines)]


def plot(path: Path, peer: Peer, runs: Mapping[str, Sequence[Reached]]) -> None:
    """Loss against seconds of each variant's first round, and the end of neural-style's run."""
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
    arguments = parser(__doc__, threads=True, out=True)
    arguments.add_argument("--size", type=int, default=512, help="side of the square pictures (default 512)")
    arguments.add_argument("--steps", type=int, default=200, help="of neural-style, whose loss is the target")
    arguments.add_argument("--rounds", type=int, default=3, help="runs of each variant (default 3)")
    arguments.add_argument("--variants", default="scales=1;scales=2", help="settings of fastnst, ';' between variants")
    arguments.add_argument("--fresh", action="store_true", help="run neural-style again instead of reading the cache")
    options = arguments.parse_args()
    if options.steps < PROBE:
        arguments.error(f"--steps {options.steps}: expected at least {PROBE}")
    torch.set_num_threads(options.threads)
    contenders.install(PEER)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_inputs(folder, options.size)
        objective = evaluator(folder)

        def judge(pixels: Tensor) -> float:
            return objective.value_and_grad(pixels)[0].total

        peer = run_peer(folder, judge, options)
        variants = {
            variant: partial(run_fastnst, folder, judge, peer.loss, options, variant)
            for variant in options.variants.split(";")
        }
        entered: dict[str, Callable[[], Any]] = {REFERENCE: partial(probe, folder, options.threads), **variants}
        found = in_turn(entered, options.rounds, "fastnst")
    speeds = found.pop(REFERENCE)
    report: Report = {"machine": machine(), "options": plain(options), "rows": summaries(peer, speeds, found)}
    path = results.write(options.out, "time_to_loss", report, tables)
    plot(path.with_suffix(".png"), peer, found)


if __name__ == "__main__":
    main()

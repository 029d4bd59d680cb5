"""Race fastnst's whole steps against style transfer packages of PyPI: same weights, pictures, loss and start, in turn.

    python bench/e2e/race.py [--sizes 512] [--steps 12] [--rounds 3] [--contenders neural-style,fastnst]

Each contender runs in a process and with a package folder of its own (contenders.py); rounds alternate between them, so
that a machine whose speed drifts slows all of them alike. The loss is neural-style's default (content 5, style 100,
total variation 1e-3), started from the content picture, with Adam and with L-BFGS. Before any time is printed the
results are checked by one evaluator (fastnst in float32 with PyTorch's convolutions): the losses that all report for
the start image must lie within 2 % of its own, and the pictures they end with must have come down and ours be no more
than 5 % worse than neural-style's.

Prints medians and spreads with the ratio to neural-style, and writes race.json, race.md and race.png to bench/results.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import contenders
import race_report
import torch
from contenders import REFERENCE, ROOT, Contender, Outcome
from machine import RESULTS, machine, plain, write


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


def evaluate(folder: Path, pictures: Sequence[str]) -> list[float]:
    """The loss of each picture under one evaluator, fastnst in float32 with PyTorch's convolutions."""
    from fastnst import images, transfer
    from fastnst.objective import Objective, style_targets
    from fastnst.settings import Settings

    stylizer = transfer.Stylizer(Settings.of("johnson", precision="float32", convolution="direct"))
    content, style = (images.load(folder / f"{name}.png").pixels * 255 for name in ("content", "style"))
    targets = style_targets(stylizer.network, style, stylizer.settings)
    objective = Objective(stylizer.network, content, targets, stylizer.settings)
    return [objective.value_and_grad(images.load(path).pixels * 255)[0].total for path in pictures]


def check(race: str, first: dict[str, float], final: dict[str, float], start: float) -> None:
    """Refuse to print a time whose result was not right: exit with what is wrong.

    ``first`` are the losses that contenders report for the start, whose loss by the evaluator is ``start``.
    """
    for name, loss in first.items():
        if not abs(loss / start - 1) <= 0.02:
            sys.exit(f"{race}: {name} starts at loss {loss:g}, expected {start:g} within 2 %")
        if not final[name] < start:
            sys.exit(f"{race}: {name} ends at loss {final[name]:g}, started at {start:g}")
        if name.startswith("fastnst") and not final[name] <= 1.05 * final.get(REFERENCE, start):
            sys.exit(f"{race}: {name} ends at {final[name]:g}, {REFERENCE} at {final[REFERENCE]:g}")


def race(
    folder: Path, size: int, optimizer: str, entrants: Sequence[Contender], options: argparse.Namespace
) -> list[dict[str, object]]:
    """The entrants with one optimiser at one size, in turn, `rounds` times; one row each."""
    entrants = [c for c in entrants if optimizer in c.optimizers]
    outcomes: dict[str, list[Outcome]] = {c.name: [] for c in entrants}
    for number in range(options.rounds):
        for c in entrants:
            out = folder / f"{optimizer}-{number}-{c.name.replace(' ', '-')}.png"
            outcomes[c.name].append(contenders.run(c, folder, optimizer, options.steps, options.threads, out))
            print(f"  {size}^2 {optimizer} round {number + 1}: {c.name}", file=sys.stderr)
    start, *finals = evaluate(folder, [str(folder / "content.png"), *(runs[0].picture for runs in outcomes.values())])
    final = dict(zip(outcomes, finals, strict=True))
    check(f"{size}^2 {optimizer}", {name: runs[0].first_loss for name, runs in outcomes.items()}, final, start)
    return [{"size": size, "optimizer": optimizer, **row} for row in summaries(outcomes, final)]


def summaries(outcomes: dict[str, list[Outcome]], final: dict[str, float]) -> list[dict[str, object]]:
    """For each contender medians and spreads over its runs, and ratios, round by round, to the reference."""
    reference = outcomes.get(REFERENCE) or next(iter(outcomes.values()))
    rows: list[dict[str, object]] = []
    for name, runs in outcomes.items():
        medians = [statistics.median(run.seconds) for run in runs]
        ratios = [m / statistics.median(peer.seconds) for m, peer in zip(medians, reference, strict=True)]
        rows.append(
            {
                "contender": name,
                "time_ratio": statistics.median(ratios),
                "time_ratio_spread": [min(ratios), max(ratios)],
                "seconds_per_step": statistics.median(medians),
                "seconds_spread": [min(medians), max(medians)],
                "memory_ratio": max(run.peak for run in runs) / max(run.peak for run in reference),
                "peak_resident_bytes": max(run.peak for run in runs),
                "steady_resident_bytes": max(run.resident for run in runs),
                "first_loss": runs[0].first_loss,
                "final_loss": final[name],
                "runs": [asdict(run) | {"picture": Path(run.picture).name} for run in runs],
            }
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sizes", default="512", help="sides of the square pictures, such as 256,512,1024")
    parser.add_argument("--steps", type=int, default=12, help="steps of each process; of these 3 not counted")
    parser.add_argument("--rounds", type=int, default=3, help="processes of each contender (default 3)")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--optimizers", default="adam,lbfgs")
    parser.add_argument("--contenders", help="names or their beginnings, such as neural-style,fastnst (default: all)")
    parser.add_argument("--name", default="race", help="of the files written (default race)")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the files (default bench/results)")
    options = parser.parse_args()
    if options.steps < contenders.WARM_UP + 2:
        parser.error(f"--steps {options.steps}: expected at least {contenders.WARM_UP + 2}, or no step is counted")
    torch.set_num_threads(options.threads)
    entrants = contenders.named(options.contenders)
    for contender in entrants:
        contenders.install(contender)
    rows: list[dict[str, object]] = []
    for size in map(int, options.sizes.split(",")):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            make_inputs(folder, size)
            for optimizer in options.optimizers.split(","):
                rows += race(folder, size, optimizer, entrants, options)
    raced = {row["contender"] for row in rows}
    notes = {c.name: c.differs for c in entrants if c.differs and c.name in raced}
    report: dict[str, object] = {"machine": machine(), "options": plain(options), "differs": notes, "rows": rows}
    print(write(options.out, options.name, report, race_report.tables(rows, notes)))
    race_report.plot(options.out / f"{options.name}.png", rows)


if __name__ == "__main__":
    main()

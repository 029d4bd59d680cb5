"""Does the fast run end where the exact one does? Losses and pictures of both, for three pairs and both optimisers.

    python bench/e2e/parity.py [--pictures FOLDER] [--size 256] [--steps 300]

The exact run is float32 with PyTorch's convolutions; the fast one is what `auto` picks on this machine. Both minimise
the loss of the preset `johnson` from the content picture. One evaluator, float32 with PyTorch's convolutions, judges
the images of both on the way and at the end, before they are clamped and rounded. They are to end within 3 %.

The pairs are the shipped photograph with the shipped painting, then those of FOLDER, `content_*` with `style_*` in
order; where that is fewer than three, the shipped pictures in other roles make up for them. A run that is done is kept
in build/bench/parity, by its settings, its pictures and the state of the code, and is not run again.

Prints a table and writes parity.json, parity.md, parity.png (losses) and parity_pictures.jpg to bench/results. Exits
with 1 where two runs end further apart.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from machine import RESULTS, ROOT, machine, plain, write
from torch import Tensor

from fastnst import images, transfer
from fastnst.gallery.pairs import find, pair_up
from fastnst.objective import Losses, Objective, style_targets
from fastnst.optimize import optimize, to_picture
from fastnst.settings import OPTIMIZERS, Settings
from fastnst.walk import ValueAndGrad

KEPT = ROOT / "build" / "bench" / "parity"
CODE = ("fastnst", "csrc", "bench/e2e/parity.py")
EXACT, FAST = "float32, direct", "auto"
CONTENDERS = {
    EXACT: {"precision": "float32", "convolution": "direct"},
    FAST: {"precision": "auto", "convolution": "auto"},
}
BOUND = 0.03
PAIRS = 3
JUDGED = 20  # points of a curve
MOST_BYTES = 500_000  # of the sheet of pictures


@dataclass(frozen=True)
class Pair:
    """Two pictures of one size, pixels [1, 3, H, W] in 0..255."""

    name: str
    content: Tensor
    style: Tensor


@dataclass(frozen=True)
class Outcome:
    """What a run came to; ``curve`` has steps taken and the judge's loss there, the last of them at the end."""

    curve: list[tuple[int, float]]
    picture: Tensor
    seconds: float
    stopped: str | None

    @property
    def loss(self) -> float:
        return self.curve[-1][1]


def pairs(folder: Path | None, size: int) -> list[Pair]:
    """The three pairs, square crops of their pictures."""
    photo, painting = (ROOT / "fastnst" / "assets" / f"demo_{name}.jpg" for name in ("photo", "painting"))
    found = [(photo, painting)] + (pair_up(*find(folder), "order", 0) if folder else [])
    made = [(content.stem, style.stem, _square(content, size), _square(style, size)) for content, style in found]
    if len(made) < PAIRS:
        made.append((painting.stem, photo.stem, _square(painting, size), _square(photo, size)))
    if len(made) < PAIRS:
        close = _square(photo, 2 * size)[..., size // 2 : size // 2 + size, size // 2 : size // 2 + size]
        made.append((f"{photo.stem} close", painting.stem, close, _square(painting, size)))
    return [Pair(f"{content} + {style}", *pixels) for content, style, *pixels in made[:PAIRS]]


def _square(path: Path, size: int) -> Tensor:
    return images.load(path, crop=size).pixels * 255


def objective(pair: Pair, settings: Settings) -> Objective:
    network = transfer.Stylizer(settings).network
    return Objective(network, pair.content, style_targets(network, pair.style, settings), settings)


class Judged:
    """An objective whose images are judged as well, at some of the steps; an image is asked about before its step."""

    def __init__(self, asked: ValueAndGrad, judge: Objective, every: int) -> None:
        self.asked, self.judge, self.every = asked, judge, every
        self.curve: list[tuple[int, float]] = []
        self.count = 0

    def value_and_grad(self, image: Tensor) -> tuple[Losses, Tensor]:
        if self.count % self.every == 0:
            self.look(image)
        self.count += 1
        return self.asked.value_and_grad(image)

    def look(self, image: Tensor) -> None:
        self.curve.append((self.count, self.judge.value_and_grad(image)[0].total))


def run(pair: Pair, settings: Settings, judge: Objective) -> Outcome:
    """A run from the content picture."""
    judged = Judged(objective(pair, settings), judge, max(settings.steps // JUDGED, 1))
    start = time.perf_counter()
    done = optimize(judged, pair.content, settings)
    judged.look(done.image)
    return Outcome(judged.curve, to_picture(done.image), time.perf_counter() - start, done.stopped)


def kept(pair: Pair, settings: Settings, judge: Objective) -> Outcome:
    """The run, done now or before."""
    state = hashlib.sha256(json.dumps(settings.to_dict(), sort_keys=True).encode())
    for pixels in (pair.content, pair.style):
        state.update(pixels.numpy().tobytes())
    state.update(code())
    place = KEPT / f"{state.hexdigest()[:20]}.pt"
    if place.exists():
        return Outcome(**torch.load(place, weights_only=True))
    outcome = run(pair, settings, judge)
    place.parent.mkdir(parents=True, exist_ok=True)
    beside = place.with_suffix(".part")
    torch.save(vars(outcome), beside)
    beside.replace(place)
    return outcome


def code() -> bytes:
    """What tells one state of the code from another: the commit, and what has changed since."""
    asked = (["rev-parse", "HEAD"], ["diff", "HEAD", "--", *CODE])
    return b"".join(subprocess.run(["git", "-C", str(ROOT), *a], capture_output=True, check=True).stdout for a in asked)


def compare(made: Sequence[Pair], options: argparse.Namespace) -> list[dict[str, object]]:
    """A row for each pair and optimiser, with the outcomes of both contenders."""
    rows: list[dict[str, object]] = []
    for pair in made:
        for optimizer in OPTIMIZERS:
            changes = {"optimizer": optimizer, "steps": options.steps, "size": options.size, "init": "content"}
            exact = Settings.of("johnson", **changes, **CONTENDERS[EXACT])
            judge = objective(pair, exact)
            outcomes = {}
            for name, contender in CONTENDERS.items():
                outcomes[name] = kept(pair, Settings.of("johnson", **changes, **contender), judge)
                told = f"{pair.name}, {optimizer}, {name}: {outcomes[name].loss:.4g} ({outcomes[name].seconds:.0f} s)"
                print(told, file=sys.stderr)
            distance = outcomes[FAST].loss / outcomes[EXACT].loss - 1
            row = {"pair": pair.name, "optimizer": optimizer, "start": outcomes[EXACT].curve[0][1]}
            rows.append({**row, "outcomes": outcomes, "distance": distance, "close": abs(distance) <= BOUND})
    return rows


def table(rows: Sequence[dict[str, object]]) -> str:
    lines = [
        f"| pair | optimiser | loss at the start | {EXACT} | {FAST} | distance | within {BOUND:.0%} |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        losses = " | ".join(f"{outcome.loss:.4g}" for outcome in outcomes_of(row).values())
        close = "yes" if row["close"] else "no"
        what = f"| {row['pair']} | {row['optimizer']} | {row['start']:.4g} | {losses}"
        lines.append(f"{what} | {100 * float(str(row['distance'])):+.2f} % | {close} |")
    return "\n".join(lines)


def outcomes_of(row: dict[str, object]) -> dict[str, Outcome]:
    outcomes = row["outcomes"]
    assert isinstance(outcomes, dict)
    return outcomes


def plot(rows: Sequence[dict[str, object]], path: Path) -> None:
    """The judge's losses on the way, a panel for each row."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    columns = len(OPTIMIZERS)
    lines = -(-len(rows) // columns)
    figure, axes = plt.subplots(
        lines, columns, figsize=(4 * columns, 2.6 * lines), squeeze=False, sharex=True, layout="constrained"
    )
    for panel, row in zip(axes.flat, rows, strict=True):
        for style, (name, outcome) in zip(("-", "--"), outcomes_of(row).items(), strict=True):
            panel.semilogy(*zip(*outcome.curve, strict=True), style, label=name)
        panel.set_title(f"{row['pair']}, {row['optimizer']}", fontsize=8)
        panel.tick_params(labelsize=7, which="both")
    for panel in axes[-1]:
        panel.set_xlabel("steps", fontsize=8)
    axes[0, 0].set_ylabel("loss in float32", fontsize=8)
    axes[0, 0].legend(fontsize=7)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def show(made: Sequence[Pair], rows: Sequence[dict[str, object]], path: Path) -> None:
    """Content, style and both results of each row, in a file that is small enough for a repository."""
    shown, labels = [], []
    for row in rows:
        pair = next(pair for pair in made if pair.name == row["pair"])
        shown += [pair.content / 255, pair.style / 255, *(outcome.picture for outcome in outcomes_of(row).values())]
        labels += ["content", "style", *(f"{row['optimizer']}, {name}" for name in CONTENDERS)]
    sheet = images.sheet(shown, columns=2 + len(CONTENDERS), height=200, gap=6, labels=labels)
    for quality in (90, 80, 70, 50, 30):
        images.save(path, sheet, quality=quality)
        if path.stat().st_size < MOST_BYTES:
            return


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--pictures", type=Path, metavar="FOLDER", help="a folder with content_* and style_* pictures")
    parser.add_argument("--size", type=int, default=256, help="side of the square pictures (default 256)")
    parser.add_argument("--steps", type=int, default=300, help="steps of each run (default 300)")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results (default bench/results)")
    options = parser.parse_args()
    made = pairs(options.pictures, options.size)
    rows = compare(made, options)
    facts = [{**row, "outcomes": {name: _plain(outcome) for name, outcome in outcomes_of(row).items()}} for row in rows]
    settings = {**plain(options), "pictures": [pair.name for pair in made]}
    told = f"{options.size}x{options.size}, {options.steps} steps"
    text = write(options.out, "parity", {"machine": machine(), "options": settings, "rows": facts}, [told, table(rows)])
    plot(rows, options.out / "parity.png")
    show(made, rows, options.out / "parity_pictures.jpg")
    print(text)
    if not all(row["close"] for row in rows):
        sys.exit(1)


def _plain(outcome: Outcome) -> dict[str, object]:
    return {name: value for name, value in vars(outcome).items() if name != "picture"}


if __name__ == "__main__":
    main()

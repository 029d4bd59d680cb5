"""Does the fast run end at the loss of the exact one? Losses and pictures of both, for three pairs and both optimizers.

    python -m bench.e2e.parity [--pictures FOLDER] [--size 256] [--steps 300]

The exact run is float32 with PyTorch's convolutions; the fast one is what `auto` chooses on this machine. Both minimize
the loss of the preset `johnson` from the content picture. One evaluator, float32 with PyTorch's convolutions, computes
the losses of both images during the run and at the end, before they are clamped and rounded. They should end within
3 %.

The pairs are the shipped photograph with the shipped painting, then those of FOLDER, `content_*` with `style_*` in
order; if these are fewer than three, the shipped pictures with exchanged roles and other crops complete them. Runs are
cached in build/bench/parity, by settings, pictures and the state of the code.

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
from torch import Tensor

from bench.common import results
from bench.common.machine import ROOT, machine
from bench.common.options import parser, plain
from bench.common.pictures import PAINTING, PHOTO
from bench.common.results import Report, Section, Table
from fastnst import images
from fastnst.config.ranges import OPTIMIZERS
from fastnst.config.settings import Settings
from fastnst.gallery.pairs import find, pair_up
from fastnst.objective.protocol import Losses, ValueAndGrad
from fastnst.objective.targets import style_targets
from fastnst.objective.whole import Objective
from fastnst.optim.loop import optimize
from fastnst.optim.progress import to_picture
from fastnst.run import stylizer

CACHE = ROOT / "build" / "bench" / "parity"
CODE = ("fastnst", "csrc", "bench/e2e/parity.py")  # what a cached run depends on
EXACT, FAST = "float32, direct", "auto"
CONTENDERS = {
    EXACT: {"precision": "float32", "convolution": "direct"},
    FAST: {"precision": "auto", "convolution": "auto"},
}
BOUND = 0.03
PAIRS = 3
POINTS = 20  # of a curve
MAX_BYTES = 500_000  # of the sheet of pictures


@dataclass(frozen=True)
class Pair:
    """Two pictures of one size, pixels [1, 3, H, W] in 0..255."""

    name: str
    content: Tensor
    style: Tensor


@dataclass(frozen=True)
class Outcome:
    """A run; ``curve`` has numbers of steps and the evaluator's losses after them, the last one at the end."""

    curve: list[tuple[int, float]]
    picture: Tensor
    seconds: float
    stopped: str | None

    @property
    def loss(self) -> float:
        return self.curve[-1][1]


def pairs(folder: Path | None, size: int) -> list[Pair]:
    """The three pairs, square crops of their pictures."""
    found = [(PHOTO, PAINTING)] + (pair_up(*find(folder), "order", 0) if folder else [])
    made = [(content.stem, style.stem, _square(content, size), _square(style, size)) for content, style in found]
    if len(made) < PAIRS:
        made.append((PAINTING.stem, PHOTO.stem, _square(PAINTING, size), _square(PHOTO, size)))
    if len(made) < PAIRS:
        close = _square(PHOTO, 2 * size)[..., size // 2 : size // 2 + size, size // 2 : size // 2 + size]
        made.append((f"{PHOTO.stem} close", PAINTING.stem, close, _square(PAINTING, size)))
    return [Pair(f"{content} + {style}", *pixels) for content, style, *pixels in made[:PAIRS]]


def _square(path: Path, size: int) -> Tensor:
    return images.load(path, crop=size).pixels * 255


def objective(pair: Pair, settings: Settings) -> Objective:
    network = stylizer.Stylizer(settings).network
    return Objective(network, pair.content, style_targets(network, pair.style, settings), settings)


class Recorded:
    """An objective that records the evaluator's loss of the image before every ``every``-th step."""

    def __init__(self, objective: ValueAndGrad, evaluator: Objective, every: int) -> None:
        self.objective, self.evaluator, self.every = objective, evaluator, every
        self.curve: list[tuple[int, float]] = []
        self.count = 0

    def value_and_grad(self, image: Tensor) -> tuple[Losses, Tensor]:
        if self.count % self.every == 0:
            self.record(image)
        self.count += 1
        return self.objective.value_and_grad(image)

    def record(self, image: Tensor) -> None:
        self.curve.append((self.count, self.evaluator.value_and_grad(image)[0].total))


def run(pair: Pair, settings: Settings, evaluator: Objective) -> Outcome:
    """A run from the content picture."""
    recorded = Recorded(objective(pair, settings), evaluator, max(settings.steps // POINTS, 1))
    start = time.perf_counter()
    done = optimize(recorded, pair.content, settings)
    recorded.record(done.image)
    return Outcome(recorded.curve, to_picture(done.image), time.perf_counter() - start, done.stopped)


def cached(pair: Pair, settings: Settings, evaluator: Objective) -> Outcome:
    """The run, made now or before."""
    state = hashlib.sha256(json.dumps(settings.to_dict(), sort_keys=True).encode())
    for pixels in (pair.content, pair.style):
        state.update(pixels.numpy().tobytes())
    state.update(code())
    path = CACHE / f"{state.hexdigest()[:20]}.pt"
    if path.exists():
        return Outcome(**torch.load(path, weights_only=True))
    outcome = run(pair, settings, evaluator)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    torch.save(vars(outcome), part)
    part.replace(path)
    return outcome


def code() -> bytes:
    """The state of the code: the commit, and the changes since."""
    commands = (["rev-parse", "HEAD"], ["diff", "HEAD", "--", *CODE])
    git = ["git", "-C", str(ROOT)]
    return b"".join(subprocess.run([*git, *one], capture_output=True, check=True).stdout for one in commands)


def compare(made: Sequence[Pair], options: argparse.Namespace) -> list[dict[str, object]]:
    """A row for each pair and optimizer, with the outcomes of both contenders."""
    rows: list[dict[str, object]] = []
    for pair in made:
        for optimizer in OPTIMIZERS:
            changes = {"optimizer": optimizer, "steps": options.steps, "size": options.size, "init": "content"}
            evaluator = objective(pair, Settings.from_preset("johnson", **changes, **CONTENDERS[EXACT]))
            outcomes = {}
            for name, contender in CONTENDERS.items():
                outcomes[name] = cached(pair, Settings.from_preset("johnson", **changes, **contender), evaluator)
                outcome = f"{outcomes[name].loss:.4g} ({outcomes[name].seconds:.0f} s)"
                print(f"{pair.name}, {optimizer}, {name}: {outcome}", file=sys.stderr)
            distance = outcomes[FAST].loss / outcomes[EXACT].loss - 1
            row = {"pair": pair.name, "optimizer": optimizer, "start": outcomes[EXACT].curve[0][1]}
            rows.append({**row, "outcomes": outcomes, "distance": distance, "close": abs(distance) <= BOUND})
    return rows


def tables(report: Report) -> list[Section]:
    options, lines = report["options"], []
    for row in report["rows"]:
        losses = (f"{row['outcomes'][name]['curve'][-1][1]:.4g}" for name in (EXACT, FAST))
        key = (row["pair"], row["optimizer"], f"{row['start']:.4g}")
        lines.append((*key, *losses, f"{100 * row['distance']:+.2f} %", "yes" if row["close"] else "no"))
    head = ("pair", "optimizer", "loss at the start", EXACT, FAST, "distance", f"within {BOUND:.0%}")
    setting = f"{options['size']}x{options['size']}, {options['steps']} steps"
    return [setting, Table(head, lines, keys=2)]


def outcomes_of(row: dict[str, object]) -> dict[str, Outcome]:
    outcomes = row["outcomes"]
    assert isinstance(outcomes, dict)
    return outcomes


def plot(rows: Sequence[dict[str, object]], path: Path) -> None:
    """The evaluator's losses by step, a panel for each row."""
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
    """Write content, style and both results of each row to a file small enough for a repository."""
    shown, labels = [], []
    for row in rows:
        pair = next(pair for pair in made if pair.name == row["pair"])
        shown += [pair.content / 255, pair.style / 255, *(outcome.picture for outcome in outcomes_of(row).values())]
        labels += ["content", "style", *(f"{row['optimizer']}, {name}" for name in CONTENDERS)]
    sheet = images.sheet(shown, columns=2 + len(CONTENDERS), height=200, gap=6, labels=labels)
    for quality in (90, 80, 70, 50, 30):
        images.save(path, sheet, quality=quality)
        if path.stat().st_size < MAX_BYTES:
            return


def main() -> None:
    arguments = parser(__doc__, out=True)
    arguments.add_argument("--pictures", type=Path, metavar="FOLDER", help="folder of content_* and style_* pictures")
    arguments.add_argument("--size", type=int, default=256, help="side of the square pictures (default 256)")
    arguments.add_argument("--steps", type=int, default=300, help="steps of each run (default 300)")
    options = arguments.parse_args()
    made = pairs(options.pictures, options.size)
    rows = compare(made, options)
    facts = [{**row, "outcomes": {name: _plain(outcome) for name, outcome in outcomes_of(row).items()}} for row in rows]
    settings = {**plain(options), "pictures": [pair.name for pair in made]}
    report: Report = {"machine": machine(), "options": settings, "rows": facts}
    path = results.write(options.out, "parity", report, tables)
    plot(rows, path.with_suffix(".png"))
    show(made, rows, path.with_name(f"{path.stem}_pictures.jpg"))
    if not all(row["close"] for row in rows):
        sys.exit(1)


def _plain(outcome: Outcome) -> dict[str, object]:
    return {name: value for name, value in vars(outcome).items() if name != "picture"}


if __name__ == "__main__":
    main()

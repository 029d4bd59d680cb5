"""A picture in strips: the time against the same picture whole, and the peak memory of a run.

    python -m bench.e2e.tiles [--side 2048] [--rows 512] [--rounds 3] [--threads 2]
    python -m bench.e2e.tiles --memory 4096,8192 [--steps 2]

The first evaluates loss and gradient of one noise picture in turn, whole and in strips; both must agree before anything
is timed. 512 rows of 2048 pixels are a tile of 1024 x 1024. The second makes whole runs with Adam in processes of their
own, on the shipped pictures enlarged, and reads their peak resident memory. Prints a table and writes tiles.json and
tiles.md, or tiles_memory.json and tiles_memory.md, to bench/results.
"""

from __future__ import annotations

import sys
import tempfile

import torch

from bench.common import contest, results, worker
from bench.common.contest import Clock, Contender, Spread
from bench.common.machine import machine
from bench.common.options import numbers, parser, plain
from bench.common.pictures import PAINTING, PHOTO
from bench.common.results import Report, Section, Table
from fastnst import Settings, process, weights
from fastnst.network.vgg import VGG
from fastnst.objective.targets import StyleTargets, style_targets
from fastnst.objective.whole import Objective
from fastnst.strips.objective import StripObjective

AIM = 2.6  # times the picture whole, at 2048^2 with a tile of 1024^2
LIMITS = {4096: 1.7e9, 8192: 4.5e9}
BOUND = 1e-5


def noise_problem(side: int) -> tuple[tuple[VGG, torch.Tensor, StyleTargets, Settings], torch.Tensor]:
    """The arguments of an objective of the default preset, with noise for pictures, and an image to evaluate."""
    settings = Settings()
    network = VGG(weights.load(), settings.layer_names(), winograd=True)
    generator = torch.Generator().manual_seed(0)
    content, style, image = (torch.rand(1, 3, n, n, generator=generator) * 255 for n in (side, 512, side))
    return (network, content, style_targets(network, style, settings), settings), image


def difference(whole: Objective, strips: StripObjective, image: torch.Tensor) -> dict[str, float]:
    """The relative differences of loss and gradient. Exits where they are large."""
    (losses, gradient), (in_strips, other) = whole.value_and_grad(image), strips.value_and_grad(image)
    found = {
        "loss": abs(losses.total - in_strips.total) / losses.total,
        "gradient": float((other - gradient).norm() / gradient.norm()),
    }
    if max(found.values()) > BOUND:
        sys.exit(f"the picture whole and in strips differ: {found}")
    return found


def measure(side: int, rows: int, rounds: int) -> tuple[dict[str, list[float]], dict[str, float]]:
    """Seconds of an evaluation, in turn, and the differences of the results."""
    process.limit_kept_memory()
    arguments, image = noise_problem(side)
    objectives = {"whole": Objective(*arguments), "strips": StripObjective(*arguments, rows)}
    found = difference(objectives["whole"], objectives["strips"], image)
    entered = [Contender(name, lambda one=one: one.value_and_grad(image)) for name, one in objectives.items()]
    seconds = Clock().seconds(entered, rounds)
    return dict(zip(objectives, seconds, strict=True)), found


def tables(report: Report) -> list[Section]:
    seconds, apart = report["seconds"], report["apart"]
    ratio = Spread.of(contest.ratios(seconds["strips"], seconds["whole"]))
    rows = [(name, f"{Spread.of(values).median:.2f}") for name, values in seconds.items()]
    rows.append(("strips / whole", f"{ratio.text('.2f')}; at most {AIM}"))
    rows += [(f"difference of the {name}", f"{value:.1e}") for name, value in apart.items()]
    return [Table(("picture", "seconds, median"), rows)]


def run(side: int, steps: int, threads: int) -> dict[str, float]:
    """Seconds and peak resident bytes of a run of its own."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "fastnst", "stylize", str(PHOTO), str(PAINTING), "-o", f"{folder}/out.tif"]
        command += ["--crop", str(side), "--scales", "1", "--steps", str(steps)]
        command += ["--optimizer", "adam", "--learning-rate", "10", "--json", "--quiet"]
        command += ["--tiles", "--memory", str(int(LIMITS.get(side, 8e9))), "--style-size", "1024"]
        facts = worker.last_line(command, worker.environment(threads), name=f"{side} x {side}")
    return {"seconds": facts["seconds"], "peak": facts["peak_memory"], "steps": facts["steps"]}


def memory_tables(report: Report) -> list[Section]:
    rows = []
    for side, one in report["runs"].items():
        limit = f"{LIMITS[int(side)] / 1e9:.1f} GB" if int(side) in LIMITS else "-"
        rows.append((side, str(one["steps"]), f"{one['seconds']:.0f}", f"{one['peak'] / 1e9:.2f} GB", limit))
    return [Table(("side", "steps", "seconds", "peak resident", "at most"), rows, keys=2)]


def main() -> None:
    arguments = parser(__doc__, threads=True, out=True)
    arguments.add_argument("--side", type=int, default=2048, help="of the picture (default 2048)")
    arguments.add_argument("--rows", type=int, default=512, help="of a strip (default 512)")
    arguments.add_argument("--rounds", type=int, default=3, help="evaluations timed of each (default 3)")
    arguments.add_argument("--memory", help="sides of whole runs whose memory is read")
    arguments.add_argument("--steps", type=int, default=2, help="of whole runs (default 2)")
    options = arguments.parse_args()
    torch.set_num_threads(options.threads)
    report: Report = {"machine": machine(), "options": plain(options)}
    if options.memory:
        runs = {side: run(side, options.steps, options.threads) for side in numbers(options.memory)}
        results.write(options.out, "tiles_memory", report | {"runs": runs}, memory_tables)
        return
    seconds, apart = measure(options.side, options.rows, options.rounds)
    results.write(options.out, "tiles", report | {"seconds": seconds, "apart": apart}, tables)


if __name__ == "__main__":
    main()

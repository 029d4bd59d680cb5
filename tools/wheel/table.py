"""Measure sizes and times of installing from the wheel and from the sdist; print a table for docs/install.md.

    make wheel && python -m tools.wheel.table [--torch torch==2.13.0] [--torch torch==2.14.1] [--rounds 3]

In each environment torch and the other dependencies are installed first, so that no time depends on an index. Each
time is the median of the rounds, except that of compiling, which is done once, one file at a time, without ninja. The
first picture is `fastnst demo`, from the start of the process to its end, without a network.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tools.wheel.build import ROOT
from tools.wheel.environments import Environment

HEADER = (
    "| torch | install the wheel, s | compile the sdist, s | import, s | first picture, s | fastnst, MB "
    "| environment, MB |\n|---|---|---|---|---|---|---|"
)


def megabytes(folder: Path) -> float:
    """The size of the files below a folder; a file with several names counts once."""
    found = [path.lstat() for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    return sum({stat.st_ino: stat.st_size for stat in found}.values()) / 1e6


def seconds(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def row(torch: str, wheel: Path, sdist: Path, rounds: int, folder: Path) -> str:
    """The line of the table for one torch, measured in a new environment."""
    environment = Environment(folder)
    environment.pip(torch, "setuptools>=77", wheel)  # the dependencies too
    environment.run("pip", "uninstall", "-q", "-y", "fastnst")
    compiling = seconds(lambda: environment.compile(sdist))
    times: dict[str, list[float]] = {"wheel": [], "import": [], "picture": []}
    for _ in range(rounds):
        environment.run("pip", "uninstall", "-q", "-y", "fastnst")
        times["wheel"].append(seconds(lambda: environment.pip("--no-index", "--no-deps", wheel)))
        times["import"].append(seconds(lambda: environment.run("python", "-c", "from fastnst import ops")))
        times["picture"].append(seconds(lambda: environment.run("fastnst", "demo", "--quiet")))
    version = environment.run("python", "-c", "import torch; print(torch.__version__)").strip()
    wheel_s, import_s, picture_s = (statistics.median(each) for each in times.values())
    (package,) = folder.glob("venv/lib/python*/site-packages/fastnst")
    times_of_use = f"{wheel_s:.1f} | {compiling:.0f} | {import_s:.1f} | {picture_s:.0f}"
    return f"| {version} | {times_of_use} | {megabytes(package):.1f} | {megabytes(folder / 'venv'):.0f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--torch", action="append", metavar="REQUIREMENT", help="a torch to measure under; repeat")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    (wheel,), (sdist,) = ROOT.glob("dist/*.whl"), ROOT.glob("dist/*.tar.gz")
    print(f"load before: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores; {options.rounds} rounds")
    lines = []
    for torch in options.torch or ["torch==2.13.0"]:
        with tempfile.TemporaryDirectory() as name:
            lines.append(row(torch, wheel, sdist, options.rounds, Path(name)))
    print(f"wheel {wheel.stat().st_size / 1e6:.1f} MB, sdist {sdist.stat().st_size / 1e6:.1f} MB")
    print(HEADER, *lines, sep="\n")


if __name__ == "__main__":
    main()

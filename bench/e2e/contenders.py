"""Who takes part in the race, how each is installed and started, and what one run of it gave."""

from __future__ import annotations

import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import psutil

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
WARM_UP = 2  # steps not counted: they build thread pools, plans and buffers


@dataclass(frozen=True)
class Contender:
    """``script`` runs it, with ``arguments`` after those that all get; ``package`` is what pip installs for it.

    ``differs`` says what of its steps or its loss is not as in the race's definition.
    """

    name: str
    script: str
    package: str | None = None
    arguments: tuple[str, ...] = ()
    optimizers: tuple[str, ...] = ("adam", "lbfgs")
    differs: str = ""

    @property
    def folder(self) -> Path:
        return ROOT / "build" / "bench" / (self.package or "fastnst").split("==")[0]


def ours(name: str, **settings: str) -> Contender:
    """fastnst with settings of its own."""
    return Contender(f"fastnst {name}", "run_fastnst.py", arguments=tuple(f"{k}={v}" for k, v in settings.items()))


REFERENCE = "neural-style 0.5.7"  # what ratios are to
CONTENDERS = (
    Contender(REFERENCE, "run_neural_style.py", "neural-style==0.5.7", differs="pixels are 256/255 of ours"),
    Contender("pastiche 1.6.0", "run_pastiche.py", "pastiche==1.6.0"),
    Contender("pystiche 1.0.1", "run_pystiche.py", "pystiche==1.0.1", differs="isotropic total variation, images 0..1"),
    Contender(
        "guertena 0.0.5",
        "run_guertena.py",
        "guertena==0.0.5",
        optimizers=("lbfgs",),
        differs="L-BFGS searches along lines, images 0..1",
    ),
    ours("float32", precision="float32"),
    ours("float32 direct", precision="float32", convolution="direct"),
    ours("bfloat16 direct", precision="bfloat16", convolution="direct"),
    ours("auto", precision="auto"),
)


@dataclass
class Outcome:
    """One process: seconds of each counted step, its largest and its steady resident memory, and its losses."""

    seconds: list[float]
    peak: int
    resident: int
    first_loss: float
    picture: str


def named(names: str | None) -> list[Contender]:
    """The contenders called as one of ``names``, separated by commas, or whose names begin so; all for None.

    Exits where there is none.
    """
    if names is None:
        return list(CONTENDERS)
    chosen: list[Contender] = []
    for name in names.split(","):
        alike = [c for c in CONTENDERS if c.name.startswith(name.strip())]
        if not alike:
            sys.exit(f"no contender is called {name!r} (known: {', '.join(c.name for c in CONTENDERS)})")
        chosen += [c for c in alike if c.name == name.strip()] or alike
    return [c for c in CONTENDERS if c in chosen]


def install(contender: Contender) -> None:
    """Its package in a folder of its own, which no other process sees; torch and NumPy are the ones that we use."""
    if contender.package is None or contender.folder.exists():
        return
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(contender.folder)]
    subprocess.run([*command, contender.package], check=True)


def run(contender: Contender, folder: Path, optimizer: str, steps: int, threads: int, out: Path) -> Outcome:
    """One process, the lines it prints timed and its memory watched. Exits if it fails."""
    arguments = [str(HERE / contender.script), str(folder), optimizer, str(steps), str(out), *contender.arguments]
    paths = [str(contender.folder), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "PYTHONPATH": os.pathsep.join(paths)}
    stamps: list[float] = []
    resident: list[int] = []
    lines: list[str] = []
    first_loss, peak = float("nan"), 0
    with subprocess.Popen(
        [sys.executable, *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment, text=True
    ) as process:
        assert process.stdout is not None
        watched = psutil.Process(process.pid)
        for line in process.stdout:
            lines.append(line)
            if line.startswith("Iteration"):
                stamps.append(time.perf_counter())
                resident.append(watched.memory_info().rss)
            found = re.match(r"\s*Total loss: ([0-9.e+-]+)", line)
            if found and len(stamps) == 1:
                first_loss = float(found[1])
            told = re.match(r"PEAK (\d+)", line)
            if told:
                peak = int(told[1])
    gaps = counted(stamps)
    if process.returncode or not gaps or not peak:
        sys.exit(f"{contender.name} failed after {len(stamps)} steps:\n{''.join(lines[-20:])}")
    return Outcome(gaps, peak, int(statistics.median(resident[WARM_UP:])), first_loss, str(out))


def counted(stamps: Sequence[float]) -> list[float]:
    """Seconds between lines, without those of the first steps."""
    return [after - before for before, after in pairwise(stamps)][WARM_UP:]

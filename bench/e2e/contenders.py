"""The contenders of the race: how each is installed and started, and the outcome of one run."""

from __future__ import annotations

import re
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import psutil

from bench.common import worker
from bench.common.machine import ROOT

WARM_UP = 2  # steps not counted: they build thread pools, plans and buffers


@dataclass(frozen=True)
class Contender:
    """``module`` runs it, with ``arguments`` after the common ones; ``package`` is installed with pip.

    ``differs`` says how its steps or its loss differ from the race's definition.
    """

    name: str
    module: str
    package: str | None = None
    arguments: tuple[str, ...] = ()
    optimizers: tuple[str, ...] = ("adam", "lbfgs")
    differs: str = ""

    @property
    def folder(self) -> Path:
        return ROOT / "build" / "bench" / (self.package or "fastnst").split("==")[0]


def ours(name: str, **settings: str) -> Contender:
    """fastnst with given settings."""
    arguments = tuple(f"{key}={value}" for key, value in settings.items())
    return Contender(f"fastnst {name}", "bench.e2e.run_fastnst", arguments=arguments)


REFERENCE = "neural-style 0.5.7"  # of all ratios
CONTENDERS = (
    Contender(
        REFERENCE, "bench.e2e.run_neural_style", "neural-style==0.5.7", differs="pixels are 256/255 of fastnst's"
    ),
    Contender("pastiche 1.6.0", "bench.e2e.run_pastiche", "pastiche==1.6.0"),
    Contender(
        "pystiche 1.0.1", "bench.e2e.run_pystiche", "pystiche==1.0.1", differs="isotropic total variation, images 0..1"
    ),
    Contender(
        "guertena 0.0.5",
        "bench.e2e.run_guertena",
        "guertena==0.0.5",
        optimizers=("lbfgs",),
        differs="L-BFGS with a line search, images 0..1",
    ),
    ours("float32", precision="float32"),
    ours("float32 direct", precision="float32", convolution="direct"),
    ours("bfloat16 direct", precision="bfloat16", convolution="direct"),
    ours("auto", precision="auto"),
)


@dataclass
class Outcome:
    """One process: seconds of each counted step, its peak and its steady resident memory, and its first loss."""

    seconds: list[float]
    peak: int
    resident: int
    first_loss: float
    picture: str


def named(names: str | None) -> list[Contender]:
    """The contenders with one of ``names``, separated by commas, or whose names begin with one; all for None.

    Exits where a name matches none.
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
    """Install its package into a folder of its own, which no other process sees; torch and NumPy are shared."""
    if contender.package is None or contender.folder.exists():
        return
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(contender.folder)]
    subprocess.run([*command, contender.package], check=True)


def run(
    contender: Contender,
    folder: Path,
    optimizer: str,
    steps: int,
    threads: int,
    out: Path,
    variables: Mapping[str, str] | None = None,
) -> Outcome:
    """Run one process; time the lines it prints and read its memory. Exits if it fails.

    ``variables`` are added to its environment.
    """
    arguments = ["-m", contender.module, str(folder), optimizer, str(steps), str(out), *contender.arguments]
    environment = worker.environment(threads, contender.folder) | dict(variables or {})
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
            found = re.match(r"PEAK (\d+)", line)
            if found:
                peak = int(found[1])
    gaps = counted(stamps)
    if process.returncode or not gaps or not peak:
        sys.exit(f"{contender.name} failed after {len(stamps)} steps:\n{''.join(lines[-20:])}")
    return Outcome(gaps, peak, int(statistics.median(resident[WARM_UP:])), first_loss, str(out))


def counted(stamps: Sequence[float]) -> list[float]:
    """Seconds between lines, without those of the first steps."""
    return [after - before for before, after in pairwise(stamps)][WARM_UP:]

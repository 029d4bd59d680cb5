"""Time a run of this checkout against another revision, in turn: does a change slow runs that do not use it?

    python -m bench.e2e.against --revision REV [--size 512] [--steps 8] [--rounds 5] [--optimizers adam,lbfgs]

The package of the other revision is written to a temporary folder. If its C++ sources equal those of this checkout, it
gets a copy of the compiled extension; otherwise `--built FOLDER` names a checkout of it that is built. Each round runs
both, in processes of their own, on the shipped pictures with the default preset at one scale; the first steps of a
process are not counted. Prints the median over the rounds of the ratio of times, this checkout over the revision, with
minimum and maximum, and whether both end with the same picture.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path

from bench.common import worker
from bench.common.contest import Spread, in_turn, ratios
from bench.common.machine import ROOT, headline, machine
from bench.common.options import parser
from bench.common.results import Table

WARM_UP = 2  # steps not counted: they build thread pools, plans and buffers
HERE, OTHER = "here", "there"
# Uses only names that every revision has. Prints the time of each step, and a digest of the picture.
RUN = """
import hashlib, json, sys, time
from pathlib import Path
import fastnst
root, settings = Path(sys.argv[1]), json.loads(sys.argv[2])
assert Path(fastnst.__file__).resolve().parents[1] == root.resolve(), fastnst.__file__
assets, stamps = root / "fastnst" / "assets", []
pictures = (assets / "demo_photo.jpg", assets / "demo_painting.jpg")
result = fastnst.stylize(*pictures, callback=lambda step: stamps.append(time.perf_counter()), **settings)
digest = hashlib.sha256(result.image.contiguous().numpy().tobytes()).hexdigest()
print(json.dumps([stamps, digest]))
"""


@dataclass(frozen=True)
class Outcome:
    """Median seconds of a step of one process, and the digest of its picture."""

    seconds: float
    digest: str


@contextmanager
def checked_out(revision: str, built: Path | None) -> Iterator[Path]:
    """A folder with the package of ``revision``, compiled. Exits where there is none."""
    if built is not None:
        yield built
        return
    changed = _git("diff", "--quiet", revision, "--", "csrc", "CMakeLists.txt", "setup.py").returncode
    if changed > 1:
        sys.exit(f"{revision}: expected a branch, a tag or a commit of this repository")
    if changed:
        sys.exit(f"{revision} has other C++ sources: build it in a folder of its own, and pass that as --built")
    with tempfile.TemporaryDirectory() as name:
        files = _git("archive", "--format=tar", revision, "fastnst")
        if files.returncode:
            sys.exit(f"{revision}: {files.stderr.decode().strip()}")
        subprocess.run(["tar", "-x", "-C", name], input=files.stdout, check=True)
        for extension in (ROOT / "fastnst").glob("*.so"):
            shutil.copy(extension, Path(name) / "fastnst")
        yield Path(name)


def _git(*arguments: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True)


def run(root: Path, settings: dict[str, object], threads: int) -> Outcome:
    """One process that imports the package from ``root``. Exits if it fails."""
    command = [sys.executable, "-c", RUN, str(root), json.dumps(settings)]
    stamps, digest = worker.last_line(command, worker.environment(threads, root), name=str(root), folder=root)
    return Outcome(Spread.of([b - a for a, b in pairwise(stamps)][WARM_UP - 1 :]).median, digest)


def row(optimizer: str, here: Sequence[Outcome], there: Sequence[Outcome]) -> tuple[str, ...]:
    """A row of the table: ratios round by round, here over there, and seconds."""
    own, other = ([outcome.seconds for outcome in side] for side in (here, there))
    same = "same bits" if len({outcome.digest for outcome in (*here, *there)}) == 1 else "differs"
    times = (f"{Spread.of(side).median:.4g}" for side in (own, other))
    return (optimizer, Spread.of(ratios(own, other)).text(".4f"), *times, same)


def main() -> None:
    arguments = parser(__doc__, threads=True)
    arguments.add_argument("--revision", required=True, help="the other revision: a branch, a tag or a commit")
    arguments.add_argument(
        "--built", type=Path, help="a checkout of it with its extension built (default: one is made)"
    )
    arguments.add_argument("--size", type=int, default=512, help="side of the square pictures (default 512)")
    arguments.add_argument("--steps", type=int, default=8, help=f"of each process; {WARM_UP} not counted (default 8)")
    arguments.add_argument("--rounds", type=int, default=5, help="processes of each (default 5)")
    arguments.add_argument("--optimizers", default="adam,lbfgs")
    options = arguments.parse_args()
    if options.steps <= WARM_UP:
        arguments.error(f"--steps {options.steps}: expected at least {WARM_UP + 1}, or no step is counted")
    rows = []
    with checked_out(options.revision, options.built) as other:
        for optimizer in options.optimizers.split(","):
            settings = {"crop": options.size, "steps": options.steps, "scales": 1, "optimizer": optimizer}
            roots = {HERE: ROOT, OTHER: other}
            runs = {name: partial(run, root, settings, options.threads) for name, root in roots.items()}
            outcomes = in_turn(runs, options.rounds, optimizer)
            rows.append(row(optimizer, outcomes[HERE], outcomes[OTHER]))
    print(headline(machine()))
    print(f"against {options.revision}, {options.size} x {options.size}\n")
    print(Table(("optimizer", "time ratio (min-max of rounds)", "s/step here", "s/step there", "picture"), rows))


if __name__ == "__main__":
    main()

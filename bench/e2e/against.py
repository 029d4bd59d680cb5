"""Time a plain run of this checkout against another revision of it, in turn: does a change slow what does not use it?

    python bench/e2e/against.py --revision REV [--size 512] [--steps 8] [--rounds 5] [--optimizers adam,lbfgs]

The files of the other revision are laid out in a temporary folder. Where its C++ sources are those of this checkout,
it gets a copy of the compiled extension here; else `--built FOLDER` names a checkout of it that is built. Each round
runs both, in processes of their own and in changing order, on the shipped pictures with the default preset at one
scale; the first steps of a process are not counted. Prints the median over the rounds of the ratio of times, here over
there, with the least and the most, and whether both end with the same picture.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from machine import ROOT, headline, machine

WARM_UP = 2  # steps not counted: they build thread pools, plans and buffers
# Names that every revision has had. Prints the time of each step, and a digest of the picture.
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
    """A folder with the package of ``revision``, compiled. Exits where that cannot be had."""
    if built is not None:
        yield built
        return
    changed = _git("diff", "--quiet", revision, "--", "csrc", "CMakeLists.txt", "setup.py").returncode
    if changed > 1:
        sys.exit(f"{revision}: expected a branch, a tag or a commit of this repository")
    if changed:
        sys.exit(f"{revision} has other C++ sources: build it in a folder of its own, and name that with --built")
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
    """One process that takes the package from ``root``. Exits if it fails."""
    done = subprocess.run(
        [sys.executable, "-c", RUN, str(root), json.dumps(settings)],
        env={**os.environ, "OMP_NUM_THREADS": str(threads), "PYTHONPATH": str(root)},
        cwd=root,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        sys.exit(f"{root}: failed:\n{done.stderr}")
    stamps, digest = json.loads(done.stdout.splitlines()[-1])
    return Outcome(statistics.median([b - a for a, b in pairwise(stamps)][WARM_UP - 1 :]), digest)


def line(optimizer: str, here: Sequence[Outcome], there: Sequence[Outcome]) -> str:
    """A row of the table: ratios round by round, here over there, and seconds."""
    ratios = [a.seconds / b.seconds for a, b in zip(here, there, strict=True)]
    times = [f"{statistics.median(x.seconds for x in side):.4g}" for side in (here, there)]
    same = "same bits" if len({x.digest for x in (*here, *there)}) == 1 else "differs"
    spread = f"{statistics.median(ratios):.4f} ({min(ratios):.4f}-{max(ratios):.4f})"
    return f"| {optimizer} | {spread} | {' | '.join(times)} | {same} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--revision", required=True, help="what to compare with: a branch, a tag or a commit")
    parser.add_argument("--built", type=Path, help="a checkout of it with its extension built (default: one is made)")
    parser.add_argument("--size", type=int, default=512, help="side of the square pictures (default 512)")
    parser.add_argument("--steps", type=int, default=8, help=f"of each process; {WARM_UP} are not counted (default 8)")
    parser.add_argument("--rounds", type=int, default=5, help="processes of each (default 5)")
    parser.add_argument("--optimizers", default="adam,lbfgs")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    if options.steps <= WARM_UP:
        parser.error(f"--steps {options.steps}: expected at least {WARM_UP + 1}, or no step is counted")
    rows = [
        "| optimizer | time ratio (min-max of rounds) | s/step here | s/step there | picture |",
        "|---|---|---|---|---|",
    ]
    with checked_out(options.revision, options.built) as other:
        for optimizer in options.optimizers.split(","):
            settings = {"crop": options.size, "steps": options.steps, "scales": 1, "optimizer": optimizer}
            outcomes: dict[Path, list[Outcome]] = {ROOT: [], other: []}
            for number in range(options.rounds):
                for root in (ROOT, other) if number % 2 == 0 else (other, ROOT):
                    outcomes[root].append(run(root, settings, options.threads))
                print(f"  {optimizer} round {number + 1}", file=sys.stderr)
            rows.append(line(optimizer, outcomes[ROOT], outcomes[other]))
    print(headline(machine()))
    print(f"against {options.revision}, {options.size} x {options.size}\n\n" + "\n".join(rows))


if __name__ == "__main__":
    main()

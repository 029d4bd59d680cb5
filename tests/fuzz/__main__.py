"""Run inputs manually: ``python -m tests.fuzz``, or with ``--reader`` and ``--seed`` one of them in this process."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections import Counter
from pathlib import Path


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--reader", help="one reader alone")
    parser.add_argument("--seed", type=int, help="one input alone, in this process; its traceback is shown")
    parser.add_argument("--count", type=int, default=2000, help="inputs over all readers (default: 2000)")
    parser.add_argument("--first", type=int, default=0, help="seed of the first input of each reader (default: 0)")
    parser.add_argument("--workers", type=int, default=2, help="processes at a time (default: 2)")
    parser.add_argument("--child", metavar="FOLDER", help=argparse.SUPPRESS)
    parser.add_argument("--kept", metavar="FOLDER", help=argparse.SUPPRESS)
    options = parser.parse_args()
    from . import harness
    from .readers import READERS

    if options.child:
        harness.child(Path(options.child), Path(options.kept))
        return 0
    if options.seed is not None:
        return one(options.reader, options.seed)
    names = [options.reader] if options.reader else list(READERS)
    jobs = harness.jobs(options.count, names, options.first)
    outcomes = harness.run(
        jobs, options.workers, lambda outcome: print(outcome, flush=True) if outcome.failed else None
    )
    failures = [outcome for outcome in outcomes if outcome.failed]
    for kind, count in Counter((outcome.reader, outcome.kind) for outcome in outcomes).items():
        print(*kind, count, file=sys.stderr)
    print(f"{len(outcomes)} inputs, {len(failures)} failures; their bytes are in {harness.KEPT}", file=sys.stderr)
    return bool(failures)


def one(reader: str, seed: int) -> int:
    from . import harness
    from .readers import READERS, make

    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        data = make(reader, seed)
        print(f"{len(data)} bytes in {harness.keep(reader, seed, data)}", file=sys.stderr)
        READERS[reader].read(harness._written(Path(folder), reader, data))
    return 0


if __name__ == "__main__":
    sys.exit(main())

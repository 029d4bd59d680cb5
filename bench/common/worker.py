"""Processes of their own: for memory that is one run's alone, and for packages that do not share a process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.common.machine import ROOT


def environment(threads: int, *folders: Path, **variables: str) -> dict[str, str]:
    """The environment of a process with a number of threads; ``folders`` come first where Python looks for packages."""
    paths = [*map(str, folders), *os.environ.get("PYTHONPATH", "").split(os.pathsep), str(ROOT)]
    path = os.pathsep.join(path for path in paths if path)
    return {**variables, **os.environ, "OMP_NUM_THREADS": str(threads), "PYTHONPATH": path}


def last_line(command: Sequence[str], variables: Mapping[str, str], *, name: str, folder: Path | None = None) -> Any:
    """The last line that a command prints, read as JSON. Exits where the command fails."""
    done = subprocess.run(command, env=variables, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{name} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def run_module(module: str, given: Mapping[str, object], threads: int) -> Any:
    """What ``python -m MODULE --run GIVEN`` prints as JSON."""
    command = [sys.executable, "-m", module, "--run", json.dumps(given)]
    # Threads that wait do not spin, as in fastnst's command line.
    return last_line(command, environment(threads, OMP_WAIT_POLICY="passive"), name=str(given))

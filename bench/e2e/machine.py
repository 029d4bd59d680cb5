"""What numbers were measured on, and where results go."""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from fastnst import choices, ops

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "bench" / "results"


def machine() -> dict[str, object]:
    """The processor, the threads in use, and the versions and the commit of what was measured."""
    return {
        "cpu": processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "kernels": ops.kernels()["style_loss"],
        "precision": str(choices.choose_precision("auto", torch.device("cpu"))).removeprefix("torch."),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "fastnst": importlib.metadata.version("fastnst"),
        "commit": _git("rev-parse", "--short", "HEAD"),
        "changed": bool(_git("status", "--porcelain", "--untracked-files=no")),
    }


def run_apart(script: str, given: Mapping[str, object], threads: int) -> Any:
    """What ``script --run GIVEN`` prints as JSON, in a process of its own. Exits where it fails."""
    done = subprocess.run(
        [sys.executable, script, "--run", json.dumps(given)],
        env={"OMP_WAIT_POLICY": "passive", **os.environ, "OMP_NUM_THREADS": str(threads)},  # as the command line
        capture_output=True,
        text=True,
    )
    if done.returncode:
        sys.exit(f"{given} failed:\n{done.stderr}")
    return json.loads(done.stdout)


def processor() -> str:
    listing = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*: (.*)", listing.read_text()) if listing.exists() else None
    return found[1] if found else platform.processor() or "unknown"


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None  # not a clone
    return done.stdout.strip()


def headline(facts: dict[str, object]) -> str:
    """The machine in a line."""
    changed = " with changes" if facts["changed"] else ""
    return (
        f"{facts['cpu']}, {facts['threads']} threads of {facts['cores']} cores, {facts['kernels']} kernels, "
        f"torch {facts['torch']}, Python {facts['python']}, fastnst {facts['fastnst']} at {facts['commit']}{changed}"
    )


def plain(options: argparse.Namespace) -> dict[str, object]:
    """The options of a script as JSON holds them, without where its files go."""
    return {name: value for name, value in vars(options).items() if name != "out"}


def write(folder: Path, name: str, report: dict[str, object], tables: Sequence[str]) -> str:
    """``NAME.json`` and ``NAME.md`` in ``folder``; returns the text of the second."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps(report, indent=1) + "\n")
    facts = report["machine"]
    assert isinstance(facts, dict)
    text = "\n\n".join([headline(facts), *tables]) + "\n"
    (folder / f"{name}.md").write_text(text)
    return text

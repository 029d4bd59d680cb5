"""What a benchmark ran on: processor, instruction set, versions, commit and date."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

import torch

from fastnst import ops
from fastnst.config import resolve

ROOT = Path(__file__).resolve().parents[2]
Facts = Mapping[str, object]


def machine() -> dict[str, object]:
    """The processor, the threads in use, and the versions and the commit of what is measured."""
    return {
        "cpu": processor(),
        "instruction_set": torch.backends.cpu.get_cpu_capability(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "kernels": ops.kernels()["style_loss"],
        "precision": str(resolve.choose_precision("auto", torch.device("cpu"))).removeprefix("torch."),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "fastnst": importlib.metadata.version("fastnst"),
        "commit": _output("git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"),
        "changed": bool(_output("git", "-C", str(ROOT), "status", "--porcelain", "--untracked-files=no")),
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
    }


def device_machine(device: torch.device) -> dict[str, object]:
    """:func:`machine` with the card and its driver."""
    facts = machine() | {
        "card": processor(),
        "driver": _output("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"),
        "cuda": torch.version.cuda,
    }
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        facts |= {
            "card": torch.cuda.get_device_name(device),
            "capability": f"{properties.major}.{properties.minor}",
            "multiprocessors": properties.multi_processor_count,
            "memory": properties.total_memory,
        }
    return facts


def processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*: (.*)", cpuinfo.read_text()) if cpuinfo.exists() else None
    return found[1] if found else platform.processor() or "unknown"


def _output(*command: str) -> str | None:
    """What a command prints, or None where it is missing or fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def headline(facts: Facts) -> str:
    """The machine in one line. Files from before a fact was recorded lack it."""
    name = str(facts["cpu"])
    if "card" in facts:
        name = f"{facts['card']} (driver {facts['driver']}), {name}"
    if "instruction_set" in facts:
        name += f" ({facts['instruction_set']})"
    changed = " with changes" if facts["changed"] else ""
    date = f", {facts['date']}" if "date" in facts else ""
    return (
        f"{name}, {facts['threads']} threads of {facts['cores']} cores, {facts['kernels']} kernels, "
        f"torch {facts['torch']}, Python {facts['python']}, fastnst {facts['fastnst']} at {facts['commit']}{changed}"
        f"{date}"
    )


def label(facts: Facts) -> str:
    """A short name of the processor for a column of a table: a card, or a CPU and the instruction set in use."""
    return str(facts["card"]) if "card" in facts else f"{facts['cpu']}, {facts['kernels']}"


def slug(facts: Facts) -> str:
    """The label as a part of a file's name."""
    return re.sub(r"[^a-z0-9]+", "-", label(facts).lower()).strip("-")


def same(one: Facts, other: Facts) -> bool:
    """Whether two results are of one card or, without a card, of one CPU with the same cores and instruction set."""
    if "card" in one or "card" in other:
        return one.get("card") == other.get("card")
    return all(one[name] == other[name] for name in ("cpu", "cores", "kernels"))

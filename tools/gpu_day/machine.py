"""What the machine has: interpreter, torch, device, toolkit, small packages."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tools.gpu_day.options import DayError

# Import name and name of the distribution. Without one of the first kind a part of the package does not work; the
# second kind are those of the tests.
RUNTIME = {
    "filelock": "filelock",
    "numpy": "numpy",
    "PIL": "pillow",
    "platformdirs": "platformdirs",
    "psutil": "psutil",
    "safetensors": "safetensors",
    "tifffile": "tifffile",
    "tomli_w": "tomli-w",
    "tqdm": "tqdm",
}
FOR_TESTS = {"pytest": "pytest", "xdist": "pytest-xdist", "hypothesis": "hypothesis", "scipy": "scipy"}

PROBE = """
import importlib.metadata, importlib.util, json, platform, re, sys
found = {"python": platform.python_version(), "missing": [n for n in sys.argv[1:] if not importlib.util.find_spec(n)]}
names = [one.metadata["Name"] for one in importlib.metadata.distributions()]
found["installed"] = sorted({re.sub("[-_.]+", "_", name).lower() for name in names if name})
try:
    import torch
    found |= {"torch": torch.__version__, "cuda": torch.version.cuda, "devices": torch.cuda.device_count()}
    if found["devices"]:
        one = torch.cuda.get_device_properties(0)
        found |= {"card": one.name, "arch": f"{one.major}.{one.minor}", "memory": one.total_memory}
except ImportError as error:
    found["torch_error"] = str(error)
print(json.dumps(found))
"""


@dataclass
class Machine:
    """The facts; ``card`` and ``arch`` are None without a device, ``nvcc`` without a toolkit."""

    python: str
    torch: str
    cuda: str | None
    card: str | None
    arch: str | None
    memory: int
    nvcc: Path | None
    release: str | None
    missing: list[str]  # modules
    installed: list[str]  # distributions, as the names of wheels write them


def probe(environment: Mapping[str, str], folder: Path) -> Machine:
    """Look at the machine. Raises DayError where there is no torch, or it does not start."""
    command = [sys.executable, "-c", PROBE, *RUNTIME, *FOR_TESTS, "ninja", "pip"]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=180, env=dict(environment), cwd=folder, check=False
        )
        found = json.loads(done.stdout.splitlines()[-1])
    except subprocess.TimeoutExpired:
        raise DayError(f"{sys.executable} did not import torch within 180 seconds") from None
    except (IndexError, ValueError):
        said = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise DayError(f"{sys.executable} failed while it imported torch: {said[:200]}") from None
    if "torch_error" in found:
        raise DayError(f"{sys.executable} has no torch ({found['torch_error']}); set PYTHON to one that has")
    nvcc = find_nvcc()
    return Machine(
        python=found["python"],
        torch=found["torch"],
        cuda=found["cuda"],
        card=found.get("card"),
        arch=found.get("arch"),
        memory=found.get("memory", 0),
        nvcc=nvcc,
        release=release_of(nvcc) if nvcc else None,
        missing=found["missing"],
        installed=found["installed"],
    )


def find_nvcc() -> Path | None:
    """The compiler of the toolkit: named by CUDA_HOME, on the path, or where the toolkit usually is."""
    on_path = shutil.which("nvcc")
    homes = [os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH")]
    places = [*(Path(home, "bin", "nvcc") for home in homes if home), on_path and Path(on_path)]
    return next((place for place in [*places, Path("/usr/local/cuda/bin/nvcc")] if place and place.exists()), None)


def release_of(nvcc: Path) -> str | None:
    try:
        done = subprocess.run([str(nvcc), "--version"], capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.SubprocessError):
        return None
    found = re.search(r"release (\d+\.\d+)", done.stdout)
    return found[1] if found else None


def find_tool(name: str, nvcc: Path | None) -> str | None:
    """A program of the toolkit, on the path or beside its compiler."""
    beside = [str(nvcc.resolve().parent)] if nvcc else []
    return shutil.which(name) or shutil.which(name, path=os.pathsep.join([*beside, "/usr/local/cuda/bin"]))


def check(machine: Machine, *, rehearse: bool, wheel: bool) -> None:
    """Raise DayError where the command cannot do its work here."""
    if "pip" in machine.missing:
        raise DayError(f"{sys.executable} has no pip, which installs the package")
    if rehearse:
        return
    if machine.cuda is None:
        raise DayError(
            f"torch {machine.torch} is not a CUDA build; set PYTHON to an interpreter with one, or --rehearse"
        )
    if machine.card is None:
        raise DayError(f"torch {machine.torch} sees no CUDA device; --rehearse runs what can run without one")
    if wheel:
        return
    if machine.nvcc is None:
        raise DayError(
            "there is no nvcc and no wheel of fastnst: set CUDA_HOME, or put a wheel into the --wheels folder"
        )
    major = machine.cuda.partition(".")[0]
    if (machine.release or "").partition(".")[0] != major:
        raise DayError(
            f"nvcc is of CUDA {machine.release}, torch {machine.torch} of CUDA {machine.cuda}: versions differ"
        )

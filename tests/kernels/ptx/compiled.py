"""Compiles CUDA sources to PTX with nvcc, and keeps the result by the digest of what it is made from."""

from __future__ import annotations

import fcntl
import hashlib
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from .parse import Module

ROOT = Path(__file__).resolve().parents[3]
KERNELS = ROOT / "csrc" / "kernels"
HERE = Path(__file__).resolve().parent
KEPT = ROOT / "build" / "ptx"


def source_of(name: str) -> Path:
    """A file that instantiates all kernels of one header."""
    return HERE.parent / f"{name}.cu"


def find_nvcc() -> str:
    """nvcc of PATH or of /usr/local/cuda; skips the test where there is none."""
    found = shutil.which("nvcc") or shutil.which("nvcc", path="/usr/local/cuda/bin")
    if not found:
        pytest.skip("no nvcc")
    return found


def compile_ptx(source: Path, arch: int, *flags: str, kernels: Path = KERNELS, label: str = "") -> Module:
    """The kernels of `source` for compute_`arch`, with the headers of `kernels`; `label` tells variants apart."""
    command = [find_nvcc(), "-ptx", f"-arch=compute_{arch}", "-std=c++17", "-O3", "-lineinfo", "-w", *flags]
    read = [source, *sorted(kernels.glob("*.cuh"))]
    digest = hashlib.sha256(repr([command[1:], [path.read_text() for path in read]]).encode()).hexdigest()[:16]
    name = f"{source.stem}-{arch}-{label}"
    made = KEPT / f"{name}-{digest}.ptx"
    KEPT.mkdir(parents=True, exist_ok=True)
    with (KEPT / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # one process compiles, others wait for it
        if not made.exists():
            new = KEPT / f"{name}.new"
            done = subprocess.run(
                [*command, f"-I{kernels}", str(source), "-o", str(new)], capture_output=True, text=True
            )
            assert done.returncode == 0, done.stderr
            for old in KEPT.glob(f"{name}-*.ptx"):
                old.unlink()
            new.rename(made)
        return Module(made.read_text())


def only(source: Path, dtype: str, folder: Path) -> Path:
    """`source` with the instantiations for one C++ type."""
    text = source.read_text()
    kept = re.sub(r"template void \w+<([\w]+)>[^;]*;", lambda found: found[0] if found[1] == dtype else "", text)
    assert f"<{dtype}>" in kept, f"{source} does not instantiate {dtype}"
    made = folder / source.name
    made.write_text(kept)
    return made

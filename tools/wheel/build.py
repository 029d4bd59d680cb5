"""The sdist, a wheel built from it as `pip install .` builds one, and what both must contain."""

from __future__ import annotations

import importlib.metadata
import os
import re
import subprocess
import sys
import tarfile
import time
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

IN_SDIST = ("csrc/library.cpp", "csrc/cpu/gram_impl.h", "csrc/kernels/content_loss.cuh", "csrc/cuda/content_loss.cu")
IN_WHEEL = (
    "fastnst/_C.abi3.so",
    "fastnst/weights/vgg19.safetensors",
    "fastnst/assets/demo_photo.jpg",
    "fastnst/py.typed",
    "fastnst/ops/raw.pyi",
)
CUDA_MODULE = "fastnst/_C_cuda.abi3.so"
MOST_MEGABYTES = 30


def call(*command: str | Path, **options: object) -> None:
    print("  $", " ".join(str(part) for part in command)[:100].replace("\n", " "), flush=True)
    start = time.monotonic()
    subprocess.run([str(part) for part in command], check=True, **options)  # type: ignore[call-overload]
    print(f"    {time.monotonic() - start:.0f} s")


def isolated(folder: Path) -> tuple[Path, Path]:
    """Build an sdist, and from it a wheel for the CPU with build isolation, which checks the build requirements.

    A constraint keeps pip from downloading another torch than the installed one.
    """
    constraint = folder / "constraint.txt"
    # Without its local part: an index may not have that version.
    constraint.write_text(f"torch=={importlib.metadata.version('torch').split('+')[0]}\n")
    constraints = {"PIP_CONSTRAINT": str(constraint), "PIP_BUILD_CONSTRAINT": str(constraint)}
    call(
        sys.executable,
        "-m",
        "build",
        "--quiet",
        "--outdir",
        folder,
        ROOT,
        env={**os.environ, **constraints, "USE_CUDA": "0"},
    )
    (sdist,), (wheel,) = folder.glob("*.tar.gz"), folder.glob("*.whl")
    return sdist, wheel


def check_sdist(sdist: Path) -> None:
    """Raise AssertionError unless the sdist has the sources."""
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert names.issuperset(IN_SDIST), f"sdist lacks {set(IN_SDIST) - names}"


def check_wheel(wheel: Path) -> None:
    """Raise AssertionError unless the wheel is for every Python from 3.10, complete, without strays, and small."""
    assert re.search(r"-cp310-abi3-\w+\.whl$", wheel.name), f"expected a cp310-abi3 wheel, got {wheel.name}"
    with zipfile.ZipFile(wheel) as archive:
        sizes = {info.filename: info.compress_size for info in archive.infolist()}
    assert sizes.keys() >= set(IN_WHEEL), f"wheel lacks {set(IN_WHEEL) - sizes.keys()}"
    stray = [name for name in sizes if not name.startswith(("fastnst/", "fastnst-"))]
    assert not stray, f"wheel contains {stray}"
    total = wheel.stat().st_size / 1e6
    largest = sorted(sizes, key=lambda name: -sizes[name])[:3]
    print(f"  {wheel.name}: {total:.1f} MB,", ", ".join(f"{name} {sizes[name] / 1e6:.1f}" for name in largest))
    assert total < MOST_MEGABYTES, f"{wheel.name} has {total:.1f} MB, more than {MOST_MEGABYTES}"


def has_cuda(wheel: Path) -> bool:
    """Whether the wheel has the CUDA module."""
    with zipfile.ZipFile(wheel) as archive:
        return CUDA_MODULE in archive.namelist()

"""The package with its CPU module for aarch64."""

from __future__ import annotations

import shutil
import subprocess
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tools.aarch64.machine import FOLDER, ROOT, SITE

CSRC = ROOT / "csrc"
FLAGS = ["-O3", "-g0", "-std=c++17", "-fPIC", "-fvisibility=hidden", "-ffp-contract=fast", "-fno-math-errno"]
FLAGS += ["-fno-trapping-math", "-Wno-psabi"]
FLAGS += ["-Wall", "-Wextra", "-Werror", "-DTORCH_TARGET_VERSION=0x020a000000000000", "-DPy_LIMITED_API=0x030a0000"]


def build() -> None:
    """Compile what changed, and copy the package around it to build/aarch64/package."""
    objects, package = FOLDER / "objects", FOLDER / "package" / "fastnst"
    objects.mkdir(exist_ok=True)
    sources = [CSRC / "library.cpp", *sorted((CSRC / "cpu").glob("*.cpp"))]
    newest = max(header.stat().st_mtime for header in CSRC.rglob("*.h"))
    made = [objects / f"{source.stem}.o" for source in sources]
    old = [
        (source, made_of_it)
        for source, made_of_it in zip(sources, made, strict=True)
        if not made_of_it.exists() or made_of_it.stat().st_mtime < max(newest, source.stat().st_mtime)
    ]
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda pair: _compile(*pair), old))
    shutil.rmtree(package, ignore_errors=True)
    shutil.copytree(ROOT / "fastnst", package, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    libraries = [f"-L{SITE / 'torch' / 'lib'}", "-ltorch_cpu", "-lc10", "-Wl,--allow-shlib-undefined"]
    link = ["aarch64-linux-gnu-g++", "-shared", "-o", package / "_C.abi3.so", *made, *libraries]
    subprocess.run(link, check=True)


def _compile(source: Path, made: Path) -> None:
    headers = [SITE / "torch" / "include", SITE / "torch/include/torch/csrc/api/include", sysconfig.get_path("include")]
    folders = [word for folder in headers for word in ("-isystem", str(folder))]
    build_info = '-DFASTNST_BUILD="a cross compiler"'
    command = ["aarch64-linux-gnu-g++", "-c", "-o", made, *FLAGS, build_info, '-DFASTNST_CUDA=""', *folders, source]
    subprocess.run(command, check=True)

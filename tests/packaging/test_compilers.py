"""The C++ sources compile without warnings with every compiler that this machine has, and use nothing of one alone."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
COMPILERS = {
    "gcc": ["g++"],
    "clang": ["clang++"],
    "gcc for aarch64": ["aarch64-linux-gnu-g++"],
    "clang for aarch64": ["clang++", "--target=aarch64-linux-gnu"],
}

if not (ROOT / "csrc").exists():
    pytest.skip("needs a checkout", allow_module_level=True)

SOURCES = [ROOT / "csrc" / "library.cpp", *sorted((ROOT / "csrc" / "cpu").glob("*.cpp"))]


@pytest.mark.slow
@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
@pytest.mark.parametrize("compiler", COMPILERS)
def test_sources_compile_without_warnings(compiler: str, source: Path) -> None:
    command = COMPILERS[compiler]
    if shutil.which(command[0]) is None or ("aarch64" in compiler and shutil.which("aarch64-linux-gnu-g++") is None):
        pytest.skip(f"no {compiler}")
    headers = [Path(torch.__file__).parent / "include", sysconfig.get_path("include")]
    command = [*command, "-fsyntax-only", "-std=c++17", "-Wall", "-Wextra", "-Werror", "-Wno-psabi"]
    command += [word for folder in headers for word in ("-isystem", str(folder))]
    command += ["-DTORCH_TARGET_VERSION=0x020a000000000000", '-DFASTNST_BUILD=""', '-DFASTNST_CUDA=""', str(source)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr[:2000]


def test_every_table_of_kernels_is_in_the_dispatcher() -> None:
    dispatch = (ROOT / "csrc" / "cpu" / "dispatch.cpp").read_text()
    tables = {path.stem.removeprefix("kernels_") for path in (ROOT / "csrc" / "cpu").glob("kernels_*.cpp")}
    assert len(tables) == 5
    assert set(re.findall(r"return (\w+)_kernels\(\)", dispatch)) == tables


def test_attributes_of_an_instruction_set_are_guarded() -> None:
    """Instructions and builtins of x86 are inside a guard, and pragmas of GCC that Clang does not know in a branch."""
    for path in (ROOT / "csrc" / "cpu").iterdir():
        guards: list[str] = []
        for number, line in enumerate(path.read_text().splitlines(), 1):
            if re.match(r"#\s*if", line):
                guards.append(line)
            elif re.match(r"#\s*(else|elif)", line):
                guards[-1] = f"not {guards[-1]}; {line}"
            elif re.match(r"#\s*endif", line):
                guards.pop()
            around = " ".join(guards)
            where = f"{path.name}:{number}"
            of_every_x86 = r"_mm_[gs]etcsr"  # SSE
            if re.search(rf"__builtin_cpu_|immintrin|{of_every_x86}", line):
                assert "__x86_64__" in around, where
            if re.search(r"_mm\d*_|__m512", re.sub(of_every_x86, "", line)):
                assert "FASTNST_BFLOAT16_PAIRS" in around, where
            if re.search(r"#pragma GCC (?!unroll)|__builtin_shuffle\(", line):
                assert "not #if defined(__clang__)" in around, where


def test_the_emulated_machine_says_what_it_lacks(tmp_path: Path) -> None:
    environment = {**os.environ, "PATH": str(tmp_path)}
    command = [sys.executable, "-m", "tools.aarch64"]
    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    expected = "tools.aarch64: no aarch64-linux-gnu-g++; on Debian it is in the package g++-aarch64-linux-gnu\n"
    assert (run.returncode, run.stderr) == (1, expected)

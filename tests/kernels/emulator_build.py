"""Builds the emulator with CMake and ninja, once per session."""

import fcntl
import importlib.util
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
EMULATOR = ROOT / "tests" / "emulator"
BUILD = ROOT / "build" / "emulator"


def find_tool(name: str) -> str:
    """The tool in this Python's environment, or the one on PATH."""
    found = shutil.which(name, path=sysconfig.get_path("scripts")) or shutil.which(name)
    assert found, f"{name} is missing: pip install {name}"
    return found


def find_compiler() -> str:
    for name in ("g++", "c++", "clang++"):
        if found := shutil.which(name):
            return found
    import pytest  # tools.kernel_model builds the emulator too, where pytest may be missing

    pytest.skip("requires a C++ compiler")


def run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"


def build_emulator() -> Path:
    """The built Python module."""
    find_compiler()
    import pybind11

    cmake = find_tool("cmake")
    options = {
        "CMAKE_MAKE_PROGRAM": find_tool("ninja"),
        "pybind11_DIR": pybind11.get_cmake_dir(),
        "Python_EXECUTABLE": sys.executable,
    }
    defines = [f"-D{name}={value}" for name, value in options.items()]
    BUILD.parent.mkdir(exist_ok=True)
    with BUILD.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # one build at a time, also of other test processes
        cache = BUILD / "CMakeCache.txt"
        if cache.exists() and str(EMULATOR) not in cache.read_text():  # the cache of a tree that was moved
            shutil.rmtree(BUILD)
        run(cmake, "-S", str(EMULATOR), "-B", str(BUILD), "-G", "Ninja", *defines)
        run(cmake, "--build", str(BUILD))
    return BUILD / f"fastnst_emulator{sysconfig.get_config_var('EXT_SUFFIX')}"


def load_emulator() -> Any:
    """The emulator's Python module, built first."""
    spec = importlib.util.spec_from_file_location("fastnst_emulator", build_emulator())
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module

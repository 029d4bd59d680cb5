"""Cross-compile the CPU module for aarch64 and run tests of the ops with it in an emulator, under a whole torch.

    python -m tools.aarch64                        # tests/ops, those of `make test` that start no compiler
    python -m tools.aarch64 -k gram                # further arguments select tests, as for pytest
    python -m tools.aarch64.count                  # count instructions of the NEON kernels

Needs Debian or Ubuntu with the packages g++-aarch64-linux-gnu and qemu-user-static. Python comes from the packages of
the distribution for arm64, which are unpacked and not installed; torch, in the version of this environment, and the
other packages come from the package index. All of it is in build/aarch64, 2 GB.
"""

from __future__ import annotations

import shutil
import subprocess
import sys

from tools.aarch64.build import build
from tools.aarch64.machine import FOLDER, ROOT, prepare, python

NEEDED = {"aarch64-linux-gnu-g++": "g++-aarch64-linux-gnu", "qemu-aarch64-static": "qemu-user-static"}
# Without those that compile something, which the compilers of the host would compile for the host.
SELECTED = ["-m", "not slow", "-k", "not compile and not cuda_module_that_does_not_load"]
ALWAYS = ["-q", "-c", str(ROOT / "pyproject.toml"), "--rootdir", str(ROOT), str(ROOT / "tests" / "ops")]


def main(selection: list[str]) -> int:
    for program, package in NEEDED.items():
        if shutil.which(program) is None:
            sys.exit(f"tools.aarch64: no {program}; on Debian it is in the package {package}")
    prepare()
    build()
    paths = ["-o", f"pythonpath={FOLDER / 'package'} {ROOT / 'tests'}"]
    command = [*python(), "-m", "pytest", *ALWAYS, *paths, *(selection or SELECTED)]
    # Elsewhere, since processes that tests start would import the package of the checkout first.
    return subprocess.run(command, cwd=FOLDER, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

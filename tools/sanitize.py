"""Build the CPU kernels under a sanitizer, beside the normal build, and run tests of the ops with it.

    python -m tools.sanitize address                 # AddressSanitizer and UndefinedBehaviorSanitizer, tests/ops
    python -m tools.sanitize thread                  # ThreadSanitizer, the tests of several threads
    python -m tools.sanitize address -k gram         # further arguments select tests, as for pytest

The build is in build/sanitize-NAME; the first report of a sanitizer ends the run and is
printed at its end. Without arguments, tests marked slow are left out.
"""

from __future__ import annotations

import os
import platform
import re
import shlex
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LIBRARIES = {
    "address": ["libasan.so", "libubsan.so", "libstdc++.so"],
    "thread": ["libtsan.so", "libstdc++.so"],
}
OPTIONS = {
    # Python does not free everything at exit; tests request more memory than exists.
    "ASAN_OPTIONS": "detect_leaks=0:abort_on_error=1:allocator_may_return_null=1",
    "UBSAN_OPTIONS": "print_stacktrace=1",
    # Synchronization in code that is not instrumented (Python, libtorch, libgomp) is invisible to the sanitizer.
    "TSAN_OPTIONS": "halt_on_error=1:abort_on_error=1:ignore_noninstrumented_modules=1:report_signal_unsafe=0",
}
ALLOWED = re.compile(r"WARNING: AddressSanitizer failed to allocate 0x[0-9a-f]+ bytes$")
ALWAYS = ["-q", "-x", "-n", "2", "--dist", "worksteal", "-c", str(ROOT / "pyproject.toml"), "--rootdir", str(ROOT)]
ALWAYS += [str(ROOT / "tests" / "ops")]
# Code of torch.compile is built without the sanitizer, and compiling under one takes minutes.
SELECTED = {
    "address": ["-m", "not cuda and not slow", "-k", "not compile"],
    "thread": ["-m", "not cuda", "-k", "threads"],
}


def main(name: str, selection: list[str]) -> int:
    folder = ROOT / "build" / f"sanitize-{name}"
    build(name, folder)
    # -R: ThreadSanitizer does not support randomized addresses.
    command = ["setarch", platform.machine(), "-R", sys.executable, "-m", "pytest", *ALWAYS]
    # The package in this folder comes before the checkout's.
    command += ["-o", f"pythonpath={shlex.join([str(folder), str(ROOT / 'tests')])}", *(selection or SELECTED[name])]
    # Reports go to files: those of the processes of pytest would be lost. One is enough for a failure.
    reports = folder / "report"
    for old in folder.glob(f"{reports.name}.*"):
        old.unlink()
    options = {variable: f"{text}:log_path={reports}" for variable, text in OPTIONS.items()}
    environment = {**os.environ, **options, "LD_PRELOAD": " ".join(map(library, LIBRARIES[name]))}
    environment |= {"PYTHONPATH": str(folder)}
    code = subprocess.run(command, cwd=folder, env=environment, check=False).returncode
    texts = [path.read_text(encoding="utf-8", errors="replace") for path in sorted(folder.glob(f"{reports.name}.*"))]
    faults = [text for text in texts if is_fault(text)]
    print(*faults, sep="\n", end="")
    return code or int(bool(faults))


def is_fault(report: str) -> bool:
    """Whether the text of a report says more than that memory ran out, which OPTIONS allow."""
    return any(line.strip() and not ALLOWED.search(line) for line in report.splitlines())


def build(name: str, folder: Path) -> None:
    """The package with its CPU module, under the sanitizer."""
    environment = {**os.environ, "FASTNST_SANITIZE": name, "USE_CUDA": "0"}
    command = [sys.executable, "setup.py", "-q", "build", "--build-base", folder / "base", "--build-lib", folder]
    subprocess.run(command, cwd=ROOT, env=environment, check=True)


def library(name: str) -> str:
    """The path of a library that comes with the compiler."""
    command = [os.environ.get("CXX", "g++"), f"-print-file-name={name}"]
    path = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    if not Path(path).is_absolute():
        sys.exit(f"{name}: the compiler does not have it; install its sanitizers")
    return str(Path(path).resolve())


if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1] not in LIBRARIES:
        sys.exit(__doc__)
    sys.exit(main(sys.argv[1], sys.argv[2:]))

"""Installs the package from a wheel or the checkout, without an index, into a folder of its own."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from pathlib import Path

from tools.gpu_day.machine import FOR_TESTS, RUNTIME, Machine
from tools.gpu_day.options import ROOT, DayError, Places
from tools.gpu_day.programs import Deadline, Outcome, run

SECONDS = 600
PIP = (sys.executable, "-m", "pip", "install", "--no-index", "--no-deps", "--no-build-isolation", "--no-compile")
WHERE = "import fastnst; from fastnst import ops; print(fastnst.__file__); print(ops.build_info()['cuda'])"


def own_wheel(folder: Path) -> Path | None:
    """The newest wheel of fastnst in a folder."""
    return max(folder.glob("fastnst-*.whl"), key=lambda path: path.stat().st_mtime, default=None)


def small_packages(machine: Machine, places: Places, folder: Path, deadline: Deadline) -> list[str]:
    """Install the wheels of ``folder`` that the interpreter lacks; returns the packages that are still missing."""
    for wheel in sorted(folder.glob("*.whl")):
        name = wheel.name.partition("-")[0].lower()
        if name not in ("fastnst", "torch", *machine.installed):
            command: list[str | Path] = [*PIP, "--quiet", "--target", places.site, wheel]
            run(command, places.logs / f"install-{name}.txt", deadline.left(60), folder=places.run)
    names = {**RUNTIME, **FOR_TESTS}
    there = {path.name.removesuffix(".py") for path in places.site.iterdir()}
    machine.missing = [module for module in machine.missing if module not in there]
    return [names[module] for module in machine.missing if module in names]


def install(machine: Machine, places: Places, wheels: Path, arch: str | None, deadline: Deadline) -> Outcome:
    """Install fastnst for ``arch`` alone, for the CPU alone if there is none. Raises DayError where that fails."""
    wheel = own_wheel(wheels)
    environment = {**places.environment(), "TORCH_CUDA_ARCH_LIST": arch or ""}
    environment["FORCE_CUDA" if arch else "USE_CUDA"] = "1" if arch else "0"
    if not arch:
        environment.pop("FORCE_CUDA", None)
    command: list[str | Path] = [*PIP, "-v", "--target", places.site, wheel or ROOT]
    done = run(command, places.logs / "install.txt", deadline.left(SECONDS), folder=places.run, environment=environment)
    if done.code != 0:
        what = f"the wheel {wheel.name}" if wheel else "the checkout"
        raise DayError(f"pip could not install {what} ({done.state}: {reason(done.log.splitlines())})")
    check = run(
        [sys.executable, "-c", WHERE],
        places.logs / "import.txt",
        deadline.left(120),
        folder=places.run,
        environment=places.environment(),
    )
    if check.code != 0:
        raise DayError(f"the installed package does not import: {check.last()}")
    where, built = check.log.splitlines()[-2:]
    if places.site not in Path(where).parents:
        raise DayError(
            f"fastnst was imported from {where}, not from {places.site}: is it in a PYTHONPATH or .pth file?"
        )
    if arch and not serves(built, arch):
        raise DayError(f"the installed package has CUDA kernels for {built}, not for {arch}")
    how = f"wheel {wheel.name}" if wheel else f"built from the checkout for {arch or 'the CPU'}"
    if "ninja" in machine.missing and not wheel:
        how += "; without ninja, so one file at a time"
    return Outcome("install", "ok", note=how)


def serves(built: str, arch: str) -> bool:
    """Whether kernels for the architectures ``built``, such as "8.0,9.0+PTX" or "None", run on one of ``arch``."""
    major, minor = map(int, arch.split("."))
    for word in built.replace("None", "").split(","):
        if found := re.fullmatch(r"(\d+)\.(\d+)[af]?(\+PTX)?", word.strip()):
            have = (int(found[1]), int(found[2]))
            if have <= (major, minor) and (have[0] == major or found[3]):
                return True
    return False


def reason(lines: Iterable[str]) -> str:
    """The line of pip's output that says why."""
    said = [line.strip() for line in lines if line.strip()]
    telling = [line for line in said if "error" in line.lower() or line.startswith("fastnst:")]
    return next(reversed(telling or said), "no output")[:200]

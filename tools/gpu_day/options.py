"""The options of the command, and the folders that it uses."""

from __future__ import annotations

import argparse
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = ("all", "install", "profile")
PARTS = ("tests", "sanitizer", "micro", "bench")
NEEDED_BYTES = 2**29  # the package with its weights twice, compiled kernels, results


class DayError(Exception):
    """What is wrong and what would be right, in one line."""


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise DayError(f"{message}; see bash tools/gpu_day.sh --help")


def words_of(text: str) -> list[str]:
    return [word for word in text.split(",") if word]


def parse(arguments: Sequence[str], environment: dict[str, str]) -> argparse.Namespace:
    """The options; relative paths are relative to the folder from which the command was started."""
    start = Path(environment.get("GPU_DAY_FROM") or Path.cwd())
    parser = Parser("gpu_day.sh", description=(__doc__ or "").splitlines()[0])
    parser.description = "Install fastnst without a network, test it on the GPU at hand and measure it."
    parser.add_argument("command", nargs="?", default="all", choices=COMMANDS, help=" or ".join(COMMANDS))
    parser.add_argument("--out", default=environment.get("OUT") or str(ROOT / "build" / "gpu-day"), metavar="DIR")
    parser.add_argument("--wheels", metavar="DIR", help="wheels of fastnst or of small packages (default: OUT/wheels)")
    parser.add_argument("--minutes", type=float, default=9.0, help="limit of the whole command (default 9)")
    parser.add_argument("--parts", type=words_of, default=list(PARTS), help=f"default: {','.join(PARTS)}")
    parser.add_argument("--precisions", default="bfloat16,float32", help="of the bench (default bfloat16,float32)")
    parser.add_argument("--sides", default="512,1024", help="sides of the pictures (default 512,1024)")
    parser.add_argument("--compile", action="store_true", help="let the bench measure torch.compile as well")
    parser.add_argument("--model", metavar="FILE", help="predictions (default: model.json beside the wheels)")
    parser.add_argument(
        "--run", default=str(ROOT / "build" / "gpu-day-run"), metavar="DIR", help="installs and programs"
    )
    parser.add_argument("--arch", help="architecture to compile for, such as 9.0 (default: the card's)")
    parser.add_argument("--rehearse", action="store_true", help="without a GPU: on the CPU where a part can run there")
    found = parser.parse_args(arguments)
    if wrong := [part for part in found.parts if part not in PARTS]:
        raise DayError(f"--parts: expected some of {','.join(PARTS)}, got {','.join(wrong)}")
    if not 0.1 <= found.minutes <= 600:
        raise DayError(f"--minutes: expected a number from 0.1 to 600, got {found.minutes:g}")
    found.out, found.run = start / found.out, start / found.run
    wheels = found.wheels
    found.wheels = start / wheels if wheels else found.out / "wheels"
    if wheels and not found.wheels.is_dir():
        raise DayError(f"--wheels: there is no folder {found.wheels}")
    if not found.wheels.is_dir():
        found.wheels = ROOT / "build" / "gpu-day" / "wheels"
    beside = found.wheels / "model.json"
    found.model = start / found.model if found.model else beside if beside.exists() else None
    return found


class Places:
    """Where results go, and where the package is installed and run from.

    ``run`` holds everything else: the installed package, a copy of what runs beside it, programs, single logs. The copy
    has no ``fastnst``, so that nothing can import the package of the checkout.
    """

    def __init__(self, out: Path, run: Path) -> None:
        self.out, self.run = out, run
        self.site, self.copy, self.logs = run / "site", run / "checkout", run / "logs"

    def make(self) -> None:
        """Make the folders anew; raises DayError where they cannot be written or the disk is full."""
        try:
            for folder in (self.site, self.copy, self.logs):
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir(parents=True)
            self.out.mkdir(parents=True, exist_ok=True)
            for folder in (self.out, self.run):
                probe = folder / ".probe"
                probe.write_bytes(b"0" * 4096)
                probe.unlink()
        except OSError as error:
            raise DayError(f"cannot write to {error.filename or self.out}: {error.strerror}") from None
        for folder in (self.out, self.run):
            if (free := shutil.disk_usage(folder).free) < NEEDED_BYTES:
                raise DayError(f"{folder} has {free >> 20} MB free, {NEEDED_BYTES >> 20} are needed")
        for name in ("tests", "bench", "tools", "csrc"):
            shutil.copytree(ROOT / name, self.copy / name, ignore=shutil.ignore_patterns("__pycache__", "results"))
        for name in ("pyproject.toml", "CMakeLists.txt"):
            shutil.copy(ROOT / name, self.copy / name)

    def environment(self) -> dict[str, str]:
        """For programs that import the installed package, and bench, tools and tests of the copy."""
        theirs = os.environ.get("PYTHONPATH", "").split(os.pathsep)
        kept = [entry for entry in theirs if entry and Path(entry).resolve() != ROOT]
        path = os.pathsep.join([str(self.site), str(self.copy), *kept])
        return {**os.environ, "PYTHONPATH": path, "PYTHONSAFEPATH": "1", "PYTHONUNBUFFERED": "1"}

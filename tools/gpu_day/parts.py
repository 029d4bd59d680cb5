"""The parts: device tests, the sanitizer, the micro-benchmark, the bench, profiles."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tools.gpu_day.machine import Machine, find_tool
from tools.gpu_day.options import DayError, Places
from tools.gpu_day.programs import Deadline, Outcome, Ran, run

TESTS_SECONDS, SANITIZER_SECONDS, MICRO_SECONDS, PROFILE_SECONDS = 180, 120, 75, 400
SPARE_SECONDS = 25  # between the bench's own limit and the end: the problem that runs, files, the summary
WITHOUT = "not slow and not network"
KINDS = {"float32": "float", "bfloat16": "__nv_bfloat16", "half": "__half"}


@dataclass
class Day:
    """What every part needs, and what the parts found."""

    machine: Machine
    places: Places
    deadline: Deadline
    precisions: str
    sides: str
    compiles: bool
    rehearse: bool
    found: dict[str, Any] = field(default_factory=dict)
    programs: dict[str, Path] = field(default_factory=dict)

    def run(self, name: str, seconds: float, *command: str | Path, **variables: str) -> Ran:
        environment = {**self.places.environment(), **variables}
        log = self.places.logs / f"{name}.txt"
        return run(command, log, self.deadline.left(seconds), folder=self.places.copy, environment=environment)


def device_tests(copy: Path) -> list[str]:
    """The files of tests that need a device."""
    files = sorted((copy / "tests").rglob("test_*.py"))
    marks = ("pytest.mark.cuda", "NEEDS_CUDA")
    return [str(path.relative_to(copy)) for path in files if any(mark in path.read_text() for mark in marks)]


def tests(day: Day) -> Outcome:
    """The device tests, in parallel where pytest-xdist is there."""
    if lacking := {"pytest", "hypothesis"} & set(day.machine.missing):
        raise DayError(f"needs {', '.join(sorted(lacking))}")
    workers = max(1, min(8, os.cpu_count() or 1, (day.machine.memory >> 30) // 4 or 8))
    parallel = ["-n", str(workers), "--dist", "worksteal"] if "xdist" not in day.machine.missing else []
    chosen = ["-m", f"cuda and {WITHOUT}", "-k", "not compile", "-o", "filterwarnings=default", "-v", "--tb=short"]
    if day.rehearse:  # these need no device, and show that tests run from the installed package
        chosen[1], chosen[3] = WITHOUT, "sanitizer or errors"
    names = device_tests(day.places.copy)
    done = day.run("tests", TESTS_SECONDS, sys.executable, "-m", "pytest", *parallel, *chosen, *names)
    counts, failures = count_tests(done.log)
    note = ", ".join(f"{number} {state}" for state, number in counts.items()) or done.last()
    if not parallel:
        note += "; without pytest-xdist, so one after the other"
    state = "failed" if counts["failed"] and done.state == "out of time" else done.state
    return Outcome("tests", state, note=note, lines=failures)


def count_tests(log: str) -> tuple[Counter[str], list[str]]:
    """The tests by result, and those that failed, from the verbose output of pytest, also of a run that was ended."""
    states = re.findall(
        r"^(?:\[gw\d+\] \[ *\d+%\] )?(?:(\S+::.+?) )?(PASSED|FAILED|ERROR|SKIPPED)\b(?: (\S+::.+))?", log, re.M
    )
    failed = [name or after for name, state, after in states if state in ("FAILED", "ERROR") and (name or after)]
    lines = [re.sub(r" - .*| +\[ *\d+%\]$", "", name).strip() for name in failed]
    counts: Counter[str] = Counter(state.lower() for name, state, after in states if state not in ("FAILED", "ERROR"))
    if unique := list(dict.fromkeys(lines)):
        counts["failed"] = len(unique)
    return counts, unique


def sanitizer(day: Day) -> Outcome:
    """memcheck and racecheck on every op, of as many cases as the time allows."""
    found = find_tool("compute-sanitizer", day.machine.nvcc)
    if found is None:
        raise DayError("there is no compute-sanitizer")
    notes, states = [], []
    for tool in ("memcheck", "racecheck"):
        seconds = SANITIZER_SECONDS / 2
        script = [sys.executable, "tests/ops/cuda_every_op.py", "cpu" if day.rehearse else "cuda", "--seconds"]
        command = [found, "--tool", tool, "--error-exitcode", "3", *script, f"{1 if day.rehearse else seconds / 3:g}"]
        # Without PyTorch's cache each tensor is a separate allocation, whose bounds the tool knows.
        done = day.run(tool, seconds, *command, PYTHONPATH=_with_tests(day), PYTORCH_NO_CUDA_MEMORY_CACHING="1")
        summary = re.search(r"SUMMARY: (\d+ \w+)", done.log)
        cases = re.search(r"(\d+ of \d+|\d+) cases ran", done.log)
        right = done.code == 0 and summary is not None and summary[1].startswith("0 ") and cases is not None
        states.append("ok" if right else done.state if done.state != "ok" else "failed")
        notes.append(f"{tool}: {summary[1] if summary else done.last()}, {cases[1] if cases else 'no'} cases")
    return Outcome("sanitizer", next((state for state in states if state != "ok"), "ok"), note="; ".join(notes))


def _with_tests(day: Day) -> str:
    return os.pathsep.join([day.places.environment()["PYTHONPATH"], str(day.places.copy / "tests" / "ops")])


def cublas(nvcc: Path) -> list[str]:
    """The options that link cuBLAS: that of the toolkit, or the one that came with torch; empty without either."""
    home = nvcc.resolve().parent.parent
    if (home / "include" / "cublas_v2.h").exists() and list((home / "lib64").glob("libcublas.so*")):
        return ["-DFASTNST_CUBLAS", "-lcublas", "-Xlinker", f"-rpath={home / 'lib64'}"]
    nvidia = importlib.util.find_spec("nvidia")
    for entry in (nvidia.submodule_search_locations or ()) if nvidia else ():
        for header in sorted(Path(entry).glob("*/include/cublas_v2.h")):
            if libraries := sorted((header.parents[1] / "lib").glob("libcublas.so.*")):
                where = ["-Xlinker", str(libraries[0]), "-Xlinker", f"-rpath={libraries[0].parent}"]
                return ["-DFASTNST_CUBLAS", "-isystem", str(header.parent), *where]
    return []


def build_micro(day: Day, arch: str) -> None:
    """Build a program for each precision; raises DayError where that is not possible."""
    nvcc = day.machine.nvcc
    if nvcc is None:
        raise DayError("there is no nvcc")
    library = cublas(nvcc)
    flags = ["-std=c++17", "-O3", "--extended-lambda", f"-arch=sm_{arch.replace('.', '')}"]
    folders = ["-I", "csrc/kernels", "-I", "bench/gpu/micro"]
    for precision, kind in KINDS.items():
        program = day.places.run / f"micro-{precision}"
        command: list[str | Path] = [
            nvcc,
            *flags,
            f"-DMICRO_TYPE={kind}",
            *folders,
            "bench/gpu/micro.cu",
            *library,
            "-o",
            program,
        ]
        done = day.run(f"nvcc-{precision}", 240, *command)
        if done.code != 0:
            raise DayError(f"nvcc failed on the micro-benchmark ({done.state}: {done.last()})")
        day.programs[precision] = program
    day.found["cublas"] = bool(library)


def micro(day: Day) -> Outcome:
    """Every kernel, checked and timed, without torch."""
    if not day.programs:
        raise DayError("the micro-benchmark was not built")
    rows, problems, each = [], [], MICRO_SECONDS / len(day.programs)
    for precision, program in day.programs.items():
        mode = ["--list"] if day.rehearse else ["--sides", day.sides, "--seconds", f"{each - 10:g}"]
        done = day.run(f"micro-{precision}", each, program, *mode)
        rows += json_lines(done.log)
        if done.state != "ok":
            problems.append(f"{precision} {done.state}: {done.last()}")
    left_out = sum(row.get("left_out", 0) for row in rows)
    day.found["micro"] = [row for row in rows if row.get("op") != "end"]
    (day.places.out / "micro.json").write_text(one_line_each(day.found["micro"]))
    wrong = [row for row in rows if row.get("refused")]
    note = f"{len(day.found['micro'])} rows, {len(wrong)} refused, {left_out} problems left out"
    note += "" if day.found.get("cublas") else "; without cuBLAS, which was not found"
    lines = [f"{row['op']} {row['layer']} {row['side']} {row['precision']}: {row['refused']}" for row in wrong]
    return Outcome("micro", "failed" if problems or wrong else "ok", note="; ".join([note, *problems]), lines=lines)


def json_lines(text: str) -> list[dict[str, Any]]:
    """The objects among the lines of a log; a line that was cut is left out."""
    found = []
    for line in text.splitlines():
        if line.startswith("{"):
            try:
                found.append(json.loads(line))
            except ValueError:
                continue
    return found


def one_line_each(rows: list[dict[str, Any]]) -> str:
    return "[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n"


def bench(day: Day) -> Outcome:
    """The loop and the ops with torch, in the time that is left."""
    seconds = day.deadline.left() - SPARE_SECONDS
    if seconds < 20:
        raise DayError("no time was left for it")
    results = day.places.run / "results"
    shutil.rmtree(results, ignore_errors=True)
    options = ["--out", str(results), "--minutes", f"{seconds / 60:.2f}", "--precisions", day.precisions]
    options += ["--sides", day.sides]
    if not day.compiles:
        options.append("--no-compile")
    if day.rehearse:
        options += ["--device", "cpu", "--layers", "relu3_1"]
    done = day.run("bench", seconds + SPARE_SECONDS / 2, sys.executable, "-m", "bench.gpu.run", *options)
    for path in sorted(results.glob("*.json")):
        shutil.copy(path, day.places.out / "bench.json")
        day.found["bench"] = json.loads(path.read_text())
    if "bench" not in day.found:
        return Outcome("bench", "failed" if done.state == "ok" else done.state, note=done.last())
    dropped = day.found["bench"]["dropped"]
    note = f"{len(day.found['bench']['loop'])} loops, {len(day.found['bench']['ops'])} rows of ops"
    if dropped:
        note += f"; {len(dropped)} left out for lack of time"
    return Outcome("bench", done.state, note=note)


def model(day: Day, file: Path | None) -> list[Mapping[str, Any]]:
    """The predictions of the time model: those of ``file``, else what the model of this checkout writes in a minute.

    They are a JSON list, alone or under some key of an object. Nothing is returned for anything else.
    """
    if file is None:
        if not list((day.places.copy / "tools").glob("kernel_model*")):
            return []
        file = day.places.run / "model.json"
        file.unlink(missing_ok=True)
        day.run("model", 60, sys.executable, "-m", "tools.kernel_model", "--json", file)
    try:
        found = json.loads(file.read_text())
    except (OSError, ValueError):
        return []
    if isinstance(found, dict):
        found = next((value for value in found.values() if isinstance(value, list)), [])
    return [row for row in found if isinstance(row, dict)]


def profile(day: Day) -> Outcome:
    """Every op once under ncu, at the first side and precision."""
    found = find_tool("ncu", day.machine.nvcc)
    if found is None:
        raise DayError("there is no ncu")
    precision = day.precisions.partition(",")[0].replace("tf32", "float32")
    program = day.programs.get(precision)
    if program is None:
        raise DayError(f"there is no micro-benchmark in {precision}")
    sections = (
        "SpeedOfLight",
        "LaunchStats",
        "Occupancy",
        "MemoryWorkloadAnalysis",
        "WarpStateStats",
        "SchedulerStats",
    )
    chosen = [word for section in sections for word in ("--section", section)]
    # The card's clocks stay as they are.
    how = ["--clock-control", "none", "--profile-from-start", "off", *chosen]
    done = day.run("profile", PROFILE_SECONDS, found, *how, program, "--once", "--sides", day.sides.partition(",")[0])
    (day.places.out / "profile.txt").write_text(done.log[-(15 << 20) :])
    kernels = len(re.findall(r"^ +\S.*Context \d+, Stream", done.log, re.M))
    state = "failed" if done.state == "ok" and not kernels else done.state
    return Outcome("profile", state, note=f"{kernels} kernels in profile.txt" if kernels else done.last())

"""The command: checks, parts in order, files, summary.

Returns 0 if all went well, 1 if a part did not, 2 if none ran.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from argparse import Namespace
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path

from tools.gpu_day import install, machine, parts
from tools.gpu_day.options import ROOT, DayError, Places, parse
from tools.gpu_day.parts import Day
from tools.gpu_day.programs import Deadline, Outcome, guarded, joined_logs
from tools.gpu_day.summary import summary

LOG_LIMIT = 12 << 20  # of all logs together; a file of results stays below 16 MiB


def commit() -> str:
    """The commit of the checkout, where it is one and git is there."""
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return "unknown"


def install_all(day: Day, options: Namespace, arch: str | None) -> Outcome:
    """Install, and build the micro-benchmark beside it, so that both compile at once."""
    wants_micro = options.command == "profile" or (options.command == "all" and "micro" in options.parts)
    with ThreadPoolExecutor(1) as pool:
        build: Future[None] | None = pool.submit(parts.build_micro, day, arch or "9.0") if wants_micro else None
        lacking = install.small_packages(day.machine, day.places, options.wheels, day.deadline)
        found = Outcome("install", "skipped", note="the micro-benchmark alone needs no package")
        if options.command == "install" or (options.command == "all" and set(options.parts) != {"micro"}):
            found = guarded(
                "install", lambda: install.install(day.machine, day.places, options.wheels, arch, day.deadline)
            )
            found.state = "failed" if found.state == "skipped" else found.state
    if lacking:
        found.lines.append(f"without {', '.join(lacking)}: not installed here, and no wheel in {options.wheels}")
    if build is not None and (problem := build.exception()):
        found.lines.append(f"no micro-benchmark: {problem}")
    return found


def outcomes(day: Day, options: Namespace, arch: str | None) -> list[Outcome]:
    first = guarded("install", lambda: install_all(day, options, arch))
    if options.command == "install":
        return [first]
    if options.command == "profile":
        return [first, guarded("profile", lambda: parts.profile(day))]
    works = {"tests": parts.tests, "sanitizer": parts.sanitizer, "micro": parts.micro, "bench": parts.bench}
    usable = [name for name in options.parts if first.state == "ok" or name == "micro"]
    # Tests and the sanitizer share the device; what is timed has it alone.
    with ThreadPoolExecutor(2) as pool:
        together = [name for name in ("tests", "sanitizer") if name in usable]
        done = list(pool.map(lambda name: guarded(name, partial(works[name], day)), together))
    done += [guarded(name, partial(works[name], day)) for name in ("micro", "bench") if name in usable]
    left = [name for name in options.parts if name not in usable]
    return [first, *done, *(Outcome(name, "skipped", note="the package is not installed") for name in left)]


def main(arguments: Sequence[str]) -> int:
    options = parse(arguments, dict(os.environ))
    deadline = Deadline(60 * options.minutes)
    places = Places(options.out, options.run)
    places.make()
    here = machine.probe(places.environment(), places.run)
    machine.check(here, rehearse=options.rehearse, wheel=install.own_wheel(options.wheels) is not None)
    arch = options.arch or here.arch
    day = Day(here, places, deadline, options.precisions, options.sides, options.compile, options.rehearse)
    try:
        done = outcomes(day, options, arch)
        facts = {"card": here.card, "arch": arch, "torch": here.torch, "python": here.python, "nvcc": here.release}
        facts |= {"commit": commit(), "rehearsal": options.rehearse, "missing": here.missing}
        predicted = parts.model(day, options.model) if options.command == "all" else []
        text = summary(facts, done, day.found, predicted)
        write(places, facts, done, text)
    except OSError as error:
        raise DayError(f"cannot write {error.filename or places.out}: {error.strerror}") from None
    print(text)
    return 0 if all(one.state in ("ok", "skipped") for one in done) else 1


def write(places: Places, facts: dict[str, object], done: list[Outcome], text: str) -> None:
    logs = sorted(places.logs.glob("*.txt"), key=lambda path: path.stat().st_mtime)
    limit = LOG_LIMIT // max(1, len(logs))
    (places.out / "log.txt").write_text(joined_logs(logs, limit))
    report = {"machine": facts, "parts": [vars(one) for one in done]}
    (places.out / "day.json").write_text(json.dumps(report, indent=1) + "\n")
    (places.out / "summary.txt").write_text(text + "\n")


def run_from(argv: Sequence[str]) -> int:
    try:
        return main(argv)
    except DayError as error:
        print(f"gpu_day: {error}", file=sys.stderr)
    except OSError as error:
        print(f"gpu_day: {Path(error.filename or '.')}: {error.strerror}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(run_from(sys.argv[1:]))

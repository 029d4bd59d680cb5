"""What holds for all tests: threads that wait do not spin, and what was tried and what was not is said at the end."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable

import pytest

# Read by OpenMP when torch is loaded: beside another busy process, threads that spin take its time and lose their own.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

NOTES = pytest.StashKey[dict[str, list[str]]]()


@pytest.fixture
def note(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """Say a line under a heading in the summary of the run."""
    notes = request.config.stash.setdefault(NOTES, {})
    return lambda heading, line: notes.setdefault(heading, []).append(line)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    _what_ran(terminalreporter)
    for heading, lines in terminalreporter.config.stash.get(NOTES, {}).items():
        terminalreporter.section(heading)
        for line in lines:
            terminalreporter.write_line(line)


def _what_ran(terminal: pytest.TerminalReporter) -> None:
    """The number of tests by folder, and of those skipped by reason."""
    ran = Counter(report.nodeid.split("/")[1] for report in terminal.stats.get("passed", []) if "/" in report.nodeid)
    skipped = Counter(_reason(report) for report in terminal.stats.get("skipped", []))
    terminal.section("what was tested")
    terminal.write_line(", ".join(f"{name} {count}" for name, count in sorted(ran.items())) or "nothing")
    left = len(terminal.stats.get("deselected", []))
    for reason, count in [*skipped.most_common(), *([("not chosen by -m or -k", left)] if left else [])]:
        terminal.write_line(f"{count:6}  NOT TESTED: {reason}")


def _reason(report: pytest.TestReport) -> str:
    where = report.longrepr
    text = where[2] if isinstance(where, tuple) else str(where)
    return text.removeprefix("Skipped: ").partition(" (")[0][:100]

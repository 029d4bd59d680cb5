"""What holds for all tests: threads that wait do not spin, and what was tried and what was not is said at the end."""

from __future__ import annotations

import os
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
    for heading, lines in terminalreporter.config.stash.get(NOTES, {}).items():
        terminalreporter.section(heading)
        for line in lines:
            terminalreporter.write_line(line)

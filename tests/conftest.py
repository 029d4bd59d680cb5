"""What holds for all tests: threads that wait do not spin, and what was tried and what was not is said at the end."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest

# Read by OpenMP when torch is loaded: beside another busy process, threads that spin take its time and lose their own.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

# Here, so that each process reads the weights once and not once for each folder; it imports torch.
from support.networks import bundled, bundled64, vgg16, vgg16_64, weights_read_once  # noqa: F401

SCHEDULING = os.sched_getscheduler(0) if hasattr(os, "sched_getscheduler") else 0
NOTES = pytest.StashKey[dict[str, list[str]]]()


@pytest.fixture
def note(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """Say a line under a heading in the summary of the run."""
    notes = request.config.stash.setdefault(NOTES, {})
    return lambda heading, line: notes.setdefault(heading, []).append(line)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Of the cases of a test marked ``sweep(n)`` every n-th is run by ``make test``, all by ``make test-all``."""
    cases: Counter[str] = Counter()
    for item in items:
        marker = item.get_closest_marker("sweep")
        if marker is not None:
            name = item.nodeid.partition("[")[0]
            if cases[name] % marker.args[0]:
                item.add_marker(pytest.mark.slow)
            cases[name] += 1


@pytest.fixture(autouse=True)
def _stays_as_it_was() -> Iterator[None]:
    """A test that left this process real-time would starve all others and itself."""
    yield
    if hasattr(os, "sched_getscheduler"):
        assert os.sched_getscheduler(0) == SCHEDULING


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Send the notes of a worker to the process that prints the summary."""
    output = getattr(session.config, "workeroutput", None)
    if output is not None:
        output["notes"] = session.config.stash.get(NOTES, {})


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Collect the notes of a worker."""
    notes = node.config.stash.setdefault(NOTES, {})
    for heading, lines in getattr(node, "workeroutput", {}).get("notes", {}).items():
        notes.setdefault(heading, []).extend(lines)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    _what_ran(terminalreporter)
    for heading, lines in terminalreporter.config.stash.get(NOTES, {}).items():
        terminalreporter.section(heading)
        for line in lines:
            terminalreporter.write_line(line)


def _what_ran(terminal: pytest.TerminalReporter) -> None:
    """The number of tests by folder, and of those skipped by reason."""
    folders = (report.nodeid.partition("::")[0].split("/")[1:-1] for report in terminal.stats.get("passed", []))
    ran = Counter("/".join(folder) or "files" for folder in folders)
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

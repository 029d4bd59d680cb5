"""Nothing that fastnst reads crashes it, hangs it, fills memory, or raises anything but a FastnstError of one line."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from . import harness
from .readers import READERS, make, reader
from .trials import TRIALS

QUICK, FULL = 150, 2000  # inputs over all readers

readers = pytest.mark.parametrize("name", READERS)


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FASTNST_CACHE", str(tmp_path / "cache"))


def outcomes(count: int, first: int) -> dict[str, list[harness.Outcome]]:
    found: dict[str, list[harness.Outcome]] = {}
    for outcome in harness.run(harness.jobs(count, READERS, first)):
        found.setdefault(outcome.reader, []).append(outcome)
    return found


@pytest.fixture(scope="module")
def quick() -> dict[str, list[harness.Outcome]]:
    return outcomes(QUICK, 0)


@pytest.fixture(scope="module")
def full() -> dict[str, list[harness.Outcome]]:
    return outcomes(FULL, 100)


@readers
def test_undamaged_files_are_read(name: str) -> None:
    for number, data in enumerate(READERS[name].seeds()):
        path = Path(f"whole{READERS[name].suffix}")
        path.write_bytes(data)
        assert harness.judge(name, path) == ("loaded", "", ""), number


@readers
def test_damaged_input_is_read_or_rejected_with_one_line(name: str, quick: dict[str, list[harness.Outcome]]) -> None:
    assert not [str(outcome) for outcome in quick[name] if outcome.failed]


@pytest.mark.slow
@readers
def test_more_damaged_input_is_read_or_rejected_with_one_line(
    name: str, full: dict[str, list[harness.Outcome]]
) -> None:
    assert not [str(outcome) for outcome in full[name] if outcome.failed]
    kinds = {outcome.kind for outcome in full[name]}
    assert kinds == {"loaded", "refused"} or name == "options", "the damage is of one strength alone"


def test_an_input_depends_only_on_its_reader_and_number() -> None:
    jobs = [(name, seed) for name in READERS for seed in range(3)]
    code = "import json, sys, hashlib; from tests.fuzz.readers import make; print(json.dumps([hashlib.sha256("
    code += "make(*job)).hexdigest() for job in json.load(sys.stdin)]))"
    command = [sys.executable, "-c", code]
    done = subprocess.run(
        command, input=json.dumps(jobs), env=harness.environment(), capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout) == [hashlib.sha256(make(*job)).hexdigest() for job in jobs]


@pytest.fixture(scope="module")
def trials(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, list[harness.Outcome]]]:
    jobs = [(f"trial-{name}", seed) for name in TRIALS for seed in (-1, 0, -1)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(harness, "KEPT", tmp_path_factory.mktemp("kept"))
        found: dict[str, list[harness.Outcome]] = {}
        for outcome in harness.run(jobs, workers=1, seconds=3):
            found.setdefault(outcome.reader.removeprefix("trial-"), []).append(outcome)
        yield found


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("well", "loaded"),
        ("crash", "crash (SIGSEGV)"),
        ("hang", "hang"),
        ("fill", "MemoryError"),
        ("fail", "KeyError"),
        ("mumble", "message"),
    ],
)
@pytest.mark.sweep(3)
def test_the_harness_finds(name: str, kind: str, trials: dict[str, list[harness.Outcome]]) -> None:
    usual = "refused" if name == "mumble" else "loaded"
    assert [outcome.kind for outcome in trials[name]] == [usual, kind, usual]
    assert trials[name][1].failed == (kind != "loaded")


def test_the_bytes_of_a_failure_are_kept(trials: dict[str, list[harness.Outcome]]) -> None:
    for name in TRIALS:
        kept = harness.KEPT / f"trial-{name}-0{reader(f'trial-{name}').suffix}"
        assert kept.exists() == trials[name][1].failed
        assert not kept.exists() or kept.read_bytes() == make(f"trial-{name}", 0)

"""The race of whole steps: its checks, counts and tables, and that its parts run; never how long they take."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from bench.common.machine import ROOT
from bench.e2e import contenders, progress, race, race_report, stand_in
from bench.e2e.contenders import CONTENDERS, REFERENCE, Contender, Outcome
from fastnst import weights
from fastnst.network.vgg import VGG

EXACT = "fastnst float32"


def outcome(*seconds: float, peak: int = 100, first_loss: float = 10.0) -> Outcome:
    return Outcome(list(seconds), peak, peak // 2, first_loss, "/somewhere/out.png")


def test_results_that_are_right_pass_the_check() -> None:
    race.check("512^2 adam", {REFERENCE: 101.0, EXACT: 100.0}, {REFERENCE: 50.0, EXACT: 52.0}, 100.0)


@pytest.mark.parametrize(
    ("first", "final", "said"),
    [
        ({REFERENCE: 103.0, EXACT: 100.0}, {REFERENCE: 50.0, EXACT: 50.0}, f"{REFERENCE} starts at loss 103"),
        ({REFERENCE: float("nan"), EXACT: 100.0}, {REFERENCE: 50.0, EXACT: 50.0}, f"{REFERENCE} starts at loss nan"),
        ({REFERENCE: 100.0, EXACT: 100.0}, {REFERENCE: 101.0, EXACT: 50.0}, f"{REFERENCE} ends at loss 101"),
        ({REFERENCE: 100.0, EXACT: 100.0}, {REFERENCE: 50.0, EXACT: 53.0}, f"{EXACT} ends at 53"),
        ({REFERENCE: 100.0, EXACT: 100.0}, {REFERENCE: 50.0, EXACT: float("nan")}, f"{EXACT} ends at loss nan"),
    ],
    ids=["start", "nan", "uphill", "worse", "final nan"],
)
def test_a_wrong_result_ends_the_race_before_a_time_is_printed(
    first: dict[str, float], final: dict[str, float], said: str
) -> None:
    with pytest.raises(SystemExit, match=f"512.2 adam: {said}"):
        race.check("512^2 adam", first, final, 100.0)


def test_a_peer_may_end_worse_than_the_reference() -> None:
    race.check("512^2 adam", {REFERENCE: 100.0, "slow 1.0": 100.0}, {REFERENCE: 50.0, "slow 1.0": 90.0}, 100.0)


def test_ratios_are_medians_of_rounds_and_memory_is_the_largest() -> None:
    outcomes = {
        REFERENCE: [outcome(2.0, 2.0, 9.0, peak=100), outcome(4.0, peak=200), outcome(1.0, peak=50)],
        EXACT: [outcome(1.0, peak=50), outcome(1.0, peak=100), outcome(1.0, peak=80)],
    }
    theirs, ours = race.summaries(outcomes, {REFERENCE: 5.0, EXACT: 4.0})
    assert theirs["time_ratio"] == 1
    assert ours["time_ratio"] == 0.5
    assert ours["time_ratio_spread"] == [0.25, 1.0]
    assert theirs["seconds_per_step"] == 2
    assert ours["memory_ratio"] == 0.5
    assert ours["peak_resident_bytes"] == 100


def rows() -> list[dict[str, object]]:
    outcomes = {REFERENCE: [outcome(2.0)], EXACT: [outcome(1.0)]}
    found = race.summaries(outcomes, {REFERENCE: 5.0, EXACT: 4.0})
    return [{"size": size, "optimizer": "adam", **row} for size in (256, 512) for row in found]


def test_tables_name_every_contender_and_ratios_by_size(tmp_path: Path) -> None:
    whole, sizes, notes = map(str, race_report.tables({"rows": rows(), "differs": {REFERENCE: "pixels differ"}}))
    assert f"| 512 | adam | {EXACT} | 0.50 (0.50-0.50) | 1 (1-1) | 1.00 |" in whole
    assert sizes.splitlines()[-1] == f"| adam | {EXACT} | 0.50 | 0.50 |"
    assert notes == f"- {REFERENCE}: pixels differ"
    assert len(race_report.tables({"rows": rows()[:2], "differs": {}})) == 1
    pytest.importorskip("matplotlib")
    race_report.plot(tmp_path / "race.png", rows())
    assert (tmp_path / "race.png").read_bytes().startswith(b"\x89PNG")


def test_first_steps_are_not_counted() -> None:
    assert contenders.counted([0.0, 10.0, 15.0, 16.0, 18.0]) == [1.0, 2.0]


def test_contenders_are_selected_by_name_or_prefix() -> None:
    assert [c.name for c in contenders.named("fastnst,neural-style")][:2] == [REFERENCE, EXACT]
    assert [c.name for c in contenders.named("fastnst float32, neural")] == [REFERENCE, EXACT]
    assert EXACT in [c.name for c in contenders.named("fastnst float")][:-1]
    assert contenders.named(None) == list(CONTENDERS)
    with pytest.raises(SystemExit, match=r"no contender is called 'none' \(known: neural-style"):
        contenders.named("none")


def test_every_contender_has_its_module_and_every_peer_a_folder_of_its_own() -> None:
    assert all((ROOT / f"{c.module.replace('.', '/')}.py").exists() for c in CONTENDERS)
    peers = [c for c in CONTENDERS if c.package]
    assert len({c.folder for c in peers}) == len(peers) >= 4
    assert all("==" in (c.package or "") for c in peers)


@pytest.fixture
def made_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Contender]:
    """Makes a contender that takes six steps and ends with the given lines."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return lambda end: module(tmp_path, end)


def module(folder: Path, end: str) -> Contender:
    (folder / "made_up.py").write_text(
        "import sys, time\n"
        "from bench.e2e import progress\n"
        "for number in range(1, 7):\n    progress.step(number, 1e8 / number)\ntime.sleep(0.3)\n" + end
    )
    return Contender("made up", "made_up")


def test_a_run_counts_steps_and_reads_loss_and_memory(tmp_path: Path, made_up: Callable[[str], Contender]) -> None:
    found = contenders.run(made_up("progress.finish()\n"), tmp_path, "adam", 6, 1, tmp_path / "out.png")
    assert len(found.seconds) == 6 - 1 - contenders.WARM_UP
    assert found.first_loss == 1e8
    assert found.resident > 2**20
    assert found.peak > 0.9 * found.resident  # the kernel counts the two at different moments


@pytest.mark.parametrize("end", ["sys.exit('out of paint')\n", ""], ids=["failed", "silent"])
def test_a_run_that_fails_ends_the_race_and_shows_why(
    tmp_path: Path, end: str, made_up: Callable[[str], Contender]
) -> None:
    with pytest.raises(SystemExit, match="made up failed after 6 steps") as stop:
        contenders.run(made_up(end), tmp_path, "adam", 6, 1, tmp_path / "out.png")
    assert ("out of paint" in str(stop.value)) == bool(end)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_the_peak_memory_of_a_process_excludes_that_of_its_parent() -> None:
    held = torch.ones(2**26)  # 256 MB
    done = subprocess.run(
        [sys.executable, "-S", "-c", "from bench.e2e import progress; print(progress.peak_memory())"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(done.stdout) < 2**27 < held.nbytes
    assert progress.peak_memory() > held.nbytes


def test_peers_get_our_weights_in_the_convention_they_know(tmp_path: Path) -> None:
    race.make_inputs(tmp_path, 32)
    network = stand_in.vgg19(tmp_path / "vgg19.pth")
    picture = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    mean, deviation = (torch.tensor(values)[:, None, None] for values in (stand_in.MEAN, stand_in.DEVIATION))
    with torch.no_grad():
        theirs = network.features[:2]((picture - mean) / deviation)
        ours = VGG(weights.load(), ["relu1_1"]).features(picture * 255, ["relu1_1"])["relu1_1"]
    inside = (..., slice(1, -1), slice(1, -1))  # the border differs: zeros mean another color there
    torch.testing.assert_close(theirs[inside], ours[inside], rtol=1e-4, atol=1e-2)


@pytest.mark.slow
def test_a_small_race_leaves_a_table_a_complete_json_file_and_a_plot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    arguments = ["--sizes", "32", "--steps", "4", "--rounds", "1", "--threads", "1", "--contenders", "fastnst float32"]
    monkeypatch.setattr("sys.argv", ["race.py", *arguments, "--out", str(tmp_path)])
    race.main()
    report = json.loads((tmp_path / "race.json").read_text())
    assert set(report) == {"machine", "options", "differs", "rows"}
    assert set(report["machine"]) >= {"cpu", "threads", "torch", "commit"}
    assert {(row["optimizer"], row["contender"]) for row in report["rows"]} == {("adam", EXACT), ("lbfgs", EXACT)}
    assert (tmp_path / "race.md").read_text() in capsys.readouterr().out
    assert (tmp_path / "race.png").exists()


def test_a_race_in_which_no_step_would_count_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["race.py", "--steps", "3"])
    with pytest.raises(SystemExit):
        race.main()
    assert "--steps 3: expected at least 4, or no step is counted" in capsys.readouterr().err

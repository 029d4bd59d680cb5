"""Files of results: one machine each, tables of several machines side by side."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

from bench import report
from bench.common import results
from bench.common.machine import headline, label, machine, same, slug
from bench.common.options import plain
from bench.common.results import RESULTS, Report, Section, Table

MODERN = {**machine(), "cpu": "Zen 4", "cores": 2, "kernels": "avx512_bf16"}
OLDER = {**MODERN, "cpu": "Zen 2", "kernels": "avx2"}


def tables(found: Report) -> list[Section]:
    rows = [(name, f"{seconds:.1f}", "s") for name, seconds in found["seconds"].items()]
    return ["512 x 512", Table(("op", "time", "unit"), rows), f"fastest: {min(found['seconds'].values())}"]


def test_a_machine_is_described_with_processor_instruction_set_versions_and_date() -> None:
    facts = machine()
    assert set(facts) >= {"cpu", "instruction_set", "cores", "threads", "kernels", "torch", "commit", "date"}
    assert str(facts["cpu"]) in headline(facts)
    assert str(facts["date"]) in headline(facts)
    assert headline({name: value for name, value in facts.items() if name not in ("instruction_set", "date")})


def test_machines_differ_by_processor_and_instruction_set() -> None:
    assert same(MODERN, {**MODERN, "date": "2000-01-01", "commit": "another"})
    assert not same(MODERN, OLDER)
    assert not same(MODERN, {**MODERN, "kernels": "avx2"})
    assert not same(MODERN, {**MODERN, "card": "H100"})
    assert same({**MODERN, "card": "H100"}, {**OLDER, "card": "H100"})
    assert (label(OLDER), slug(OLDER)) == ("Zen 2, avx2", "zen-2-avx2")


def test_one_machine_has_one_plain_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = results.write(tmp_path, "steps", {"machine": MODERN, "seconds": {"gram": 2.0}}, tables)
    assert path == tmp_path / "steps.json"
    text = (tmp_path / "steps.md").read_text()
    expected = [
        headline(MODERN),
        "512 x 512",
        "| op | time | unit |\n|---|---|---|\n| gram | 2.0 | s |",
        "fastest: 2.0",
    ]
    assert text == "\n\n".join(expected) + "\n"
    assert text in capsys.readouterr().out


def test_two_machines_have_files_of_their_own_and_a_table_side_by_side(tmp_path: Path) -> None:
    results.write(tmp_path, "steps", {"machine": MODERN, "seconds": {"gram": 2.0, "pool": 1.0}}, tables)
    path = results.write(tmp_path, "steps", {"machine": OLDER, "seconds": {"conv": 9.0, "gram": 5.0}}, tables)
    assert path == tmp_path / "steps.zen-2-avx2.json"
    again = results.write(tmp_path, "steps", {"machine": MODERN, "seconds": {"gram": 3.0, "pool": 1.0}}, tables)
    assert again == tmp_path / "steps.json"
    assert json.loads(path.read_text())["seconds"]["gram"] == 5.0
    modern, older = "Zen 4, avx512_bf16", "Zen 2, avx2"
    assert (tmp_path / "steps.md").read_text().split("\n\n") == [
        f"- {modern}: {headline(MODERN)}\n- {older}: {headline(OLDER)}",
        "512 x 512",
        f"| op | {modern}: time | {modern}: unit | {older}: time | {older}: unit |\n|---|---|---|---|---|\n"
        "| gram | 3.0 | s | 5.0 | s |\n| pool | 1.0 | s |  |  |\n| conv |  |  | 9.0 | s |",
        f"{modern}: fastest: 1.0",
        f"{older}: fastest: 5.0\n",
    ]


def test_a_file_never_mixes_machines(tmp_path: Path) -> None:
    path = tmp_path / "steps.json"
    results.save(path, {"machine": MODERN})
    with pytest.raises(ValueError, match="has results of Zen 4, avx512_bf16, not of Zen 2, avx2"):
        results.save(path, {"machine": OLDER})
    path.write_text("{}")
    with pytest.raises(ValueError, match="expected results with a machine"):
        results.read(path)


@pytest.mark.skipif(not RESULTS.exists(), reason="needs the results of a checkout")
@pytest.mark.parametrize("name", report.TABLES)
def test_committed_tables_are_those_of_their_files(name: str) -> None:
    found = results.read_all(RESULTS, name)
    assert found, name
    assert results.markdown(found, report.TABLES[name]) == (RESULTS / f"{name}.md").read_text()


def test_results_name_no_folder_of_the_machine() -> None:
    options = argparse.Namespace(out=Path("/results"), clip="/home/me/clip.mp4", films="pan,zoom", size=128)
    assert plain(options) == {"clip": "clip.mp4", "films": "pan,zoom", "size": 128}
    for path in RESULTS.glob("*.json"):
        values = json.loads(path.read_text()).get("options", {}).values()
        assert [value for value in values if isinstance(value, str) and value.startswith("/")] == [], path.name

"""``fastnst stylize --plan``."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from support.picture_files import LAYERS

from fastnst.run import memory_limits, planning

Run = Callable[..., tuple[int, str, str]]
PLAN = ("--plan", "--size", "192", "--scales", "2", "--steps", "7,3", *LAYERS)


@pytest.fixture(autouse=True)
def _small_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "PROBE_SIDE", 48)


def test_the_plan_is_printed_and_nothing_written(run: Run, here: Path, content: Path, style: Path) -> None:
    code, out, err = run("stylize", content, style, *PLAN)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0].startswith("scale 1  96x72, 7 steps of ")
    assert lines[1].startswith("scale 2  192x144, 3 steps of ")
    assert [line.split()[0] for line in lines[2:]] == ["memory", "time", "on"]
    assert lines[2].endswith(" is free")
    assert list(here.iterdir()) == []


def test_as_json(run: Run, content: Path, style: Path) -> None:
    code, out, _ = run("stylize", content, style, *PLAN, "--json")
    facts = json.loads(out)
    assert code == 0
    assert [(scale["width"], scale["steps"]) for scale in facts["scales"]] == [(96, 7), (192, 3)]
    assert facts["bytes"] > 2**20
    assert facts["fits"] is True


def test_a_size_that_does_not_fit_is_reported_without_an_error(
    run: Run, content: Path, style: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, out, _ = run("stylize", content, style, *PLAN, "--json")
    monkeypatch.setattr(memory_limits, "available", lambda device: json.loads(out)["bytes"])
    code, out, _ = run("stylize", content, style, *PLAN, "--size", "1000")
    assert code == 0
    assert "does not fit; --size " in out


def test_bad_input_is_one_line(run: Run, content: Path) -> None:
    code, out, err = run("stylize", content, "nowhere.png", "--plan")
    assert (code, out) == (1, "")
    assert err.startswith("fastnst: error: nowhere.png")
    assert run("stylize", content, "--plan")[0] == 2

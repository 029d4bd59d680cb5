"""Strips of a picture and the memory of a run, from the command line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from support.commands import settings_from
from support.picture_files import FAST

from fastnst import images
from fastnst.config import load_settings
from fastnst.config.parsing import parse_bytes
from fastnst.run import memory_model
from fastnst.strips.objective import StripObjective

Run = Callable[..., tuple[int, str, str]]
EXACT = ("--precision", "float64", "-q")


def made(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of strips of every objective that is made."""
    counts: list[int] = []

    class Watched(StripObjective):
        def __init__(self, *arguments: object, **named: object) -> None:
            super().__init__(*arguments, **named)
            counts.append(self.strips.count)

    monkeypatch.setattr("fastnst.run.scene_run.StripObjective", Watched)
    return counts


def test_strips_make_the_same_picture(
    run: Run, here: Path, content: Path, style: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = made(monkeypatch)
    assert run("stylize", content, style, "-o", "whole.png", *FAST, *EXACT)[0] == 0
    assert counts == []
    assert run("stylize", content, style, "-o", "strips.png", *FAST, *EXACT, "--tiles", "16")[0] == 0
    assert counts
    assert min(counts) > 1
    assert torch.equal(*(images.load(here / name).pixels for name in ("whole.png", "strips.png")))
    assert load_settings(here / "strips.png").tiles == 16


def test_a_picture_that_does_not_fit_is_made_by_strips(
    run: Run, content: Path, style: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = made(monkeypatch)
    monkeypatch.setattr(memory_model.Workload, "bytes", lambda work: 2**60)
    assert run("stylize", content, style, "-o", "a.png", *FAST, "-q")[0] == 0
    assert counts
    code, out, err = run("stylize", content, style, "-o", "b.png", *FAST, "-q", "--tiles", "off")
    assert (code, out) == (1, "")
    assert "out of memory" in err
    assert "--tiles on" in err


def test_too_little_memory_reports_the_least_amount(run: Run, here: Path, content: Path, style: Path) -> None:
    before = sorted(here.iterdir())
    code, out, err = run("stylize", content, style, "-o", "a.png", *FAST, "-q", "--memory", "100MB")
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert "needs about 0." in err
    assert "at least, 0.1 GB is allowed" in err
    assert sorted(here.iterdir()) == before


def test_options_of_strips() -> None:
    assert settings_from().tiles == "auto"
    assert settings_from("--tiles").tiles == "on"
    assert settings_from("--tiles", "off").tiles == "off"
    assert settings_from("--tiles", "320").tiles == 320
    assert settings_from("--memory", "2.5GB").memory == 5 * 2**29


@pytest.mark.parametrize(
    ("text", "found"), [("4GB", 2**32), ("1.5 mb", 3 * 2**19), ("2gib", 2**31), ("7000000", 7000000), ("3K", 3072)]
)
def test_amounts_of_memory(text: str, found: int) -> None:
    assert parse_bytes(text) == found


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--tiles", "5", "tiles: expected a whole number of at least 16"),
        ("--tiles=large", "-q", "unknown tiles 'large' (known: auto, on, off, or a whole number of at least 16 and at"),
        ("--memory", "lots", "memory 'lots': expected an amount like 4GB or 500MB"),
        ("--memory", "12", "memory: expected a whole number of at least"),
    ],
)
def test_bad_values_are_one_line(run: Run, content: Path, style: Path, option: str, value: str, said: str) -> None:
    code, out, err = run("stylize", content, style, "-o", "a.png", option, value)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert said in err

"""Requests that cannot be met are one line, before the work begins."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from made import COUNT, FILM, SETTINGS, request, shot, write

from fastnst.config.film import FilmSettings
from fastnst.errors import FastnstError, UsageError
from fastnst.film import stylize_film


def test_a_mask_film_of_other_proportions_is_refused(here: Path) -> None:
    write(here / "mask.mkv", [torch.ones(1, 3, 48, 48)] * 2 * COUNT)
    with pytest.raises(UsageError, match=r"frame 0 of mask mask\.mkv: is 48x48 pixels, but its picture 64x48"):
        stylize_film(request(masks=("mask.mkv",)), SETTINGS, FILM)


@pytest.mark.parametrize("count", [2 * COUNT - 1, 2 * COUNT + 2])
def test_a_mask_film_of_another_length_is_refused(here: Path, count: int) -> None:
    write(here / "mask.mkv", [torch.ones(1, 3, 48, 64)] * count)
    with pytest.raises(UsageError, match=rf"mask mask\.mkv: has {count} frames, but the film has {2 * COUNT}"):
        stylize_film(request(masks=("mask.mkv",)), SETTINGS, FILM)
    assert not Path("out.mkv").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"styles": ()}, "expected a style picture at least"),
        ({"masks": ("left.png", "right.png")}, "2 masks for 1 style; give one for each"),
        ({"frames": (3, 3)}, "frames: expected the first and the one after the last, such as 0:50, got 3:3"),
        ({"output": "out.xyz"}, r"out\.xyz: expected a name ending in"),
        ({"output": "clip.mkv"}, r"clip\.mkv: is the film as well, and would replace it"),
        ({"codec": "vp9", "output": "out.mp4"}, "codec"),
        ({"film": "missing.mp4"}, r"missing\.mp4: "),
        ({"film": "shots.toml"}, r"shots\.toml: "),
        ({"styles": ("missing.png",)}, r"missing\.png: "),
        ({"shots": "missing.toml"}, r"missing\.toml: cannot be read"),
        ({"broken": "ignore"}, "broken: expected refuse or skip"),
    ],
)
def test_bad_requests_are_one_line(here: Path, changes: dict[str, Any], message: str) -> None:
    Path("shots.toml").write_text("[[shot]]\nfirst = 0\n")
    names = sorted(path.name for path in here.iterdir())
    with pytest.raises(FastnstError, match=message) as error:
        stylize_film(request(**changes), SETTINGS, FILM)
    assert "\n" not in str(error.value)
    left = sorted(path.name for path in here.iterdir())
    assert left == names


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("size = 32", r"shots\.toml: shot 2: size: all frames have one size"),
        ("steps = -1", r"shots\.toml: shot 2: steps: expected"),
        ('style_loss = "grom"', r"shots\.toml: shot 2: .*grom"),
    ],
)
def test_settings_of_shots_are_checked_before_the_film_begins(here: Path, settings: str, message: str) -> None:
    Path("shots.toml").write_text(f"[[shot]]\nfirst = 0\n[[shot]]\nfirst = 4\n[shot.settings]\n{settings}\n")
    with pytest.raises(UsageError, match=message):
        stylize_film(request(shots="shots.toml"), SETTINGS, FILM)
    assert not Path("out.mkv.frames").exists()


def test_transparency_that_the_output_cannot_hold_is_known_before(here: Path) -> None:
    write(here / "alpha.apng", shot("square"), has_alpha=True)
    for codec in (None, "h264"):
        with pytest.raises(UsageError, match="transparen"):
            stylize_film(request(film="alpha.apng", output="out.mp4", codec=codec), SETTINGS, FILM)
    assert not Path("out.mp4.frames").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"temporal_weight": -1.0}, "temporal_weight: expected a finite number of at least 0"),
        ({"temporal_weight": float("nan")}, "temporal_weight: expected a finite number"),
        ({"next_steps": 0}, "next_steps: expected a whole number of at least 1"),
        ({"next_steps": 1.5}, "next_steps: expected a whole number"),
        ({"passes": True}, "passes: expected a whole number"),
        ({"lookback": ()}, "lookback: expected 1 to 100 numbers of frames"),
        ({"lookback": (0, 1)}, "lookback: expected a whole number of at least 1"),
        ({"lookback": "1,x"}, "lookback: expected"),
        ({"flow": "diss"}, "unknown flow 'diss', did you mean dis? (known: dis, raft)"),
        ({"flow": "raft"}, "flow raft needs flow_weights"),
        ({"flow_weights": "raft.pth"}, "flow dis takes none"),
        ({"shots": "of"}, "unknown shots 'of', did you mean off? (known: auto, off)"),
    ],
)
def test_settings_of_films_are_checked(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as error:
        FilmSettings(**changes)
    assert message in str(error.value)


def test_lookback_is_sorted_and_may_be_one_number() -> None:
    assert FilmSettings(lookback=(10, 1, 10)).lookback == (1, 10)
    assert FilmSettings(lookback=3).lookback == (3,)  # type: ignore[arg-type]

"""Shots that are found, and files that name them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from bench.film.films import FILMS
from fastnst.errors import UsageError
from fastnst.film.run import shared
from fastnst.film.shots import CutDetector, Shot, read_shots, shots_of, split


def cuts(*names: str, count: int = 5) -> list[int]:
    detector = CutDetector()
    for name in names:
        for frame in FILMS[name](count, 96, 128).frames:
            detector.add(frame)
    return detector.cuts()


def test_cuts_are_found_and_motion_is_none() -> None:
    detector = CutDetector()
    for name in ("pan", "zoom", "square", "grain"):
        assert cuts(name, count=8) == []
    picture = torch.rand(1, 3, 6, 8, generator=torch.Generator().manual_seed(0))
    for i in range(20):  # a cut after frames 6 and 13, in a film that also brightens
        colors = picture.roll(i // 7, 1)
        detector.add((colors * (0.6 + 0.02 * i)).clamp(0, 1).repeat_interleave(16, 2).repeat_interleave(16, 3))
    assert detector.cuts() == [7, 14]
    assert detector.count == 20


def test_shots_cover_the_film() -> None:
    assert [(shot.first, shot.last) for shot in split(9, [2, 7])] == [(0, 2), (2, 7), (7, 9)]
    assert list(Shot(2, 5).order(backward=True)) == [4, 3, 2]


def test_ranks_share_shots_by_their_length() -> None:
    class World:
        def __init__(self, rank: int) -> None:
            self.rank, self.count = rank, 3

    shots = split(100, [50, 60, 80, 90])
    found = [shared(shots, World(rank)) for rank in range(3)]  # type: ignore[arg-type]
    assert sorted((shot for own in found for shot in own), key=lambda shot: shot.first) == shots
    assert max(sum(map(len, own)) for own in found) == 50


def test_a_file_names_shots(tmp_path: Path) -> None:
    path = tmp_path / "shots.toml"
    path.write_text(
        '[[shot]]\nfirst = 0\n[[shot]]\nfirst = 4\nstyle = ["b.jpg"]\nmask = ["m.png"]\n'
        "[shot.settings]\nsteps = [3, 2]\n"
    )
    first, second = shots_of(read_shots(path), 9, str(path))
    assert first == Shot(0, 4)
    assert second == Shot(4, 9, ("b.jpg",), ("m.png",), {"steps": [3, 2]})
    with pytest.raises(UsageError, match=r"shot 2 begins at frame 4, but the film has 4 frames"):
        shots_of(read_shots(path), 4, str(path))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"expected tables \[\[shot\]\] alone"),
        ("first = 0", r"expected tables \[\[shot\]\] alone"),
        ("[[shot]]\nfirst = 1", "shot 1: expected first = 0, got 1"),
        ("[[shot]]\nfirst = true", "shot 1: expected `first`, a frame after the shot before, got True"),
        ("[[shot]]\nfirst = 0\n[[shot]]\nfirst = 0", "shot 2: expected `first`, a frame after the shot before, got 0"),
        ("[[shot]]\nfirst = 0\nlast = 3", "shot 1: unknown 'last'"),
        ('[[shot]]\nfirst = 0\nstyle = "a.png"', "shot 1: expected `style`, a list of files, got 'a.png'"),
        ("[[shot]]\nfirst = 0\nsettings = 3", "shot 1: expected `settings`, a table, got 3"),
        ("[[shot]]\nfirst = 0\n[shot.settings]\nstepz = 3", "unknown setting 'stepz', did you mean steps?"),
        ('[[shot]]\nfirst = 0\n[shot.settings]\nsteps = "x"', "steps: expected"),
        ("[[shot]", "not valid TOML"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "shots.toml"
    path.write_text(text)
    with pytest.raises(UsageError, match=message) as error:
        read_shots(path)
    assert "shots.toml" in str(error.value)

"""A gallery that several processes make together."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.picture_files import save_picture
from test_gallery import SETTINGS, contents, names, tree

from fastnst import gallery
from fastnst.distributed import Ranks

FOLDERS = [str(Path(__file__).parent), str(Path(__file__).parents[1])]
RANK = """
import json, sys, time
from datetime import timedelta
sys.path[:0] = {folders!r}
import torch
import torch.distributed as dist
from test_gallery import SETTINGS
from fastnst import gallery
from fastnst.distributed import Ranks
pictures, out, meeting, rank = *sys.argv[1:4], int(sys.argv[4])
torch.set_num_threads(1)
dist.init_process_group("gloo", init_method="file://" + meeting, rank=rank, world_size=2, timeout=timedelta(seconds=60))
if rank:
    time.sleep(1)  # a late rank still lists the folder before the other writes
turns = []
def watch(turn, step):
    turns.append([turn.pair.folder.name, turn.number, turn.count])
    time.sleep(rank)  # and the first rank waits for a slow one
report = gallery.run(
    pictures, out, SETTINGS, callback=watch,
    world=Ranks(rank, 2, 60),
)
dist.destroy_process_group()
made = [[made.pair.folder.name, made.kept] for made in report.made]
print(json.dumps([turns, made, str(report.sheet)]))
"""


def test_two_ranks_make_every_pair_once_and_one_sheet(pictures: Path, out: Path, tmp_path: Path) -> None:
    save_picture(pictures / "content_5.png", 40, 40, seed=5)
    whole = gallery.run(pictures, tmp_path / "alone", SETTINGS)
    gallery.run(pictures, out, SETTINGS, pairing="order")
    before = contents(out)
    code = RANK.format(folders=FOLDERS)
    command = [sys.executable, "-c", code, str(pictures), str(out), str(tmp_path / "meeting")]
    processes = [
        subprocess.Popen([*command, str(rank)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for rank in range(2)
    ]
    answers: list[Any] = []
    for process in processes:
        said, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
        answers.append(json.loads(said.splitlines()[-1]))
    (first, made_first, sheet), (second, made_second, no_sheet) = answers
    # Of six, three were there; of the others the second is the second rank's.
    assert first == [["gen_3", 1, 2], ["gen_3", 1, 2], ["gen_5", 2, 2], ["gen_5", 2, 2]]
    assert second == [["gen_4", 1, 1], ["gen_4", 1, 1]]
    assert sorted(made_first) == [[f"gen_{i}", i < 3] for i in range(6)]
    assert made_second == [["gen_4", False]]
    assert (sheet, no_sheet) == (str(out / "sheet.jpg"), "None")
    after = contents(out)
    assert {name: after[name] for name in before if name != "sheet.jpg"} == {
        name: data for name, data in before.items() if name != "sheet.jpg"
    }
    # The pictures are those of one process, though under other numbers.
    alone = {made.pair.key: made.picture.read_bytes() for made in whole.made}
    kept = gallery.run(pictures, out, SETTINGS)
    assert {made.pair.key: made.picture.read_bytes() for made in kept.made} == alone
    assert all(made.kept for made in kept.made)
    assert (out / "sheet.jpg").read_bytes() == after["sheet.jpg"]
    assert not [path for path in out.iterdir() if path.name.startswith(".")]


class Meeting(Ranks):
    """One of two ranks, with something else to do where they would wait for each other."""

    def __init__(self, rank: int, wait: Callable[[], object]) -> None:
        super().__init__(rank, 2)
        object.__setattr__(self, "barrier", wait)


def both(pictures: Path, out: Path, **options: Any) -> tuple[gallery.Report, gallery.Report]:
    """The reports of ranks 0 and 1 of 2: the whole of rank 1 runs while rank 0 waits in its first barrier."""
    reports: list[gallery.Report] = []

    def meet() -> None:
        if not reports:
            reports.append(gallery.run(pictures, out, SETTINGS, world=Meeting(1, lambda: None), **options))

    return gallery.run(pictures, out, SETTINGS, world=Meeting(0, meet), **options), reports[0]


def test_the_first_rank_reports_all_pairs_in_order(pictures: Path, out: Path) -> None:
    first, second = both(pictures, out)
    assert [folder for folder, *_ in names(first)] == ["gen_0", "gen_1", "gen_2", "gen_3"]
    assert [folder for folder, *_ in names(second)] == ["gen_1", "gen_3"]
    assert not any(made.kept for made in first.made)
    assert (first.sheet, second.sheet) == (out / "sheet.jpg", None)


def test_a_pair_that_another_rank_could_not_make_is_reported(pictures: Path, out: Path) -> None:
    (pictures / "STYLE_2.TIF").write_text("no image")
    first, second = both(pictures, out)
    assert [folder for folder, *_ in names(first)] == ["gen_0", "gen_2"]
    assert second.made == []
    assert {pair.folder.name for pair in first.failed} == {pair.folder.name for pair in second.failed}
    assert set(first.failed.values()) == {"another rank could not make it and reports the reason"}


@pytest.mark.parametrize("broken", [False, True])
def test_forced_pairs_are_made_again_by_all_ranks(pictures: Path, out: Path, broken: bool) -> None:
    gallery.run(pictures, out, SETTINGS)
    before = {name: data for name, data in contents(out).items() if name.endswith("pair.json")}
    if broken:
        (pictures / "STYLE_2.TIF").write_text("no image")
    first, _ = both(pictures, out, force=True)
    after = {name: data for name, data in contents(out).items() if name.endswith("pair.json")}
    again = ["gen_0", "gen_2"] if broken else ["gen_0", "gen_1", "gen_2", "gen_3"]
    assert [folder for folder, *_ in names(first)] == again
    assert len(first.failed) == (2 if broken else 0)
    assert [name.split("/")[0] for name in sorted(after) if after[name] != before[name]] == again


def test_after_ctrl_c_no_rank_waits(pictures: Path, out: Path) -> None:
    waits: list[int] = []

    def interrupt(turn: gallery.PairProgress, step: Any) -> None:
        if turn.number == 2:
            raise KeyboardInterrupt

    for rank in (1, 0):
        report = gallery.run(pictures, out, SETTINGS, callback=interrupt, world=Meeting(rank, lambda: waits.append(1)))
        assert report.stopped == "interrupt"
        assert (report.sheet is None) == (rank == 1)
    assert len(waits) == 2
    assert "sheet.jpg" in tree(out)

"""The record of a run: settings that change at any moment, and where the next process begins. No process is started."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fastnst.config.description import settings_from_text
from fastnst.errors import UsageError
from fastnst.studio.job import Job, Trace, finish, load, save
from fastnst.studio.processes import record
from fastnst.studio.steering import Place, checked, continuing


def made(**settings: str) -> Job:
    return Job(id="a" * 16, title="title", content="c" * 16, styles=["s" * 16], settings=settings)


class Play:
    """Plays the process of a run: three scales of 64, 128 and 256 pixels, as settings say."""

    def __init__(self, folder: Path, **settings: str) -> None:
        self.trace = Trace(folder)
        self.job = made(**{"size": "256", "scales": "64,128,256", "steps": "10,20,30", **settings})
        self.begin()

    def begin(self) -> None:
        """Start the next process."""
        texts = self.job.next_process()
        texts = {**texts, "init": "content"}
        self.settings = settings_from_text(texts)
        scales = self.settings.scales
        self.sides = list(scales) if isinstance(scales, tuple) else [self.settings.size or 0] * int(scales)
        self.steps = [self.settings.steps_at(scale) for scale in range(1, len(self.sides) + 1)]
        self.event(event="begin", sides=self.sides, steps=self.steps, size=[256, 192])
        self.taken = 0
        self.job.state = "running"

    def event(self, **facts: Any) -> None:
        record(self.job, self.trace, facts)

    def go(self, count: int) -> None:
        """Take steps."""
        for _ in range(count):
            self.taken += 1
            scale = self.place()["scale"]
            told = {"first": self.taken, "losses": [[1.0, 2.0, 3.0, 6.0]], "scale": scale, "seconds": 1.0 * self.taken}
            self.event(event="steps", **told, remaining=1.0, memory=1)

    def place(self) -> dict[str, Any]:
        before = 0
        for scale, count in enumerate(self.steps, 1):
            if self.taken <= before + count:
                return {"scale": scale, "step": self.taken - before, "start": f"start_{self.taken}.tif"}
            before += count
        raise AssertionError

    def pause(self) -> None:
        self.job.state = "pausing"
        finish(self.job, {"how": "paused", "place": self.place()})


def test_changes_at_every_place(tmp_path: Path) -> None:
    """Whenever settings are changed, and however often, the run takes the steps that it would have taken."""
    for first in range(1, 61, 4):
        for second in (0, 1, 7, 25):
            play = Play(tmp_path)
            play.go(first)
            play.pause()
            play.job.change({"style_weight": "5"})
            play.begin()
            assert play.settings.style_weight == 5
            left = sum(play.steps)
            if 0 < second < left:
                play.go(second)
                play.pause()
                play.job.change({"style_weight": "6", "tv_weight": "0"})
                play.begin()
                assert (play.settings.style_weight, play.settings.tv_weight) == (6, 0)
            play.go(sum(play.steps))
            assert play.sides[-1] == 256
            assert play.job.step == play.job.steps == 60
            assert play.job.scale == play.job.scales == 3
            assert play.job.scale_starts == [0, 10, 30]
            assert [change.step for change in play.job.changes][:1] == [first]
            assert len(play.trace.columns["total"]) == play.job.step


def test_more_steps_while_it_runs(tmp_path: Path) -> None:
    play = Play(tmp_path)
    play.go(15)  # 5 of the second scale
    play.pause()
    play.job.change({"steps": "10,40,50"})
    play.begin()
    assert (play.sides, play.steps) == ([128, 256], [35, 50])
    play.go(10)
    play.pause()
    play.job.change({"steps": "3"})  # fewer than were taken: one more
    play.begin()
    assert (play.sides, play.steps) == ([256], [3])


def test_the_next_scale_begins_where_one_has_ended() -> None:
    settings = settings_from_text({"size": "256", "scales": "64,128,256", "steps": "10,20,30", "history": "5,6,7"})
    found = continuing(settings, Place(2, 20, [64, 128, 256]), "start.tif")
    assert (found["scales"], found["steps"], found["history"]) == ("1", "30", "7")
    assert (found["init"], found["first_change"], found["size"]) == ("start.tif", "1", "256")


def test_a_run_that_waits_takes_its_settings_anew() -> None:
    job = made(size="256")
    job.change({"size": "128"})
    assert (job.texts, job.changes, job.pending) == ({"size": "128"}, [], {})
    with pytest.raises(UsageError, match="size: expected a whole number"):
        job.change({"size": "-1"})
    assert job.texts == {"size": "128"}


def test_a_picture_that_could_not_be_saved(tmp_path: Path) -> None:
    play = Play(tmp_path)
    play.go(5)
    play.job.state = "pausing"
    finish(play.job, {"how": "paused", "place": {**play.place(), "start": None}})
    play.job.change({"style_weight": "5"})
    with pytest.raises(UsageError, match="resume continues without it"):
        play.job.next_process()
    assert "style_weight" not in play.job.next_process()


def test_a_stop_while_it_is_paused_ends_it(tmp_path: Path) -> None:
    play = Play(tmp_path)
    play.go(5)
    play.job.state, play.job.keep = "stopping", True  # after `pause` and `stop`, before the process has ended
    finish(play.job, {"how": "paused", "place": play.place()})
    assert (play.job.state, play.job.queued) == ("queued", 0.0)
    finish(play.job, {"how": "kept"})
    assert (play.job.state, play.job.has_result, play.job.keep) == ("stopped", True, False)


def test_records_survive(tmp_path: Path) -> None:
    folder = tmp_path / ("a" * 16)
    folder.mkdir()
    play = Play(folder)
    play.go(12)
    play.pause()
    play.job.change({"style_weight": "5"})
    save(play.job, folder)
    play.trace.save()
    found = load(folder)
    assert found is not None
    assert found.public(None) == play.job.public(None)
    assert found.next_process() == play.job.next_process()
    assert Trace(folder).since(10)["total"] == [6.0, 6.0]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"id": "b"}', '{"id": "aaaaaaaaaaaaaaaa", "unknown": 1}'])
def test_damaged_records_are_no_runs(tmp_path: Path, text: str) -> None:
    folder = tmp_path / ("a" * 16)
    folder.mkdir()
    (folder / "job.json").write_text(text)
    assert load(folder) is None


def test_a_resumed_run_rewrites_its_trace(tmp_path: Path) -> None:
    trace = Trace(tmp_path)
    trace.put(1, [[1, 1, 1, 3]] * 5)
    trace.put(3, [[2, 2, 2, float("nan")]])
    assert trace.columns["total"] == [3, 3, None]
    trace.put(6, [[0, 0, 0, 0]])
    assert trace.columns["content"] == [1, 1, 2, None, None, 0]


def test_a_studio_takes_no_files() -> None:
    for name in ("init", "snapshot_every", "max_pixels"):
        with pytest.raises(UsageError, match=name):
            checked({name: "1"})

"""Long work is safe: a run that was broken off anywhere goes on to the same bits, and nothing is lost on the way."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from loop_checkpoints import STEPS, same, seconds, settings_of, stopping, styled
from loop_graphs import Rerun
from loop_toys import Valley, adam, newton, noise
from torch import Tensor

from fastnst import checkpoint, optimize, transfer
from fastnst.checkpoint import Checkpoint
from fastnst.graph import Capturer
from fastnst.objective import Losses
from fastnst.optimize import Place, Step
from fastnst.settings import Settings
from fastnst.walk import Walk

pytestmark = pytest.mark.usefixtures("weights_read_once")
BOTH = pytest.mark.parametrize("make", [adam, newton])
OPTIMIZERS = pytest.mark.parametrize("optimizer", ["adam", "lbfgs"])


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "run.ckpt"


# To the same bits.


class Keep:
    """A keeper that remembers every place as it was."""

    every = 1

    def __init__(self) -> None:
        self.places: list[Place] = []

    def keep(self, place: Place) -> None:
        memory = {name: x.clone() if isinstance(x, Tensor) else x for name, x in place.memory.items()}
        plain = json.loads(json.dumps({name: x for name, x in memory.items() if not isinstance(x, Tensor)}))
        self.places.append(Place(list(place.trace), {**memory, **plain}))


@BOTH
@pytest.mark.parametrize("backend", [None, Rerun])
@pytest.mark.parametrize("changes", [{}, {"history": 3, "history_dtype": "bfloat16", "average": 0.9}])
def test_a_run_goes_on_from_any_step_to_the_same_bits(
    make: Callable[..., Settings], backend: Any, changes: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    """Steps that were taken back among them, which calm Adam and make L-BFGS forget; L-BFGS stalls at step 8."""
    settings = make(steps=9, learning_rate=2.0 if make is adam else 1.0, **changes)

    def run(place: Place | None, keeper: Keep | None = None) -> optimize.Run:
        capturer = Capturer(backend() if backend else None)
        start = noise() if place is None else torch.zeros_like(noise())  # which then is not looked at
        return optimize.optimize(Valley(5.0), start, settings, capturer=capturer, place=place, keeper=keeper)

    keeper = Keep()
    whole = run(None, keeper)
    assert len(keeper.places) == (9 if make is adam else 7)
    assert "taken back" in caplog.text
    for place in keeper.places:
        again = run(place)
        assert torch.equal(again.image, whole.image)
        assert (again.trace, again.stopped) == (whole.trace, whole.stopped)


@OPTIMIZERS
@pytest.mark.parametrize(("precision", "average"), [("float32", 0.0), ("float64", 0.9)])
def test_a_broken_off_run_goes_on_to_the_same_bits(optimizer: str, precision: str, average: float, file: Path) -> None:
    settings = settings_of(optimizer, precision=precision, average=average)
    whole = styled(settings)
    for at in (1, STEPS, STEPS + 1, 2 * STEPS):
        first = styled(settings, callback=stopping(at, KeyboardInterrupt()), checkpoint=file, force=True)
        assert first.stopped == "interrupt"
        assert same(styled(settings, checkpoint=file, resume=True), whole)


@OPTIMIZERS
def test_a_run_that_is_broken_off_again_and_again(optimizer: str, file: Path) -> None:
    settings = settings_of(optimizer)
    counts: list[int] = []
    for _ in range(2 * STEPS):
        started = len(counts)

        def callback(step: Step, started: int = started) -> bool:
            counts.append(step.count)
            return len(counts) > started

        result = styled(settings, callback=callback, checkpoint=file, checkpoint_every=1000, resume=True)
        assert result.stopped == "callback"
    assert counts == list(range(1, 2 * STEPS + 1))
    assert same(styled(settings, checkpoint=file, resume=True), styled(settings))


def test_an_error_costs_the_steps_since_the_last_writing_alone(file: Path) -> None:
    settings = settings_of("lbfgs", steps=6)
    seen: list[int] = []
    with pytest.raises(ValueError, match="mine"):
        styled(settings, callback=stopping(6, ValueError("mine")), checkpoint=file, checkpoint_every=2)
    result = styled(settings, callback=lambda step: seen.append(step.count), checkpoint=file, resume=True)
    assert seen == list(range(5, 13))
    assert same(result, styled(settings))


def test_a_run_from_noise_goes_on_from_its_own_noise(file: Path) -> None:
    settings = settings_of("adam", init="noise", noise=20.0, seed=3)
    styled(settings, callback=stopping(2), checkpoint=file)
    assert same(styled(settings, checkpoint=file, resume=True), styled(settings))


def test_a_stalled_scale_is_stalled_again(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Stuck(transfer.Objective):
        """Where the image has moved twice, nothing is finite."""

        def value_and_grad(self, image: Tensor) -> tuple[Losses, Tensor]:
            losses, gradient = super().value_and_grad(image)
            self.first = getattr(self, "first", image.clone())
            return (losses if torch.equal(image, self.first) else Losses(total=float("nan"))), gradient

    monkeypatch.setattr(transfer, "Objective", Stuck)
    settings = settings_of("adam")
    whole = styled(settings)
    assert whole.stopped == "stalled"
    kept = styled(settings, checkpoint=file)
    assert same(kept, whole)
    assert same(styled(settings, checkpoint=file, resume=True), whole)


# kill -9.

CHILD = """
import os, signal, sys
sys.path.insert(0, {folder!r})
import torch
torch.set_num_threads(1)
import test_checkpoint as tests
from fastnst import checkpoint
moment, optimizer, path, at = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
count = 0
def die(*_):
    global count
    count += 1
    if count == at:
        os.kill(os.getpid(), signal.SIGKILL)
more = {{}}
if moment == "step":
    more["callback"] = die
elif moment == "write":
    real = checkpoint._to_disk
    def to_disk(path):
        die()
        real(path)
    checkpoint._to_disk = to_disk
settings = tests.settings_of(optimizer, steps=int(sys.argv[5]))
tests.styled(settings, checkpoint=path, checkpoint_every=1, resume=True, **more)
"""
posix = pytest.mark.skipif(os.name != "posix", reason="SIGKILL is POSIX's")


def child(*arguments: object) -> subprocess.Popen[bytes]:
    code = CHILD.format(folder=str(Path(__file__).parent))
    return subprocess.Popen([sys.executable, "-c", code, *map(str, arguments)], stderr=subprocess.PIPE)


@posix
@pytest.mark.parametrize(
    ("moment", "at", "optimizer"), [("step", STEPS + 2, "adam"), ("step", 2, "lbfgs"), ("write", 5, "lbfgs")]
)
def test_a_killed_run_goes_on_to_the_same_bits(moment: str, at: int, optimizer: str, file: Path) -> None:
    """``write``: after a new file was written beside the old, before it has taken its place."""
    process = child(moment, optimizer, file, at, STEPS)
    _, err = process.communicate(timeout=120)
    assert process.returncode == -signal.SIGKILL, err.decode()
    settings = settings_of(optimizer)
    seen: list[int] = []
    result = styled(settings, callback=lambda step: seen.append(step.count), checkpoint=file, resume=True)
    assert seen[0] == (at if moment == "step" else (at + 1) // 2)  # file and folder go to the disk by turns
    assert same(result, styled(settings))
    assert sorted(path.name for path in file.parent.iterdir()) == [".run.ckpt.lock", "run.ckpt"]


@posix
def test_a_run_that_is_killed_at_random_goes_on_to_the_same_bits(file: Path) -> None:
    generator = random.Random(5)
    steps = 150
    for _ in range(2):
        before = file.stat().st_mtime_ns if file.exists() else 0
        process = child("never", "lbfgs", file, 0, steps)
        while not file.exists() or file.stat().st_mtime_ns == before:
            assert process.poll() is None, process.communicate()
            time.sleep(0.01)
        time.sleep(generator.uniform(0, 0.2))
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL
    settings = settings_of("lbfgs", steps=steps)
    assert same(styled(settings, checkpoint=file, resume=True), styled(settings))


# Beginning and end.


def test_resuming_where_there_is_nothing_begins(file: Path) -> None:
    settings = settings_of("adam")
    assert same(styled(settings, checkpoint=file, resume=True), styled(settings))
    assert file.exists()


@OPTIMIZERS
def test_a_finished_run_is_not_made_again(
    optimizer: str, file: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    settings = settings_of(optimizer, average=0.5)
    whole = styled(settings, checkpoint=file)
    monkeypatch.setattr(transfer, "Objective", None)
    with caplog.at_level(logging.INFO, "fastnst"):
        again = styled(settings, checkpoint=file, resume=True)
    assert same(again, whole)
    assert again.seconds >= seconds(file) > 0
    assert caplog.messages == [f"{file}: this run is finished, here is its result"]
    assert file.stat().st_size < 48 * 48 * 3 * 4 + 20_000  # the image, and no state


def test_seconds_and_work_count_on(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = settings_of("adam", steps=(3, 2))
    ratios: list[float] = []
    styled(settings, callback=stopping(4), checkpoint=file)
    before = seconds(file)

    def callback(step: Step) -> None:
        ratios.append(step.remaining / step.seconds)
        assert step.seconds > before

    result = styled(settings, callback=callback, checkpoint=file, resume=True)
    assert ratios == [0.0]
    assert result.seconds > before
    assert [len(losses) for losses in result.trace] == [3, 2]


def test_places_are_written_every_so_often_at_the_end_of_scales_and_at_the_end(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[tuple[int, int, bool]] = []

    def save(self: Checkpoint, saved: checkpoint.Saved) -> None:
        written.append((saved.scale, len(saved.place.trace), saved.finished))

    monkeypatch.setattr(Checkpoint, "save", save)
    styled(settings_of("adam", steps=(4, 5)), checkpoint=file, checkpoint_every=3)
    assert written == [(1, 3, False), (1, 4, False), (2, 2, False), (2, 5, False), (2, 5, True)]


def test_without_a_checkpoint_nothing_of_it_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optimize, "uninterrupted", None)
    monkeypatch.setattr(transfer, "Identity", None)
    monkeypatch.setattr(Walk, "state", None)
    assert styled(settings_of("lbfgs")).stopped is None


def test_settings_that_do_not_change_the_picture_may_differ(file: Path) -> None:
    settings = settings_of("adam")
    styled(settings, callback=stopping(3), checkpoint=file)
    other = dataclasses.replace(settings, snapshot_every=7, graph="off", preset="gatys", convolution="auto")
    assert same(styled(other, checkpoint=file, resume=True), styled(settings))


# Ctrl-C.


@posix
@OPTIMIZERS
def test_ctrl_c_waits_for_the_step_and_loses_nothing(
    optimizer: str, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_of(optimizer)
    real = transfer.Objective.value_and_grad
    calls: list[int] = []

    def interrupted(self: Any, image: Tensor) -> Any:
        calls.append(1)
        if len(calls) == STEPS + 1 + 2:  # after the first scale's steps and the check of its last image
            signal.raise_signal(signal.SIGINT)
        return real(self, image)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with monkeypatch.context() as patch:
            patch.setattr(transfer.Objective, "value_and_grad", interrupted)
            first = styled(settings, checkpoint=file)
    finally:
        signal.signal(signal.SIGINT, before)
    assert first.stopped == "interrupt"
    assert [len(losses) for losses in first.trace] == [STEPS, 2]
    seen: list[int] = []
    result = styled(settings, callback=lambda step: seen.append(step.count), checkpoint=file, resume=True)
    assert seen[0] == STEPS + 3
    assert same(result, styled(settings))

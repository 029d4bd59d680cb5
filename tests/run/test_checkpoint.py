"""Checkpoints: an interrupted run resumes bit for bit, and no work is lost."""

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
from safetensors.torch import load_file
from support.checkpoints import STEPS, same, seconds, settings_of, stopping, styled
from support.graphs import Rerun
from support.toys import Valley, adam, newton, noise
from torch import Tensor

from fastnst.config.settings import Settings
from fastnst.objective.protocol import Losses
from fastnst.optim import loop
from fastnst.optim.cuda_graph import StepCapture
from fastnst.optim.loop import LoopContext, LoopState, ScaleResult
from fastnst.optim.progress import Step
from fastnst.optim.stepper import Stepper
from fastnst.run import checkpoint_file, scene_run, setup
from fastnst.run.checkpoint import Checkpoint

pytestmark = pytest.mark.usefixtures("weights_read_once")
BOTH = pytest.mark.parametrize("make", [adam, newton])
OPTIMIZERS = pytest.mark.parametrize("optimizer", ["adam", "lbfgs"])


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "run.ckpt"


# Resuming bit for bit.


class Copies:
    """A writer that copies every state, as a file does."""

    every = 1

    def __init__(self) -> None:
        self.states: list[LoopState] = []

    def write(self, state: LoopState) -> None:
        copied = {}
        for owner, values in state.state.items():
            tensors = {name: x.clone() for name, x in values.items() if isinstance(x, Tensor)}
            plain = json.loads(json.dumps({name: x for name, x in values.items() if name not in tensors}))
            copied[owner] = {**tensors, **plain}
        self.states.append(LoopState(list(state.trace), copied))


@BOTH
@pytest.mark.parametrize("backend", [None, Rerun])
@pytest.mark.parametrize("changes", [{}, {"history": 3, "history_dtype": "bfloat16", "average": 0.9}])
def test_a_run_resumes_from_any_step_bit_for_bit(
    make: Callable[..., Settings], backend: Any, changes: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    """Some steps are rejected, which halves the rate of Adam and clears the history of L-BFGS; it stalls at step 9."""
    settings = make(steps=9, learning_rate=2.0 if make is adam else 1.0, **changes)

    def run(state: LoopState | None, writer: Copies | None = None) -> ScaleResult:
        capture = StepCapture(backend() if backend else None)
        start = noise() if state is None else torch.zeros_like(noise())  # unused when resuming
        return loop.optimize(
            Valley(5.0), start, settings, context=LoopContext(capture=capture, writer=writer), state=state
        )

    writer = Copies()
    whole = run(None, writer)
    assert len(writer.states) == (9 if make is adam else 8)
    assert "step rejected" in caplog.text
    for state in writer.states:
        resumed = run(state)
        assert torch.equal(resumed.image, whole.image)
        assert (resumed.trace, resumed.stopped) == (whole.trace, whole.stopped)


@OPTIMIZERS
@pytest.mark.parametrize(("precision", "average"), [("auto", 0.0), ("float32", 0.0), ("float64", 0.9)])
@pytest.mark.sweep(5)
def test_an_interrupted_run_resumes_bit_for_bit(optimizer: str, precision: str, average: float, file: Path) -> None:
    settings = settings_of(optimizer, precision=precision, average=average)
    whole = styled(settings)
    for at in (1, STEPS, STEPS + 1, 2 * STEPS):
        first = styled(settings, callback=stopping(at, KeyboardInterrupt()), checkpoint=file, force=True)
        assert first.stopped == "interrupt"
        assert same(styled(settings, checkpoint=file, resume=True), whole)


@pytest.mark.parametrize("there", ["bfloat16", "auto"], ids=["bfloat16", "float32"])
def test_a_history_stored_on_another_machine_is_read(there: str, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The setting ``auto`` stands for another dtype there."""
    settings = settings_of("lbfgs")
    with monkeypatch.context() as other:
        other.setattr(setup, "choose_history_dtype", lambda *_: there)
        styled(settings, callback=stopping(2 * STEPS - 1, KeyboardInterrupt()), checkpoint=file, force=True)
    stored = {x.dtype for name, x in load_file(file).items() if "pair" in name}
    assert stored == {torch.bfloat16 if there == "bfloat16" else torch.float32}
    here = "auto" if there == "bfloat16" else "bfloat16"
    monkeypatch.setattr(setup, "choose_history_dtype", lambda *_: here)
    resumed = styled(settings, checkpoint=file, resume=True)
    assert [len(scale) for scale in resumed.trace] == [STEPS, STEPS]
    assert resumed.image.isfinite().all()


@OPTIMIZERS
def test_a_run_interrupted_after_every_step_resumes_bit_for_bit(optimizer: str, file: Path) -> None:
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


def test_an_error_loses_only_the_steps_since_the_last_checkpoint(file: Path) -> None:
    settings = settings_of("lbfgs", steps=6)
    seen: list[int] = []
    with pytest.raises(ValueError, match="mine"):
        styled(settings, callback=stopping(6, ValueError("mine")), checkpoint=file, checkpoint_every=2)
    result = styled(settings, callback=lambda step: seen.append(step.count), checkpoint=file, resume=True)
    assert seen == list(range(5, 13))
    assert same(result, styled(settings))


def test_a_run_from_noise_resumes_from_its_own_noise(file: Path) -> None:
    settings = settings_of("adam", init="noise", noise=20.0, seed=3)
    styled(settings, callback=stopping(2), checkpoint=file)
    assert same(styled(settings, checkpoint=file, resume=True), styled(settings))


def test_a_stalled_scale_stays_stalled_when_resumed(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Stuck(scene_run.Objective):
        """Finite only at the first image."""

        def value_and_grad(self, image: Tensor) -> tuple[Losses, Tensor]:
            losses, gradient = super().value_and_grad(image)
            self.first = getattr(self, "first", image.clone())
            return (losses if torch.equal(image, self.first) else Losses(total=float("nan"))), gradient

    monkeypatch.setattr("fastnst.run.scene_run.Objective", Stuck)
    settings = settings_of("adam")
    whole = styled(settings)
    assert whole.stopped == "stalled"
    assert same(styled(settings, checkpoint=file), whole)
    assert same(styled(settings, checkpoint=file, resume=True), whole)


# kill -9.

CHILD = """
import os, signal, sys
sys.path[:0] = [{folder!r}, {folder!r} + "/run"]
import torch
torch.set_num_threads(1)
import test_checkpoint as tests
from fastnst.run import checkpoint
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
posix = pytest.mark.skipif(os.name != "posix", reason="SIGKILL requires POSIX")


def child(*arguments: object) -> subprocess.Popen[bytes]:
    code = CHILD.format(folder=str(Path(__file__).parents[1]))
    return subprocess.Popen([sys.executable, "-c", code, *map(str, arguments)], stderr=subprocess.PIPE)


@posix
@pytest.mark.parametrize(
    ("moment", "at", "optimizer"), [("step", STEPS + 2, "adam"), ("step", 2, "lbfgs"), ("write", 5, "lbfgs")]
)
@pytest.mark.sweep(3)
def test_a_killed_run_resumes_bit_for_bit(moment: str, at: int, optimizer: str, file: Path) -> None:
    """``write``: killed after writing the new file, before it replaces the old one."""
    process = child(moment, optimizer, file, at, STEPS)
    _, err = process.communicate(timeout=120)
    assert process.returncode == -signal.SIGKILL, err.decode()
    settings = settings_of(optimizer)
    seen: list[int] = []
    result = styled(settings, callback=lambda step: seen.append(step.count), checkpoint=file, resume=True)
    assert seen[0] == (at if moment == "step" else (at + 1) // 2)  # file and folder are flushed alternately
    assert same(result, styled(settings))
    assert sorted(path.name for path in file.parent.iterdir()) == [".run.ckpt.lock", "run.ckpt"]


@posix
@pytest.mark.slow
def test_a_run_killed_at_random_resumes_bit_for_bit(file: Path) -> None:
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


# Start and end.


def test_resuming_without_a_file_starts_a_run(file: Path) -> None:
    settings = settings_of("adam")
    assert same(styled(settings, checkpoint=file, resume=True), styled(settings))
    assert file.exists()


@OPTIMIZERS
def test_a_finished_run_is_not_repeated(
    optimizer: str, file: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    settings = settings_of(optimizer, average=0.5)
    whole = styled(settings, checkpoint=file)
    monkeypatch.setattr("fastnst.run.scene_run.Objective", None)
    with caplog.at_level(logging.INFO, "fastnst"):
        resumed = styled(settings, checkpoint=file, resume=True)
    assert same(resumed, whole)
    assert resumed.seconds >= seconds(file) > 0
    assert caplog.messages == [f"{file}: this run is finished; returning its result"]
    assert file.stat().st_size < 48 * 48 * 3 * 4 + 20_000  # the image, and no state


def test_seconds_and_work_continue_after_resuming(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_states_are_written_at_intervals_and_at_the_end_of_scales_and_runs(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[tuple[int, int, bool]] = []

    def save(self: Checkpoint, saved: checkpoint_file.SavedRun) -> None:
        written.append((saved.scale, len(saved.loop.trace), saved.finished))

    monkeypatch.setattr(Checkpoint, "save", save)
    styled(settings_of("adam", steps=(4, 5)), checkpoint=file, checkpoint_every=3)
    assert written == [(1, 3, False), (1, 4, False), (2, 2, False), (2, 5, False), (2, 5, True)]


def test_without_a_checkpoint_no_checkpoint_code_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "signals_held", None)
    monkeypatch.setattr("fastnst.run.scene_run.Identity", None)
    monkeypatch.setattr(Stepper, "state_dict", None)
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
    real = scene_run.Objective.value_and_grad
    calls: list[int] = []

    def interrupted(self: Any, image: Tensor) -> Any:
        calls.append(1)
        if len(calls) == STEPS + 1 + 2:  # after the first scale's steps and the check of its last image
            signal.raise_signal(signal.SIGINT)
        return real(self, image)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with monkeypatch.context() as patch:
            patch.setattr(scene_run.Objective, "value_and_grad", interrupted)
            first = styled(settings, checkpoint=file)
    finally:
        signal.signal(signal.SIGINT, before)
    assert first.stopped == "interrupt"
    assert [len(losses) for losses in first.trace] == [STEPS, 2]
    seen: list[int] = []
    result = styled(settings, callback=lambda step: seen.append(step.count), checkpoint=file, resume=True)
    assert seen[0] == STEPS + 3
    assert same(result, styled(settings))

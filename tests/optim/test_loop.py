"""The loop on toy objectives."""

from __future__ import annotations

import dataclasses
import itertools
import logging
import math
import signal
from collections.abc import Callable, Iterator

import pytest
import torch
from support.toys import Bowl, Script, adam, newton, noise, zeros
from torch import Tensor

from fastnst import spill
from fastnst.config.settings import Settings
from fastnst.errors import FastnstError
from fastnst.objective.protocol import Losses
from fastnst.optim import conditioning, lbfgs, loop, progress
from fastnst.optim.loop import LoopContext, ScaleResult
from fastnst.optim.progress import Clock, Step


@pytest.fixture(autouse=True, params=["in memory", "in a file"])
def _last_good_image(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """That of a large picture is in a file."""
    monkeypatch.setattr(spill, "IN_MEMORY", 2**30 if request.param == "in memory" else 0)


BOTH = pytest.mark.parametrize("make", [adam, newton])


@BOTH
def test_the_loss_decreases_and_the_argument_is_unchanged(make: Callable[..., Settings]) -> None:
    start = noise()
    before = start.clone()
    run = loop.optimize(Bowl(), start, make(steps=30))
    assert torch.equal(start, before)
    assert run.stopped is None
    assert len(run.trace) == 30
    assert run.trace[-1].total < 0.5 * run.trace[0].total
    assert Bowl().value(run.image) < run.trace[-1].total


@BOTH
def test_each_step_is_evaluated_once_and_so_is_the_result(make: Callable[..., Settings]) -> None:
    objective = Bowl()
    run = loop.optimize(objective, noise(), make(steps=7))
    *before, after = objective.images
    assert [losses.total for losses in run.trace] == [Bowl().value(image).item() for image in before]
    assert len(before) == 7
    assert torch.equal(after, run.image)


@BOTH
def test_a_run_repeats_bit_for_bit(make: Callable[..., Settings]) -> None:
    first, second = (loop.optimize(Bowl(), noise(), make()) for _ in range(2))
    assert torch.equal(first.image, second.image)
    assert first.trace == second.trace


def test_a_callback_receives_every_step() -> None:
    steps: list[Step] = []
    pictures: list[Tensor] = []

    def callback(step: Step) -> None:
        steps.append(step)
        pictures.append(step.image)

    run = loop.optimize(Bowl(), noise() * 100, adam(steps=4), context=LoopContext(callback=callback, scale=2, scales=3))
    assert [(s.scale, s.scales, s.step, s.steps, s.retries) for s in steps] == [(2, 3, n, 4, 0) for n in range(1, 5)]
    assert [s.count for s in steps] == [5, 6, 7, 8]
    assert not any(s.last for s in steps)
    assert [s.losses for s in steps] == run.trace
    assert all(s.memory > 2**20 and s.seconds >= 0 and s.remaining >= 0 for s in steps)
    assert all(a.seconds <= b.seconds for a, b in itertools.pairwise(steps))
    assert steps[-1].remaining == 0
    assert torch.equal(pictures[-1], progress.to_picture(run.image))
    assert not torch.equal(pictures[0], pictures[-1])
    with pytest.raises(dataclasses.FrozenInstanceError):
        steps[0].step = 9  # type: ignore[misc]


def test_the_image_of_a_step_is_a_picture_made_on_access(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Tensor] = []
    real = progress.to_picture

    def counted(image: Tensor) -> Tensor:
        made.append(image)
        return real(image)

    monkeypatch.setattr(progress, "to_picture", counted)
    start = torch.tensor([-1e3, 51.0, 1e3]).view(1, 3, 1, 1)

    def callback(step: Step) -> None:
        if step.step == 2:
            assert step.image.flatten().tolist() == [0.0, pytest.approx(0.2), 1.0]

    loop.optimize(Script([1.0] * 3, 0.0), start, adam(steps=3), context=LoopContext(callback=callback))
    assert len(made) == 1


def test_a_picture_stored_by_a_callback_does_not_change() -> None:
    stored: list[Tensor] = []

    def callback(step: Step) -> None:
        stored.append(step.image)

    loop.optimize(Bowl(), zeros() + 100, adam(steps=3), context=LoopContext(callback=callback))
    assert len({tuple(image.flatten().tolist()) for image in stored}) == 3


@BOTH
def test_a_callback_that_returns_true_stops_the_run(make: Callable[..., Settings]) -> None:
    run = loop.optimize(Bowl(), noise(), make(steps=10), context=LoopContext(callback=lambda step: step.step == 3))
    assert run.stopped == "callback"
    assert len(run.trace) == 3
    assert torch.equal(run.image, loop.optimize(Bowl(), noise(), make(steps=3)).image)


def test_an_error_in_a_callback_propagates() -> None:
    def callback(step: Step) -> None:
        raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        loop.optimize(Bowl(), noise(), adam(), context=LoopContext(callback=callback))


# Ctrl-C.


@pytest.fixture
def _sigint_is_pythons() -> Iterator[None]:
    """A shell that starts a command in the background lets it ignore SIGINT."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def interrupted_in_callback(make: Callable[..., Settings], at: int) -> tuple[ScaleResult, list[Tensor]]:
    objective = Bowl()

    def callback(step: Step) -> None:
        if step.step == at:
            signal.raise_signal(signal.SIGINT)

    return loop.optimize(objective, noise(), make(), context=LoopContext(callback=callback)), objective.images


@pytest.mark.usefixtures("_sigint_is_pythons")
@BOTH
def test_ctrl_c_in_a_callback_returns_the_last_evaluated_image(make: Callable[..., Settings]) -> None:
    run, images = interrupted_in_callback(make, 3)
    assert run.stopped == "interrupt"
    assert len(run.trace) == 3
    assert torch.equal(run.image, images[2])


@BOTH
@pytest.mark.parametrize("at", [1, 2, 4])
def test_ctrl_c_in_an_evaluation_returns_the_last_evaluated_image(make: Callable[..., Settings], at: int) -> None:
    objective = Script([*[1.0] * (at - 1), KeyboardInterrupt()])
    run = loop.optimize(objective, noise(), make())
    assert run.stopped == "interrupt"
    assert len(run.trace) == at - 1
    assert torch.equal(run.image, objective.images[max(at - 2, 0)])


def test_ctrl_c_while_a_step_is_retried_returns_the_last_good_image() -> None:
    objective = Script([1.0, 1.0, math.nan, KeyboardInterrupt()])
    run = loop.optimize(objective, noise(), adam())
    assert run.stopped == "interrupt"
    assert torch.equal(run.image, objective.images[1])


# Rejected steps.


@BOTH
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_step_without_a_finite_loss_is_rejected_and_halved(
    make: Callable[..., Settings], bad: float, caplog: pytest.LogCaptureFixture
) -> None:
    objective = Script([5.0, 4.0, bad, bad, 3.0, 2.0, 1.0])
    steps: list[Step] = []
    with caplog.at_level(logging.WARNING, "fastnst"):
        run = loop.optimize(objective, noise(), make(steps=5), context=LoopContext(callback=steps.append))
    good, wrong, half, quarter = objective.images[1:5]
    torch.testing.assert_close(half - good, (wrong - good) / 2)
    torch.testing.assert_close(quarter - good, (wrong - good) / 4)
    assert [losses.total for losses in run.trace] == [5.0, 4.0, 3.0, 2.0, 1.0]
    assert [step.retries for step in steps] == [0, 0, 2, 0, 0]
    (record,) = caplog.records
    assert record.getMessage() == f"step 3: loss {bad:.4g} after 4; step rejected and retried at 1/4 of its length"
    assert run.stopped is None


@BOTH
def test_a_step_without_a_finite_gradient_is_rejected(make: Callable[..., Settings]) -> None:
    class Broken(Script):
        def value_and_grad(self, image: Tensor) -> tuple[Losses, Tensor]:
            losses, gradient = super().value_and_grad(image)
            if len(self.images) == 2:
                gradient[0, 0, 0, 0] = math.nan
            return losses, gradient

    objective = Broken([1.0] * 4)
    run = loop.optimize(objective, noise(), make(steps=3))
    assert len(run.trace) == 3
    assert run.image.isfinite().all()


@pytest.mark.parametrize("retries", [1, 3])
def test_adam_continues_at_half_its_rate(retries: int) -> None:
    objective = Script([5.0, 4.0, *[math.nan] * retries, 3.0, 2.0])
    loop.optimize(objective, zeros(), adam(steps=4, learning_rate=1.0))
    means = [image.mean().item() for image in objective.images]
    (first, second, wrong), (third, fourth, _) = means[:3], means[-3:]
    # With a constant gradient every step of Adam is as long as its rate.
    assert [second - first, wrong - second] == pytest.approx([-1.0, -1.0])
    assert third - second == pytest.approx(-(0.5**retries))
    assert fourth - third == pytest.approx(-0.5)


def test_lbfgs_clears_its_history_after_a_rejected_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conditioning, "POWER", 0.0)  # on the image itself
    objective = Script([5.0, 4.0, math.nan, 3.0, 2.0])
    loop.optimize(objective, zeros(), newton(steps=4))
    third, fourth, _ = (image.mean().item() for image in objective.images[3:])
    assert fourth - third == pytest.approx(-lbfgs.FIRST_CHANGE)  # like the first step of a new run


def test_lbfgs_rejects_a_step_that_explodes(caplog: pytest.LogCaptureFixture) -> None:
    objective = Script([5.0, 51.0, 50.0, 4.0])
    run = loop.optimize(objective, noise(), newton(steps=3))
    assert [losses.total for losses in run.trace] == [5.0, 50.0, 4.0]
    assert "step 2: loss 51 after 5; step rejected and retried at 1/2 of its length" in caplog.text


@BOTH
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_last_step_without_a_finite_loss_is_rejected(
    make: Callable[..., Settings], bad: float, caplog: pytest.LogCaptureFixture
) -> None:
    objective = Script([5.0, 4.0, bad, bad, 3.0])
    run = loop.optimize(objective, noise(), make(steps=2))
    good, wrong, _, quarter = objective.images[1:]
    torch.testing.assert_close(run.image, good + (wrong - good) / 4)
    assert torch.equal(run.image, quarter)
    assert [losses.total for losses in run.trace] == [5.0, 4.0]
    assert run.stopped is None
    assert caplog.messages == [f"step 3: loss {bad:.4g} after 4; step rejected and retried at 1/4 of its length"]


def test_a_last_step_that_explodes_is_rejected() -> None:
    objective = Script([5.0, 51.0, 4.0])
    run = loop.optimize(objective, noise(), newton(steps=1))
    torch.testing.assert_close(run.image - objective.images[0], (objective.images[1] - objective.images[0]) / 2)


@BOTH
def test_a_last_step_that_fails_at_every_length_keeps_the_image_before_it(make: Callable[..., Settings]) -> None:
    objective = Script([5.0, 4.0, math.nan])
    run = loop.optimize(objective, noise(), make(steps=2))
    assert run.stopped == "stalled"
    assert torch.equal(run.image, objective.images[1])


class Sunken(Bowl):
    """The same function minus a constant, so that its values are negative or change sign."""

    def __init__(self, depth: float) -> None:
        super().__init__()
        self.depth = depth

    def value_and_grad(self, image: Tensor) -> tuple[Losses, Tensor]:
        losses, gradient = super().value_and_grad(image)
        content, style = losses.total, -self.depth
        return Losses(content + style, {"relu1_1": content}, {"relu1_1": style}), gradient


@pytest.mark.parametrize("depth", [1e4, 60.0], ids=["below zero", "through zero"])
def test_a_negative_loss_is_minimized_like_any_other(depth: float, caplog: pytest.LogCaptureFixture) -> None:
    plain, sunken = (loop.optimize(kind, noise(), newton(steps=12)) for kind in (Bowl(), Sunken(depth)))
    assert sunken.stopped is None
    assert torch.equal(sunken.image, plain.image)
    assert sunken.trace[-1].total < 0
    assert not caplog.messages


def test_an_explosion_from_a_negative_loss_is_rejected(caplog: pytest.LogCaptureFixture) -> None:
    run = loop.optimize(Script([-5.0, 41.0, -6.0]), noise(), newton(steps=2))
    assert [losses.total for losses in run.trace] == [-5.0, -6.0]
    assert "step 2: loss 41 after -5; step rejected" in caplog.text


def test_adam_accepts_steps_that_increase_the_loss() -> None:
    run = loop.optimize(Script([5.0, 5000.0, 4.0, 5000.0]), noise(), adam(steps=3))
    assert [losses.total for losses in run.trace] == [5.0, 5000.0, 4.0]


def test_lbfgs_recovers_from_an_explosion(caplog: pytest.LogCaptureFixture) -> None:
    class Cliff:
        """Almost flat at the start: the curvature estimated there sends the image far up a steep wall."""

        def value_and_grad(self, image: Tensor) -> tuple[Losses, Tensor]:
            return Losses(total=(image**6 + 1).sum().item()), 6 * image**5

    run = loop.optimize(Cliff(), zeros() + 40, newton(steps=80, learning_rate=120 / lbfgs.FIRST_CHANGE))
    assert "step rejected" in caplog.text
    assert run.trace[-1].total < run.trace[0].total
    assert run.image.isfinite().all()


def test_a_step_that_overflows_is_rejected(caplog: pytest.LogCaptureFixture) -> None:
    class Overflow(Script):
        def value_and_grad(self, image: Tensor) -> tuple[Losses, Tensor]:
            losses, gradient = super().value_and_grad(image)
            near = bool((image.abs() < 1e30).all())
            return (losses if near else Losses(total=math.nan)), gradient

    settings = newton(steps=2, learning_rate=3e38)
    run = loop.optimize(Overflow([1.0] * 9), noise().float(), settings)
    assert len(run.trace) == 2
    assert "step 2: loss nan after 1; step rejected" in caplog.text
    assert run.image.abs().max() < 10


@BOTH
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_start_without_a_finite_loss_is_an_error(make: Callable[..., Settings], bad: float) -> None:
    with pytest.raises(FastnstError, match="the loss of the start image is not finite"):
        loop.optimize(Script([bad] * 99), noise(), make())


@BOTH
def test_a_stalled_run_returns_the_last_good_image_with_a_warning(
    make: Callable[..., Settings], caplog: pytest.LogCaptureFixture
) -> None:
    objective = Script([2.0, 1.0, *[math.nan] * 99])
    run = loop.optimize(objective, noise(), make())
    assert run.stopped == "stalled"
    assert torch.equal(run.image, objective.images[1])
    assert [losses.total for losses in run.trace] == [2.0, 1.0]
    assert len(objective.images) == 3 + loop.MOST_RETRIES
    assert caplog.messages == ["step 3: no step reduces the loss of 1, however short; stopped"]


# Time.


def test_the_clock_counts_work_over_all_scales(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.perf_counter", lambda: 110.0)
    clock = Clock(total=100.0, start=100.0)
    assert clock.advance(25.0) == (10.0, 30.0)
    assert clock.advance(25.0) == (10.0, 10.0)
    assert clock.advance(60.0) == (10.0, 0.0)


def test_remaining_time_includes_later_scales() -> None:
    steps: list[Step] = []
    small, large = torch.zeros(1, 3, 2, 2), torch.zeros(1, 3, 4, 4)
    clock = Clock(total=float(2 * (small.numel() + large.numel())))
    for scale, image in enumerate((small, large), 1):
        script = Script([1.0] * 2)
        loop.optimize(
            script, image, adam(steps=2), context=LoopContext(callback=steps.append, clock=clock, scale=scale, scales=2)
        )
    done = [12, 24, 72, 120]
    ratios = [step.remaining / step.seconds for step in steps]
    assert ratios == pytest.approx([(120 - work) / work for work in done])


def test_pictures_are_clamped_on_the_cpu_in_float32() -> None:
    picture = progress.to_picture(torch.tensor([-5.0, 0.0, 127.5, 255.0, 300.0], dtype=torch.float64))
    assert picture.dtype == torch.float32
    assert picture.tolist() == [0.0, 0.0, 0.5, 1.0, 1.0]


def test_the_image_of_a_step_is_a_copy_that_outlives_the_step() -> None:
    steps: list[Step] = []
    inside: list[Tensor] = []

    def callback(step: Step) -> None:
        steps.append(step)
        if step.step == 1:
            inside.append(step.image.clone())

    loop.optimize(Bowl(), noise(), adam(steps=3), context=LoopContext(callback=callback))
    assert torch.equal(steps[0].image, inside[0])  # read inside the callback, so it is cached
    with pytest.raises(RuntimeError, match="read it inside the callback"):
        _ = steps[1].image

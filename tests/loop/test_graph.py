"""Steps from a captured graph, with a backend that runs on the CPU and holds the function to what a graph can hold."""

from __future__ import annotations

import contextlib
import gc
import inspect
import logging
import math
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from loop_graphs import NoHost, Refuse, Rerun
from loop_pictures import samples, tiny
from loop_toys import SHAPE, Bowl, Script, Valley, adam, newton, noise
from torch import Tensor

from fastnst import optimize, transfer
from fastnst.engine import FusedEngine
from fastnst.errors import FastnstError, UsageError
from fastnst.graph import AdamInGraph, Backend, Capturer, CudaGraphs, EvaluationInGraph, choose_backend
from fastnst.objective import Objective, style_targets
from fastnst.optimize import Run, Step
from fastnst.settings import Settings
from fastnst.transfer import Stylizer, stylize
from fastnst.vgg import VGG
from fastnst.walk import Walk
from fastnst.weights import Weights

BOTH = pytest.mark.parametrize("make", [adam, newton])


def both_ways(
    objective: Callable[[], Any], start: Tensor, settings: Settings
) -> tuple[Run, Run, list[Tensor], list[Tensor], Rerun]:
    """A run op by op and one through a graph, with the picture of every step."""
    backend = Rerun()

    def run(capturer: Capturer) -> tuple[Run, list[Tensor]]:
        kept: list[Tensor] = []

        def callback(step: Step) -> None:
            kept.append(step._image.clone())

        return optimize.optimize(objective(), start, settings, callback=callback, capturer=capturer), kept

    plain, images = run(Capturer(None))
    captured, replayed = run(Capturer(backend))
    return plain, captured, images, replayed, backend


@BOTH
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_captured_run_is_the_run_op_by_op_bit_for_bit(make: Callable[..., Settings], dtype: torch.dtype) -> None:
    plain, captured, images, replayed, backend = both_ways(lambda: Valley(dtype=dtype), noise().to(dtype), make())
    assert torch.equal(plain.image, captured.image)
    assert plain.trace == captured.trace
    assert len(images) == 10
    assert all(torch.equal(a, b) for a, b in zip(images, replayed, strict=True))
    assert (backend.captures, backend.replays) == (1, 10)


@BOTH
@pytest.mark.parametrize("cliff", [False, True])
def test_a_step_is_taken_back_from_a_graph_as_without_one(
    make: Callable[..., Settings], cliff: bool, caplog: pytest.LogCaptureFixture
) -> None:
    settings = make(learning_rate=2.0 if make is adam else 1.0)
    plain, captured, images, replayed, backend = both_ways(lambda: Valley(5.0, cliff), noise(), settings)
    told = [message for message in caplog.messages if "taken back and retried" in message]
    assert told
    assert told == told[: len(told) // 2] * 2
    assert backend.replays > 10
    assert torch.equal(plain.image, captured.image)
    assert plain.trace == captured.trace
    assert all(torch.equal(a, b) for a, b in zip(images, replayed, strict=True))


@BOTH
@pytest.mark.parametrize("kind", [None, FusedEngine])
def test_a_captured_run_of_the_network_is_the_run_op_by_op(
    bundled: Weights, make: Callable[..., Settings], kind: Any
) -> None:
    layers = {"content_layers": (("relu2_1", 1.0),), "style_layers": (("relu1_1", 1.0), ("relu2_1", 1.0))}
    settings = make(**layers, learning_rate=1.0, steps=10)
    network = VGG(bundled, settings.layer_names())
    content, style = (noise(seed, (1, 3, 17, 22)).float() * 40 + 120 for seed in (1, 2))
    targets = style_targets(network, style, settings)
    plain, captured, images, replayed, _ = both_ways(
        lambda: Objective(network, content, targets, settings, kind), content, settings
    )
    assert torch.equal(plain.image, captured.image)
    assert plain.trace == captured.trace
    assert all(torch.equal(a, b) for a, b in zip(images, replayed, strict=True))


@BOTH
def test_the_start_image_is_not_changed_by_trial_runs(make: Callable[..., Settings]) -> None:
    seen: list[Tensor] = []
    start = noise()

    class Watched(Valley):
        def evaluate(self, image: Tensor) -> tuple[Tensor, Tensor]:
            seen.append(image.clone())
            return super().evaluate(image)

    walk = Capturer(Rerun()).walk(Watched(), start.clone(), make())
    assert torch.equal(walk.image, start)
    assert torch.equal(walk.good, start)
    walk.look()
    assert torch.equal(seen[-1], start)


def test_each_run_has_buffers_and_a_graph_of_its_own() -> None:
    backend = Rerun()
    for _ in range(2):
        optimize.optimize(Valley(), noise(), adam(steps=2), capturer=Capturer(backend))
    assert (backend.captures, backend.replays) == (2, 4)


@BOTH
def test_a_graph_goes_with_its_walk(make: Callable[..., Settings]) -> None:
    """It holds the memory of a whole step, which the next scale needs at once."""
    held: list[weakref.ref[Any]] = []

    class Graph:
        def replay(self) -> None: ...

    class Still(Backend):
        def capture(self, function: Callable[[], None]) -> Callable[[], None]:
            graph = Graph()  # as of a CUDA graph: nothing in it refers to the function
            held.append(weakref.ref(graph))
            return graph.replay

    gc.disable()
    try:
        walk = Capturer(Still()).walk(Valley(), noise(), make())
        held.append(weakref.ref(walk))
        assert all(reference() is not None for reference in held)
        del walk
        assert all(reference() is None for reference in held)
    finally:
        gc.enable()


@BOTH
def test_a_start_without_a_finite_loss_is_an_error(make: Callable[..., Settings]) -> None:
    with pytest.raises(FastnstError, match="the loss of the start image is not finite"):
        optimize.optimize(Valley(1e-9), noise(), make(), capturer=Capturer(Rerun()))


@BOTH
def test_where_no_step_helps_a_captured_run_ends_with_the_last_good_image(
    make: Callable[..., Settings], caplog: pytest.LogCaptureFixture
) -> None:
    class Narrow(Valley):
        """Finite at the start alone."""

        def evaluate(self, image: Tensor) -> tuple[Tensor, Tensor]:
            values, gradient = super().evaluate(image)
            return torch.where((image - noise()).abs().max() > 0, math.nan, values), gradient

    run = optimize.optimize(Narrow(), noise(), make(), capturer=Capturer(Rerun()))
    assert run.stopped == "stalled"
    assert torch.equal(run.image, noise())
    assert "no step from loss" in caplog.text


@BOTH
def test_a_callback_that_returns_true_stops_a_captured_run(make: Callable[..., Settings]) -> None:
    def third(step: Step) -> bool:
        return step.step == 3

    run = optimize.optimize(Valley(), noise(), make(), callback=third, capturer=Capturer(Rerun()))
    assert run.stopped == "callback"
    assert torch.equal(run.image, optimize.optimize(Valley(), noise(), make(steps=3)).image)


@BOTH
def test_ctrl_c_in_a_callback_keeps_the_last_image_that_was_evaluated(make: Callable[..., Settings]) -> None:
    def interrupt(step: Step) -> None:
        if step.step == 3:
            raise KeyboardInterrupt

    found = [
        optimize.optimize(Valley(), noise(), make(), callback=interrupt, capturer=capturer)
        for capturer in (Capturer(None), Capturer(Rerun()))
    ]
    assert torch.equal(found[0].image, found[1].image)
    assert found[1].stopped == "interrupt"
    assert len(found[1].trace) == 3


# Where capture fails, or is not asked for.


@BOTH
def test_where_capture_fails_the_run_goes_on_op_by_op_and_says_so_once(
    make: Callable[..., Settings], caplog: pytest.LogCaptureFixture
) -> None:
    backend = Refuse()
    capturer = Capturer(backend)
    with caplog.at_level(logging.WARNING, "fastnst"):
        runs = [optimize.optimize(Valley(), noise(), make(), capturer=capturer) for _ in range(2)]
    assert caplog.messages == [
        "the step cannot be captured as a CUDA graph (operation not permitted when stream is capturing); "
        "running op by op"
    ]
    assert backend.asked == 1
    assert all(torch.equal(run.image, optimize.optimize(Valley(), noise(), make()).image) for run in runs)


def test_the_reason_given_is_the_first_error(caplog: pytest.LogCaptureFixture) -> None:
    class Twice(Backend):
        def capture(self, function: Callable[[], None]) -> Callable[[], None]:
            try:
                raise RuntimeError("what went wrong")
            finally:
                raise RuntimeError("the capture was lost")

    Capturer(Twice()).walk(Valley(), noise(), adam())
    assert "(what went wrong)" in caplog.text


def test_an_error_that_is_no_failed_capture_is_not_hidden() -> None:
    class Broken(Backend):
        def capture(self, function: Callable[[], None]) -> Callable[[], None]:
            raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        Capturer(Broken()).walk(Valley(), noise(), adam())


def test_an_objective_that_waits_for_the_device_is_run_op_by_op() -> None:
    backend = Rerun()
    for objective in (Bowl(), Script([1.0] * 3)):
        walk = Capturer(backend).walk(objective, noise(), adam(steps=3))
        assert type(walk) is Walk
    assert backend.captures == 0


def test_what_a_graph_holds_depends_on_the_optimiser() -> None:
    assert type(Capturer(Rerun()).walk(Valley(), noise(), adam())) is AdamInGraph
    assert type(Capturer(Rerun()).walk(Valley(), noise(), newton())) is EvaluationInGraph


@pytest.mark.parametrize(
    ("name", "device", "captures"),
    [
        ("auto", "cuda:1", True),
        ("on", "cuda", True),
        ("off", "cuda", False),
        ("auto", "cpu", False),
        ("off", "cpu", False),
    ],
)
def test_auto_captures_on_cuda(name: str, device: str, captures: bool) -> None:
    backend = choose_backend(name, torch.device(device))
    assert isinstance(backend, CudaGraphs) == captures
    assert backend is None or captures


def test_a_graph_where_there_is_no_cuda_is_refused() -> None:
    with pytest.raises(UsageError, match="graph 'on': device 'cpu' has no CUDA graphs; use auto or off"):
        Stylizer(tiny(graph="on"))
    with pytest.raises(UsageError, match="has no CUDA graphs"):
        optimize.optimize(Valley(), noise(), adam(graph="on"))


def test_cuda_graphs_are_captured_after_trial_runs_on_a_stream_aside(monkeypatch: pytest.MonkeyPatch) -> None:
    """The order of calls, with PyTorch's own signatures; what they do shows on a device only."""
    log: list[str] = []

    class Stream:
        def __init__(self, name: str = "aside") -> None:
            self.name = name

        def wait_stream(self, other: Stream) -> None:
            log.append(f"{self.name} waits for {other.name}")

    class Graph:
        def replay(self) -> None:
            log.append("replay")

    def entered(name: str, real: Any) -> Any:
        @contextlib.contextmanager
        def enter(*arguments: Any, **named: Any) -> Iterator[None]:
            inspect.signature(real).bind(*arguments, **named)
            log.append(f"into {name}")
            yield
            log.append(f"out of {name}")

        return enter

    for name in ("device", "stream", "graph"):
        monkeypatch.setattr(torch.cuda, name, entered(name, getattr(torch.cuda, name)))
    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: Stream("here"))
    replay = CudaGraphs(torch.device("cuda:1")).capture(lambda: log.append("run"))
    replay()
    trial = ["aside waits for here", "into stream", "run", "run", "run", "out of stream", "here waits for aside"]
    assert log == ["into device", *trial, "into graph", "run", "out of graph", "out of device", "replay"]


@pytest.mark.usefixtures("weights_read_once")
@pytest.mark.parametrize("optimizer", ["adam", "lbfgs"])
def test_every_scale_is_captured_anew(monkeypatch: pytest.MonkeyPatch, optimizer: str) -> None:
    settings = tiny(optimizer=optimizer, scales=2, size=176, steps=2)
    plain = stylize(samples(), samples(seed=2), settings=settings)
    backend = Rerun()
    monkeypatch.setattr(transfer, "choose_backend", lambda name, device: backend)
    captured = stylize(samples(), samples(seed=2), settings=settings)
    assert len(captured.trace) == 2
    assert backend.captures == 2
    assert backend.replays >= 4
    assert torch.equal(captured.image, plain.image)
    assert captured.trace == plain.trace


@pytest.mark.usefixtures("weights_read_once")
def test_runs_of_several_scales_say_once_that_capture_fails(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(transfer, "choose_backend", lambda name, device: Refuse())
    stylizer = Stylizer(tiny(scales=2, size=176, steps=1))
    content = stylizer.load(samples())
    for _ in range(2):
        stylizer.run(stylizer.load_scene(content, [samples(seed=2)]))
    assert sum("cannot be captured" in message for message in caplog.messages) == 1


def test_the_arithmetic_of_a_captured_step_stays_on_the_device() -> None:
    """On the meta device, which has no values: what waited for one would fail, and what came from the CPU shows."""
    meta = torch.device("meta")

    class Watch(Backend):
        def capture(self, function: Callable[[], None]) -> Callable[[], None]:
            with NoHost(meta) as watch:
                function()
            assert watch.calls > 20
            return function

    class Flat(Valley):
        def __init__(self) -> None:
            self.calls = 0

        def evaluate(self, image: Tensor) -> tuple[Tensor, Tensor]:
            self.calls += 1
            return image.sum((0, 2, 3))[:2], image * 2

    objective = Flat()
    walk = Capturer(Watch()).walk(objective, torch.zeros(SHAPE, device=meta), adam())
    assert type(walk) is AdamInGraph
    assert objective.calls == 1


def test_the_watch_sees_what_a_graph_cannot_hold() -> None:
    """The tests above would say nothing if it did not."""
    image, other = noise(), noise(1)
    for wrong in (
        lambda: image.sum().item(),
        lambda: bool(image.isfinite().all()),
        lambda: torch.tensor(3.0),
        lambda: image[image > 0],
        lambda: image.to("meta"),
    ):
        with pytest.raises(AssertionError), NoHost(torch.device("cpu")):
            wrong()
    turn = iter((image, image, image, image, other))

    def double() -> None:
        next(turn).mul_(2)

    replay = Rerun().capture(double)
    with pytest.raises(AssertionError, match="a replay would not do"):
        replay()

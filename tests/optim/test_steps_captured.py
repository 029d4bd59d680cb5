"""Captured steps, with a backend on the CPU that checks that a graph could replay the function."""

from __future__ import annotations

import contextlib
import gc
import inspect
import logging
import math
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from support.graphs import NoHost, Refuse, Rerun
from support.pictures import samples, tiny
from support.toys import SHAPE, Bowl, Script, Valley, adam, newton, noise
from torch import Tensor

from bench.gpu import step_launches
from fastnst.config.settings import Settings
from fastnst.errors import FastnstError, UsageError
from fastnst.network.vgg import VGG
from fastnst.objective.engines import FusedEngine
from fastnst.objective.targets import style_targets
from fastnst.objective.whole import Objective
from fastnst.optim import loop
from fastnst.optim.cuda_graph import Backend, CapturedAdam, CapturedEvaluation, CudaGraphs, StepCapture, choose_backend
from fastnst.optim.loop import LoopContext, ScaleResult
from fastnst.optim.progress import Step
from fastnst.optim.stepper import Stepper
from fastnst.run.stylizer import Stylizer, stylize
from fastnst.weights import Weights

BOTH = pytest.mark.parametrize("make", [adam, newton])


def plain_and_captured(
    objective: Callable[[], Any], start: Tensor, settings: Settings
) -> tuple[ScaleResult, ScaleResult, list[Tensor], list[Tensor], Rerun]:
    """A run op by op and a captured run, with the image of every step."""
    backend = Rerun()

    def run(capture: StepCapture) -> tuple[ScaleResult, list[Tensor]]:
        images: list[Tensor] = []

        def callback(step: Step) -> None:
            images.append(step._image.clone())

        return loop.optimize(
            objective(), start, settings, context=LoopContext(callback=callback, capture=capture)
        ), images

    plain, images = run(StepCapture(None))
    captured, replayed = run(StepCapture(backend))
    return plain, captured, images, replayed, backend


@BOTH
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_captured_run_equals_the_run_op_by_op_bit_for_bit(make: Callable[..., Settings], dtype: torch.dtype) -> None:
    plain, captured, images, replayed, backend = plain_and_captured(
        lambda: Valley(dtype=dtype), noise().to(dtype), make()
    )
    assert torch.equal(plain.image, captured.image)
    assert plain.trace == captured.trace
    assert len(images) == 10
    assert all(torch.equal(a, b) for a, b in zip(images, replayed, strict=True))
    assert (backend.captures, backend.replays) == (1, 10)


@BOTH
@pytest.mark.parametrize("cliff", [False, True])
def test_a_captured_step_is_rejected_as_without_a_graph(
    make: Callable[..., Settings], cliff: bool, caplog: pytest.LogCaptureFixture
) -> None:
    settings = make(learning_rate=2.0 if make is adam else 1.0)
    plain, captured, images, replayed, backend = plain_and_captured(lambda: Valley(5.0, cliff), noise(), settings)
    messages = [message for message in caplog.messages if "rejected and retried" in message]
    assert messages
    assert messages == messages[: len(messages) // 2] * 2
    assert backend.replays > 10
    assert torch.equal(plain.image, captured.image)
    assert plain.trace == captured.trace
    assert all(torch.equal(a, b) for a, b in zip(images, replayed, strict=True))


@BOTH
@pytest.mark.parametrize("kind", [None, FusedEngine])
def test_a_captured_run_of_the_network_equals_the_run_op_by_op(
    bundled: Weights, make: Callable[..., Settings], kind: Any
) -> None:
    layers = {"content_layers": (("relu2_1", 1.0),), "style_layers": (("relu1_1", 1.0), ("relu2_1", 1.0))}
    settings = make(**layers, learning_rate=1.0, steps=10)
    network = VGG(bundled, settings.layer_names())
    content, style = (noise(seed, (1, 3, 17, 22)).float() * 40 + 120 for seed in (1, 2))
    targets = style_targets(network, style, settings)
    plain, captured, images, replayed, _ = plain_and_captured(
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

    stepper = StepCapture(Rerun()).make_stepper(Watched(), start.clone(), make())
    assert torch.equal(stepper.image, start)
    assert torch.equal(stepper.good, start)
    stepper.evaluate()
    assert torch.equal(seen[-1], start)


def test_each_run_has_buffers_and_a_graph_of_its_own() -> None:
    backend = Rerun()
    for _ in range(2):
        loop.optimize(Valley(), noise(), adam(steps=2), context=LoopContext(capture=StepCapture(backend)))
    assert (backend.captures, backend.replays) == (2, 4)


@BOTH
def test_a_graph_is_freed_with_its_stepper(make: Callable[..., Settings]) -> None:
    """It holds the memory of a whole step, which the next scale needs immediately."""
    held: list[weakref.ref[Any]] = []

    class Graph:
        def replay(self) -> None: ...

    class Still(Backend):
        def capture(self, function: Callable[[], None]) -> Callable[[], None]:
            graph = Graph()  # as with a CUDA graph, nothing in it refers to the function
            held.append(weakref.ref(graph))
            return graph.replay

    gc.disable()
    try:
        stepper = StepCapture(Still()).make_stepper(Valley(), noise(), make())
        held.append(weakref.ref(stepper))
        assert all(reference() is not None for reference in held)
        del stepper
        assert all(reference() is None for reference in held)
    finally:
        gc.enable()


@BOTH
def test_a_start_without_a_finite_loss_is_an_error(make: Callable[..., Settings]) -> None:
    with pytest.raises(FastnstError, match="the loss of the start image is not finite"):
        loop.optimize(Valley(1e-9), noise(), make(), context=LoopContext(capture=StepCapture(Rerun())))


@BOTH
def test_a_stalled_captured_run_returns_the_last_good_image(
    make: Callable[..., Settings], caplog: pytest.LogCaptureFixture
) -> None:
    class Narrow(Valley):
        """Finite only at the start."""

        def evaluate(self, image: Tensor) -> tuple[Tensor, Tensor]:
            values, gradient = super().evaluate(image)
            return torch.where((image - noise()).abs().max() > 0, math.nan, values), gradient

    run = loop.optimize(Narrow(), noise(), make(), context=LoopContext(capture=StepCapture(Rerun())))
    assert run.stopped == "stalled"
    assert torch.equal(run.image, noise())
    assert "no step reduces the loss" in caplog.text


@BOTH
def test_a_callback_that_returns_true_stops_a_captured_run(make: Callable[..., Settings]) -> None:
    def third(step: Step) -> bool:
        return step.step == 3

    run = loop.optimize(Valley(), noise(), make(), context=LoopContext(callback=third, capture=StepCapture(Rerun())))
    assert run.stopped == "callback"
    assert torch.equal(run.image, loop.optimize(Valley(), noise(), make(steps=3)).image)


@BOTH
def test_ctrl_c_in_a_callback_returns_the_last_evaluated_image(make: Callable[..., Settings]) -> None:
    def interrupt(step: Step) -> None:
        if step.step == 3:
            raise KeyboardInterrupt

    found = [
        loop.optimize(Valley(), noise(), make(), context=LoopContext(callback=interrupt, capture=capture))
        for capture in (StepCapture(None), StepCapture(Rerun()))
    ]
    assert torch.equal(found[0].image, found[1].image)
    assert found[1].stopped == "interrupt"
    assert len(found[1].trace) == 3


# Failed or disabled capture.


@BOTH
def test_a_run_whose_capture_fails_continues_op_by_op_with_one_warning(
    make: Callable[..., Settings], caplog: pytest.LogCaptureFixture
) -> None:
    backend = Refuse()
    capture = StepCapture(backend)
    with caplog.at_level(logging.WARNING, "fastnst"):
        runs = [loop.optimize(Valley(), noise(), make(), context=LoopContext(capture=capture)) for _ in range(2)]
    assert caplog.messages == [
        "the step cannot be captured as a CUDA graph (operation not permitted when stream is capturing); "
        "running op by op"
    ]
    assert backend.asked == 1
    assert all(torch.equal(run.image, loop.optimize(Valley(), noise(), make()).image) for run in runs)


def test_the_warning_names_the_first_error(caplog: pytest.LogCaptureFixture) -> None:
    class Twice(Backend):
        def capture(self, function: Callable[[], None]) -> Callable[[], None]:
            try:
                raise RuntimeError("what went wrong")
            finally:
                raise RuntimeError("the capture was lost")

    StepCapture(Twice()).make_stepper(Valley(), noise(), adam())
    assert "(what went wrong)" in caplog.text


def test_an_error_other_than_a_failed_capture_propagates() -> None:
    class Broken(Backend):
        def capture(self, function: Callable[[], None]) -> Callable[[], None]:
            raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        StepCapture(Broken()).make_stepper(Valley(), noise(), adam())


def test_an_objective_that_waits_for_the_device_is_run_op_by_op() -> None:
    backend = Rerun()
    for objective in (Bowl(), Script([1.0] * 3)):
        stepper = StepCapture(backend).make_stepper(objective, noise(), adam(steps=3))
        assert type(stepper) is Stepper
    assert backend.captures == 0


def test_the_captured_part_depends_on_the_optimizer() -> None:
    assert type(StepCapture(Rerun()).make_stepper(Valley(), noise(), adam())) is CapturedAdam
    assert type(StepCapture(Rerun()).make_stepper(Valley(), noise(), newton())) is CapturedEvaluation


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


def test_graph_on_without_cuda_is_an_error() -> None:
    with pytest.raises(UsageError, match="graph 'on': device 'cpu' has no CUDA graphs; use auto or off"):
        Stylizer(tiny(graph="on"))
    with pytest.raises(UsageError, match="has no CUDA graphs"):
        loop.optimize(Valley(), noise(), adam(graph="on"))


def test_cuda_graphs_are_captured_after_trial_runs_on_a_side_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    """The order of calls, checked against PyTorch's signatures; their effect is tested on a device only."""
    log: list[str] = []

    class Stream:
        def __init__(self, name: str = "side") -> None:
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
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: Stream("current"))
    replay = CudaGraphs(torch.device("cuda:1")).capture(lambda: log.append("run"))
    replay()
    trial = ["side waits for current", "into stream", "run", "run", "run", "out of stream", "current waits for side"]
    assert log == ["into device", *trial, "into graph", "run", "out of graph", "out of device", "replay"]


@pytest.mark.usefixtures("weights_read_once")
@pytest.mark.parametrize("optimizer", ["adam", "lbfgs"])
def test_every_scale_is_captured_separately(monkeypatch: pytest.MonkeyPatch, optimizer: str) -> None:
    settings = tiny(optimizer=optimizer, scales=2, size=176, steps=2)
    plain = stylize(samples(), samples(seed=2), settings=settings)
    backend = Rerun()
    monkeypatch.setattr("fastnst.run.setup.choose_backend", lambda name, device: backend)
    captured = stylize(samples(), samples(seed=2), settings=settings)
    assert len(captured.trace) == 2
    assert backend.captures == 2
    assert backend.replays >= 4
    assert torch.equal(captured.image, plain.image)
    assert captured.trace == plain.trace


@pytest.mark.usefixtures("weights_read_once")
def test_a_failed_capture_is_reported_once_for_several_scales(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("fastnst.run.setup.choose_backend", lambda name, device: Refuse())
    stylizer = Stylizer(tiny(scales=2, size=176, steps=1))
    content = stylizer.loader.content(samples())
    for _ in range(2):
        stylizer.run(stylizer.load_scene(content, [samples(seed=2)]))
    assert sum("cannot be captured" in message for message in caplog.messages) == 1


def test_the_arithmetic_of_a_captured_step_stays_on_the_device() -> None:
    """On the meta device, which holds no values: a wait for one fails, and a tensor from the CPU is detected."""
    meta = torch.device("meta")

    class CheckingBackend(Backend):
        def capture(self, function: Callable[[], None]) -> Callable[[], None]:
            with NoHost(meta) as watch:
                function()
            assert watch.calls > 2
            return function

    class Flat(Valley):
        def __init__(self) -> None:
            self.calls = 0

        def evaluate(self, image: Tensor) -> tuple[Tensor, Tensor]:
            self.calls += 1
            return image.sum((0, 2, 3))[:2], image * 2

    objective = Flat()
    stepper = StepCapture(CheckingBackend()).make_stepper(objective, torch.zeros(SHAPE, device=meta), adam())
    assert type(stepper) is CapturedAdam
    assert objective.calls == 1


def test_the_checks_detect_what_a_graph_cannot_capture() -> None:
    """Without these checks, the tests above prove nothing."""
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
    arguments = iter((image, image, image, image, other))

    def double() -> None:
        next(arguments).mul_(2)

    replay = Rerun().capture(double)
    with pytest.raises(AssertionError, match="a replay would not do"):
        replay()


# What a step on CUDA consists of.

CONVOLUTIONS, RELUS, POOLS, LAYERS = 13, 13, 4, 9  # LAYERS: with a loss, or a ReLU whose mask no pool applies


def kinds(epilogue: bool = True, **changes: Any) -> Counter[str]:
    """The ops of a step of 512 x 512 pixels in bfloat16, printed with their predicted times."""
    ops = step_launches.step(512, epilogue=epilogue, **changes)
    print(step_launches.table(ops))
    return Counter(op.name for op in ops)


def test_a_step_on_cuda_has_no_op_that_another_could_include() -> None:
    """It had 113 ops, 38 of them for Adam and its guard, and 7 fills of counters."""
    expected = {
        "addcmul": 2,  # the network's input; the gradient of the image with that of the total variation
        "convolution": CONVOLUTIONS + 6,  # all backwards; forwards with more than a ReLU after them
        "cudnn_convolution_relu": 7,
        "bias_relu_style_loss": 2,
        "bias_relu_pool_": POOLS,
        "style_loss": 3,
        "content_loss": 1,
        "zeros_like": 1,  # the gradient above the deepest layer
        "layer_backward_": LAYERS,
        "pool_backward": POOLS,
        "total_variation": 1,
        "total_variation_backward": 1,
        "stack": 1,
        "mul": 1,  # the losses by their factors
        "adam_step_": 1,
    }
    assert kinds() == expected
    launches = sum(op.launches for op in step_launches.step())
    assert launches == sum(expected.values()) + 8  # second launches, for sums over blocks and a step's guard


def test_where_cudnn_refuses_a_bias_and_relu_one_op_computes_them() -> None:
    with_epilogue, without = kinds(), kinds(epilogue=False)
    assert without["bias_relu_"] == with_epilogue["cudnn_convolution_relu"]
    assert without["convolution"] == 2 * CONVOLUTIONS
    assert without.total() == with_epilogue.total() + without["bias_relu_"]


@pytest.mark.parametrize("pooling", ["average", "l2"])
def test_other_pools_include_the_bias_and_relu_as_well(pooling: str) -> None:
    found = kinds(pooling=pooling)
    assert found["bias_relu_pool_"] == POOLS
    assert found["layer_backward_"] == LAYERS + POOLS  # the ReLUs below keep their own masks
    assert found["pool"] == found["bias_relu_"] == 0


def test_the_whole_step_is_predicted_below_its_target() -> None:
    """By bytes, operations and launches; no device has measured it."""
    assert sum(op.seconds for op in step_launches.step()) < 1.2e-3

"""cuDNN's epilogue and its choice of algorithms, with the op computed by other means on the CPU."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from support.oracles import pixels
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from fastnst.config.settings import Settings
from fastnst.network import cudnn
from fastnst.network.cudnn import timed_algorithms
from fastnst.network.vgg import VGG
from fastnst.objective import whole
from fastnst.objective.engines import FusedEngine, PlainEngine
from fastnst.objective.targets import style_targets
from fastnst.objective.whole import Objective
from fastnst.weights import Weights

CUDA = torch.device("cuda")
Op = Callable[..., Tensor]


class Ops(TorchDispatchMode):
    """Counts ops by name."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.counts[func.name()] += 1
        return func(*args, **(kwargs or {}))


def right(x: Tensor, weight: Tensor, bias: Tensor, stride: Any, padding: Any, dilation: Any, groups: int) -> Tensor:
    return torch.relu(torch.convolution(x, weight, bias, stride, padding, dilation, False, [0, 0], groups))


def refused(*given: Any) -> Tensor:
    raise RuntimeError("GET was unable to find an engine to execute this computation")


def reads_its_output(*given: Any) -> Tensor:
    """As an algorithm that multiplies its output's memory, which is NaN, by zero."""
    return right(*given) + torch.nan


def without_bias(x: Tensor, weight: Tensor, bias: Tensor, *given: Any) -> Tensor:
    return right(x, weight, torch.zeros_like(bias), *given)


def in_another_layout(*given: Any) -> Tensor:
    return right(*given).contiguous()


@pytest.fixture
def epilogue(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Op], None]]:
    """Gives the CPU an implementation of cuDNN's op."""
    monkeypatch.setattr(cudnn, "has_epilogue", lambda x: True)
    with torch.library._scoped_library("aten", "IMPL") as library:
        yield lambda op: library.impl("cudnn_convolution_relu", op, "CPU")


def network(given: Weights, padding: str = "zeros") -> VGG:
    return VGG(given, ["relu2_1"], padding=padding)


def features(channels: int = 64, size: tuple[int, int] = (9, 13)) -> Tensor:
    x = torch.randn(1, channels, *size, generator=torch.Generator().manual_seed(1))
    return x.contiguous(memory_format=torch.channels_last)


def exact(made: VGG, x: Tensor, name: str) -> Tensor:
    weight, bias = (t.double() for t in made.convs[name])
    mode = "replicate" if made.padding_of(name) == "replicate" else "constant"
    return F.relu(F.conv2d(F.pad(x.double(), (1, 1, 1, 1), mode=mode), weight, bias))


@pytest.mark.parametrize("padding", ["zeros", "replicate"])
def test_after_the_first_use_of_a_size_one_op_convolves_adds_the_bias_and_applies_the_relu(
    bundled: Weights, epilogue: Callable[[Op], None], padding: str
) -> None:
    epilogue(right)
    made = network(bundled, padding)
    for size in ((9, 13), (10, 13)):
        x = features(size=size)
        wanted = exact(made, x, "conv1_2")
        torch.testing.assert_close(made.convolve_relu(x, "conv1_2").double(), wanted, rtol=1e-4, atol=1e-4)
        for _ in range(2):
            with Ops() as ops:
                found = made.convolve_relu(x, "conv1_2")
            ops.counts.pop("aten::replication_pad2d", None)
            assert ops.counts == {"aten::cudnn_convolution_relu": 1}
            torch.testing.assert_close(found.double(), wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("op", [refused, reads_its_output, without_bias, in_another_layout])
def test_an_op_that_is_refused_or_wrong_is_not_used_and_tried_once(
    bundled: Weights, epilogue: Callable[[Op], None], op: Op
) -> None:
    epilogue(op)
    made, x = network(bundled), features()
    wanted = exact(made, x, "conv1_2")
    for use in range(3):
        with Ops() as ops:
            found = made.convolve_relu(x, "conv1_2")
        torch.testing.assert_close(found.double(), wanted, rtol=1e-4, atol=1e-4)
        assert ops.counts["aten::cudnn_convolution_relu"] == (use == 0)
        assert ops.counts["fastnst::bias_relu_"] == 1


def test_during_a_capture_nothing_is_compared(
    bundled: Weights, epilogue: Callable[[Op], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    epilogue(right)
    made, x = network(bundled), features()
    monkeypatch.setattr(cudnn, "is_capturing", lambda x: True)
    with Ops() as ops:
        made.convolve_relu(x, "conv1_2")
    assert ops.counts == {"aten::convolution": 1, "fastnst::bias_relu_": 1}
    monkeypatch.setattr(cudnn, "is_capturing", lambda x: False)
    made.convolve_relu(x, "conv1_2")
    monkeypatch.setattr(cudnn, "is_capturing", lambda x: True)
    with Ops() as ops:
        made.convolve_relu(x, "conv1_2")
    assert ops.counts == {"aten::cudnn_convolution_relu": 1}


def test_cpus_float64_and_a_disabled_cudnn_have_no_epilogue() -> None:
    assert not cudnn.has_epilogue(features())

    class OnCuda:
        is_cuda, dtype = True, torch.bfloat16

    x: Any = OnCuda()
    assert cudnn.has_epilogue(x) == torch.backends.cudnn.is_available()
    x.dtype = torch.float64
    assert not cudnn.has_epilogue(x)
    x.dtype = torch.float16
    with torch.backends.cudnn.flags(enabled=False):
        assert not cudnn.has_epilogue(x)


@pytest.mark.parametrize("pooling", ["max", "average", "l2"])
def test_the_engine_with_the_epilogue_equals_the_plain_one(
    bundled: Weights, epilogue: Callable[[Op], None], pooling: str
) -> None:
    """With a content loss on a convolution with the epilogue, and ReLUs below a pool and above one."""
    epilogue(right)
    settings = Settings(
        pooling=pooling,
        content_layers=(("relu2_2", 1.0), ("relu3_2", 1.0)),
        style_layers=(("relu1_1", 1.0), ("relu3_1", 1.0)),
    )
    made = VGG(bundled, settings.layer_names(), pooling=pooling)
    content, image = pixels(24, 32, 1, torch.float32), pixels(24, 32, 2, torch.float32)
    targets = style_targets(made, pixels(20, 22, 3, torch.float32), settings)
    plain, fused = (Objective(made, content, targets, settings, kind) for kind in (PlainEngine, FusedEngine))
    expected, exact_gradient = plain.evaluate(image)
    fused.evaluate(image)
    for _ in range(2):
        with Ops() as ops:
            values, gradient = fused.evaluate(image)
        torch.testing.assert_close(values, expected, rtol=1e-4, atol=0)
        assert (gradient - exact_gradient).norm() <= 1e-3 * exact_gradient.norm()
    # relu1_1 shares an op with the style loss, which for relu3_1 has too many channels, and relu1_2 with the pool.
    assert ops.counts["fastnst::bias_relu_style_loss"] == ops.counts["fastnst::style_loss"] == 1
    assert ops.counts["aten::cudnn_convolution_relu"] == 4
    assert ops.counts["fastnst::bias_relu_pool_"] == ops.counts["fastnst::pool"] == 1
    assert ops.counts["fastnst::bias_relu_"] == 0


def test_algorithms_are_timed_inside_the_context_only(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = torch.backends.cudnn
    for before in (False, True):
        monkeypatch.setattr(settings, "benchmark", before)
        with timed_algorithms(CUDA):
            assert settings.benchmark is True
        assert settings.benchmark is before
        with pytest.raises(ValueError, match="mine"), timed_algorithms(CUDA):
            raise ValueError("mine")
        assert settings.benchmark is before


def test_nothing_is_timed_on_cpus_or_against_the_users_wish(monkeypatch: pytest.MonkeyPatch) -> None:
    with timed_algorithms(torch.device("cpu")):
        assert not torch.backends.cudnn.benchmark
    with timed_algorithms(CUDA, when=False):
        assert not torch.backends.cudnn.benchmark
    with torch.backends.cudnn.flags(deterministic=True), timed_algorithms(CUDA):
        assert not torch.backends.cudnn.benchmark
    for where, name in (
        (torch, "are_deterministic_algorithms_enabled"),
        (torch.cuda, "is_current_stream_capturing"),
    ):
        with monkeypatch.context() as changed:
            changed.setattr(torch.cuda, "is_initialized", lambda: True)
            changed.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
            changed.setattr(where, name, lambda: True)
            with timed_algorithms(CUDA):
                assert not torch.backends.cudnn.benchmark


def test_an_objective_times_the_content_and_its_first_evaluation(
    bundled: Weights, monkeypatch: pytest.MonkeyPatch
) -> None:
    timed: list[bool] = []

    def record(device: torch.device, when: bool = True) -> Any:
        timed.append(when)
        return timed_algorithms(device, when)

    monkeypatch.setattr(whole, "timed_algorithms", record)
    settings = Settings(content_layers=(("relu2_1", 1.0),), style_layers=(("relu1_1", 1.0),))
    made = VGG(bundled, settings.layer_names())
    image = pixels(16, 16, 1, torch.float32)
    objective = Objective(made, image, style_targets(made, image, settings), settings)
    for _ in range(3):
        objective.evaluate(image)
    assert timed == [True, True, False, False]


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("padding", ["zeros", "replicate"])
def test_convolutions_with_relu_equal_float64_at_every_use(bundled: Weights, padding: str, dtype: torch.dtype) -> None:
    made = VGG(bundled, ["relu2_1"], padding=padding, device="cuda", dtype=dtype)
    x = features(size=(40, 56)).to("cuda", dtype)
    wanted = exact(made, x, "conv1_2")
    for _ in range(3):
        torch.full((2**24,), torch.nan, device="cuda")  # in the memory that the op is given
        found = made.convolve_relu(x, "conv1_2")
        assert (found.double() - wanted).norm() <= 0.01 * wanted.norm()
    (works,) = made._relu_epilogue._works.values()
    print(f"cuDNN's epilogue for {dtype}, {padding}: {'used' if works else 'not used'}")

"""The ops of one captured step on CUDA: their launches, their bytes and the time that these predict; needs no GPU.

    python -m bench.gpu.step_launches [--side 512] [--precision bfloat16] [--no-epilogue]

The step of the default settings with Adam is run on the meta device by the engine for CUDA, and recorded.
Launches are those of the ops' sources; a convolution is counted as one, although cuDNN may add conversions. The
prediction is a launch, plus the larger of bytes over the measured bandwidth of an H200 and operations over a share of
its measured matrix rate. It is a lower bound for the Gram matrices, whose kernels do more than move bytes once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from bench.common.options import parser
from bench.common.results import Table
from fastnst import weights
from fastnst.config.settings import Settings
from fastnst.network import cudnn
from fastnst.network.vgg import VGG
from fastnst.objective.engines import FusedEngine
from fastnst.objective.whole import Objective
from fastnst.optim.cuda_graph import StepCapture

DEVICE = torch.device("meta")  # without values
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "half": torch.float16}
BANDWIDTH = 4.3e12  # bytes a second, measured on cards of this kind
MATRIX = 790e12  # operations a second in half precision, measured on cards of this kind
CONVOLUTION_SHARE = 0.53  # of the matrix rate that convolutions are assumed to reach
LAUNCH = 1e-6  # seconds a launch takes within a graph

# Launches of ops with more than one: see csrc/cuda.
LAUNCHES = {
    "content_loss": 2,
    "total_variation": 2,
    "adam_step_": 2,
    "style_loss": 2,
    "bias_relu_style_loss": 2,
}
# Ops that move nothing.
WITHOUT_LAUNCH = ("empty", "new_empty", "empty_like", "empty_strided", "empty_permuted", "detach")
CONVOLUTIONS = ("convolution", "cudnn_convolution_relu")


@dataclass(frozen=True)
class Recorded:
    """An op of the step: its name, shape of its largest tensor, launches, bytes, and operations of products."""

    name: str
    shape: tuple[int, ...]
    launches: int
    bytes: int
    operations: float = 0.0

    @property
    def seconds(self) -> float:
        """The predicted time."""
        rate = MATRIX * (CONVOLUTION_SHARE if self.name in CONVOLUTIONS else 1)
        return self.launches * LAUNCH + max(self.bytes / BANDWIDTH, self.operations / rate)


class Recorder(TorchDispatchMode):
    """Records the ops that launch a kernel. Convolutions return channels_last, as cuDNN's do."""

    def __init__(self) -> None:
        super().__init__()
        self.ops: list[Recorded] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = kwargs or {}
        name = func.name().partition("::")[2].partition(".")[0]
        if name == "cudnn_convolution_relu":
            x, weight, bias, stride, padding, dilation, groups = args
            plain = (x, weight, bias, stride, padding, dilation, False, [0, 0], groups)
            out = torch.ops.aten.convolution.default(*plain)  # the op itself has no meta kernel
        else:
            out = func(*args, **given)
        if name in CONVOLUTIONS:
            out = torch.empty_like(out, memory_format=torch.channels_last)
        returned = [r.alias_info for r in func._schema.returns]
        is_view = bool(returned) and all(alias is not None and not alias.is_write for alias in returned)
        if not is_view and name not in WITHOUT_LAUNCH:
            self.ops.append(_record(name, func._schema, [*args, *given.values()], out))
        return out


def _record(name: str, schema: Any, args: list[Any], out: Any) -> Recorded:
    """The bytes that an op must move: each input once, each output once, what it changes twice."""
    outputs = out if isinstance(out, (tuple, list)) else [out]
    # Not those that are arguments as well.
    moved = [t for t, returned in zip(outputs, schema.returns, strict=False) if returned.alias_info is None]
    keep = name != "bias_relu_pool_" or args[-1]
    for argument, value in zip(schema.arguments, args, strict=False):
        tensors = value if isinstance(value, (tuple, list)) else [value]
        written = argument.alias_info is not None and argument.alias_info.is_write
        both = written and keep and argument.name not in ("out", "good", "values")
        moved += [t for t in tensors if isinstance(t, Tensor)] * (1 + both)
    if name == "adam_step_":
        moved.append(args[7])  # the gradient, which both launches read
    sizes = [t.numel() * t.element_size() for t in moved]
    largest = max(moved, key=Tensor.numel)
    return Recorded(name, tuple(largest.shape), LAUNCHES.get(name, 1), sum(sizes), _operations(name, args, out))


def _operations(name: str, args: list[Any], out: Any) -> float:
    """Operations of matrix products, a multiply-add counted as two."""
    if name in CONVOLUTIONS:
        x, weight = args[:2]
        transposed = name == "convolution" and args[6]
        return 2.0 * weight.numel() * (x if transposed else out).shape[2:].numel()
    if name in ("style_loss", "bias_relu_style_loss"):
        return float(args[0].shape[1] ** 2 * args[0].shape[2:].numel())  # the lower triangle
    if name == "layer_backward_" and args[2] is not None:
        return 2.0 * args[0].shape[1] ** 2 * args[0].shape[2:].numel()
    return 0.0


class RecordingBackend:
    """Records the second run of what a graph would capture: at the first, cuDNN's algorithms are chosen."""

    def __init__(self) -> None:
        self.ops: list[Recorded] = []

    def capture(self, function: Callable[[], None]) -> Callable[[], None]:
        for _ in range(2):
            with Recorder() as recorder:
                function()
        self.ops = recorder.ops
        return function


def step(
    side: int = 512, dtype: torch.dtype = torch.bfloat16, *, epilogue: bool = True, **changes: Any
) -> list[Recorded]:
    """The ops of one captured step of a square picture, in their order.

    Args:
        side: of the picture.
        dtype: of the features.
        epilogue: whether cuDNN adds biases and applies ReLUs where a convolution has nothing else after it.
        changes: of the default settings.
    """
    settings = Settings.from_preset(**{"optimizer": "adam", "steps": 10, "scales": 1, **changes})
    given, backend = weights.load(), RecordingBackend()
    # As on a machine with a GPU, where the op and its result are tested at first use.
    decisions = {"has_epilogue": lambda x: epilogue, "_agrees": lambda *given: True}
    with mock.patch.multiple(cudnn, **decisions):
        network = VGG(given, settings.layer_names(), pooling=settings.pooling, device=DEVICE, dtype=dtype)
        channels = {layer.name: layer.channels for layer in network.chain}
        targets = {
            name: (torch.zeros(1, channels[name], channels[name], device=DEVICE),) for name, _ in settings.style_layers
        }
        image = torch.zeros(1, 3, side, side, device=DEVICE)
        objective = Objective(network, image, targets, settings, FusedEngine)
        StepCapture(backend).make_stepper(objective, image, settings)
    return backend.ops


def table(ops: list[Recorded]) -> Table:
    """A row for each kind of op, in the order of its first use, and the sum."""
    rows = []
    for name in dict.fromkeys(op.name for op in ops):
        these = [op for op in ops if op.name == name]
        rows.append((f"`{name}`", *_cells(these)))
    return Table(("op", "ops", "launches", "MB", "predicted us"), [*rows, ("all", *_cells(ops))])


def _cells(ops: list[Recorded]) -> tuple[str, ...]:
    launches, moved = sum(op.launches for op in ops), sum(op.bytes for op in ops)
    return str(len(ops)), str(launches), f"{moved / 1e6:.1f}", f"{1e6 * sum(op.seconds for op in ops):.0f}"


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--side", type=int, default=512, help="side of the square picture (default 512)")
    arguments.add_argument("--precision", default="bfloat16", choices=PRECISIONS)
    arguments.add_argument("--no-epilogue", action="store_true", help="as where cuDNN refuses bias and ReLU")
    options = arguments.parse_args()
    print(table(step(options.side, PRECISIONS[options.precision], epilogue=not options.no_epilogue)))


if __name__ == "__main__":
    main()

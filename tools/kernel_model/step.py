"""The time of a whole step of Adam on VGG-19 at 512^2 in bfloat16, channels_last, as one CUDA graph.

The step runs on the meta device, where tensors have no values, and every op is recorded. A convolution takes the time
of its operations, an op of a style layer that of the model, everything else that of the bytes it reads and writes, and
each launch a gap. Convolutions take `CONVOLUTION` of the matrix rate: cuDNN's implicit products of 3 x 3 at batch 1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from fastnst import weights
from fastnst.config.settings import Settings
from fastnst.network.vgg import VGG
from fastnst.objective.engines.fused import FusedEngine
from fastnst.objective.targets import style_targets
from fastnst.objective.whole import Objective
from fastnst.optim.cuda_graph import StepCapture
from tools.kernel_model import cards, model
from tools.kernel_model.cases import Case

MATRIX_RATE = 790e12
"""Operations per second of a large bfloat16 product, as measured on an H200."""
CONVOLUTION = 0.53
"""Part of it that convolutions reach: an assumption, 0.9 ms of a step where the matrix rate allows 0.48."""
SIDE = 512

VIEWS = ("view", "slice", "select", "split", "unbind", "detach", "as_strided", "expand", "alias", "t", "permute")
# Kernels of an op, where it is not one: those with a second kernel, and a sum in two steps.
TWO = ("style_loss", "bias_relu_style_loss", "content_loss", "total_variation", "adam_step_", "sum", "all")
LAUNCHES = dict.fromkeys(TWO, 2)


@dataclass(frozen=True)
class Call:
    """An op, with the bytes of its arguments and results, and the operations of a convolution."""

    name: str
    moved: float
    operations: float
    channels: int  # of the first argument, if it is a map; 0 otherwise
    residual: bool = False  # whether layer_backward_ has a style term


def _call(name: str, args: Any, out: Any) -> Call:
    given = [leaf for leaf in tree_leaves(args) if isinstance(leaf, torch.Tensor)]
    made = [leaf for leaf in tree_leaves(out) if isinstance(leaf, torch.Tensor)]
    moved = float(sum(t.numel() * t.element_size() for t in (*given, *made)))
    operations = 0.0
    if name == "convolution":
        first, second, height, width = args[1].shape
        transposed = args[6]  # as the derivative by the input is
        operations = 2.0 * made[0].numel() * (first if transposed else second) * height * width
    channels = given[0].shape[1] if given and given[0].dim() == 4 else 0
    return Call(name, moved, operations, channels, name == "layer_backward_" and args[2] is not None)


class Recorded(TorchDispatchMode):
    """Records the ops that launch kernels."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls: list[Call] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        name = func.name().partition("::")[2].partition(".")[0]
        if name not in VIEWS:
            self.calls.append(_call(name, args, out))
        return out


class _Record:
    """A backend that records instead of capturing."""

    def __init__(self) -> None:
        self.calls: list[Call] = []

    def capture(self, function: Callable[[], None]) -> Callable[[], None]:
        with Recorded() as recorded:
            function()
        self.calls = recorded.calls
        return function


def recorded_step(side: int = SIDE) -> list[Call]:
    """The ops of a step with the default settings and Adam."""
    meta = torch.device("meta")
    settings = Settings(optimizer="adam")
    network = VGG(weights.load(), settings.layer_names(), device=meta, dtype=torch.bfloat16)
    image = torch.zeros(1, 3, side, side, device=meta)
    objective = Objective(network, image, style_targets(network, image, settings), settings, FusedEngine)
    backend = _Record()
    StepCapture(backend).make_stepper(objective, image, settings)
    return backend.calls


@dataclass
class StepTime:
    """Seconds by part."""

    convolutions: float = 0.0
    style: float = 0.0
    other: float = 0.0
    gaps: float = 0.0
    launches: int = 0

    @property
    def seconds(self) -> float:
        """Of the whole step."""
        return self.convolutions + self.style + self.other + self.gaps


def step_time(chip: cards.Chip, calls: list[Call], cases: list[Case], kernels: model.Kernels) -> StepTime:
    """``cases`` are those of the style layers at `SIDE` in bfloat16, channels_last, on ``chip``."""
    total = StepTime()
    # Style layers of 512 channels are two: the forward has the larger one first, the backward last.
    left = {op: [c for c in cases if c.op == op] for op in ("style_loss", "layer_backward_")}
    left["layer_backward_"].reverse()
    rate = MATRIX_RATE * CONVOLUTION * chip.peaks.bfloat16 / cards.named("H200").peaks.bfloat16
    for call in calls:
        launches = LAUNCHES.get(call.name, 1)
        styled = call.name in ("style_loss", "bias_relu_style_loss") or call.residual
        if styled:
            queue = left["layer_backward_" if call.residual else "style_loss"]
            times = model.op_times(chip, queue.pop(0), kernels)
            total.style += sum(t.seconds - t.gap for t in times)
            launches = len(times)
            if call.name == "bias_relu_style_loss":
                # The activated map is written in the same pass, or in one before it.
                total.other += 0.5 * call.moved / chip.bandwidth
        elif call.operations:
            total.convolutions += call.operations / rate
        else:
            total.other += max(call.moved / chip.bandwidth, 0.5e-6)
        total.launches += launches
        total.gaps += launches * cards.GAP
    return total


def line(time: StepTime) -> str:
    """One line for people."""
    parts = {"convolutions": time.convolutions, "style": time.style, "other": time.other, "gaps": time.gaps}
    shown = ", ".join(f"{name} {1e6 * seconds:.0f}" for name, seconds in parts.items())
    return f"{1e6 * time.seconds:.0f} us in {time.launches} launches: {shown}"

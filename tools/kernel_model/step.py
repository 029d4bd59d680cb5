"""The time of a whole step of Adam on VGG-19 at 512^2 in bfloat16, channels_last, as one CUDA graph.

The ops are those that `bench.gpu.step_launches` records. A convolution takes the time of its operations at a share of
the matrix rate, an op of a style layer that of the model, everything else that of its bytes, and each launch a gap.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bench.gpu.step_launches import CONVOLUTION_SHARE, CONVOLUTIONS, MATRIX, Recorded
from tools.kernel_model import cards, model
from tools.kernel_model.cases import Case

SIDE = 512
STYLE = ("style_loss", "bias_relu_style_loss")


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


def step_time(chip: cards.Chip, ops: Sequence[Recorded], cases: list[Case], kernels: model.Kernels) -> StepTime:
    """``cases`` are those of the style layers at `SIDE` in bfloat16, channels_last, on ``chip``."""
    total = StepTime()
    # Style layers of 512 channels are two: the forward has the larger one first, the backward last.
    left = {op: [c for c in cases if c.op == op] for op in ("style_loss", "layer_backward_")}
    left["layer_backward_"].reverse()
    rate = MATRIX * CONVOLUTION_SHARE * chip.peaks.bfloat16 / cards.named("H200").peaks.bfloat16
    for op in ops:
        launches = op.launches
        if op.name in CONVOLUTIONS:
            total.convolutions += op.operations / rate
        elif op.operations:  # of a style layer
            times = model.op_times(chip, left["style_loss" if op.name in STYLE else op.name].pop(0), kernels)
            total.style += sum(t.seconds - t.gap for t in times)
            launches = len(times)
            if op.name == "bias_relu_style_loss":
                # The activated map is written in the same pass.
                total.other += 0.5 * op.bytes / chip.bandwidth
        else:
            total.other += max(op.bytes / chip.bandwidth, 0.5e-6)
        total.launches += launches
        total.gaps += launches * cards.GAP
    return total


def line(time: StepTime) -> str:
    """One line for people."""
    parts = {"convolutions": time.convolutions, "style": time.style, "other": time.other, "gaps": time.gaps}
    shown = ", ".join(f"{name} {1e6 * seconds:.0f}" for name, seconds in parts.items())
    return f"{1e6 * time.seconds:.0f} us in {time.launches} launches: {shown}"

"""What the kernels should reach by the model, and what is known not to. The only place for either.

`check` lists what misses its target and has no exception, and exceptions that are no longer needed.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from tools.kernel_model import cards, eager, model
from tools.kernel_model.cases import Case

CARD = "H200"
LAYOUT = "channels_last"

# Microseconds of the sum of the five layers, in bfloat16, by op and side.
SUMS = {
    ("style_loss", 512): 60.0,
    ("style_loss", 1024): 110.0,
    ("layer_backward_", 512): 75.0,
    ("layer_backward_", 1024): 260.0,
}
# Of these for other precisions: 3xTF32 may take 1.6 times as long. The others have no target of their own.
FACTORS = {"bfloat16": 1.0, "float32": 1.6}

STEP = 1200.0
"""Microseconds of a whole step at 512^2 in bfloat16."""


@dataclass(frozen=True)
class Known:
    """A target that is known to be missed, and why. Empty fields match all; ``kind`` is "sum", "eager" or "step"."""

    kind: str
    reason: str
    op: str = ""
    precision: str = ""
    side: int = 0
    layer: str = ""

    def matches(self, miss: Miss) -> bool:
        """Whether it explains a miss."""
        pairs = ((self.op, miss.op), (self.precision, miss.precision), (self.side, miss.side), (self.layer, miss.layer))
        return self.kind == miss.kind and all(not mine or mine == other for mine, other in pairs)


@dataclass(frozen=True)
class Miss:
    """A prediction above its target, microseconds."""

    kind: str
    predicted: float
    target: float
    op: str = ""
    precision: str = ""
    side: int = 0
    layer: str = ""

    def __str__(self) -> str:
        what = {"sum": "the five layers", "eager": self.layer, "step": "the whole step"}[self.kind]
        against = "eager PyTorch" if self.kind == "eager" else "the target"
        where = f"{self.op or 'step'}, {self.side}^2, {self.precision}"
        return f"{where}: {what} take {self.predicted:.1f} us, {against} {self.target:.1f} us"


_RATE = "mma.sync reaches 62 % of the peak on Hopper, and 3xTF32 needs three products for one"
_F = "each of two rows of tiles reads F from L2, in 4 bytes"
_R = "every block of 128 positions reads its part of R from L2"
EXCEPTIONS: tuple[Known, ...] = (
    Known("sum", _RATE, "style_loss", "float32", 1024),
    Known("sum", _RATE, "layer_backward_", "float32"),
    Known("sum", _R, "layer_backward_", "bfloat16", 1024),
    Known("eager", _F, "style_loss", "tf32", 1024, "relu3_1"),
    Known("eager", _F, "style_loss", "tf32", 1024, "relu4_1"),
    Known("eager", "half multiplies R in tf32, at half the rate", "layer_backward_", "half", 1024, "relu4_1"),
)


def misses(cases: list[Case], kernels: model.Kernels, step: float | None = None) -> list[Miss]:
    """Everything above its target, exceptions included. ``step`` is the time of a whole step in seconds."""
    chip = cards.named(CARD)
    sums: dict[tuple[str, int, str], float] = defaultdict(float)
    found = []
    for case in cases:
        if (case.op, case.side) not in SUMS or case.layout != LAYOUT or case.multiprocessors != chip.sms:
            continue
        ours, other = model.op_seconds(chip, case, kernels), eager.seconds(chip, case)
        sums[case.op, case.side, case.precision] += ours
        if ours > other:
            place = (case.op, case.precision, case.side, case.layer)
            found.append(Miss("eager", 1e6 * ours, 1e6 * other, *place))
    for (op, side, precision), total in sums.items():
        if precision in FACTORS and 1e6 * total > SUMS[op, side] * FACTORS[precision]:
            target = SUMS[op, side] * FACTORS[precision]
            found.append(Miss("sum", 1e6 * total, target, op=op, precision=precision, side=side))
    if step is not None and 1e6 * step > STEP:
        found.append(Miss("step", 1e6 * step, STEP, precision="bfloat16", side=512))
    return found


def check(found: list[Miss], exceptions: tuple[Known, ...] = EXCEPTIONS) -> list[str]:
    """A line for each miss without an exception, and for each exception without a miss."""
    wrong = [str(miss) for miss in found if not any(known.matches(miss) for known in exceptions)]
    unused = [known for known in exceptions if not any(known.matches(miss) for miss in found)]
    return wrong + [f"no longer an exception, remove it: {known.kind} {known.op} {known.reason}" for known in unused]

"""The time of a launch, and of an op's launches one after the other. See the docstring of __main__.py."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from bench.gpu import roofline
from tools.kernel_model import cards
from tools.kernel_model.cases import Case, Launch
from tools.kernel_model.facts import Kernel, at_latency
from tools.kernel_model.parts import Kind, Work
from tools.kernel_model.work import FAMILIES, needed_products

Kernels = dict[tuple[str, int], Kernel]


@dataclass
class Time:
    """Seconds of a launch by part; ``terms`` are those of which the largest counts."""

    kernel: str
    blocks: int
    resident: int  # blocks on a multiprocessor at once
    waves: float
    in_flight: float  # most bytes on their way to a multiprocessor
    chain: dict[str, float] = field(default_factory=dict)  # parts of `latency`: outside loops, and loop by loop
    terms: dict[str, float] = field(default_factory=dict)
    tail: float = 0.0
    gap: float = cards.GAP

    @property
    def main(self) -> float:
        """The largest term."""
        return max(self.terms.values(), default=0.0)

    @property
    def binds(self) -> str:
        """What takes the time."""
        return "tail" if self.tail > self.main else max(self.terms, key=lambda name: self.terms[name])

    @property
    def seconds(self) -> float:
        """Of the whole launch."""
        return self.gap + self.main + self.tail


@dataclass
class Block:
    """Cycles of a block by resource, as if it were alone on a multiprocessor. ``chain`` is the latency by part."""

    chain: dict[str, float]
    latency: float
    issue: float
    tensor: float
    shared: float


def block_of(chip: cards.Chip, kind: Kind, launch: Launch, kernel: Kernel, near: bool) -> Block:
    """See `Block`; ``near`` if nothing comes from memory."""
    latencies = {"memory": chip.memory_latency, "L2": chip.l2_latency, "L1": cards.L1_LATENCY}
    first = latencies["L2" if near else "memory"]
    each = kind.each(kernel)
    ways = [{f"loop {p.loop}": p.cycles(kernel, latencies) for p in role.passes} for role in kind.roles]
    longest = max(ways, key=lambda way: sum(way.values()), default={})
    chain = {"outside": at_latency(kernel.before, first), **longest}
    if any(loop.copies for loop, _ in each):
        chain["first copy"] = first  # it arrives before anything is multiplied
    return Block(
        chain,
        sum(chain.values()),
        (kernel.straight * launch.warps + sum(loop.instructions * n for loop, n in each)) / 4,
        sum(chip.product_cycles(code) * m * n for loop, n in each for code, m in loop.tensor.items()) / 4,
        sum(loop.wavefronts * n for loop, n in each),
    )


def launch_time(chip: cards.Chip, launch: Launch, kernel: Kernel, work: Work) -> Time:
    """See the module."""
    resident = max(chip.resident(launch.threads, kernel.registers, kernel.shared + launch.shared), 1)
    busiest = math.ceil(launch.blocks / chip.sms)  # blocks of the multiprocessor that has most
    blocks = [(kind, block_of(chip, kind, launch, kernel, work.memory == 0)) for kind in work.kinds]

    def cycles(name: str) -> float:
        """Of a block: the longest if each multiprocessor has one, their mean otherwise."""
        values = [getattr(block, name) for _, block in blocks]
        if busiest == 1:
            return float(max(values, default=0.0))
        weights = [kind.blocks for kind, _ in blocks]
        return float(sum(v * n for v, n in zip(values, weights, strict=True)) / sum(weights))

    terms = {
        "latency": math.ceil(busiest / resident) * cycles("latency") / chip.clock,
        **{name: busiest * cycles(name) / chip.clock for name in ("issue", "tensor", "shared")},
        "memory": work.memory / chip.bandwidth,
        "L2": work.l2 / chip.l2_bandwidth,
    }
    flying = max((loop.in_flight for kind in work.kinds for loop, _ in kind.each(kernel)), default=0)
    in_flight = flying * launch.threads * min(resident, busiest)
    longest = max((block for _, block in blocks), key=lambda block: block.latency).chain
    chain = {name: math.ceil(busiest / resident) * value / chip.clock for name, value in longest.items()}
    waves = launch.blocks / (chip.sms * resident)
    time = Time(launch.kernel, launch.blocks, resident, waves, in_flight, chain, terms)
    if work.rounds:
        same = [loop for loop in kernel.loops if loop.tail and loop.inner and loop.independent == work.tail_loads]
        step = min((at_latency(loop.chain, chip.l2_latency) for loop in same if loop.loads), default=chip.l2_latency)
        time.tail = (work.rounds * step + at_latency(kernel.after, chip.l2_latency)) / chip.clock
    return time


def op_times(chip: cards.Chip, case: Case, kernels: Kernels) -> list[Time]:
    """The launches of an op.

    LookupError where the facts lack a kernel, where the table lacks its family, and where the table does not fit the
    code: the loops then have other tensor-core instructions than the op needs.
    """
    times, products = [], 0.0
    for launch in case.launches:
        kernel = kernels.get((launch.kernel, chip.architecture))
        if kernel is None:
            raise LookupError(f"no machine code of {launch.kernel} for sm_{chip.architecture}")
        if launch.family not in FAMILIES:
            raise LookupError(f"no entry for {launch.family} in FAMILIES of tools/kernel_model/work.py")
        work = FAMILIES[launch.family](case, launch, kernel)
        products += work.products(kernel)
        times.append(launch_time(chip, launch, kernel, work))
    if not 0.99 < products / needed_products(case) < 2:
        where = f"{case.op}, {case.layer} at {case.side}"
        raise LookupError(
            f"{where}: work.py gives {products:.0f} tensor-core instructions, {needed_products(case):.0f} are needed"
        )
    return times


def op_seconds(chip: cards.Chip, case: Case, kernels: Kernels) -> float:
    """The sum of `op_times`."""
    return sum(time.seconds for time in op_times(chip, case, kernels))


def roof(chip: cards.Chip, case: Case) -> float:
    """The roofline of the op, with the published peaks."""
    if case.op == "style_loss":
        return roofline.fused("style_loss", chip.peaks, case.channels, case.positions, case.precision)
    moved = (3 if case.op == "layer_backward_" else 2) * case.features
    work = roofline.Work(moved, 2.0 * case.channels**2 * case.positions)
    return work.seconds(chip.peaks.bandwidth, chip.peaks.products(case.precision))

"""The loss of a training step of a feed-forward network: VGG's features of a batch, style, content and total variation
losses, and the gradient with respect to the batch. Eager PyTorch, torch.compile and fastnst, in time and memory.

    python -m bench.ops.training_step [--sides 128,256] [--batch 4] [--rounds 10] [--device cpu]

The batch stands for what the network paints; its own forward and backward are the same for all and left out. `fastnst`
has the ops for losses and pools and PyTorch's convolutions; `fastnst compile` is the same under torch.compile; `fastnst
winograd`, on the CPU in float32, has ops.conv3x3 as well. Loss and gradient of each are compared with float64 before
the clock starts. The peak memory of a step is that above its inputs and weights: on CUDA of PyTorch's allocator, on the
CPU of a process of its own for each contender.

Prints medians, spreads, and ratios to eager round by round, and writes training_step.json and training_step.md to
bench/results.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.common import contest, results, worker
from bench.common.contest import Contender, Results, Spread, Timer, ratios
from bench.common.machine import device_machine, machine
from bench.common.memory import growth
from bench.common.options import numbers, parser, plain
from bench.common.pictures import shipped
from bench.common.results import Report, Section, Table
from bench.gpu.timing import EventTimer
from fastnst import ops, weights
from fastnst.network.vgg import VGG

STYLE_LAYERS = ("relu1_1", "relu2_1", "relu3_1", "relu4_1")
CONTENT_LAYER = "relu3_1"
# Of the relative error of loss and gradient. Where rounding changes the sign of a value, a ReLU changes the gradient.
BOUNDS = {torch.float32: 1e-3, torch.bfloat16: 0.2}
NAMES = ("eager", "compile", "fastnst", "fastnst compile", "fastnst winograd")
Loss = Callable[[Tensor], Tensor]


def features(vgg: VGG, image: Tensor, pool: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
    """The style layers, in a loop that torch.compile traces as one graph."""
    x, found = vgg.prepare(image), {}
    for layer in vgg.chain:
        if layer.kind == "conv":
            x = vgg.convolve(x, layer.name, relu=vgg.winograd)
        elif layer.kind == "pool":
            x = pool(x)
        elif not vgg.winograd:
            x = F.relu(x)
        if layer.name in STYLE_LAYERS:
            found[layer.name] = x
    return found


def plain_pool(x: Tensor) -> Tensor:
    return F.max_pool2d(x, 2)


def plain_gram(x: Tensor) -> Tensor:
    f = x.flatten(2).float() if x.dtype == torch.bfloat16 else x.flatten(2)
    return f @ f.mT / f.shape[2]


class Problem:
    """A batch of pictures with targets, in one precision on one device."""

    def __init__(self, side: int, batch: int, dtype: torch.dtype, device: torch.device) -> None:
        self.dtype, self.device = dtype, device
        exact = torch.float64 if dtype == torch.float64 else torch.float32
        self.photo, style = (picture.to(device, exact) for picture in shipped(side))
        generator = torch.Generator().manual_seed(0)
        noise = 20 * torch.randn((batch, *self.photo.shape[1:]), generator=generator)
        self.image = (self.photo + noise.to(self.photo)).to(memory_format=torch.channels_last)
        vgg = self.network(False)
        with torch.no_grad():
            found = features(vgg, style, plain_pool)
            self.styles = {name: plain_gram(found[name]).expand(batch, -1, -1) for name in STYLE_LAYERS}
            self.content = features(vgg, self.photo, plain_pool)[CONTENT_LAYER].repeat(batch, 1, 1, 1)
        self.factors = {name: 1 / float(target.square().sum()) for name, target in self.styles.items()}
        self.content_factor = 1 / float(self.content.double().square().sum())

    def network(self, winograd: bool) -> VGG:
        return VGG(weights.load(), STYLE_LAYERS, device=self.device, dtype=self.dtype, winograd=winograd)

    def loss(self, name: str) -> Loss:
        """The loss as a contender computes it."""
        vgg = self.network(name == "fastnst winograd")
        function = partial(self.fused if name.startswith("fastnst") else self.eager, vgg)
        compiled: Loss = (
            torch.compile(function, dynamic=False, fullgraph=True) if name.endswith("compile") else function
        )
        return compiled

    def eager(self, vgg: VGG, image: Tensor) -> Tensor:
        found = features(vgg, image, plain_pool)
        total = self.content_factor * (found[CONTENT_LAYER] - self.content).to(image.dtype).square().sum()
        for name, target in self.styles.items():
            total = total + self.factors[name] * (plain_gram(found[name]) - target).square().sum()
        return total + 1e-9 * (image.diff(dim=3).square().sum() + image.diff(dim=2).square().sum())

    def fused(self, vgg: VGG, image: Tensor) -> Tensor:
        found = features(vgg, image, ops.pool)
        total = self.content_factor * ops.content_loss(found[CONTENT_LAYER], self.content)
        for name, target in self.styles.items():
            x = found[name]
            total = total + self.factors[name] * ops.style_loss(x, target, scale=1 / x.shape[2:].numel())
        return total + 1e-9 * ops.total_variation(image, "squared")


def step(loss: Loss, image: Tensor) -> Results:
    """Loss and gradient."""
    leaf = image.detach().requires_grad_(True)
    value = loss(leaf)
    return value.detach(), torch.autograd.grad(value, leaf)[0]


def names(device: torch.device, dtype: torch.dtype) -> list[str]:
    """Winograd's convolutions are for float32 on the CPU."""
    fits = device.type == "cpu" and dtype == torch.float32
    return [name for name in NAMES if fits or name != "fastnst winograd"]


def peak(given: dict[str, object]) -> float:
    """The bytes that a step needs above its inputs."""
    dtype, device = getattr(torch, str(given["precision"])), torch.device(str(given["device"]))
    problem = Problem(int(str(given["side"])), int(str(given["batch"])), dtype, device)
    loss = problem.loss(str(given["name"]))
    step(loss, problem.image)  # compiles, and builds what stays
    if device.type == "cpu":
        return float(growth(lambda: step(loss, problem.image)))
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    step(loss, problem.image)
    return float(torch.cuda.max_memory_allocated(device) - before)


@dataclass(frozen=True)
class Row:
    """A contender at a size; ``refused`` says why it has no seconds."""

    name: str
    side: int
    seconds: tuple[float, ...]
    ratios: list[float]
    error: float | None
    refused: str | None
    peak: float | None


def rows(side: int, options: dict[str, object]) -> list[Row]:
    """Check and time the contenders in turn; then read the memory of each."""
    dtype, device = getattr(torch, str(options["precision"])), torch.device(str(options["device"]))
    batch = int(str(options["batch"]))
    problem, exact = Problem(side, batch, dtype, device), Problem(side, batch, torch.float64, device)
    wanted = names(device, dtype)
    contenders = [Contender(name, partial(step, problem.loss(name), problem.image)) for name in wanted]
    timer: Timer | None = EventTimer(device) if device.type == "cuda" else None
    found = contest.measure(
        contenders,
        lambda: step(exact.loss("eager"), problem.image.double()),
        BOUNDS[dtype],
        rounds=int(str(options["rounds"])),
        timer=timer,
    )
    reference, made = found["eager"].seconds, []
    for name, outcome in found.items():
        given = {**options, "side": side, "name": name}
        memory = None
        if outcome.refused is None:
            memory = worker.run_module("bench.ops.training_step", given, torch.get_num_threads())
        compared = ratios(outcome.seconds, reference) if outcome.seconds and reference else []
        made.append(Row(name, side, outcome.seconds, compared, outcome.error, outcome.refused, memory))
    return made


def tables(report: Report) -> list[Section]:
    lines = []
    for row in report["rows"]:
        key = (f"{row['side']}^2", row["name"])
        if row["refused"] is not None:
            lines.append((*key, row["refused"], "-", "-"))
            continue
        lines.append(
            (
                *key,
                Spread.of(row["seconds"]).text(".1f", 1e3),
                Spread.of(row["ratios"]).text(".2f") if row["ratios"] else "-",
                f"{row['peak'] / 2**20:.0f}",
            )
        )
    head = ("side", "contender", "ms/step (min-max)", "time over eager's (min-max)", "peak MiB")
    return [f"Batch of {report['options']['batch']}, {report['options']['precision']}.", Table(head, lines, keys=2)]


def main() -> None:
    arguments = parser(__doc__, threads=True, out=True)
    arguments.add_argument("--sides", default="128,256", help="of the square pictures")
    arguments.add_argument("--batch", type=int, default=4, help="pictures (default 4)")
    arguments.add_argument("--rounds", type=int, default=10, help="steps timed of each contender (default 10)")
    arguments.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    arguments.add_argument("--precision", default="float32", choices=("float32", "bfloat16"))
    arguments.add_argument("--run", type=json.loads, help="read the memory of one contender, for the benchmark itself")
    options = arguments.parse_args()
    torch.set_num_threads(options.threads)
    if options.run:
        print(peak(options.run))
        return
    found = [row for side in numbers(options.sides) for row in rows(side, plain(options))]
    device = torch.device(options.device)
    report: Report = {
        "machine": device_machine(device) if device.type == "cuda" else machine(),
        "options": plain(options),
        "rows": [asdict(row) for row in found],
    }
    results.write(options.out, "training_step", report, tables)


if __name__ == "__main__":
    main()

"""The convolutions of VGG-19 as the loop runs them: Winograd's against PyTorch's, forward and backward, and a gradient.

    python -m bench.ops.conv3x3 [--size 512] [--repeats 7] [--dtype float32]

A layer of fastnst is the convolution with bias, ReLU and, where one follows, the max pool; PyTorch's is the convolution
alone. The backward is that of the input. Contenders take turns, and results are compared before any time is printed.
Then prints the error of an image's gradient under the preset johnson against float64, at --error-size: as it is, and
with the masks of ReLUs and pools that float32 found (a value within rounding of zero may fall on either side).
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.common.contest import Clock, Contender, Spread, check
from bench.common.machine import headline, machine
from bench.common.options import parser
from bench.common.pictures import shipped
from bench.common.results import Table
from fastnst import weights
from fastnst.config.settings import Settings
from fastnst.network.vgg import VGG, layers
from fastnst.objective.engines import PlainEngine, WinogradEngine
from fastnst.objective.engines.plain import Activations
from fastnst.objective.targets import style_targets
from fastnst.objective.whole import Objective

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
BOUNDS = {torch.float32: 1e-5, torch.bfloat16: 1e-2}
PASSES = ("forward", "backward")
ops = torch.ops.fastnst


@dataclass(frozen=True)
class Layer:
    """A convolution of the network at the size of a picture."""

    name: str
    channels: int
    outputs: int
    side: int
    pooled: bool
    dtype: torch.dtype

    def noise(self, generator: torch.Generator, *shape: int) -> Tensor:
        x = torch.randn(*shape, generator=generator).to(self.dtype)
        return x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x

    def empty(self, channels: int, side: int, dtype: torch.dtype | None = None) -> Tensor:
        """Zeros in channels_last."""
        return torch.zeros(1, side, side, channels, dtype=dtype or self.dtype).permute(0, 3, 1, 2)


def contenders(layer: Layer) -> list[Contender]:
    """Forward and backward of a layer, fastnst's and PyTorch's, checked. Exits where the two differ."""
    generator, side, outputs = torch.Generator().manual_seed(0), layer.side, layer.outputs
    x = layer.noise(generator, 1, layer.channels, side, side).relu_()
    bias, grad = layer.noise(generator, outputs), layer.noise(generator, 1, outputs, side, side)
    weight = layer.noise(generator, outputs, layer.channels, 3, 3) / (9 * layer.channels) ** 0.5
    outputs_innermost = weight.permute(1, 2, 3, 0).contiguous().permute(3, 0, 1, 2)
    y, x_grad = layer.empty(outputs, side), layer.empty(layer.channels, side)
    small, argmax = layer.empty(outputs, side // 2), layer.empty(outputs, side // 2, torch.uint8)
    ops.conv3x3_pool_out(x, outputs_innermost, bias, "zeros", 0, small, argmax)
    pooled_grad = layer.noise(generator, 1, outputs, side // 2, side // 2)
    if layer.pooled:
        grad = ops.pool_backward(pooled_grad, None, None, argmax, "max", side, side, True)

    def forward() -> tuple[Tensor]:
        if layer.pooled:
            ops.conv3x3_pool_out(x, outputs_innermost, bias, "zeros", 0, small, argmax)
            return (small,)
        ops.conv3x3_out(x, outputs_innermost, bias, True, "zeros", 0, y)
        return (y,)

    def backward() -> tuple[Tensor]:
        given = (
            (pooled_grad, outputs_innermost, None, argmax) if layer.pooled else (grad, outputs_innermost, None, None)
        )
        ops.conv3x3_backward_out(*given, side, side, False, 0, x_grad)
        return (x_grad,)

    expected = F.conv2d(x, weight, bias, padding=1).relu_()
    compare(layer, Contender("forward", forward), F.max_pool2d(expected, 2) if layer.pooled else expected)
    compare(layer, Contender("backward", backward), F.conv_transpose2d(grad, weight, padding=1))
    return [
        Contender("forward", forward),
        Contender("forward torch", lambda: F.conv2d(x, weight, bias, padding=1)),
        Contender("backward", backward),
        Contender("backward torch", lambda: F.conv_transpose2d(grad, weight, padding=1)),
    ]


def compare(layer: Layer, contender: Contender, expected: Tensor) -> None:
    """Exit where a result differs from PyTorch's."""
    refused = check(contender, (expected,), BOUNDS[layer.dtype])[1]
    if refused:
        sys.exit(f"{layer.name}: {contender.name} differs from PyTorch: {refused}")


def convolutions(size: int, dtype: torch.dtype) -> list[Layer]:
    """The convolutions up to relu5_1."""
    chain, channels, found = layers("vgg19"), 3, []
    for i, step in enumerate(chain[: [step.name for step in chain].index("relu5_1")]):
        if step.kind == "conv":
            pooled = chain[i + 2].kind == "pool"
            found.append(Layer(step.name, channels, step.channels, size // step.stride, pooled, dtype))
            channels = step.channels
    return found


def layer_table(size: int, repeats: int, dtype: torch.dtype) -> Table:
    sums, rows = dict.fromkeys((f"{name}{of}" for name in PASSES for of in ("", " torch")), 0.0), []
    for layer in convolutions(size, dtype):
        entered = contenders(layer)
        times = Clock().seconds(entered, repeats)
        medians = {c.name: 1e3 * Spread.of(t).median for c, t in zip(entered, times, strict=True)}
        sums = {name: sums[name] + medians[name] for name in sums}
        work = 18e-9 * layer.channels * layer.outputs * layer.side**2
        rows.append((layer.name, f"{work:.1f}", *cells(medians)))
        print(f"  {layer.name}", file=sys.stderr)
    rows.append(("all", "", *cells(sums)))
    head = ("layer", "direct GF", "forward ms", "PyTorch", "ratio", "backward ms", "PyTorch", "ratio")
    return Table(head, rows, keys=2)


def cells(medians: dict[str, float]) -> list[str]:
    shown = []
    for name in PASSES:
        ours, theirs = medians[name], medians[f"{name} torch"]
        shown += [f"{ours:.1f}", f"{theirs:.1f}", f"{theirs / ours:.2f}"]
    return shown


def gradient_errors(size: int) -> Table:
    """The error of the gradient of an image against float64, by contender."""
    loaded, settings = weights.load(), Settings.from_preset("johnson")
    content, style = shipped(size)
    image = content + 10 * torch.randn(content.shape, generator=torch.Generator().manual_seed(1))

    def objective(dtype: torch.dtype, winograd: bool) -> Objective:
        kind = torch.float64 if dtype == torch.float64 else torch.float32
        network = VGG(loaded, settings.layer_names(), dtype=dtype, winograd=winograd)
        return Objective(network, content.to(kind), style_targets(network, style.to(kind), settings), settings)

    exact = objective(torch.float64, False).evaluate(image.double())[1]
    wide = objective(torch.float64, True).engine
    rows = []
    for name, dtype in DTYPES.items():
        for backend, winograd in (("PyTorch", False), ("Winograd", True)):
            evaluated = objective(dtype, winograd)
            gradient = evaluated.evaluate(image)[1].double()
            error = float((gradient - exact).norm() / exact.norm())
            masked = ""
            if winograd and dtype == torch.float32:
                masked = f"{error_with_masks_of(evaluated.engine, wide, image, gradient):.1e}"
            rows.append((f"{name}, {backend}", f"{error:.1e}", masked))
    return Table(("gradient of an image", "error against float64", "with the same masks"), rows)


@torch.no_grad()
def error_with_masks_of(narrow: PlainEngine, wide: PlainEngine, image: Tensor, gradient: Tensor) -> float:
    """The error of ``gradient`` against a float64 backward pass over what the float32 forward pass kept."""
    assert isinstance(narrow, WinogradEngine)
    tape = Activations()
    with narrow._arena.evaluation():
        narrow._forward(image, tape)
        exact = wide._backward(in_double(tape)) * wide.network.scale
    return float((gradient - variation_gradient(image) - exact).norm() / exact.norm())


def in_double(value: Any) -> Any:
    """A copy of tensors, containers and dataclasses with floating-point tensors in float64."""
    if isinstance(value, Tensor):
        return value.double() if value.is_floating_point() else value
    if isinstance(value, dict):
        return {key: in_double(of_key) for key, of_key in value.items()}
    if isinstance(value, list):
        return [in_double(item) for item in value]
    if is_dataclass(value):
        return replace(value, **{field.name: in_double(getattr(value, field.name)) for field in fields(value)})
    return value


def variation_gradient(image: Tensor) -> Tensor:
    """The part of the gradient that comes from total variation alone."""
    settings = Settings.from_preset("johnson")
    weight = torch.tensor(settings.tv_weight, dtype=torch.float64)
    return ops.total_variation_backward(weight, image.double(), settings.tv_kind)


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--size", type=int, default=512, help="side of the picture (default 512)")
    arguments.add_argument("--error-size", type=int, default=192, help="side for the gradient's error (default 192)")
    arguments.add_argument("--repeats", type=int, default=7, help="rounds (default 7); 0: errors alone")
    arguments.add_argument("--dtype", choices=DTYPES, default="float32")
    options = arguments.parse_args()
    print(f"{headline(machine())}\n\nVGG-19 to conv5_1, {options.size}x{options.size}, {options.dtype}\n")
    if options.repeats:
        print(f"{layer_table(options.size, options.repeats, DTYPES[options.dtype])}\n")
    print(gradient_errors(options.error_size))


if __name__ == "__main__":
    main()

"""The convolutions of VGG-19 as the loop runs them: Winograd's against PyTorch's, forward and backward, and a gradient.

    python bench/ops/conv3x3.py [--size 512] [--repeats 7] [--dtype float32]

A layer of ours is the convolution with bias, ReLU and, where one follows, the max pool; PyTorch's is the convolution
alone. The backward is that of the input. Contenders take turns, results are compared before any time is printed.
Ends with the error of an image's gradient under the preset johnson against float64, at --error-size: as it is, and with
the masks of ReLUs and pools that float32 found (a value within rounding of zero falls on one side or the other).
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from fastnst import images, weights
from fastnst.engine import Engine, Tape, WinogradEngine
from fastnst.objective import Objective, style_targets
from fastnst.settings import Settings
from fastnst.vgg import VGG, layers

ASSETS = Path(__file__).resolve().parents[2] / "fastnst" / "assets"
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
ops = torch.ops.fastnst


def contenders(
    name: str, channels: int, outputs: int, side: int, pooled: bool, dtype: torch.dtype
) -> dict[str, Callable[[], Tensor]]:
    """Forward and backward of a layer, ours and PyTorch's, in memory of their own."""
    generator = torch.Generator().manual_seed(0)

    def noise(*shape: int) -> Tensor:
        x = torch.randn(*shape, generator=generator).to(dtype)
        return x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x

    def empty(k: int, size: int, kind: torch.dtype) -> Tensor:
        return torch.zeros(1, size, size, k, dtype=kind).permute(0, 3, 1, 2)

    x, bias, grad = noise(1, channels, side, side).relu_(), noise(outputs), noise(1, outputs, side, side)
    weight = noise(outputs, channels, 3, 3) / (9 * channels) ** 0.5
    ours = weight.permute(1, 2, 3, 0).contiguous().permute(3, 0, 1, 2)
    y, below = empty(outputs, side, dtype), empty(channels, side, dtype)
    small, places = empty(outputs, side // 2, dtype), empty(outputs, side // 2, torch.uint8)
    ops.conv3x3_pool_out(x, ours, bias, "zeros", 0, small, places)
    pooled_grad = noise(1, outputs, side // 2, side // 2)
    spread = ops.pool_backward(pooled_grad, None, None, places, "max", side, side, True) if pooled else grad

    def forward() -> Tensor:
        if pooled:
            ops.conv3x3_pool_out(x, ours, bias, "zeros", 0, small, places)
            return small
        ops.conv3x3_out(x, ours, bias, True, "zeros", 0, y)
        return y

    def backward() -> Tensor:
        given = (pooled_grad, ours, None, places) if pooled else (grad, ours, None, None)
        ops.conv3x3_backward_out(*given, side, side, False, 0, below)
        return below

    def check() -> None:
        expected = F.conv2d(x, weight, bias, padding=1).relu_()
        compare(name, forward(), F.max_pool2d(expected, 2) if pooled else expected, dtype)
        compare(name, backward(), F.conv_transpose2d(spread, weight, padding=1), dtype)

    check()
    return {
        "forward": forward,
        "forward torch": lambda: F.conv2d(x, weight, bias, padding=1),
        "backward": backward,
        "backward torch": lambda: F.conv_transpose2d(spread, weight, padding=1),
    }


def compare(name: str, got: Tensor, expected: Tensor, dtype: torch.dtype) -> None:
    error = float((got.double() - expected.double()).norm() / expected.double().norm())
    if error > (1e-5 if dtype == torch.float32 else 1e-2):
        raise SystemExit(f"{name}: differs from PyTorch by {error:.1e}")


def layer_table(size: int, repeats: int, dtype: torch.dtype) -> None:
    print("| layer | direct GF | forward ms | PyTorch | ratio | backward ms | PyTorch | ratio |")
    print("|---|---|---|---|---|---|---|---|")
    chain = layers("vgg19")
    channels, sums = 3, dict.fromkeys(("forward", "forward torch", "backward", "backward torch"), 0.0)
    for i, layer in enumerate(chain[: [layer.name for layer in chain].index("relu5_1")]):
        if layer.kind != "conv":
            continue
        side, pooled = size // layer.stride, chain[i + 2].kind == "pool"
        runs = contenders(layer.name, channels, layer.channels, side, pooled, dtype)
        times: dict[str, list[float]] = {name: [] for name in runs}
        for _ in range(repeats):
            for name, run in runs.items():
                start = time.perf_counter()
                run()
                times[name].append(1e3 * (time.perf_counter() - start))
        median = {name: statistics.median(found) for name, found in times.items()}
        sums = {name: sums[name] + median[name] for name in sums}
        work = 18e-9 * channels * layer.channels * side * side
        print(f"| {layer.name} | {work:.1f} | {row(median)} |", flush=True)
        channels = layer.channels
    print(f"| all | | {row(sums)} |")


def row(times: dict[str, float]) -> str:
    parts = []
    for name in ("forward", "backward"):
        ours, theirs = times[name], times[f"{name} torch"]
        parts.append(f"{ours:.1f} | {theirs:.1f} | {theirs / ours:.2f}")
    return " | ".join(parts)


def gradient_errors(size: int) -> None:
    """The gradient of an image against float64, by contender."""
    loaded, settings = weights.load(), Settings.of("johnson")
    content, style = (
        images.load(ASSETS / f"demo_{name}.jpg", crop=size).pixels * 255 for name in ("photo", "painting")
    )
    image = content + 10 * torch.randn(content.shape, generator=torch.Generator().manual_seed(1))

    def objective(dtype: torch.dtype, winograd: bool) -> Objective:
        kind = torch.float64 if dtype == torch.float64 else torch.float32
        network = VGG(loaded, settings.layer_names(), dtype=dtype, winograd=winograd)
        return Objective(network, content.to(kind), style_targets(network, style.to(kind), settings), settings)

    exact = objective(torch.float64, False).evaluate(image.double())[1]
    wide = objective(torch.float64, True).engine
    print("\n| gradient of an image | error against float64 | with the same masks |\n|---|---|---|")
    for name, dtype, winograd in (
        ("float32, PyTorch", torch.float32, False),
        ("float32, Winograd", torch.float32, True),
        ("bfloat16, PyTorch", torch.bfloat16, False),
        ("bfloat16, Winograd", torch.bfloat16, True),
    ):
        made = objective(dtype, winograd)
        found = made.evaluate(image)[1].double()
        error = float((found - exact).norm() / exact.norm())
        masked = with_masks_of(made.engine, wide, image, found) if winograd and dtype == torch.float32 else None
        print(f"| {name} | {error:.1e} | {'' if masked is None else f'{masked:.1e}'} |")


@torch.no_grad()
def with_masks_of(narrow: Engine, wide: Engine, image: Tensor, found: Tensor) -> float:
    """The error of ``found`` against a reverse sweep in float64 over what the forward sweep in float32 kept."""
    assert isinstance(narrow, WinogradEngine)
    tape, other = Tape(), Tape()
    with narrow._arena.evaluation():
        narrow._forward(image, tape)
        other.features = {name: x.double() for name, x in tape.features.items()}
        other.residuals = {name: x.double() for name, x in tape.residuals.items()}
        other.places = dict(tape.places)
        assert tape.start is not None
        other.start = tape.start.double()
        exact = wide._reverse(other) * wide.network.scale
    tv = narrow_total_variation(image)
    return float((found - tv - exact).norm() / exact.norm())


def narrow_total_variation(image: Tensor) -> Tensor:
    """The part of the gradient that no network makes."""
    settings = Settings.of("johnson")
    weight = torch.tensor(settings.tv_weight, dtype=torch.float64)
    return ops.total_variation_backward(weight, image.double(), settings.tv_kind)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--size", type=int, default=512, help="side of the picture (default 512)")
    parser.add_argument("--error-size", type=int, default=192, help="side for the error of the gradient (default 192)")
    parser.add_argument("--repeats", type=int, default=7, help="turns of each contender; 0: errors alone")
    parser.add_argument("--dtype", choices=DTYPES, default="float32")
    options = parser.parse_args()
    print(
        f"VGG-19 to conv5_1, {options.size}x{options.size}, {options.dtype}, "
        f"{torch.get_num_threads()} threads, torch {torch.__version__}\n"
    )
    if options.repeats:
        layer_table(options.size, options.repeats, DTYPES[options.dtype])
    gradient_errors(options.error_size)


if __name__ == "__main__":
    main()

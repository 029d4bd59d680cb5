"""Style loss and gradient at the five style layers of a 512 x 512 picture: fused ops against eager PyTorch.

    python bench/ops/tapped_layers.py [--repeats 15] [--dtype float32]

What is timed is what a loop does at a tapped layer: the loss, its gradient with respect to the features, and adding it
to the gradient that comes from above, in place. The two contenders take turns, the first of a round being the second
of the next, and their results are held to float64 before any time is printed. Prints medians in milliseconds with their
spread and the ratio eager / fastnst, the median of the rounds' ratios.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from fastnst import ops

sys.path.append(str(Path(__file__).resolve().parents[1] / "gpu"))
import exact

LAYERS = ((64, 512), (128, 256), (256, 128), (512, 64), (512, 32))


def eager(x: Tensor, target: Tensor, above: Tensor, scale: float) -> Tensor:
    """Autograd over matrix products, as most implementations write it."""
    x = x.detach().requires_grad_(True)
    features = x.flatten(2).float()
    loss = (scale * (features @ features.mT) - target).square().sum()
    loss.backward()
    assert x.grad is not None
    return above.add_(x.grad)


def fused(x: Tensor, target: Tensor, above: Tensor, scale: float) -> Tensor:
    """One pass for the loss and the residual, one pass for the gradient, in place."""
    with torch.no_grad():
        _, residual = ops.style_loss_and_residual(x, target, scale=scale)
        return ops.tapped_backward_(above, x, residual=residual, style=4 * scale, relu=False)


def timed(run: Callable[..., Tensor], *arguments: object) -> float:
    start = time.perf_counter()
    run(*arguments)
    return 1e3 * (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    options = parser.parse_args()
    dtype = getattr(torch, options.dtype)
    torch.manual_seed(0)
    kernels = ops.kernels()["style_loss"]
    print(f"{torch.get_num_threads()} threads, {options.dtype}, {kernels} kernels, torch {torch.__version__}")
    print("| C, side | layout | eager ms (min-max) | fastnst ms (min-max) | ratio |\n|---|---|---|---|---|")
    for channels, side in LAYERS:
        for layout in (torch.contiguous_format, torch.channels_last):
            x = torch.randn(1, channels, side, side).relu().to(dtype).to(memory_format=layout)
            target = ops.gram(torch.randn_like(x).relu(), scale=1 / side**2)
            above, scale = torch.randn_like(x) * 1e-2, 1 / side**2
            residual = exact.style_loss(x, target, scale)[1]
            expected = exact.style_backward(above, x, residual, 4 * scale)[0]
            for contender in (eager, fused):
                error = exact.error(contender(x, target, above.clone(), scale), expected)
                if not error < (1e-5 if dtype == torch.float32 else 1e-2):
                    sys.exit(f"({channels}, {side}): {contender.__name__} is off by {error:.1e}")
            arguments = (x, target, above, scale)
            rounds = []
            for number in range(options.repeats):
                order = (eager, fused) if number % 2 else (fused, eager)
                times = {contender: timed(contender, *arguments) for contender in order}
                rounds.append((times[eager], times[fused]))
            first, second = zip(*rounds, strict=True)
            ratio = statistics.median(a / b for a, b in rounds)
            name = "contiguous" if layout == torch.contiguous_format else "channels_last"
            print(
                f"| {channels}, {side} | {name} | {statistics.median(first):.1f} ({min(first):.1f}-{max(first):.1f}) "
                f"| {statistics.median(second):.1f} ({min(second):.1f}-{max(second):.1f}) | {ratio:.2f} |"
            )


if __name__ == "__main__":
    main()

"""The ops at the sizes of the style layers of a 512 x 512 picture, each done by eager PyTorch, torch.compile and us.

In ``forward`` a contender computes the value alone; in ``backward`` the value, its gradient with respect to the
features, and the sum of that with the gradient from above, in place, as a loop does it at a layer.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from fastnst import ops

sys.path.append(str(Path(__file__).resolve().parents[1] / "gpu"))
import exact

LAYERS = ((64, 512), (128, 256), (256, 128), (512, 64), (512, 32))  # channels, side
PICTURES = ((3, 256), (3, 512), (3, 1024))
MODES = ("forward", "backward")
NAMES = ("eager", "compile", "fastnst")
BOUND = 1e-5  # of the relative error in float32: room for the order in which a library adds millions of terms

Results = tuple[Tensor, ...]
Pass = Callable[[Tensor], Results]  # from the features, or the gradient from above, to what is checked


@dataclass(frozen=True)
class Contest:
    """``run[name](above)`` is what is timed; ``exact`` are its results in float64 where ``above`` is zero."""

    op: str
    mode: str
    channels: int
    side: int
    above: Tensor
    run: dict[str, Pass]
    exact: Results


def noise(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def features(seed: int, channels: int, side: int) -> Tensor:
    """What a ReLU leaves."""
    return noise(seed, 1, channels, side, side).relu_()


def by_autograd(function: Callable[[Tensor], Tensor], x: Tensor, pull: Tensor | None = None) -> Pass:
    """Value, gradient and accumulation; ``pull`` is the gradient of a value that is no number."""
    leaf = x.detach().requires_grad_(True)

    def run(above: Tensor) -> Results:
        value = function(leaf)
        (slope,) = torch.autograd.grad(value, leaf, pull)
        return value.detach(), above.add_(slope)

    return run


def contest(
    op: str,
    mode: str,
    x: Tensor,
    plain: Callable[[Tensor], Tensor],
    fused: Callable[[Tensor], Tensor],
    fused_pass: Pass | None,
    right: Results,
    pull: Tensor | None = None,
) -> Contest:
    """``plain`` in PyTorch, as it stands and compiled, against ``fused`` or, where the loop has one, ``fused_pass``."""
    functions = {"eager": plain, "compile": torch.compile(plain, dynamic=False), "fastnst": fused}

    def forward(function: Callable[[Tensor], Tensor]) -> Pass:
        return lambda above: (function(x),)

    if mode == "forward":
        run = {name: forward(function) for name, function in functions.items()}
        right = right[:1]
    else:
        run = {name: by_autograd(function, x, pull) for name, function in functions.items()}
        if fused_pass is not None:
            run["fastnst"] = fused_pass
    return Contest(op, mode, x.shape[1], x.shape[2], torch.zeros_like(x), run, right)


def gram(mode: str, channels: int, side: int) -> Contest:
    x, scale = features(0, channels, side), 1 / side**2
    pull = noise(1, 1, channels, channels)

    def plain(x: Tensor) -> Tensor:
        f = x.flatten(2)
        return scale * (f @ f.mT)

    slope = exact.style_backward(torch.zeros_like(x), x, pull + pull.mT, scale)[0]
    right = (exact.gram(x, scale), slope)
    return contest("gram", mode, x, plain, lambda x: ops.gram(x, scale=scale), None, right, pull)


def style_loss(mode: str, channels: int, side: int) -> Contest:
    x, scale = features(0, channels, side), 1 / side**2
    target = ops.gram(2 * features(1, channels, side), scale=scale)

    def plain(x: Tensor) -> Tensor:
        f = x.flatten(2)
        return (scale * (f @ f.mT) - target).square().sum()

    def fused_pass(above: Tensor) -> Results:
        loss, residual = ops.style_loss_and_residual(x, target, scale=scale)
        return loss, ops.tapped_backward_(above, x, residual=residual, style=4 * scale, relu=False)

    loss, residual = exact.style_loss(x, target, scale)
    right = (loss, exact.style_backward(torch.zeros_like(x), x, residual, 4 * scale)[0])
    return contest("style_loss", mode, x, plain, lambda x: ops.style_loss(x, target, scale=scale), fused_pass, right)


def content_loss(mode: str, channels: int, side: int) -> Contest:
    x, target = features(0, channels, side), features(1, channels, side)

    def plain(x: Tensor) -> Tensor:
        return (x - target).square().sum()

    def fused_pass(above: Tensor) -> Results:
        return ops.content_loss(x, target), ops.tapped_backward_(above, x, target=target, content=2.0, relu=False)

    right = (exact.content_loss(x, target)[0], exact.content_backward(x, target)[0])
    return contest("content_loss", mode, x, plain, lambda x: ops.content_loss(x, target), fused_pass, right)


def total_variation(mode: str, channels: int, side: int) -> Contest:
    x = noise(0, 1, channels, side, side)

    def plain(x: Tensor) -> Tensor:
        return x.diff(dim=3).abs().sum() + x.diff(dim=2).abs().sum()

    right = (exact.total_variation(x)[0], exact.total_variation_backward(x)[0])
    return contest("total_variation", mode, x, plain, ops.total_variation, None, right)


def pool(mode: str, channels: int, side: int) -> Contest:
    x, pull = noise(0, 1, channels, side, side), noise(1, 1, channels, side // 2, side // 2)
    right = (exact.pool(x)[0], exact.pool_backward(pull, x)[0])
    return contest("pool", mode, x, lambda x: F.max_pool2d(x, 2), ops.pool, None, right, pull)


def conv3x3(mode: str, channels: int, side: int) -> Contest:
    """With as many outputs as channels, channels_last as networks run it, and without the ReLU: rounding would turn the
    gradient on or off where a value is nearly zero."""
    x, pull = (noise(seed, 1, channels, side, side).to(memory_format=torch.channels_last) for seed in (0, 1))
    weight = noise(2, channels, channels, 3, 3) / (9 * channels) ** 0.5
    weight, bias = weight.to(memory_format=torch.channels_last), noise(3, channels)
    outputs_innermost = weight.permute(1, 2, 3, 0).contiguous().permute(3, 0, 1, 2)

    def plain(x: Tensor) -> Tensor:
        return F.conv2d(x, weight, bias, padding=1)

    def fused(x: Tensor) -> Tensor:
        return ops.conv3x3(x, outputs_innermost, bias)

    def fused_pass(above: Tensor) -> Results:
        slope = torch.ops.fastnst.conv3x3_backward(pull, weight, None, None, side, side, False)
        return fused(x), above.add_(slope)

    wide, wide_weight = x.double(), weight.double()
    slope = F.conv_transpose2d(pull.double(), wide_weight, padding=1)
    right = (F.conv2d(wide, wide_weight, bias.double(), padding=1), slope)
    return contest("conv3x3", mode, x, plain, fused, fused_pass, right, pull)


MAKE: dict[str, Callable[[str, int, int], Contest]] = {
    "gram": gram,
    "style_loss": style_loss,
    "content_loss": content_loss,
    "total_variation": total_variation,
    "pool": pool,
    "conv3x3": conv3x3,
}

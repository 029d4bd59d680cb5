"""The ops at the sizes of the style layers of a 512 x 512 picture: eager PyTorch, torch.compile and fastnst.

In mode ``forward`` a contender computes the value alone; in ``backward`` the value, its gradient with respect to the
features, and the sum of that gradient and the one from the layers above, in place, as the loop does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.common import contest, exact
from bench.common.contest import Contender, Measured, Results
from fastnst import ops

LAYERS = ((64, 512), (128, 256), (256, 128), (512, 64), (512, 32))  # channels, side
PICTURES = ((3, 256), (3, 512), (3, 1024))
MODES = ("forward", "backward")
NAMES = ("eager", "compile", "fastnst")
BOUND = 1e-5  # of the relative error in float32: room for the order in which a library adds millions of terms

Function = Callable[[Tensor], Tensor]
Pass = Callable[[Tensor], Results]  # from the gradient of the layers above to the results that are checked


@dataclass(frozen=True)
class Contest:
    """``run[name](above)`` is timed; ``exact`` are its results in float64 for an ``above`` of zeros."""

    above: Tensor
    run: dict[str, Pass]
    exact: Results


@dataclass(frozen=True)
class Op:
    """One op on the features ``x``: in PyTorch and fused.

    ``fused_pass`` is the forward and backward that the loop runs, where it has one; ``grad`` the gradient of a value
    that is no scalar.
    """

    x: Tensor
    plain: Function
    fused: Function
    exact: Results
    fused_pass: Pass | None = None
    grad: Tensor | None = None

    def contest(self, mode: str) -> Contest:
        """The contest between ``plain``, eager and compiled, and the fused op."""
        functions = {"eager": self.plain, "compile": torch.compile(self.plain, dynamic=False), "fastnst": self.fused}
        above = torch.zeros_like(self.x)
        if mode == "forward":
            return Contest(
                above, {name: self._forward(function) for name, function in functions.items()}, self.exact[:1]
            )
        run = {name: by_autograd(function, self.x, self.grad) for name, function in functions.items()}
        if self.fused_pass is not None:
            run["fastnst"] = self.fused_pass
        return Contest(above, run, self.exact)

    def _forward(self, function: Function) -> Pass:
        return lambda above: (function(self.x),)


def by_autograd(function: Function, x: Tensor, grad: Tensor | None = None) -> Pass:
    """Value, gradient and accumulation."""
    leaf = x.detach().requires_grad_(True)

    def run(above: Tensor) -> Results:
        value = function(leaf)
        (gradient,) = torch.autograd.grad(value, leaf, grad)
        return value.detach(), above.add_(gradient)

    return run


def measure(given: Contest, rounds: int, warm_up: int = 2) -> dict[str, Measured]:
    """Check and time the contenders of a contest."""
    contenders = [
        Contender(name, partial(run, given.above), results=lambda run=run: run(torch.zeros_like(given.above)))
        for name, run in given.run.items()
    ]
    return contest.measure(contenders, lambda: given.exact, BOUND, rounds=rounds, warm_up=warm_up)


def noise(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def features(seed: int, channels: int, side: int) -> Tensor:
    """Noise after a ReLU."""
    return noise(seed, 1, channels, side, side).relu_()


def gram(mode: str, channels: int, side: int) -> Contest:
    x, scale = features(0, channels, side), 1 / side**2
    grad = noise(1, 1, channels, channels)

    def plain(x: Tensor) -> Tensor:
        f = x.flatten(2)
        return scale * (f @ f.mT)

    gradient = exact.style_backward(torch.zeros_like(x), x, grad + grad.mT, scale)[0]
    expected = (exact.gram(x, scale), gradient)
    return Op(x, plain, lambda x: ops.gram(x, scale=scale), expected, grad=grad).contest(mode)


def style_loss(mode: str, channels: int, side: int) -> Contest:
    x, scale = features(0, channels, side), 1 / side**2
    target = ops.gram(2 * features(1, channels, side), scale=scale)

    def plain(x: Tensor) -> Tensor:
        f = x.flatten(2)
        return (scale * (f @ f.mT) - target).square().sum()

    def fused_pass(above: Tensor) -> Results:
        loss, residual = ops.style_loss_and_residual(x, target, scale=scale)
        return loss, ops.layer_backward_(above, x, residual=residual, style=4 * scale, relu=False)

    loss, residual = exact.style_loss(x, target, scale)
    expected = (loss, exact.style_backward(torch.zeros_like(x), x, residual, 4 * scale)[0])
    return Op(x, plain, lambda x: ops.style_loss(x, target, scale=scale), expected, fused_pass).contest(mode)


def content_loss(mode: str, channels: int, side: int) -> Contest:
    x, target = features(0, channels, side), features(1, channels, side)

    def plain(x: Tensor) -> Tensor:
        return (x - target).square().sum()

    def fused_pass(above: Tensor) -> Results:
        return ops.content_loss(x, target), ops.layer_backward_(above, x, target=target, content=2.0, relu=False)

    expected = (exact.content_loss(x, target)[0], exact.content_backward(x, target)[0])
    return Op(x, plain, lambda x: ops.content_loss(x, target), expected, fused_pass).contest(mode)


def total_variation(mode: str, channels: int, side: int) -> Contest:
    x = noise(0, 1, channels, side, side)

    def plain(x: Tensor) -> Tensor:
        return x.diff(dim=3).abs().sum() + x.diff(dim=2).abs().sum()

    expected = (exact.total_variation(x)[0], exact.total_variation_backward(x)[0])
    return Op(x, plain, ops.total_variation, expected).contest(mode)


def pool(mode: str, channels: int, side: int) -> Contest:
    x, grad = noise(0, 1, channels, side, side), noise(1, 1, channels, side // 2, side // 2)
    expected = (exact.pool(x)[0], exact.pool_backward(grad, x)[0])
    return Op(x, lambda x: F.max_pool2d(x, 2), ops.pool, expected, grad=grad).contest(mode)


def conv3x3(mode: str, channels: int, side: int) -> Contest:
    """As many outputs as inputs, channels_last as in the network, and without the ReLU: rounding would switch the
    gradient on or off where a value is nearly zero."""
    x, grad = (noise(seed, 1, channels, side, side).to(memory_format=torch.channels_last) for seed in (0, 1))
    weight = noise(2, channels, channels, 3, 3) / (9 * channels) ** 0.5
    weight, bias = weight.to(memory_format=torch.channels_last), noise(3, channels)
    outputs_innermost = weight.permute(1, 2, 3, 0).contiguous().permute(3, 0, 1, 2)

    def plain(x: Tensor) -> Tensor:
        return F.conv2d(x, weight, bias, padding=1)

    def fused(x: Tensor) -> Tensor:
        return ops.conv3x3(x, outputs_innermost, bias)

    def fused_pass(above: Tensor) -> Results:
        gradient = torch.ops.fastnst.conv3x3_backward(grad, weight, None, None, side, side, False)
        return fused(x), above.add_(gradient)

    wide, wide_weight = x.double(), weight.double()
    gradient = F.conv_transpose2d(grad.double(), wide_weight, padding=1)
    expected = (F.conv2d(wide, wide_weight, bias.double(), padding=1), gradient)
    return Op(x, plain, fused, expected, fused_pass, grad).contest(mode)


MAKE: dict[str, Callable[[str, int, int], Contest]] = {
    "gram": gram,
    "style_loss": style_loss,
    "content_loss": content_loss,
    "total_variation": total_variation,
    "pool": pool,
    "conv3x3": conv3x3,
}

"""The ops with their contenders: eager PyTorch, ``torch.compile``, cuBLAS and fastnst."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.common import exact
from bench.common.contest import Contender, Results
from bench.gpu.problems import Problem
from bench.gpu.roofline import Work, work
from fastnst import ops

raw = torch.ops.fastnst


@dataclass(frozen=True)
class Task:
    """An op of one layer, its contenders and the exact results."""

    op: str
    problem: Problem
    contenders: tuple[Contender, ...]
    exact: Callable[[], Results]

    @property
    def work(self) -> Work:
        p = self.problem
        return work(self.op, p.channels, p.positions, p.precision)


def compiled(function: Callable[..., Results]) -> Callable[..., Results]:
    """Compiled once for all sizes of a dtype."""
    return torch.compile(function, dynamic=True)


def _backward(name: str, make_loss: Callable[..., Results], x: Tensor, *rest: object) -> Contender:
    """Autograd's backward alone; ``prepare`` runs the forward."""
    leaf, held = x.detach().requires_grad_(True), []

    def prepare() -> None:
        with torch.enable_grad():  # measure() disables gradients
            held[:] = [make_loss(leaf, *rest)[0]]

    return Contender(name, lambda: torch.autograd.grad(held[0], leaf), prepare)


def _eager_style_loss(x: Tensor, target: Tensor, scale: float) -> Results:
    f = x.flatten(2).float()
    residual = scale * (f @ f.mT) - target
    return residual.square().sum(), residual


def _library_gram(f: Tensor, target: Tensor, scale: float, out: Tensor) -> None:
    """The residual from one call of cuBLAS; half types get float32 results."""
    if f.dtype == torch.float32:
        torch.baddbmm(target, f, f.mT, beta=-1, alpha=scale, out=out)
    else:
        torch.sub(scale * torch.bmm(f, f.mT, out_dtype=torch.float32), target, out=out)


def style_loss(p: Problem) -> Task:
    x, target, out = p.features(0), p.gram(), p.gram()
    f = x.flatten(2)
    compiled_loss = compiled(_eager_style_loss)

    def library() -> Results:
        _library_gram(f, target, p.scale, out)
        return out.square().sum(), out

    return Task(
        "style_loss",
        p,
        (
            Contender("eager", lambda: _eager_style_loss(x, target, p.scale)),
            Contender("compile", lambda: compiled_loss(x, target, p.scale)),
            Contender("cublas", library),
            Contender("fastnst", lambda: ops.style_loss_and_residual(x, target, scale=p.scale)),
        ),
        lambda: exact.style_loss(x, target, p.scale),
    )


def style_backward(p: Problem) -> Task:
    x, target, above = p.features(0), p.gram(), p.noise(1)
    residual, factor, grad = raw.style_loss(x, target, None, p.scale)[1], 4 * p.scale, torch.empty_like(x)

    def added(name: str, make_loss: Callable[..., Results]) -> Contender:
        backward = _backward(name, make_loss, x, target, p.scale)
        return Contender(name, lambda: (above + backward.run()[0],), backward.prepare)

    def library() -> Results:
        g = grad.flatten(2)
        torch.baddbmm(g, residual.to(x.dtype), x.flatten(2), alpha=factor, out=g)
        return (grad,)

    def fused() -> Results:
        return (ops.layer_backward_(grad, x, residual=residual, style=factor, relu=False),)

    return Task(
        "style_loss backward",
        p,
        (
            added("eager", _eager_style_loss),
            added("compile", compiled(_eager_style_loss)),
            Contender("cublas", library, lambda: grad.copy_(above)),
            Contender("fastnst", fused, lambda: grad.copy_(above)),
        ),
        lambda: exact.style_backward(above, x, residual, factor),
    )


def _eager_content_loss(x: Tensor, target: Tensor) -> Results:
    return ((x.float() - target.float()).square().sum(),)


def content_loss(p: Problem) -> Task:
    x, target = p.features(0), p.features(1)
    compiled_loss = compiled(_eager_content_loss)
    return Task(
        "content_loss",
        p,
        (
            Contender("eager", lambda: _eager_content_loss(x, target)),
            Contender("compile", lambda: compiled_loss(x, target)),
            Contender("fastnst", lambda: (ops.content_loss(x, target),)),
        ),
        lambda: exact.content_loss(x, target),
    )


def content_backward(p: Problem) -> Task:
    x, target = p.features(0), p.features(1)
    one = torch.ones((), device=x.device)
    return Task(
        "content_loss backward",
        p,
        (
            _backward("eager", _eager_content_loss, x, target),
            _backward("compile", compiled(_eager_content_loss), x, target),
            Contender("fastnst", lambda: (raw.content_loss_backward(one, x, target),)),
        ),
        lambda: exact.content_backward(x, target),
    )


def _eager_variation(x: Tensor) -> Results:
    wide = x.float()
    return (wide.diff(dim=3).abs().sum() + wide.diff(dim=2).abs().sum(),)


def total_variation(p: Problem) -> Task:
    x = p.noise(0)
    compiled_loss = compiled(_eager_variation)
    return Task(
        "total_variation",
        p,
        (
            Contender("eager", lambda: _eager_variation(x)),
            Contender("compile", lambda: compiled_loss(x)),
            Contender("fastnst", lambda: (ops.total_variation(x),)),
        ),
        lambda: exact.total_variation(x),
    )


def variation_backward(p: Problem) -> Task:
    x = p.noise(0)
    one = torch.ones((), device=x.device)
    return Task(
        "total_variation backward",
        p,
        (
            _backward("eager", _eager_variation, x),
            _backward("compile", compiled(_eager_variation), x),
            Contender("fastnst", lambda: (raw.total_variation_backward(one, x, "anisotropic"),)),
        ),
        lambda: exact.total_variation_backward(x),
    )


def _eager_pool(x: Tensor) -> Results:
    return (F.max_pool2d(x, 2),)


def pool(p: Problem) -> Task:
    x = p.noise(0)
    compiled_pool = compiled(_eager_pool)
    return Task(
        "pool",
        p,
        (
            Contender("eager", lambda: _eager_pool(x)),
            Contender("compile", lambda: compiled_pool(x)),
            Contender("fastnst", lambda: (ops.pool(x),)),
        ),
        lambda: exact.pool(x),
    )


def pool_backward(p: Problem) -> Task:
    x, grad = p.noise(0), p.noise(1, p.height // 2)
    argmax, size = raw.pool(x, "max")[1], (p.height, p.height)
    leaf, held = x.detach().requires_grad_(True), []

    def eager(pool: Callable[[Tensor], Results], name: str) -> Contender:
        def prepare() -> None:
            with torch.enable_grad():
                held[:] = [pool(leaf)[0]]

        return Contender(name, lambda: torch.autograd.grad(held[0], leaf, grad), prepare)

    return Task(
        "pool backward",
        p,
        (
            eager(_eager_pool, "eager"),
            eager(compiled(_eager_pool), "compile"),
            Contender("fastnst", lambda: (raw.pool_backward(grad, None, None, argmax, "max", *size, False),)),
        ),
        lambda: exact.pool_backward(grad, x),
    )


def _eager_bias_relu(x: Tensor, bias: Tensor) -> Results:
    return (x.add_(bias[:, None, None]).relu_(),)


def bias_relu(p: Problem) -> Task:
    x, bias = p.noise(0), p.bias()
    y = torch.empty_like(x)
    compiled_pass = compiled(_eager_bias_relu)
    return Task(
        "bias_relu_",
        p,
        (
            Contender("eager", lambda: _eager_bias_relu(y, bias), lambda: y.copy_(x)),
            Contender("compile", lambda: compiled_pass(y, bias), lambda: y.copy_(x)),
            Contender("fastnst", lambda: (ops.bias_relu_(y, bias),), lambda: y.copy_(x)),
        ),
        lambda: exact.bias_relu(x, bias),
    )


def _eager_bias_relu_style_loss(x: Tensor, bias: Tensor, target: Tensor, scale: float) -> Results:
    y = (x + bias[:, None, None]).relu()
    return y, *_eager_style_loss(y, target, scale)


def bias_relu_style_loss(p: Problem) -> Task:
    x, bias, target, out = p.noise(0), p.bias(), p.gram(), p.gram()
    compiled_pass = compiled(_eager_bias_relu_style_loss)

    def library() -> Results:
        y = (x + bias[:, None, None]).relu_()
        _library_gram(y.flatten(2), target, p.scale, out)
        return y, out.square().sum(), out

    return Task(
        "bias_relu_style_loss",
        p,
        (
            Contender("eager", lambda: _eager_bias_relu_style_loss(x, bias, target, p.scale)),
            Contender("compile", lambda: compiled_pass(x, bias, target, p.scale)),
            Contender("cublas", library),
            Contender("fastnst", lambda: ops.bias_relu_style_loss(x, bias, target, p.scale)),
        ),
        lambda: exact.bias_relu_style_loss(x, bias, target, p.scale),
    )


TASKS: dict[str, Callable[[Problem], Task]] = {
    "style_loss": style_loss,
    "style_loss backward": style_backward,
    "bias_relu_style_loss": bias_relu_style_loss,
    "content_loss": content_loss,
    "content_loss backward": content_backward,
    "bias_relu_": bias_relu,
    "pool": pool,
    "pool backward": pool_backward,
    "total_variation": total_variation,
    "total_variation backward": variation_backward,
}
IMAGE_OPS = ("total_variation", "total_variation backward")

"""Every op in float64, in chunks of positions: the values that results are compared with before they are timed.

Written from the formulas, independently of the package.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

CHUNK = 2**18  # positions in float64 at a time


def chunks(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Features [1, C, H, W] as matrices [C, n] in float64, chunk by chunk."""
    flat = [x[0].flatten(1) for x in tensors]
    for first in range(0, flat[0].shape[1], CHUNK):
        yield tuple(x[:, first : first + CHUNK].double() for x in flat)


def gram(x: Tensor, scale: float) -> Tensor:
    total = torch.zeros(x.shape[1], x.shape[1], dtype=torch.float64, device=x.device)
    for (f,) in chunks(x):
        total += f @ f.T
    return (scale * total)[None]


def style_loss(x: Tensor, target: Tensor, scale: float) -> tuple[Tensor, ...]:
    residual = gram(x, scale) - target.double()
    return residual.square().sum(), residual


def style_backward(above: Tensor, x: Tensor, residual: Tensor, factor: float) -> tuple[Tensor, ...]:
    r = residual[0].double()
    parts = [g + factor * (r @ f) for g, f in chunks(above, x)]
    return (torch.cat(parts, 1).view(x.shape),)


def content_loss(x: Tensor, target: Tensor) -> tuple[Tensor, ...]:
    return (sum(((f - p).square().sum() for f, p in chunks(x, target)), torch.zeros((), device=x.device).double()),)


def content_backward(x: Tensor, target: Tensor) -> tuple[Tensor, ...]:
    return (torch.cat([2 * (f - p) for f, p in chunks(x, target)], 1).view(x.shape),)


def total_variation(x: Tensor) -> tuple[Tensor, ...]:
    wide = x.double()
    return (wide.diff(dim=3).abs().sum() + wide.diff(dim=2).abs().sum(),)


def total_variation_backward(x: Tensor) -> tuple[Tensor, ...]:
    wide = x.double()
    out = torch.zeros_like(wide)
    right, down = wide.diff(dim=3).sign(), wide.diff(dim=2).sign()
    out[..., 1:] += right
    out[..., :-1] -= right
    out[..., 1:, :] += down
    out[..., :-1, :] -= down
    return (out,)


def bias_relu(x: Tensor, bias: Tensor) -> tuple[Tensor, ...]:
    parts = [(f + bias.double()[:, None]).clamp(min=0) for (f,) in chunks(x)]
    return (torch.cat(parts, 1).view(x.shape),)


def bias_relu_style_loss(x: Tensor, bias: Tensor, target: Tensor, scale: float) -> tuple[Tensor, ...]:
    (y,) = bias_relu(x, bias)
    # The loss is that of the result as stored.
    loss, residual = style_loss(y.to(x.dtype), target, scale)
    return y, loss, residual


def _windows(x: Tensor) -> Tensor:
    b, c, h, w = x.shape
    whole = x[..., : h // 2 * 2, : w // 2 * 2].reshape(b, c, h // 2, 2, w // 2, 2)
    return whole.transpose(3, 4).reshape(b, c, h // 2, w // 2, 4)


def pool(x: Tensor) -> tuple[Tensor, ...]:
    return (_windows(x).amax(-1).double(),)


def pool_backward(grad: Tensor, x: Tensor) -> tuple[Tensor, ...]:
    four = _windows(x)
    best, first = four[..., 0], torch.zeros(grad.shape, dtype=torch.int64, device=x.device)
    for i in range(1, 4):  # argmax does not promise the first of equal values
        larger = four[..., i] > best
        best, first = torch.where(larger, four[..., i], best), torch.where(larger, i, first)
    b, c, h, w = grad.shape
    spread = torch.zeros(b, c, h, w, 4, dtype=torch.float64, device=x.device)
    spread.scatter_(-1, first[..., None], grad.double()[..., None])
    out = torch.zeros(x.shape, dtype=torch.float64, device=x.device)
    out[..., : 2 * h, : 2 * w] = spread.view(b, c, h, w, 2, 2).transpose(3, 4).reshape(b, c, 2 * h, 2 * w)
    return (out,)


def error(got: Tensor, exact: Tensor) -> float:
    """Norm of the difference over the norm of ``exact``; infinite for another shape or values that are not finite."""
    if got.shape != exact.shape:
        return float("inf")
    difference = size = 0.0
    for a, b in zip(_slices(got), _slices(exact), strict=True):
        difference += float((a.double() - b.double()).square().sum())
        size += float(b.double().square().sum())
    if difference == 0:
        return 0.0
    return (difference / size) ** 0.5 if size and difference < float("inf") else float("inf")


def _slices(x: Tensor) -> list[Tensor]:
    return list(x.split(16, 1)) if x.dim() == 4 else [x]

"""Adam for one image: the arithmetic of its update, and a guarded step on the device."""

from __future__ import annotations

import torch
from torch import Tensor

CHUNK = 2**20  # values of an image that are updated at a time, to keep temporaries of large images small


def adam_update(
    image: Tensor,
    gradient: Tensor,
    moments: tuple[Tensor, Tensor],
    factors: tuple[float | Tensor, float | Tensor],
    constants: tuple[float, float, float, float],
) -> None:
    """In place: a step with the bias-corrected learning rate and the root of the bias of the second moment ``factors``.

    ``constants`` are the decay rates of the two moments, epsilon and the factor of the gradient.
    """
    first, second, epsilon, unit = constants
    rate, bias = factors
    parts = (x.view(-1).split(CHUNK) for x in (image, gradient.contiguous(), *moments))
    for pixels, grad, mean, square in zip(*parts, strict=True):
        if unit != 1:
            grad = grad * unit
        mean.lerp_(grad, 1 - first)
        square.mul_(second).addcmul_(grad, grad, value=1 - second)
        root = square.sqrt().div_(bias).add_(epsilon)
        pixels.sub_((mean * rate).div_(root))


def adam_step_(
    image: Tensor,
    good: Tensor,
    mean: Tensor,
    square: Tensor,
    count: Tensor,
    values: Tensor,
    losses: Tensor,
    gradient: Tensor,
    factors: Tensor,
    rate: Tensor,
    first: float,
    second: float,
    epsilon: float,
    unit: float,
    clamp: bool,
) -> None:
    """In place, unless a loss or the gradient is not finite: keep the image in ``good``, count and take the step."""
    values[:-1].copy_(losses)
    finite = values[:-1].sum().isfinite() & gradient.isfinite().all()
    values[-1:].copy_(finite)
    good.copy_(torch.where(finite, image, good))
    updated = (image, mean, square)
    before = [tensor.clone() for tensor in updated]
    count.add_(finite).clamp_(max=len(factors) - 1)
    by_count, bias = factors.index_select(0, count)[0].unbind()
    adam_update(image, gradient, (mean, square), (by_count * rate, bias), (first, second, epsilon, unit))
    if clamp:
        image.clamp_(0, 255)
    for tensor, old in zip(updated, before, strict=True):
        tensor.copy_(torch.where(finite, tensor, old))

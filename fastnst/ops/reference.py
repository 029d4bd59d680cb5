"""The definition of every op in plain PyTorch: what the kernels must equal, and what runs where there is no kernel.

Shapes: a feature map F is ``[B, C, ...positions]`` with N positions in all; Gram matrices and residuals are
``[B, C, C]``. Accumulation is float32, or float64 for float64 features, also inside autocast.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

Function = TypeVar("Function", bound=Callable[..., object])


def accumulate_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype of losses, Gram matrices and targets for features of ``dtype``."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def is_transformed(x: Tensor) -> bool:
    """Whether ``x`` stands for another tensor inside ``torch.func`` or ``vmap``: then it has no memory of its own."""
    return torch._C._functorch.is_functorch_wrapped_tensor(x)


def without_autocast(function: Function) -> Function:
    """Run ``function`` with autocast off: its matrix products are meant to be float32 or float64."""

    @functools.wraps(function)
    def wrapper(x: Tensor, *args: object) -> object:
        with torch.autocast(x.device.type, enabled=False):
            return function(x, *args)

    return wrapper  # type: ignore[return-value]


def matrix(x: Tensor) -> Tensor:
    """[B, C, ...] -> [B, C, N] in the accumulate dtype."""
    shape = (*x.shape[:2], x.shape[2:].numel())
    return x.reshape(shape).to(accumulate_dtype(x.dtype))


def _gradient(x: Tensor, out: Tensor) -> Tensor:
    """``out`` in the dtype, shape and memory layout of a gradient of ``x``, which the fake kernels promise."""
    out = out.reshape(x.shape)
    if is_transformed(x) or is_transformed(out):
        return out.to(x.dtype)  # vmap cannot copy into a tensor that it does not vary
    return torch.empty_like(x).copy_(out)


@without_autocast
def gram(x: Tensor, weight: Tensor | None, scale: float) -> Tensor:
    """scale * F diag(w) F^T."""
    f = matrix(x)
    left = f if weight is None else f * weight[:, None, :]
    g = scale * (left @ f.mT)
    return 0.5 * (g + g.mT)


@without_autocast
def gram_backward(grad: Tensor, x: Tensor, weight: Tensor | None, scale: float, shift: Tensor | None) -> Tensor:
    """scale * (D + D^T) F diag(w) + shift."""
    out = scale * ((grad + grad.mT) @ matrix(x))
    if weight is not None:
        out = out * weight[:, None, :]
    if shift is not None:
        out = out + shift[:, :, None]
    return _gradient(x, out)


@without_autocast
def moments(x: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """Mean over positions [B, C] and scale * F F^T."""
    f = matrix(x)
    return f.sum(2) / max(f.shape[2], 1), gram(x, None, scale)


@without_autocast
def style_loss(x: Tensor, target: Tensor, weight: Tensor | None, scale: float) -> tuple[Tensor, Tensor]:
    """sum (G - A)^2 over the batch, and the residual R = G - A."""
    residual = gram(x, weight, scale) - target
    return residual.square().sum(), residual


@without_autocast
def content_loss(x: Tensor, target: Tensor) -> Tensor:
    """sum (F - P)^2."""
    dtype = accumulate_dtype(x.dtype)
    return (x.to(dtype) - target.to(dtype)).square().sum()


@without_autocast
def content_loss_backward(grad: Tensor, x: Tensor, target: Tensor) -> Tensor:
    """2 g (F - P)."""
    dtype = accumulate_dtype(x.dtype)
    return _gradient(x, 2 * grad * (x.to(dtype) - target.to(dtype)))


def _differences(x: Tensor) -> tuple[Tensor, Tensor]:
    """Right and down differences, zero across the border, in the accumulate dtype."""
    x = x.to(accumulate_dtype(x.dtype))
    right = torch.cat([x[..., :, 1:] - x[..., :, :-1], torch.zeros_like(x[..., :, :1])], 3)
    down = torch.cat([x[..., 1:, :] - x[..., :-1, :], torch.zeros_like(x[..., :1, :])], 2)
    return right, down


@without_autocast
def total_variation(x: Tensor, kind: str) -> Tensor:
    """Sum over pixels of |r| + |d|, sqrt(r^2 + d^2) or r^2 + d^2."""
    right, down = _differences(x)
    if kind == "anisotropic":
        return (right.abs() + down.abs()).sum()
    energy = right.square() + down.square()
    if kind == "squared":
        return energy.sum()
    # Zero differences count zero and have a zero derivative, which sqrt alone would make infinite.
    flat = energy == 0
    return torch.where(flat, 0, torch.where(flat, 1, energy).sqrt()).sum()


@without_autocast
def total_variation_backward(grad: Tensor, x: Tensor, kind: str) -> Tensor:
    """The derivative of :func:`total_variation`, zero where a difference is zero."""
    right, down = _differences(x)
    if kind == "anisotropic":
        by_right, by_down = right.sign(), down.sign()
    elif kind == "squared":
        by_right, by_down = 2 * right, 2 * down
    else:
        length = (right.square() + down.square()).sqrt()
        safe = torch.where(length == 0, 1, length)
        by_right, by_down = right / safe, down / safe
    out = -by_right - by_down
    out[..., :, 1:] += by_right[..., :, :-1]
    out[..., 1:, :] += by_down[..., :-1, :]
    return _gradient(x, grad * out)


@without_autocast
def tapped_backward_(
    grad: Tensor,
    x: Tensor,
    residual: Tensor | None,
    weight: Tensor | None,
    style: float,
    target: Tensor | None,
    content: float,
    relu: bool,
) -> None:
    """In place: grad = mask(F > 0) * (grad + style R F diag(w) + content (F - P))."""
    dtype = accumulate_dtype(x.dtype)
    out = grad.to(dtype)
    if residual is not None:
        pull = residual @ matrix(x)
        if weight is not None:
            pull = pull * weight[:, None, :]
        out = out + style * pull.reshape(x.shape)
    if target is not None:
        out = out + content * (x.to(dtype) - target.to(dtype))
    if relu:
        out = torch.where(x > 0, out, 0)
    grad.copy_(out)


def _bias(x: Tensor, bias: Tensor) -> Tensor:
    return bias.reshape(1, -1, *(1,) * (x.dim() - 2))


def bias_relu_(x: Tensor, bias: Tensor) -> None:
    """In place: x = max(x + b, 0)."""
    x.add_(_bias(x, bias)).relu_()


@without_autocast
def bias_relu_style_loss(x: Tensor, bias: Tensor, target: Tensor, scale: float) -> tuple[Tensor, Tensor, Tensor]:
    """y = max(x + b, 0), and the style loss and residual of y."""
    y = torch.empty_like(x).copy_(x)
    bias_relu_(y, bias)
    return y, *style_loss(y, target, None, scale)


POOLS = ("max", "average", "l2")
L2_EPSILON = 1e-8


def pool_layout(x: Tensor) -> torch.memory_format:
    """What a pool or its backward puts out: channels_last for a dense channels_last map, else contiguous."""
    last = x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
    return torch.channels_last if last else torch.contiguous_format


def pool(x: Tensor, kind: str) -> tuple[Tensor, Tensor]:
    """2 x 2 windows, and for max where each maximum lies: 2 row + column, plus 4 where it is not above zero."""
    b, c, h, w = x.shape
    layout, none = pool_layout(x), x.new_empty((0,), dtype=torch.uint8)
    if b * c * (h // 2) * (w // 2) == 0:
        y = torch.empty((b, c, h // 2, w // 2), dtype=x.dtype, device=x.device, memory_format=layout)
        return y, torch.empty_like(y, dtype=torch.uint8) if kind == "max" else none
    if kind == "average":
        return F.avg_pool2d(x, 2).contiguous(memory_format=layout), none
    if kind == "l2":
        squares = F.avg_pool2d(x.to(accumulate_dtype(x.dtype)).square(), 2)
        return squares.add_(L2_EPSILON).sqrt_().to(x.dtype).contiguous(memory_format=layout), none
    y, where = F.max_pool2d(x, 2, return_indices=True)
    places = where // w % 2 * 2 + where % w % 2 + 4 * ~(y > 0)
    return y.contiguous(memory_format=layout), places.to(torch.uint8).contiguous(memory_format=layout)


def pool_backward(
    grad: Tensor,
    x: Tensor | None,
    y: Tensor | None,
    places: Tensor | None,
    kind: str,
    height: int,
    width: int,
    relu: bool,
) -> Tensor:
    """The gradient of the pool's input: g at the maximum, g / 4, or g x / (4 y); zero beyond the last window."""
    if relu and kind != "max":
        raise RuntimeError(f"pool_backward: expected relu with kind max only, got {kind}")
    shape, layout = (*grad.shape[:2], height, width), pool_layout(grad)
    out = torch.empty(shape, dtype=grad.dtype, device=grad.device, memory_format=layout).zero_()
    dtype = accumulate_dtype(grad.dtype)
    for row, column in ((0, 0), (0, 1), (1, 0), (1, 1)):
        corner = _corner(out, row, column)
        if kind == "max":
            assert places is not None
            here = (places if relu else places & 3) == 2 * row + column
            corner.copy_(torch.where(here, grad, 0))
        elif kind == "average":
            corner.copy_(grad / 4)
        else:
            assert x is not None
            assert y is not None
            corner.copy_(grad.to(dtype) * _corner(x, row, column).to(dtype) / (4 * y.to(dtype)))
    return out


def pick(x: Tensor, places: Tensor, relu: bool) -> Tensor:
    """From every window the value at the place, or zero where ``relu`` and the maximum is not above zero."""
    corners = torch.stack([_corner(x, row, column) for row, column in ((0, 0), (0, 1), (1, 0), (1, 1))])
    picked: Tensor = corners.gather(0, (places & 3).long()[None])[0]
    return torch.where(places < 4, picked, 0) if relu else picked


def _corner(x: Tensor, row: int, column: int) -> Tensor:
    """One of the four pixels of every window."""
    return x[..., row : x.shape[2] // 2 * 2 : 2, column : x.shape[3] // 2 * 2 : 2]


def channels_last(x: Tensor) -> Tensor:
    """``x`` with channels innermost in memory, whatever its sizes."""
    return x.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)


@without_autocast
def conv3x3(x: Tensor, weight: Tensor, bias: Tensor | None, relu: bool, padding: str) -> Tensor:
    if padding not in ("zeros", "replicate"):
        raise RuntimeError(f"conv3x3: expected padding zeros or replicate, got {padding}")
    if x.numel() == 0 or weight.shape[0] == 0:
        y = x.new_zeros((x.shape[0], weight.shape[0], *x.shape[2:]))
        y = y if bias is None else y + bias[:, None, None]
    elif padding == "replicate":
        y = F.conv2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), weight, bias)
    else:
        y = F.conv2d(x, weight, bias, padding=1)
    return channels_last(y.relu_() if relu else y)


def conv3x3_out(
    x: Tensor, weight: Tensor, bias: Tensor | None, relu: bool, padding: str, first: int, out: Tensor
) -> None:
    """The rows of the convolution from ``first`` on, as many as ``out`` has room for."""
    out.copy_(conv3x3(x, weight, bias, relu, padding)[:, :, first : first + out.shape[2]])


def conv3x3_pool_out(
    x: Tensor, weight: Tensor, bias: Tensor, padding: str, first: int, out: Tensor, places: Tensor
) -> None:
    """Convolution, bias, ReLU and max pool, with the places of the maxima as in :func:`pool`: of the convolution's rows
    from ``first`` on."""
    y, where = pool(conv3x3(x, weight, bias, True, padding)[:, :, first : first + 2 * out.shape[2]], "max")
    out.copy_(y)
    places.copy_(where)


@without_autocast
def conv3x3_backward(
    grad: Tensor, weight: Tensor, mask: Tensor | None, places: Tensor | None, height: int, width: int, border: bool
) -> Tensor:
    """The gradient of the input, ``border`` with that of one pixel around it; see :func:`fastnst.ops.conv3x3`."""
    if places is not None:
        grad = pool_backward(grad, None, None, places, "max", height, width, True)
    more = 2 if border else 0
    if grad.numel() == 0 or weight.shape[1] == 0:
        below = grad.new_zeros((grad.shape[0], weight.shape[1], height + more, width + more))
    else:
        below = F.conv_transpose2d(grad, weight, padding=0 if border else 1)
    return channels_last(below if mask is None else torch.where(mask > 0, below, 0))


def conv3x3_backward_out(
    grad: Tensor,
    weight: Tensor,
    mask: Tensor | None,
    places: Tensor | None,
    height: int,
    width: int,
    border: bool,
    first: int,
    out: Tensor,
) -> None:
    """The rows of the gradient from ``first`` on, as ``out`` has; the row above the map is -1, with border 0."""
    around = conv3x3_backward(grad, weight, None, places, height, width, True)
    below = around[:, :, first:] if border else around[:, :, first + 1 :, 1:-1]
    below = below[:, :, : out.shape[2]]
    out.copy_(below if mask is None else torch.where(mask > 0, below, 0))

"""Made by `python -m tools.op_stubs` from the registered schemas."""

from collections.abc import Callable
from typing import ParamSpec, TypeVar

from torch import Tensor
from torch._ops import OpOverloadPacket

_P = ParamSpec("_P")
_R = TypeVar("_R")

def _op(signature: Callable[_P, _R]) -> OpOverloadPacket[_P, _R]: ...
@_op
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
) -> None: ...
@_op
def bias_relu_(x: Tensor, bias: Tensor) -> None: ...
@_op
def bias_relu_pool_(x: Tensor, bias: Tensor, kind: str, keep: bool) -> tuple[Tensor, Tensor]: ...
@_op
def bias_relu_style_loss(x: Tensor, bias: Tensor, target: Tensor, scale: float) -> tuple[Tensor, Tensor, Tensor]: ...
@_op
def content_loss(x: Tensor, target: Tensor) -> Tensor: ...
@_op
def content_loss_backward(grad: Tensor, x: Tensor, target: Tensor) -> Tensor: ...
@_op
def conv3x3(x: Tensor, weight: Tensor, bias: Tensor | None, relu: bool, padding: str) -> Tensor: ...
@_op
def conv3x3_backward(
    grad: Tensor, weight: Tensor, mask: Tensor | None, argmax: Tensor | None, height: int, width: int, border: bool
) -> Tensor: ...
@_op
def conv3x3_backward_out(
    grad: Tensor,
    weight: Tensor,
    mask: Tensor | None,
    argmax: Tensor | None,
    height: int,
    width: int,
    border: bool,
    first: int,
    out: Tensor,
) -> None: ...
@_op
def conv3x3_out(
    x: Tensor, weight: Tensor, bias: Tensor | None, relu: bool, padding: str, first: int, out: Tensor
) -> None: ...
@_op
def conv3x3_pool_out(
    x: Tensor, weight: Tensor, bias: Tensor, padding: str, first: int, out: Tensor, argmax: Tensor
) -> None: ...
@_op
def dot(x: Tensor, y: Tensor) -> Tensor: ...
@_op
def gram(x: Tensor, weight: Tensor | None, scale: float) -> Tensor: ...
@_op
def gram_backward(grad: Tensor, x: Tensor, weight: Tensor | None, scale: float, shift: Tensor | None) -> Tensor: ...
@_op
def layer_backward_(
    grad: Tensor,
    x: Tensor,
    residual: Tensor | None,
    weight: Tensor | None,
    style: float,
    shift: Tensor | None,
    target: Tensor | None,
    content: float,
    relu: bool,
) -> None: ...
@_op
def lbfgs_direction_(direction: Tensor, pairs: Tensor, slots: Tensor, curvatures: Tensor, scale: float) -> None: ...
@_op
def moments(x: Tensor, weight: Tensor | None, scale: float) -> tuple[Tensor, Tensor]: ...
@_op
def pool(x: Tensor, kind: str) -> tuple[Tensor, Tensor]: ...
@_op
def pool_backward(
    grad: Tensor,
    x: Tensor | None,
    y: Tensor | None,
    argmax: Tensor | None,
    kind: str,
    height: int,
    width: int,
    relu: bool,
) -> Tensor: ...
@_op
def quantile_residual_(x: Tensor, quantiles: Tensor, weight: Tensor | None, factor: float) -> Tensor: ...
@_op
def style_loss(x: Tensor, target: Tensor, weight: Tensor | None, scale: float) -> tuple[Tensor, Tensor]: ...
@_op
def total_variation(x: Tensor, kind: str) -> Tensor: ...
@_op
def total_variation_backward(grad: Tensor, x: Tensor, kind: str) -> Tensor: ...

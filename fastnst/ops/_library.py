"""Loads the compiled modules and ties each op's schema to its reference, fake kernel and derivative."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from fastnst.ops.reference import accumulate_dtype, is_transformed

try:
    importlib.import_module("fastnst._C")
except ImportError as error:
    raise ImportError(
        f"fastnst: the compiled module fastnst._C did not load ({error}). Install fastnst with pip, which compiles it; "
        'in a checkout: pip install --no-build-isolation -e ".[test]"'
    ) from error
torch.ops.fastnst.cpu_kernels()  # a FASTNST_CPU that makes no sense is an error here, not inside a parallel loop

CUDA_REMEDY = "Reinstall fastnst where a CUDA toolkit and a CUDA build of torch are found, with FORCE_CUDA=1"


def _load_cuda() -> str | None:
    """Load the CUDA module; why there is none, if so: the CPU is served all the same."""
    if importlib.util.find_spec("fastnst._C_cuda") is None:
        return "built for CPU only"
    if torch.version.cuda is None:
        return f"torch {torch.__version__} is not a CUDA build"
    try:
        importlib.import_module("fastnst._C_cuda")
    except (ImportError, OSError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        return f"the module built for them does not load beside torch's CUDA {torch.version.cuda} ({reason})"
    return None


cuda_error = _load_cuda()
"""Why there are no CUDA kernels; None when the CUDA module is loaded."""

_followed = "highest"


def follow_matmul_precision() -> None:
    """Let float32 features on CUDA be multiplied as ``torch.set_float32_matmul_precision`` says.

    "highest" is 3xTF32, whose error is that of float32; "high" and "medium" are plain TF32. Compiled code keeps what
    was set before it ran.
    """
    global _followed
    if cuda_error is not None or torch.compiler.is_compiling():
        return
    wanted = torch.get_float32_matmul_precision()
    if wanted != _followed:
        torch.ops.fastnst.cuda_float32_precision("ieee" if wanted == "highest" else "tf32")
        _followed = wanted


DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)

_library = torch.library.Library("fastnst", "IMPL")


Kernel = Callable[..., Any]


def define(
    name: str,
    reference: Callable[..., Any],
    fake: Callable[..., Any],
    *,
    save: Callable[..., None] | None = None,
    backward: Callable[..., Any] | None = None,
) -> None:
    """Register what Python knows of ``torch.ops.fastnst.<name>``, whose schema is in csrc/library.cpp.

    ``reference`` serves every device that has no kernel of ours, forward-mode differentiation and the transforms of
    ``torch.func``; ``save(ctx, inputs, output)`` and ``backward`` are the two halves of the derivative. An op without
    them does not take part in autograd: to differentiate it is an error.
    """
    _library.impl(name, reference, "CompositeExplicitAutograd")
    torch.library.register_fake(f"fastnst::{name}", fake)
    op = getattr(torch.ops.fastnst, name).default

    def below(keyset: Any, args: tuple[Any, ...]) -> Any:
        with torch._C._AutoDispatchBelowAutograd():
            return op.redispatch(keyset & torch._C._after_autograd_keyset, *args)

    if save is None or backward is None:
        kernel = _without_derivative(name, below)
    else:
        kernel = _with_derivative(name, reference, below, save, backward)
    _library.impl(name, kernel, "Autograd", with_keyset=True)


def _with_derivative(
    name: str, reference: Kernel, below: Kernel, save: Callable[..., None], backward: Kernel
) -> Kernel:
    class Differentiable(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, *args: Any) -> Any:
            *inputs, keyset = args
            output = below(keyset, tuple(inputs))
            save(ctx, tuple(inputs), output)
            return output

        @staticmethod
        def backward(ctx: Any, *grads: Any) -> tuple[Any, ...]:
            found = backward(ctx, *grads)
            return (*found, None) if isinstance(found, tuple) else (found, None)

    Differentiable.__name__ = Differentiable.__qualname__ = name

    def kernel(keyset: Any, *args: Any) -> Any:
        if _has_tangent(args) or any(is_transformed(x) for x in _tensors(args)):
            return reference(*args)  # PyTorch knows every derivative of what it is made of
        if _wants_gradient(args):
            return Differentiable.apply(*args, keyset)  # type: ignore[no-untyped-call]
        return below(keyset, args)

    return kernel


def _without_derivative(name: str, below: Kernel) -> Kernel:
    def kernel(keyset: Any, *args: Any) -> Any:
        if _has_tangent(args):
            raise RuntimeError(f"{name}: has no derivative, in forward mode neither; pass x.detach()")
        if _wants_gradient(args):
            raise RuntimeError(f"{name}: has no derivative; call it under torch.no_grad()")
        return below(keyset, args)

    return kernel


def _tensors(args: tuple[Any, ...]) -> list[Tensor]:
    return [value for value in args if isinstance(value, Tensor)]


def _has_tangent(args: tuple[Any, ...]) -> bool:
    return any(forward_ad.unpack_dual(x).tangent is not None for x in _tensors(args))


def _wants_gradient(args: tuple[Any, ...]) -> bool:
    return torch.is_grad_enabled() and any(x.requires_grad for x in _tensors(args))


def check_tensor(op: str, name: str, value: object, or_none: str = "") -> Tensor:
    """Raise unless ``value`` is a tensor whose elements lie in memory one by one."""
    if not isinstance(value, Tensor):
        raise TypeError(f"{op}: expected {name} to be a torch.Tensor{or_none}, got {type(value).__name__}")
    if value.is_nested:
        raise TypeError(f"{op}: expected {name} of layout torch.strided, got a nested tensor; pass its parts singly")
    if value.layout != torch.strided:
        raise TypeError(f"{op}: expected {name} of layout torch.strided, got {value.layout}; pass {name}.to_dense()")
    return value


def check_features(op: str, name: str, given: object) -> Tensor:
    """Raise unless ``given`` is a floating tensor of shape (B, C, ...) that kernels can serve."""
    x = check_tensor(op, name, given)
    if x.dim() < 2:
        raise ValueError(f"{op}: expected {name} of shape (B, C, ...), got {tuple(x.shape)}")
    if x.dtype not in DTYPES:
        raise TypeError(f"{op}: expected {name} of dtype float32, float64, bfloat16 or float16, got {x.dtype}")
    if x.is_cuda:
        if cuda_error is not None:
            raise RuntimeError(
                f"{op}: {name} is on {x.device}, but there are no CUDA kernels: {cuda_error}. {CUDA_REMEDY}"
            )
        follow_matmul_precision()
    return x


def check_scale(op: str, name: str, value: object) -> float:
    """Raise unless ``value`` is a number; return it as a float, or symbolic where it is."""
    if isinstance(value, (torch.SymInt, torch.SymFloat)):
        symbolic: float = torch.sym_float(value)
        return symbolic
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{op}: expected {name} to be a number, got {type(value).__name__}")
    return float(value)


def check_device(op: str, name: str, other: Tensor, x: Tensor) -> None:
    """Raise unless the two tensors are on one device."""
    if other.device != x.device:
        raise ValueError(f"{op}: expected {name} on {x.device} like x, got {other.device}")


def position_weight(op: str, x: Tensor, weight: Tensor | None) -> Tensor | None:
    """Check a weight that broadcasts to [B, ...positions]; return it as [B, N] in the accumulate dtype."""
    if weight is None:
        return None
    check_tensor(op, "weight", weight, " or None")
    if weight.is_complex():
        raise TypeError(f"{op}: expected weight of a real dtype, got {weight.dtype}")
    if weight.requires_grad:
        raise ValueError(f"{op}: weight has no derivative here; pass weight.detach()")
    check_device(op, "weight", weight, x)
    full = (x.shape[0], *x.shape[2:])
    if not _broadcasts(weight.shape, full):
        raise ValueError(
            f"{op}: expected weight to broadcast to {full}, one value per position, got {tuple(weight.shape)}"
        )
    return weight.to(accumulate_dtype(x.dtype)).expand(full).reshape(x.shape[0], x.shape[2:].numel())


def batch_matrix(op: str, name: str, x: Tensor, given: object) -> Tensor:
    """Check a matrix that broadcasts to [B, C, C]; return it so, in the accumulate dtype."""
    matrix = check_tensor(op, name, given)
    if not matrix.is_floating_point():
        raise TypeError(f"{op}: expected {name} of a floating dtype, got {matrix.dtype}")
    full = (x.shape[0], x.shape[1], x.shape[1])
    if matrix.dim() not in (2, 3) or matrix.shape[-2:] != full[1:] or not _broadcasts(matrix.shape, full):
        raise ValueError(f"{op}: expected {name} of shape {full} or {full[1:]}, got {tuple(matrix.shape)}")
    check_device(op, name, matrix, x)
    return matrix.to(accumulate_dtype(x.dtype)).expand(full)


def _broadcasts(shape: Sequence[int], full: Sequence[int]) -> bool:
    padded = (*(1,) * (len(full) - len(shape)), *shape)
    # Not `a in (1, b)`: torch.compile answers that without asking whether a symbolic b equals a.
    return len(padded) == len(full) and all(a == 1 or a == b for a, b in zip(padded, full, strict=True))

"""Loads the compiled modules and registers each op's reference, fake kernel and derivative with its schema."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import logging
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch._functorch.utils import enable_single_level_autograd_function
from torch.autograd.forward_ad import _set_fwd_grad_enabled
from torch.autograd.function import _SingleLevelFunction

from fastnst.ops.autograd_state import any_requires_grad, any_tangent
from fastnst.ops.batching import batching_rule

try:
    importlib.import_module("fastnst._C")
except ImportError as error:
    raise ImportError(
        f"fastnst: the compiled module fastnst._C did not load ({error}). Install fastnst with pip, which compiles it; "
        'in a checkout: pip install --no-build-isolation -e ".[test]"'
    ) from error
torch.ops.fastnst.cpu_kernels()  # raises for an invalid FASTNST_CPU here rather than inside a parallel loop

log = logging.getLogger("fastnst")

CUDA_REMEDY = "Compile fastnst where a CUDA build of torch and a CUDA toolkit of its release are, with FORCE_CUDA=1"
"""How to get the CUDA kernels: the end of messages."""


def _load_cuda() -> str | None:
    """Load the CUDA module. Return the reason if there is none; the CPU kernels work without it."""
    if importlib.util.find_spec("fastnst._C_cuda") is None:
        return "built for CPU only"
    if torch.version.cuda is None:
        return f"torch {torch.__version__} is not a CUDA build"
    release = str(torch.ops.fastnst.cuda_release())
    if release and release.partition(".")[0] != torch.version.cuda.partition(".")[0]:
        # NVIDIA: "It is unsafe to pass [opaque handles] from function A to function B if those functions have been
        # compiled with different major versions of the toolkit", and a stream is one. docs/install.md has the link.
        return f"built for CUDA {release}, while torch {torch.__version__} is built for CUDA {torch.version.cuda}"
    try:
        importlib.import_module("fastnst._C_cuda")
    except (ImportError, OSError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        return f"the module built for them does not load beside torch's CUDA {torch.version.cuda} ({reason})"
    return None


cuda_error = _load_cuda()
"""Why there are no CUDA kernels; None when the CUDA module is loaded."""


def missing_kernels(device_type: str) -> str | None:
    """Why no op has a kernel for a type of device, and how to get them; None if there are kernels."""
    if device_type in ("cpu", "meta"):
        return None
    if device_type != "cuda" or torch.version.hip is not None:
        return "kernels exist for the CPU and for NVIDIA GPUs"
    return None if cuda_error is None else f"{cuda_error}. {CUDA_REMEDY}"


@functools.cache
def warn_without_kernels(device_type: str) -> None:
    """Log a warning, once per process, if no op has a kernel for a type of device."""
    reason = missing_kernels(device_type)
    if reason is not None:
        name = "ROCm" if device_type == "cuda" and torch.version.hip is not None else device_type
        log.warning("no fastnst kernels for %s: its ops run as PyTorch's, which is slower: %s", name, reason)


_followed = "highest"


def follow_matmul_precision() -> None:
    """Apply ``torch.get_float32_matmul_precision()`` to the CUDA kernels' products of float32 features.

    "highest" is 3xTF32, whose error is that of float32; "high" and "medium" are plain TF32. Compiled code keeps the
    precision that was set before it ran.

    Example:
        >>> torch.set_float32_matmul_precision("high")
        >>> follow_matmul_precision()
        >>> torch.set_float32_matmul_precision("highest")
        >>> follow_matmul_precision()
    """
    global _followed
    if cuda_error is not None or torch.compiler.is_compiling():
        return
    wanted = torch.get_float32_matmul_precision()
    if wanted != _followed:
        torch.ops.fastnst.cuda_float32_precision("ieee" if wanted == "highest" else "tf32")
        _followed = wanted


# Schemas are in csrc/library.cpp. The reference, fake kernel and derivative of an op take positional parameters in the
# order of its schema, however many there are (8 for pool_backward, 9 for layer_backward_ and conv3x3_backward_out).
_library = torch.library.Library("fastnst", "IMPL")

Kernel = Callable[..., Any]


def define(
    name: str,
    reference: Callable[..., Any],
    fake: Callable[..., Any],
    *,
    batching: str = "",
    save: Callable[..., None] | None = None,
    backward: Callable[..., Any] | None = None,
) -> None:
    """Register the Python side of ``torch.ops.fastnst.<name>``.

    Args:
        name: the op's name in its schema.
        reference: the op in plain PyTorch, for devices without a kernel and forward-mode differentiation.
        fake: outputs of the right shape, dtype and layout, without values.
        batching: what ``torch.vmap`` does with each parameter, see :mod:`fastnst.ops.batching`; by default the op runs
            for each slice.
        save: ``save(ctx, inputs, output)`` keeps what ``backward`` needs.
        backward: ``backward(ctx, *grads)`` returns the gradients of the inputs. An op without ``save`` and
            ``backward`` raises when it is differentiated.
    """

    def without_kernel(*args: Any) -> Any:
        warn_without_kernels(next(x.device.type for x in args if isinstance(x, Tensor)))
        return reference(*args)

    _library.impl(name, without_kernel, "CompositeExplicitAutograd")
    torch.library.register_fake(f"fastnst::{name}", fake)
    op = getattr(torch.ops.fastnst, name).default
    torch.library.register_vmap(f"fastnst::{name}", batching_rule(op, batching), lib=_library)

    def below(keyset: Any, args: tuple[Any, ...]) -> Any:
        with torch._C._AutoDispatchBelowAutograd():
            return op.redispatch(keyset & torch._C._after_autograd_keyset, *args)

    if save is None or backward is None:
        kernel = _without_derivative(op, below)
    else:
        kernel = _with_derivative(name, reference, below, save, backward)
    _library.impl(name, kernel, "Autograd", with_keyset=True)


def _with_derivative(
    name: str, reference: Kernel, below: Kernel, save: Callable[..., None], backward: Kernel
) -> Kernel:
    # Of one level: inside torch.func this kernel runs once for each level of differentiation, and `below` leads to the
    # next. An ordinary Function would differentiate all levels by itself.
    class Differentiable(_SingleLevelFunction):
        @staticmethod
        def forward(ctx: Any, *args: Any) -> Any:
            *inputs, keyset = args
            with torch.enable_grad(), _set_fwd_grad_enabled(True):  # a Function disables them, also for outer levels
                output = below(keyset, tuple(inputs))
            save(ctx, tuple(inputs), output)
            return output

        @staticmethod
        def backward(ctx: Any, *grads: Any) -> tuple[Any, ...]:
            found = backward(ctx, *grads)
            return (*found, None) if isinstance(found, tuple) else (found, None)

    Differentiable.__name__ = Differentiable.__qualname__ = name

    def kernel(keyset: Any, *args: Any) -> Any:
        if any_tangent(args):
            return reference(*args)  # PyTorch differentiates the operations that the reference consists of
        if any_requires_grad(args):
            with enable_single_level_autograd_function():
                return Differentiable.apply(*args, keyset)  # type: ignore[attr-defined]
        return below(keyset, args)

    return kernel


def _without_derivative(op: Any, below: Kernel) -> Kernel:
    name, parameters = op._schema.name.removeprefix("fastnst::"), [each.name for each in op._schema.arguments]

    def kernel(keyset: Any, *args: Any) -> Any:
        for parameter, value in zip(parameters, args, strict=True):
            tangent = any_tangent((value,))
            if tangent or any_requires_grad((value,)):
                what = "has a tangent" if tangent else "requires a gradient"
                raise RuntimeError(f"{name}: has no derivative, but {parameter} {what}; pass {parameter}.detach()")
        return below(keyset, args)

    return kernel

"""cuDNN on CUDA: the fastest algorithm for each size, and bias and ReLU in the convolution's epilogue.

Both are decided at the first convolution of a size, before a step is captured as a CUDA graph.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

# The results of two algorithms differ by the rounding of products and sums; a wrong one differs by much more.
TOLERANCE = 0.02


@contextmanager
def timed_algorithms(device: torch.device, when: bool = True) -> Iterator[None]:
    """A context in which cuDNN times its algorithms for convolutions of a size that the process has not used yet.

    PyTorch keeps the algorithm of a size for the whole process and finds it again whatever
    ``torch.backends.cudnn.benchmark`` is, so that the first convolutions of a size are those to time. Afterwards the
    setting is what it was. Nothing is timed where the user asks for deterministic algorithms, nor during a capture.
    """
    cudnn = torch.backends.cudnn
    deterministic = cudnn.deterministic or torch.are_deterministic_algorithms_enabled()
    capturing = torch.cuda.is_initialized() and torch.cuda.is_current_stream_capturing()
    if not when or device.type != "cuda" or deterministic or capturing:
        yield
        return
    before = bool(cudnn.benchmark)
    cudnn.benchmark = True
    try:
        yield
    finally:
        cudnn.benchmark = before


class ReluEpilogue:
    """``max(conv(x) + bias, 0)`` by ``torch.cudnn_convolution_relu``, where cuDNN has it and it is right.

    The op passes its uninitialized output as a summand with the factor zero. Not every algorithm is known to ignore it,
    so that the first result of each size, with NaN in that memory, is compared with that of two ops.
    """

    def __init__(self) -> None:
        self._works: dict[tuple[object, ...], bool] = {}

    def __call__(self, x: Tensor, weight: Tensor, bias: Tensor, padding: int, two_ops: Callable[[], Tensor]) -> Tensor:
        """The op's result where it works, else that of ``two_ops``."""
        if not has_epilogue(x):
            return two_ops()
        key = (tuple(weight.shape), x.shape, x.dtype, padding)
        if key not in self._works:
            if is_capturing(x):
                return two_ops()
            expected = two_ops()
            self._works[key] = _agrees(x, weight, bias, padding, expected)
            return expected
        return _convolve_relu(x, weight, bias, padding) if self._works[key] else two_ops()


def has_epilogue(x: Tensor) -> bool:
    """Whether cuDNN may have a convolution with bias and ReLU for ``x``."""
    return (
        x.is_cuda
        and x.dtype != torch.float64
        and bool(torch.backends.cudnn.enabled and torch.backends.cudnn.is_available())
    )


def is_capturing(x: Tensor) -> bool:
    """Whether the current stream is being captured, so that nothing can be compared."""
    return x.is_cuda and bool(torch.cuda.is_current_stream_capturing())


def _agrees(x: Tensor, weight: Tensor, bias: Tensor, padding: int, expected: Tensor) -> bool:
    try:
        torch.full_like(expected, torch.nan)  # freed at once, so that the op allocates the same memory
        found = _convolve_relu(x, weight, bias, padding)
    except RuntimeError:
        return False
    if found.shape != expected.shape or found.stride() != expected.stride():
        return False
    error = torch.linalg.vector_norm(found - expected, dtype=torch.float32)
    return bool(error <= TOLERANCE * torch.linalg.vector_norm(expected, dtype=torch.float32))


def _convolve_relu(x: Tensor, weight: Tensor, bias: Tensor, padding: int) -> Tensor:
    found: Tensor = torch.ops.aten.cudnn_convolution_relu(x, weight, bias, (1, 1), (padding, padding), (1, 1), 1)
    return found

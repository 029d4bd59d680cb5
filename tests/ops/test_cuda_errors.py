"""Invalid input on a CUDA device raises a readable error, and the device remains usable."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from cuda_device import NEEDS_CUDA
from torch import Tensor

from fastnst import ops

pytestmark = NEEDS_CUDA


@pytest.fixture(autouse=True)
def _device_still_works() -> Iterator[None]:
    """Synchronize after each test, so that a fault of the device is reported there."""
    yield
    torch.cuda.synchronize()
    assert ops.gram(torch.ones(1, 3, 5, device="cuda")).tolist() == [[[5.0] * 3] * 3]


def ones(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.ones(shape, dtype=dtype, device="cuda")


ELSEWHERE: dict[str, tuple[Callable[[], object], str]] = {
    "style_loss": (
        lambda: ops.style_loss(ones(1, 3, 4), torch.ones(3, 3)),
        "style_loss: expected target on cuda:0 like x, got cpu",
    ),
    "gram": (
        lambda: ops.gram(ones(1, 3, 4), torch.ones(4)),
        "gram: expected weight on cuda:0 like x, got cpu",
    ),
    "content_loss": (
        lambda: ops.content_loss(ones(1, 2, 3), torch.ones(1, 2, 3)),
        "content_loss: expected target on cuda:0 like x, got cpu",
    ),
    "layer_backward_ grad": (
        lambda: ops.layer_backward_(torch.ones(1, 3, 4), ones(1, 3, 4)),
        "layer_backward_: expected grad on cuda:0 like x, got cpu",
    ),
    "layer_backward_ residual": (
        lambda: ops.layer_backward_(ones(1, 3, 4), ones(1, 3, 4), residual=torch.ones(3, 3)),
        "layer_backward_: expected residual on cuda:0 like x, got cpu",
    ),
    "bias_relu_": (
        lambda: ops.bias_relu_(ones(1, 3, 4), torch.ones(3)),
        "bias_relu_: expected bias on cuda:0 like x, got cpu",
    ),
    "bias_relu_style_loss": (
        lambda: ops.bias_relu_style_loss(ones(1, 3, 4), torch.ones(3), ones(3, 3)),
        "bias_relu_style_loss: expected bias on cuda:0 like x, got cpu",
    ),
}


@pytest.mark.parametrize(("call", "message"), ELSEWHERE.values(), ids=ELSEWHERE)
def test_tensors_on_two_devices_are_an_error(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}$"):
        call()


def test_two_cuda_devices_are_two_devices() -> None:
    if torch.cuda.device_count() < 2:
        pytest.skip("needs two CUDA devices")
    with pytest.raises(ValueError, match="expected target on cuda:0 like x, got cuda:1"):
        ops.content_loss(ones(1, 2, 3), torch.ones(1, 2, 3, device="cuda:1"))


MIXED: dict[str, Callable[[], object]] = {
    "content_loss": lambda: ops.content_loss(ones(1, 2, 3), ones(1, 2, 3).half()),
    "layer_backward_": lambda: ops.layer_backward_(ones(1, 2, 3).half(), ones(1, 2, 3)),
    "bias_relu_": lambda: ops.bias_relu_(ones(1, 2, 3), ones(2).bfloat16()),
    "bias_relu_style_loss": lambda: ops.bias_relu_style_loss(ones(1, 2, 3), ones(2).half(), ones(2, 2)),
}


@pytest.mark.parametrize(("op", "call"), MIXED.items(), ids=MIXED)
def test_mixed_dtypes_are_an_error(op: str, call: Callable[[], object]) -> None:
    with pytest.raises(TypeError, match=rf"^{op}: expected \w+ of dtype torch\.float\w+ like x, got torch\."):
        call()


RAW: dict[str, Callable[[], object]] = {
    "gram": lambda: torch.ops.fastnst.gram(ones(1, 3, 4), torch.ones(1, 4), 1.0),
    "gram_backward": lambda: torch.ops.fastnst.gram_backward(torch.ones(1, 3, 3), ones(1, 3, 4), None, 1.0, None),
    "style_loss": lambda: torch.ops.fastnst.style_loss(ones(1, 3, 4), ones(1, 2, 2), None, 1.0),
    "content_loss": lambda: torch.ops.fastnst.content_loss(ones(1, 3, 4), ones(1, 3, 5)),
    "content_loss_backward": lambda: torch.ops.fastnst.content_loss_backward(
        ones(2).sum(), ones(1, 3, 4), ones(1, 3, 4).half()
    ),
    "total_variation": lambda: torch.ops.fastnst.total_variation(ones(3, 4, 5), "squared"),
    "layer_backward_": lambda: torch.ops.fastnst.layer_backward_(
        ones(1, 3, 4), ones(1, 3, 5), None, None, 0.0, None, None, 0.0, True
    ),
    "bias_relu_": lambda: torch.ops.fastnst.bias_relu_(ones(1, 3, 4), ones(4)),
    "bias_relu_style_loss": lambda: torch.ops.fastnst.bias_relu_style_loss(ones(1, 3, 4), ones(3), ones(3, 3), 1.0),
    "pool": lambda: torch.ops.fastnst.pool(ones(1, 3, 4, 4), "mean"),
    "pool_backward": lambda: torch.ops.fastnst.pool_backward(
        ones(1, 3, 2, 2), None, None, torch.zeros(1, 3, 2, 2, dtype=torch.uint8), "max", 4, 4, False
    ),
}


@pytest.mark.parametrize(("op", "call"), RAW.items(), ids=RAW)
def test_invalid_arguments_of_a_registered_op_are_errors_and_not_faults(op: str, call: Callable[[], object]) -> None:
    if ops.kernels("cuda").get(op.removesuffix("_backward"), "cuda") == "reference":
        pytest.skip("needs our kernels: the reference says what PyTorch says")
    with pytest.raises((RuntimeError, ValueError), match=rf"{op}: expected ".replace("_backward: ", r"(_backward)?: ")):
        call()


OVERLAPPING = {
    "expand": lambda: ones(1, 3, 1, 5).expand(1, 3, 4, 5),
    "as_strided": lambda: ones(60).as_strided((1, 3, 4, 5), (20, 5, 2, 1)),
}


@pytest.mark.parametrize("make", OVERLAPPING.values(), ids=OVERLAPPING)
def test_a_written_tensor_with_internal_overlap_is_an_error(make: Callable[[], Tensor]) -> None:
    with pytest.raises(ValueError, match=r"^bias_relu_: expected x, which is written in place, without elements that "):
        ops.bias_relu_(make(), ones(3))
    with pytest.raises(ValueError, match=r"^layer_backward_: expected grad with strides"):
        ops.layer_backward_(make(), ones(1, 3, 4, 5))


def test_a_gradient_that_overlaps_the_features_is_an_error() -> None:
    memory = ones(61)
    with pytest.raises(ValueError, match="expected x that does not share memory with grad"):
        ops.layer_backward_(memory[1:].view(1, 3, 4, 5), memory[:60].view(1, 3, 4, 5))


@pytest.fixture
def no_memory_left() -> Iterator[Callable[[], None]]:
    """A function that prevents further allocations on the device."""

    def fill() -> None:
        torch.cuda.empty_cache()
        _, total = torch.cuda.mem_get_info()
        torch.cuda.set_per_process_memory_fraction(torch.cuda.memory_reserved() / total)

    yield fill
    torch.cuda.set_per_process_memory_fraction(1.0)


# Each needs far more than the few megabytes that may be free in cached blocks.
LARGE: dict[str, Callable[[Tensor], object]] = {
    "gram": lambda x: ops.gram(x),
    "moments": lambda x: ops.moments(x),
    "style_loss": lambda x: ops.style_loss(x, x.new_zeros(512, 512).expand(64, 512, 512)),
    "pool": lambda x: ops.pool(x),
    "bias_relu_style_loss": lambda x: ops.bias_relu_style_loss(x, x[0, :, 0, 0], x.new_zeros(512, 512)),
}


@pytest.mark.parametrize("call", LARGE.values(), ids=LARGE)
def test_out_of_memory_is_an_error_and_not_a_fault(
    call: Callable[[Tensor], object], no_memory_left: Callable[[], None]
) -> None:
    x = ones(64, 512, 32, 32)
    expected = ops.gram(x[:1]).cpu()
    no_memory_left()
    with pytest.raises(RuntimeError, match="out of memory"):
        call(x)
    torch.cuda.set_per_process_memory_fraction(1.0)
    assert torch.equal(ops.gram(x[:1]).cpu(), expected)

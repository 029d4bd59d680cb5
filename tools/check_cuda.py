"""Import the CUDA module and check that every op has its CUDA kernel; run by `make cuda`, with or without a GPU."""

import sys

import torch

import fastnst.ops
from fastnst.ops import _library

# Every op that takes tensors and has a CUDA kernel. These and CPU_OPS must be exactly the registered ops.
OPS = (
    "gram",
    "gram_backward",
    "moments",
    "style_loss",
    "content_loss",
    "content_loss_backward",
    "total_variation",
    "total_variation_backward",
    "layer_backward_",
    "bias_relu_",
    "bias_relu_style_loss",
    "bias_relu_pool_",
    "pool",
    "pool_backward",
    "adam_step_",
)
# Ops with CPU kernels alone; on CUDA, convolutions are cuDNN's and products cuBLAS's.
CPU_OPS = (
    "conv3x3",
    "conv3x3_out",
    "conv3x3_pool_out",
    "conv3x3_backward",
    "conv3x3_backward_out",
    "dot",
    "lbfgs_direction_",
    "quantile_residual_",
)


def registered_ops() -> set[str]:
    """The ops of fastnst that take a tensor, from the registered schemas."""
    ours = [schema for schema in torch._C._jit_get_all_schemas() if schema.name.startswith("fastnst::")]
    takes_tensors = [schema for schema in ours if any("Tensor" in str(argument.type) for argument in schema.arguments)]
    return {schema.name.removeprefix("fastnst::") for schema in takes_tensors}


def main() -> None:
    if _library.cuda_error:
        sys.exit(f"the CUDA module did not load: {_library.cuda_error}")
    registered = registered_ops()
    known = {*OPS, *CPU_OPS}
    if registered != known:
        sys.exit(f"ops differ from the lists in tools/check_cuda.py: {sorted(registered.symmetric_difference(known))}")
    print(f"fastnst._C_cuda imported under torch {torch.__version__}; {fastnst.ops.build_info()}")
    missing = [op for op in OPS if not torch._C._dispatch_has_kernel_for_dispatch_key(f"fastnst::{op}", "CUDA")]
    if missing:
        sys.exit(f"no CUDA kernel registered for {', '.join(missing)}")
    print(f"all {len(OPS)} ops have a CUDA kernel: {', '.join(OPS)}; plain PyTorch there: {', '.join(CPU_OPS)}")
    if not torch.cuda.is_available():
        print("no GPU here: the kernels were compiled, linked and registered, not run")
        return
    x, y = torch.randn(2, 1, 64, 37, 41, device="cuda", requires_grad=True)
    loss = fastnst.ops.content_loss(x, y)
    expected = (x.double() - y.double()).square().sum()
    print(f"content_loss on {torch.cuda.get_device_name()}: relative error {abs(loss / expected - 1).item():.1e}")


if __name__ == "__main__":
    main()

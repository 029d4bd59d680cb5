"""Import the CUDA module and say what it holds; run by `make cuda`, on a machine with or without a GPU."""

import sys

import torch

import fastnst.ops
from fastnst.ops import _library

if _library.cuda_error:
    sys.exit(f"the CUDA module did not load: {_library.cuda_error}")
kernels = fastnst.ops.kernels("cuda")
print(f"fastnst._C_cuda imported under torch {torch.__version__}; {fastnst.ops.build_info()}")
for op, served_by in kernels.items():
    print(f"  {op:18} {served_by}")
if kernels["content_loss"] != "cuda":
    sys.exit("content_loss has no CUDA kernel registered")
if not torch.cuda.is_available():
    print("no GPU here: the kernels were compiled, linked and registered, not run")
    sys.exit(0)
x, y = torch.randn(2, 1, 64, 37, 41, device="cuda", requires_grad=True)
loss = fastnst.ops.content_loss(x, y)
expected = (x.double() - y.double()).square().sum()
print(f"content_loss on {torch.cuda.get_device_name()}: relative error {abs(loss / expected - 1).item():.1e}")

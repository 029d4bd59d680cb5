"""Every op and gradient once on a CUDA device, on sizes that are no multiples of a tile, for compute-sanitizer.

python tests/ops/cuda_every_op.py
"""

from __future__ import annotations

import sys

import torch
from op_cases import CASES, channels_last, contiguous, gradients

SHAPES = ((1, 64, 17, 19), (2, 37, 9, 7), (1, 130, 8, 8))


def main(device: str = "cuda") -> None:
    count = 0
    for case in CASES:
        for dtype in (torch.float32, torch.float64, torch.bfloat16, torch.float16):
            for layout in (contiguous, channels_last):
                for shape in SHAPES:
                    t = case.tensors(shape, dtype, device)
                    t["x"] = layout(t["x"])
                    case.call(t)
                    if case.differentiable:
                        gradients(case.call, t, case.differentiable)
                    count += 1
    if device == "cuda":
        torch.cuda.synchronize()
    print(f"{count} cases ran")


if __name__ == "__main__":
    main(*sys.argv[1:])

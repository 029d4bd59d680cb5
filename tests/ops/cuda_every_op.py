"""Every op and gradient once on a CUDA device, on sizes that are no multiples of a tile, for compute-sanitizer.

python tests/ops/cuda_every_op.py [cuda] [--seconds 20]

With ``--seconds`` it stops when they are over. Every op comes once before any comes a second time.
"""

from __future__ import annotations

import argparse
import itertools
import math
import time

import torch
from op_cases import CASES, channels_last, contiguous, gradients

SHAPES = ((1, 64, 17, 19), (2, 37, 9, 7), (1, 130, 8, 8))


DTYPES = (torch.float32, torch.bfloat16, torch.float64, torch.float16)


def adam_step(dtype: torch.dtype, device: str) -> None:
    """A step of an image whose size is not a multiple of 16 bytes."""
    image, good, mean, square, gradient = torch.randn(5, 1, 3, 37, 41, dtype=dtype, device=device).unbind()
    losses = torch.ones(3, dtype=dtype, device=device)
    count, values = torch.zeros(1, dtype=torch.int32, device=device), torch.zeros(4, dtype=torch.float64, device=device)
    factors, rate = (
        torch.ones(3, 2, dtype=torch.float64, device=device),
        torch.ones((), dtype=torch.float64, device=device),
    )
    state = (image, good, mean, square.abs(), count, values, losses, gradient, factors, rate)
    torch.ops.fastnst.adam_step_(*state, 0.9, 0.999, 1e-8, 1.0, True)


def main(device: str = "cuda", seconds: float = math.inf) -> None:
    start, count = time.monotonic(), 0
    every = list(itertools.product(SHAPES, DTYPES, (channels_last, contiguous), CASES))
    for shape, dtype, layout, case in every:
        if time.monotonic() - start > seconds:
            break
        t = case.tensors(shape, dtype, device)
        t["x"] = layout(t["x"])
        case.call(t)
        if case.differentiable:
            names = (*case.differentiable, *(["weight"] if "weight" in t else []))
            gradients(case.call, t, names)
            torch.vmap(case.call)({name: torch.stack([value, 2 * value]) for name, value in t.items()})
        count += 1
    for dtype in (torch.float32, torch.float64):
        adam_step(dtype, device)
    if device == "cuda":
        torch.cuda.synchronize()
    print(f"{count} of {len(every)} cases ran")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("device", nargs="?", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--seconds", type=float, default=math.inf)
    main(**vars(parser.parse_args()))

"""Prints as JSON the active kernel table and the largest error of each op relative to its bound.

Run by test_ops_kernel_tables.py in a process of its own, since the table is chosen once.
"""

from __future__ import annotations

import json
import sys

import torch
from op_cases import BOUNDS, CASES, DTYPES, Case, Shape, channels_last, contiguous, doubles, gradients, relative_error

from fastnst import ops

SHAPES: tuple[Shape, ...] = (
    (2, 5),
    (1, 1, 1, 1),
    (2, 17, 9, 11),
    (1, 67, 16, 17),
    (1, 130, 5, 3),
    (1, 300, 9, 9),
    (1, 3, 33, 65),
    (0, 3, 2, 2),
)


def worst(case: Case, dtype: torch.dtype) -> float:
    """The largest error over shapes, layouts, values and gradients, as a fraction of the bound."""
    fractions = [0.0]
    for shape in filter(case.takes, SHAPES):
        for layout in (contiguous, channels_last):
            t = case.tensors(shape, dtype)
            t["x"] = layout(t["x"])
            got, exact = case.call(t), case.exact(doubles(t))
            if case.differentiable and 0 not in shape:
                got += gradients(case.call, t, case.differentiable)
                exact += gradients(case.exact, doubles(t), case.differentiable)
            fractions += [relative_error(a, b) / BOUNDS[a.dtype] for a, b in zip(got, exact, strict=True)]
    return max(fractions)


def main() -> None:
    torch.set_num_threads(1)
    errors = {f"{case} {dtype}": worst(case, dtype) for case in CASES for dtype in DTYPES}
    json.dump({"kernels": ops.kernels()["gram"], "errors": errors}, sys.stdout)


if __name__ == "__main__":
    main()

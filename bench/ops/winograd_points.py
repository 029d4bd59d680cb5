"""Rounding error of F(4x4, 3x3) for several interpolation points, in float32 and with products of bfloat16.

    python -m bench.ops.winograd_points [--channels 256] [--tiles 64]

Points are 0, +-a, +-b and infinity. Inputs are normal noise after a ReLU, weights are normal; the error is the norm of
the difference from float64 over the norm of the outputs. Computed with NumPy, not with the op. Prints a table.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from bench.common.options import parser
from bench.common.results import Table

Array = NDArray[np.floating]
POINTS = ((1.0, 2.0), (0.5, 1.0), (0.5, 1.5), (0.75, 1.5), (0.6, 1.4), (0.5**0.5, 2**0.5))


def matrices(a: float, b: float) -> tuple[Array, Array, Array]:
    """B^T, G and A^T of Lavin and Gray 2016 for the points 0, a, -a, b, -b and infinity."""
    s, p = a * a + b * b, a * a * b * b
    to_points = [
        [p, 0, -s, 0, 1, 0],
        [0, -a * b * b, -b * b, a, 1, 0],
        [0, a * b * b, -b * b, -a, 1, 0],
        [0, -b * a * a, -a * a, b, 1, 0],
        [0, b * a * a, -a * a, -b, 1, 0],
        [0, p, 0, -s, 0, 1],
    ]
    f, g = 1 / (2 * a * a * (a * a - b * b)), 1 / (2 * b * b * (b * b - a * a))
    weights = [[1 / p, 0, 0]]
    weights += [[h, h * x, h * x * x] for h, x in ((f, a), (f, -a), (g, b), (g, -b))]
    weights += [[0, 0, 1]]
    powers = [[1, *(x**n for x in (a, -a, b, -b)), 1 if n == 3 else 0] for n in range(4)]
    powers = [[1.0 if n == 0 else 0.0, *row[1:]] for n, row in enumerate(powers)]
    return np.array(to_points), np.array(weights), np.array(powers, dtype=float)


def to_bfloat16(x: Array) -> Array:
    """Rounded to bfloat16."""
    return torch.from_numpy(np.asarray(x, np.float32)).bfloat16().float().numpy()


def plain(d: Array, w: Array) -> Array:
    """The definition, one product after the other, in the dtype of its inputs."""
    total = np.zeros((d.shape[1], 4, 4), d.dtype)
    for c in range(len(d)):
        for i in range(3):
            for j in range(3):
                total += d[c, :, i : i + 4, j : j + 4] * w[c, i, j]
    return total


def winograd(d: Array, w: Array, points: tuple[float, float], rounded: Callable[[Array], Array]) -> Array:
    bt, g, at = (m.astype(np.float32) for m in matrices(*points))
    v = rounded(np.einsum("ij,ctjk,lk->ctil", bt, d.astype(np.float32), bt))
    u = rounded(np.einsum("ij,cjk,lk->cil", g, w.astype(np.float32), g))
    m = np.zeros(v.shape[1:], np.float32)
    for c in range(len(v)):
        m += v[c] * u[c]
    return np.einsum("ij,tjk,lk->til", at, m, at)


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--channels", type=int, default=256, help="default 256")
    arguments.add_argument("--tiles", type=int, default=64, help="default 64")
    options = arguments.parse_args()
    random = np.random.default_rng(0)
    d = np.maximum(random.normal(size=(options.channels, options.tiles, 6, 6)), 0)
    w = random.normal(size=(options.channels, 3, 3))
    exact = plain(d, w)

    def error(y: Array) -> float:
        return float(np.linalg.norm(y - exact) / np.linalg.norm(exact))

    def row(name: str, single: Array, half: Array) -> tuple[str, ...]:
        return name, f"{error(single):.1e}", f"{error(half):.1e}"

    narrow = (d.astype(np.float32), w.astype(np.float32))
    rows = [row("plain sums", plain(*narrow), plain(to_bfloat16(d), to_bfloat16(w)))]
    for points in POINTS:
        single, half = (winograd(d, w, points, rounded) for rounded in (lambda x: x, to_bfloat16))
        rows.append(row(f"0, ±{points[0]:.3g}, ±{points[1]:.3g}, ∞", single, half))
    print(Table(("points", "float32", "products of bfloat16"), rows))


if __name__ == "__main__":
    main()

"""Rounding error of F(4x4, 3x3) and F(6x6, 3x3) for several interpolation points, and with products of bfloat16.

    python -m bench.ops.winograd_points [--channels 256] [--tiles 64]

Points are 0, pairs of +-a and infinity; two pairs give tiles of four, three pairs tiles of six. Inputs are normal noise
after a ReLU, weights are normal; the error is the norm of the difference from float64 over the norm of the outputs.
Products are summed over all channels, or over runs of RUN channels that are then added up, as the op does. Computed
with NumPy. A second table has the errors of the op itself at two widths, at which its tiles are of four and of six
(with 256 channels or more), and those of PyTorch. Prints both tables.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from bench.common.options import parser
from bench.common.results import Table
from fastnst import ops
from fastnst.network.fusion import tile_rows

Array = NDArray[np.floating]
RUN = 64
POINTS = (
    *((1.0, 2.0), (0.5, 1.0), (0.5, 1.5), (0.75, 1.5), (0.6, 1.4), (0.5**0.5, 2**0.5)),
    *((0.5, 1.0, 2.0), (0.5, 1.0, 1.5), (2 / 3, 1.0, 1.5), (0.5, 0.9, 1.5), (0.5, 1.05, 1.9)),
)


def matrices(pairs: Sequence[float]) -> tuple[Array, Array, Array]:
    """B^T, G and A^T by Lagrange interpolation at 0, the pairs and infinity (Lavin and Gray 2016)."""
    points = [0.0, *(sign * point for point in pairs for sign in (1, -1))]
    count, tile = len(points) + 1, len(points) - 1
    to_points, weights, powers = np.zeros((count, count)), np.zeros((count, 3)), np.zeros((tile, count))
    for i, point in enumerate(points):
        others = [other for other in points if other != point]
        to_points[i, : count - 1] = np.poly(others)[::-1]
        weights[i] = np.array([1, point, point**2]) / np.prod([point - other for other in others])
        powers[:, i] = [point**n for n in range(tile)]
    to_points[-1] = np.poly(points)[::-1]
    weights[-1, -1] = powers[-1, -1] = 1
    return to_points, weights, powers


def to_bfloat16(x: Array) -> Array:
    """Rounded to bfloat16."""
    return torch.from_numpy(np.asarray(x, np.float32)).bfloat16().float().numpy()


def plain(d: Array, w: Array) -> Array:
    """The definition, one product after the other, in the dtype of its inputs."""
    side = d.shape[-1] - 2
    total = np.zeros((d.shape[1], side, side), d.dtype)
    for c in range(len(d)):
        for i in range(3):
            for j in range(3):
                total += d[c, :, i : i + side, j : j + side] * w[c, i, j]
    return total


def winograd(d: Array, w: Array, pairs: Sequence[float], rounded: Callable[[Array], Array], run: int) -> Array:
    bt, g, at = (m.astype(np.float32) for m in matrices(pairs))
    v = rounded(np.einsum("ij,ctjk,lk->ctil", bt, d.astype(np.float32), bt))
    u = rounded(np.einsum("ij,cjk,lk->cil", g, w.astype(np.float32), g))
    m = np.zeros(v.shape[1:], np.float32)
    for first in range(0, len(v), run):
        part = np.zeros_like(m)
        for c in range(first, min(first + run, len(v))):
            part += v[c] * u[c]
        m += part
    return np.einsum("ij,tjk,lk->til", at, m, at)


def errors(pairs: Sequence[float], channels: int, tiles: int) -> list[str]:
    """Of plain sums of the same inputs, of float32, of float32 in runs, and of products of bfloat16."""
    random = np.random.default_rng(0)
    patch = 2 * len(pairs) + 2
    d = np.maximum(random.normal(size=(channels, tiles, patch, patch)), 0)
    w = random.normal(size=(channels, 3, 3))
    exact = plain(d, w)
    found = (
        plain(d.astype(np.float32), w.astype(np.float32)),
        winograd(d, w, pairs, lambda x: x, channels),
        winograd(d, w, pairs, lambda x: x, RUN),
        winograd(d, w, pairs, to_bfloat16, channels),
    )
    return [f"{np.linalg.norm(y - exact) / np.linalg.norm(exact):.1e}" for y in found]


def of_the_op(channels: int, width: int) -> tuple[str, ...]:
    """A row with the errors of the op and of PyTorch in float32."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, channels, width, width, generator=generator).relu()
    w = torch.randn(64, channels, 3, 3, generator=generator) / (9 * channels) ** 0.5
    exact = F.conv2d(x.double(), w.double(), padding=1)
    found = ops.conv3x3(x.contiguous(memory_format=torch.channels_last), w), F.conv2d(x, w, padding=1)
    ours, theirs = (f"{float((y - exact).norm() / exact.norm()):.1e}" for y in found)
    tile = tile_rows(channels, width)
    return str(channels), str(width), f"{tile} x {tile}", ours, theirs


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--channels", type=int, default=256, help="default 256")
    arguments.add_argument("--tiles", type=int, default=64, help="default 64")
    options = arguments.parse_args()
    rows = []
    for pairs in POINTS:
        points = "0, " + "".join(f"±{point:.3g}, " for point in pairs) + "∞"
        rows.append((f"{2 * len(pairs)} x {2 * len(pairs)}", points, *errors(pairs, options.channels, options.tiles)))
    head = ("tile", "points", "plain sums", "float32", f"float32, runs of {RUN}", "products of bfloat16")
    print(Table(head, rows))
    rows = [of_the_op(channels, width) for channels in (128, 256, 512) for width in (31, 30)]
    print(Table(("channels", "width", "tile", "op", "PyTorch"), rows))


if __name__ == "__main__":
    main()

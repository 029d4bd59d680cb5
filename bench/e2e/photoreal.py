"""The photoreal pass: its time and memory, and those of pymatting for the same equation.

    python -m bench.e2e.photoreal [--sizes 256,512,1024,4096] [--strength 1] [--threads 1] [--pymatting 256,512]

The content is the shipped photograph; the styled picture is the shipped painting with noise that is enlarged eightfold.
Each measurement has a process of its own. The memory is the growth of the peak during the pass. pymatting, which has to
be installed, builds the matrix and solves with its incomplete Cholesky decomposition; its first import, which compiles,
is not in the time.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.common import memory, worker
from bench.common.options import numbers, parser
from bench.common.pictures import PAINTING, PHOTO
from bench.common.results import Table
from fastnst import images
from fastnst.run import photoreal

MODULE = "bench.e2e.photoreal"


def pictures(size: int) -> tuple[Tensor, Tensor]:
    """A styled picture and its content."""
    content = images.load(PHOTO, size=size).pixels
    height, width = content.shape[2:]
    noise = torch.rand(1, 3, height // 8, width // 8, generator=torch.Generator().manual_seed(0))
    painting = images.resize(images.load(PAINTING, size=size).pixels, height, width)
    return (painting + F.interpolate(noise, (height, width), mode="bilinear") - 0.5).clamp(0, 1), content


def by_pymatting(image: Tensor, content: Tensor, strength: float) -> Tensor:
    """The same equation by pymatting."""
    import scipy.sparse
    from pymatting import cf_laplacian, cg, ichol

    guide, y = (x[0].double().permute(1, 2, 0).contiguous().numpy() for x in (content, image))
    laplacian = cf_laplacian(guide, epsilon=photoreal.EPSILON)
    system = scipy.sparse.identity(laplacian.shape[0]) + photoreal.WEIGHT * strength * laplacian
    solver = ichol(system.tocsc(), discard_threshold=1e-4 * photoreal.WEIGHT)
    found = [cg(system, y[..., k].ravel(), M=solver, rtol=1e-4) for k in range(3)]
    return torch.tensor([x.reshape(y.shape[:2]).tolist() for x in found])[None].clamp(0, 1)


def measured(size: int, strength: float, pymatting: bool) -> dict[str, Any]:
    image, content = pictures(size)
    solver: Callable[[Tensor, Tensor, float], Tensor] = by_pymatting if pymatting else photoreal.smooth
    solver(image[..., :16, :16], content[..., :16, :16], strength)  # imports, and what is set up once
    start, found = time.perf_counter(), {}

    def run() -> None:
        found["picture"] = solver(image, content, strength)

    grown = memory.growth(run)
    seconds = time.perf_counter() - start
    pixels = image[0, 0].numel()
    facts = {"size": f"{image.shape[3]}x{image.shape[2]}", "seconds": seconds, "bytes": grown, "pixels": pixels}
    if pymatting and pixels <= photoreal.MOST_PIXELS:
        apart = found["picture"] - photoreal.smooth(image, content, strength)
        facts["apart"] = 255 * float(apart.square().mean().sqrt())
    return facts


def table(options: argparse.Namespace) -> Table:
    rows = []
    for pymatting, sizes in ((False, options.sizes), (True, options.pymatting)):
        for size in sizes:
            given = {"size": size, "strength": options.strength, "pymatting": pymatting}
            one = worker.run_module(MODULE, given, options.threads)
            per_pixel = f"{one['bytes'] / one['pixels']:.0f}"
            apart = f"{one['apart']:.3f}" if "apart" in one else "-"
            name = "pymatting" if pymatting else "fastnst"
            rows.append((name, one["size"], f"{one['seconds']:.1f}", f"{one['bytes'] / 1e6:.0f}", per_pixel, apart))
    head = ("by", "size", "seconds", "peak, MB", "bytes a pixel", "difference, levels of 255")
    return Table(head, rows, keys=2)


def main() -> None:
    arguments = parser(__doc__, threads=True)
    arguments.add_argument("--sizes", type=numbers, default=[256, 512, 1024, 4096], help="longest sides")
    arguments.add_argument("--pymatting", type=numbers, default=[], help="longest sides for pymatting (default: none)")
    arguments.add_argument("--strength", type=float, default=1.0)
    arguments.add_argument("--run", help=argparse.SUPPRESS)
    options = arguments.parse_args()
    if options.run:
        print(json.dumps(measured(**json.loads(options.run))))
        return
    print(table(options))


if __name__ == "__main__":
    main()

"""The error of a Newton-Schulz matrix root of twelve iterations, which style-transfer-pytorch uses.

    python -m bench.e2e.matrix_root [--size 160]

Prints, for random pictures and for the shipped ones, each layer's Wasserstein-2 style loss by that root over the one by
eigenvalues, both in float64. The features of the bundled VGG-19 are scaled to about the size of torchvision's, so that
the 1e-4 on the diagonals of covariances has the same relative weight.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch
from torch import Tensor

from bench.common.options import parser
from bench.common.pictures import PAINTING, PHOTO
from bench.common.results import Table
from fastnst import images, weights
from fastnst.config.presets import STYLE_LAYERS
from fastnst.network.vgg import VGG

ITERATIONS = 12
RIDGE = 1e-4
SCALE = 1 / 200  # mean activations of torchvision's VGG-19 are near 1


def newton_schulz(a: Tensor) -> Tensor:
    """The square root of a matrix: Y <- Y (3 - Z Y) / 2, Z <- (3 - Z Y) Z / 2 from Y = A / |A| and Z = I (Higham 2008,
    "Functions of matrices", eq. 6.35)."""
    norm, unit = a.norm(), torch.eye(len(a), dtype=a.dtype)
    y, z = a / norm, unit
    for _ in range(ITERATIONS):
        t = (3 * unit - z @ y) / 2
        y, z = y @ t, t @ z
    return y * norm.sqrt()


def exact(a: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh((a + a.T) / 2)
    return vectors @ values.clamp_min(0).sqrt().diag() @ vectors.T


def statistics(x: Tensor) -> tuple[Tensor, Tensor]:
    f = x.flatten(2)[0]
    mean = f.mean(1)
    return mean, f @ f.T / f.shape[1] - mean.outer(mean) + RIDGE * torch.eye(len(f), dtype=f.dtype)


def loss(x: Tensor, style: Tensor, root: Callable[[Tensor], Tensor]) -> float:
    (mean, k), (wanted, target) = statistics(x), statistics(style)
    side = root(target)
    between = root(side @ k @ side)
    return float((mean - wanted).square().mean() + (k + target - 2 * between).trace() / len(k))


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--size", type=int, default=160, help="longest side of the pictures (default 160)")
    options = arguments.parse_args()
    given = weights.load()
    convs = {name: (weight.double(), bias.double() * SCALE) for name, (weight, bias) in given.convs.items()}
    given = dataclasses.replace(given, convs=convs, scale=(SCALE,) * 3)
    network = VGG(given, STYLE_LAYERS, padding="replicate_first", dtype=torch.float64)
    shipped = [images.load(path, size=options.size).pixels for path in (PHOTO, PAINTING)]
    generator = torch.Generator("cpu").manual_seed(0)
    noise = [torch.rand(1, 3, options.size * 3 // 4, options.size, generator=generator) for _ in range(2)]
    rows = []
    for name, (image, style) in {"photograph and painting": shipped, "noise": noise}.items():
        found = [network.features(x.double() * 255, STYLE_LAYERS) for x in (image, style)]
        ratios = [
            loss(found[0][layer], found[1][layer], newton_schulz) / loss(found[0][layer], found[1][layer], exact)
            for layer in STYLE_LAYERS
        ]
        rows.append((name, *(f"{ratio:.3f}" for ratio in ratios)))
    print(f"style loss by {ITERATIONS} iterations / exact, longest side {options.size}, torch {torch.__version__}\n")
    print(Table(("pictures", *STYLE_LAYERS), rows))


if __name__ == "__main__":
    main()

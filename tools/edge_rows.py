"""Measure the last rows of a picture whose height is no multiple of the network's stride, with and without `edges`.

python -m tools.edge_rows

Each run makes a texture of the demo's painting. The error of a band of 15 rows is the sum over layers of the squared
distance of its Gram matrix to the painting's, relative to that matrix; features of the last rows are those of the
picture continued by its mirrored rows, so that every row counts. Printed is the error of the last band relative to the
mean of the other bands, over the seeds.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

import fastnst
from fastnst import images
from fastnst.files import ASSETS
from fastnst.objective.views import Mirror

LAYERS = ("pool1", "pool2", "pool3", "pool4")
WIDTH, SEEDS = 160, 4
CASES = ((143, "drop"), (143, "mirror"), (144, "drop"))


def main() -> None:
    network = fastnst.VGG(fastnst.weights.load(), LAYERS, pooling="average")
    painting = images.load(ASSETS / "demo_painting.jpg", size=256)
    with torch.no_grad():
        wanted = {name: gram(x) for name, x in network.features(painting.pixels * 255, LAYERS).items()}
    for height, edges in CASES:
        ratios = []
        for seed in range(SEEDS):
            given = {"size": (WIDTH, height), "edges": edges, "seed": seed, "scales": 1, "device": "cpu"}
            ratios.append(last_band_error(network, fastnst.texture(painting, **given).image, wanted))
        mean = sum(ratios) / SEEDS
        print(f"{height} rows, edges {edges}: error of the last 15 rows {mean:.2f} times that of the others")


def gram(x: Tensor) -> Tensor:
    """The Gram matrix of features ``[1, C, h, w]`` over the number of positions."""
    flat = x[0].flatten(1)
    return flat @ flat.T / flat.shape[1]


def last_band_error(network: fastnst.VGG, picture: Tensor, wanted: Mapping[str, Tensor]) -> float:
    """The error of the last rows of a picture relative to the mean of the bands above."""
    view = Mirror((picture.shape[2], picture.shape[3]), 16)
    with torch.no_grad():
        found = network.features(view.image(picture) * 255, LAYERS)
    errors = torch.zeros(view.extended[0] // 16)
    for name, x in found.items():
        for i, band in enumerate(x.chunk(len(errors), 2)):
            errors[i] += (gram(band) - wanted[name]).norm() / wanted[name].norm()
    return float(errors[-1] / errors[:-1].mean())


if __name__ == "__main__":
    main()

"""The losses of several layers, written from their formulas with whole matrices, for float64 and autograd.

Nothing is imported from the losses. Functions take features ``{layer: [1, C, h, w]}`` and the picture's size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

Maps = Mapping[str, Tensor]
# Kolkin's decorrelated color space, as printed in the program's utils.py.
COLORS = [[0.577350, 0.577350, 0.577350], [-0.577350, 0.788675, -0.211325], [-0.577350, -0.211325, 0.788675]]


def rows_of(x: Tensor) -> Tensor:
    """[1, C, h, w] as one row per position."""
    return x[0].flatten(1).T


def smooth(c: int, h: int, w: int, seed: int = 0) -> Tensor:
    """Features without two equal values."""
    return torch.randn((1, c, h, w), dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) + 0.3


def cosine_distances(x: Tensor, y: Tensor) -> Tensor:
    """One row per row of x, one column per row of y."""
    return 1 - (x @ y.T) / x.norm(dim=1)[:, None] / y.norm(dim=1)


def interpolation(count: int, wanted: int) -> Tensor:
    """The matrix of linear interpolation at evenly spaced places that include both ends, by numpy."""
    places = np.linspace(0, count - 1, wanted)
    return torch.from_numpy(np.stack([np.interp(places, np.arange(count), e) for e in np.eye(count)], 1))


def nnst_columns(features: Maps, size: tuple[int, int], weights: Mapping[str, float]) -> Tensor:
    """NNST's hypercolumns: features over their channels at a quarter of the image, corners aligned; one row each."""
    found = []
    for name, weight in weights.items():
        x = features[name][0] * weight / features[name].shape[1]
        vertical, horizontal = (interpolation(n, side // 4) for n, side in zip(x.shape[1:], size, strict=True))
        found.append(torch.einsum("ai,bj,cij->abc", vertical, horizontal, x).flatten(0, 1))
    return torch.cat(found, 1)


def centered(x: Tensor) -> Tensor:
    return x - x.mean(0)


def nnst_replacements(source: Tensor, style: Tensor) -> Tensor:
    """For each row of source the row of style that is nearest by cosine distance of centered rows."""
    return style[cosine_distances(centered(source), centered(style)).argmin(1)]


def nnst_matched(columns: Tensor, replacements: Tensor) -> Tensor:
    return (1 - F.cosine_similarity(columns, replacements, dim=1)).mean()


def nnst_split(xs: Sequence[Tensor], styles: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """Feature splitting: rows of each layer and their nearest of the style, recomputed; the mean over layers."""
    values = [
        cosine_distances(centered(x), centered(y)).amin(1).mean() * weight
        for x, y, weight in zip(xs, styles, weights, strict=True)
    ]
    return torch.stack(values).sum() / sum(weights)


def strotss_columns(
    picture: Tensor, features: Maps, weights: Mapping[str, float], places: tuple[Tensor, Tensor], unit: float
) -> Tensor:
    """The pixel, and each layer's value at the pixel's place over the stride, linear between the four around it."""
    y, x = places
    found = [picture[0][:, y, x].T]
    for name, weight in weights.items():
        f = features[name][0]
        stride = 2 ** int(np.log2(picture.shape[2] // f.shape[1]))
        rows = []
        for py, px in zip((y / stride).tolist(), (x / stride).tolist(), strict=True):
            top, left = min(int(py), f.shape[1] - 1), min(int(px), f.shape[2] - 1)
            down, right = min(top + 1, f.shape[1] - 1), min(left + 1, f.shape[2] - 1)
            a, b = py - int(py), px - int(px)
            upper = (1 - b) * f[:, top, left] + b * f[:, top, right]
            lower = (1 - b) * f[:, down, left] + b * f[:, down, right]
            rows.append((1 - a) * upper + a * lower)
        found.append(torch.stack(rows) * weight * unit)
    return torch.cat(found, 1)


def relaxed(costs: Tensor) -> Tensor:
    """The relaxed earth mover's distance of a matrix of costs."""
    return torch.max(costs.amin(1).mean(), costs.amin(0).mean())


def strotss(x: Tensor, y: Tensor, palette: float) -> Tensor:
    """Transport + moments + palette, with a weight of 1 for the moments."""
    value = relaxed(cosine_distances(x, y))
    value = value + (x.mean(0) - y.mean(0)).abs().mean()
    value = value + (torch.cov(x.T, correction=0) - torch.cov(y.T, correction=0)).abs().mean()
    turn = torch.tensor(COLORS, dtype=x.dtype)
    a, b = x[:, :3] @ turn.T, y[:, :3] @ turn.T
    squares = (a[:, None] - b[None]).square().sum(2).clamp(1e-5, 1e5) / 3
    return value + palette * relaxed(cosine_distances(a, b) + squares.sqrt())


def self_similarity(x: Tensor, y: Tensor) -> Tensor:
    """The program's dp_loss: the mean of magnitudes of all N^2 differences, times N."""
    d, wanted = cosine_distances(x, x), cosine_distances(y, y)
    return (d / d.sum(0, keepdim=True) - wanted / wanted.sum(0, keepdim=True)).abs().mean() * len(x)


def patches(x: Tensor, stride: int = 2) -> Tensor:
    """Patches of 3 x 3 positions, one row each."""
    return F.unfold(x, 3, stride=stride)[0].T


def nearest_patch(x: Tensor, styles: Sequence[Tensor]) -> Tensor:
    """The mean squared difference of patches and those of the largest normalized cross-correlation."""
    own, style = patches(x), torch.cat([patches(y) for y in styles])
    return F.mse_loss(own, style[cosine_distances(own, style).argmin(1)])

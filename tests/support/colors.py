"""Colors for tests, and reference implementations of color spaces."""

from __future__ import annotations

import torch
from torch import Tensor

from fastnst.run import colors
from support.pictures import as_tensor, samples

LEVEL = 1 / 255
LINEAR_METHODS = ("cholesky", "pca", "monge-kantorovich")
TO_YIQ = torch.tensor(  # NTSC (FCC 73.682), rounded to four digits
    [[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]], dtype=torch.float64
)


def random_colors(seed: int, count: int = 500) -> Tensor:
    """Colors [3, count] around a mean, with correlated channels."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(3, 3, generator=generator, dtype=torch.float64) * 0.1
    mean = torch.rand(3, 1, generator=generator, dtype=torch.float64)
    return mixing @ torch.randn(3, count, generator=generator, dtype=torch.float64) + mean


def covariance(x: Tensor) -> Tensor:
    return torch.cov(x, correction=0)


def matrix_of(style: Tensor, content: Tensor, how: str) -> Tensor:
    """The matrix that ``match`` applied, recovered from its result."""
    moved = colors.match(style, content, how)
    centered = style - style.mean(1, keepdim=True)
    return torch.linalg.lstsq(centered.T, (moved - moved.mean(1, keepdim=True)).T).solution.T


def picture(seed: int, low: float = 0.0, high: float = 1.0) -> Tensor:
    """A picture [1, 3, 48, 64] with colors from ``low`` to ``high``."""
    return as_tensor(samples(48, 64, seed=seed)).contiguous() * (high - low) + low


def yiq(pixels: Tensor) -> Tensor:
    return torch.einsum("ij,bjhw->bihw", TO_YIQ, pixels.double())


def lab(red: float, green: float, blue: float) -> tuple[float, float, float]:
    """CIE 1976 L*a*b* of one sRGB color, white D65, in plain Python."""
    r, g, b = (v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in (red, green, blue))
    xyz = (
        (0.4124 * r + 0.3576 * g + 0.1805 * b) / 0.9505,
        0.2126 * r + 0.7152 * g + 0.0722 * b,
        (0.0193 * r + 0.1192 * g + 0.9505 * b) / 1.089,
    )
    x, y, z = (t ** (1 / 3) if t > 216 / 24389 else (24389 / 27 * t + 16) / 116 for t in xyz)
    return 116 * y - 16, 500 * (x - y), 200 * (y - z)


def to_lab(pixels: Tensor) -> Tensor:
    """[1, 3, H, W] to [1, 3, H, W]."""
    rows = [lab(*color) for color in pixels.double()[0].flatten(1).T.tolist()]
    return torch.tensor(rows, dtype=torch.float64).T.reshape(pixels.shape)

"""Color: matching the style's colors to the content's before the transfer, or restoring the content's colors after it.

Colors are sRGB as stored, 0..1. The arithmetic is in float64 on planes ``[C, P]``: one row per channel, one column per
pixel. Gatys, Bethge, Hertzmann and Shechtman, "Preserving color in neural artistic style transfer" (2016), below
"Gatys 2016", compare both approaches.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from fastnst import ops
from fastnst.config.checks import check_choice
from fastnst.config.ranges import KEEP_COLORS, MATCH_COLORS
from fastnst.config.settings import Settings
from fastnst.errors import UsageError
from fastnst.images import Picture
from fastnst.run.scene import Scene, on_disk
from fastnst.spill import release_pages

# The luminance Y of YIQ. Its coefficients sum to 1: adding one number to R, G and B changes Y and keeps I and Q.
LUMINANCE = torch.tensor([[0.299, 0.587, 0.114]], dtype=torch.float64, device="cpu")
# Linear sRGB to CIE XYZ, IEC 61966-2-1; the rows sum to the white point D65, so that gray has no chroma.
TO_XYZ = torch.tensor(
    [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]], dtype=torch.float64, device="cpu"
)
FROM_XYZ: Tensor = torch.linalg.inv(TO_XYZ)
WHITE = TO_XYZ.sum(1, keepdim=True)
# The least variance of colors in any direction, one of 255 levels squared: a smaller one is rounding error, which
# matching would amplify.
LEAST_VARIANCE = 1 / 255**2
ROWS = 256  # of a picture whose colors are converted at a time
HALVINGS = 20  # bisection steps for the largest chroma in gamut: to a millionth


def prepare(scene: Scene, settings: Settings) -> Scene:
    """The scene for the transfer: styles with the content's colors, or everything in gray."""
    start = None if scene.start is None else content_for(scene.start, settings)
    styles = tuple(
        dataclasses.replace(style, picture=style_for(style.picture, scene.content, settings)) for style in scene.styles
    )
    return dataclasses.replace(scene, content=content_for(scene.content, settings), styles=styles, start=start)


def content_for(content: Picture, settings: Settings) -> Picture:
    """The content for the transfer: gray with ``keep_color = "luminance"``, else unchanged."""
    if settings.keep_color != "luminance":
        return content
    gray = torch.empty_like(content.pixels)
    for part, colors in zip(gray.split(ROWS, 2), content.pixels.split(ROWS, 2), strict=True):
        part[:] = _pixels(_luminance(_planes(colors)).expand(3, -1), part)
    return on_disk(dataclasses.replace(content, pixels=gray))


def style_for(style: Picture, content: Picture, settings: Settings) -> Picture:
    """The style for the transfer: with colors matched to the content's, or as luminance; else unchanged.

    Fully transparent pixels are ignored in the statistics and get the mean of the others.
    """
    luminance = settings.keep_color == "luminance"
    if settings.match_color == "none" and not luminance:
        return style
    planes, target = _planes(style.pixels), _planes(content.pixels)
    seen, counted = _seen(style), _seen(content)
    if luminance:  # for one channel, all linear methods are the same
        matched = match(_luminance(planes[:, seen]), _luminance(target[:, counted]), "pca")
    else:
        matched = match(planes[:, seen], target[:, counted], settings.match_color)
    matched = matched.clamp(0, 1).expand(3, -1)
    planes[:] = matched.mean(1, keepdim=True)
    planes[:, seen] = matched
    return on_disk(dataclasses.replace(style, pixels=_pixels(planes, style.pixels)))


def restore(image: Tensor, content: Tensor, how: str) -> Tensor:
    """Give ``image`` the colors of ``content``.

    Args:
        image, content: ``[1, 3, H, W]`` in 0..1.
        how: ``"none"`` returns ``image``; ``"yiq"`` and ``"luminance"`` take Y from the image, I and Q from the
            content; ``"lab"`` takes L* from the image, a* and b* from the content (CIE 1976, D65). A color outside
            sRGB keeps its lightness and hue and loses chroma until it is inside.

    Returns:
        A picture with the dtype and device of ``image``.

    Raises UsageError for another ``how`` and for pictures of different sizes.
    """
    check_choice("keep_color", how, KEEP_COLORS)
    if image.shape != content.shape:
        raise UsageError(f"restore: expected pictures of one size, got {tuple(image.shape)} and {tuple(content.shape)}")
    if how == "none":
        return image
    keep, restored = _keep_lab if how == "lab" else _keep_yiq, torch.empty_like(image)
    for parts in zip(*(x.split(ROWS, 2) for x in (restored, image, content)), strict=True):
        parts[0][:] = _pixels(keep(_planes(parts[1]), _planes(parts[2])).clamp(0, 1), parts[0])
        release_pages()
    return restored


def match(style: Tensor, content: Tensor, how: str) -> Tensor:
    """Transform the colors ``style`` ``[C, P]`` to the statistics of ``content`` ``[C, M]``, both float64.

    The result is not clamped to 0..1. Values of ``how``:

    - ``"none"``: no change.
    - ``"histogram"``: each quantile of a channel is mapped to the same quantile of the content.
    - Else ``A (x - m_s) + m_c`` with the means ``m`` and a matrix with ``A S A^T = T``, where ``S`` and ``T`` are the
      covariances of style and content. ``"cholesky"``: ``A = L_T L_S^-1`` with the Cholesky factors. ``"pca"``:
      ``A = T^(1/2) S^(-1/2)`` with symmetric roots, as in Image Analogies (Hertzmann 2001; both in Gatys 2016).
      ``"monge-kantorovich"``: ``A = S^(-1/2) (S^(1/2) T S^(1/2))^(1/2) S^(-1/2)``, the one that moves colors least
      (Pitie and Kokaram, "The linear Monge-Kantorovitch linear color mapping for example-based color transfer", 2007).

    Raises UsageError for another ``how``.
    """
    check_choice("match_color", how, MATCH_COLORS)
    if how == "none":
        return style
    if how == "histogram":
        return torch.stack([_match_values(*rows) for rows in zip(style, content, strict=True)])
    style_mean, style_covariance = _statistics(style)
    content_mean, content_covariance = _statistics(content)
    return _matrix(style_covariance, content_covariance, how) @ (style - style_mean) + content_mean


def _matrix(style: Tensor, content: Tensor, how: str) -> Tensor:
    """The matrix ``A`` of :func:`match`."""
    if how == "cholesky":
        factors = torch.linalg.cholesky(torch.stack([style, content]))
        matrix: Tensor = torch.linalg.solve_triangular(factors[0], factors[1], upper=False, left=False)
        return matrix
    inverse = _power(style, -0.5)
    if how == "pca":
        return _power(content, 0.5) @ inverse
    root = _power(style, 0.5)
    return inverse @ _power(root @ content @ root, 0.5) @ inverse


def _statistics(colors: Tensor) -> tuple[Tensor, Tensor]:
    """Mean ``[C, 1]`` and covariance ``[C, C]``, whose eigenvalues are at least LEAST_VARIANCE."""
    means, products = ops.moments(colors[None], scale=1 / colors.shape[1])
    mean = means[0][:, None]
    values, vectors = torch.linalg.eigh(products[0] - mean @ mean.T)
    return mean, vectors @ values.clamp_min(LEAST_VARIANCE).diag() @ vectors.T


def _power(matrix: Tensor, exponent: float) -> Tensor:
    """A power of a symmetric positive definite matrix."""
    values, vectors = torch.linalg.eigh(matrix)
    power: Tensor = vectors @ values.pow(exponent).diag() @ vectors.T
    return power


def _match_values(style: Tensor, content: Tensor) -> Tensor:
    """Histogram matching of one channel. Equal values share the mean of their ranks, so flat areas stay flat."""
    _, number, counts = torch.unique(style, return_inverse=True, return_counts=True)
    ranked = content.sort().values
    counts = counts.double()
    below_each = counts.cumsum(0) - counts / 2
    rank = (below_each * len(ranked) / len(style) - 0.5).clamp(0, len(ranked) - 1)
    below = rank.floor().long()
    above = (below + 1).clamp_max(len(ranked) - 1)
    return torch.lerp(ranked[below], ranked[above], rank - below)[number]


def _keep_yiq(image: Tensor, content: Tensor) -> Tensor:
    target = _luminance(image)
    chroma = content - _luminance(content)
    room = torch.where(chroma > 0, 1 - target, target)
    share = (room / chroma.abs().clamp_min(1e-12)).amin(0).clamp(0, 1)
    return target + share * chroma


def _keep_lab(image: Tensor, content: Tensor) -> Tensor:
    lightness, chroma = _to_lab(image)[:1], _to_lab(content)[1:]
    linear = _from_lab(lightness, chroma)
    misfits = ~_in_gamut(linear)
    light, color = lightness[:, misfits], chroma[:, misfits]
    low, high = torch.zeros_like(light), torch.ones_like(light)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        fits = _in_gamut(_from_lab(light, middle * color))
        low, high = torch.where(fits, middle, low), torch.where(fits, high, middle)
    linear[:, misfits] = _from_lab(light, low * color)
    linear.clamp_(0, 1)
    return torch.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear.pow(1 / 2.4) - 0.055)


def _to_lab(colors: Tensor) -> Tensor:
    linear = torch.where(colors <= 0.04045, colors / 12.92, ((colors + 0.055) / 1.055).pow(2.4))
    ratio = TO_XYZ @ linear / WHITE
    x, y, z = torch.where(ratio > (6 / 29) ** 3, ratio.pow(1 / 3), ratio / (3 * (6 / 29) ** 2) + 4 / 29)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def _from_lab(lightness: Tensor, chroma: Tensor) -> Tensor:
    """Linear sRGB; colors outside its gamut have values below 0 or above 1."""
    y = (lightness + 16) / 116
    roots = torch.cat([y + chroma[:1] / 500, y, y - chroma[1:] / 200])
    ratio = torch.where(roots > 6 / 29, roots.pow(3), 3 * (6 / 29) ** 2 * (roots - 4 / 29))
    return FROM_XYZ @ (ratio * WHITE)


def _in_gamut(linear: Tensor) -> Tensor:
    """Whether each color is in the gamut of sRGB, up to rounding."""
    return ((linear >= -1e-9) & (linear <= 1 + 1e-9)).all(0)


def _luminance(colors: Tensor) -> Tensor:
    return LUMINANCE @ colors


def _planes(pixels: Tensor) -> Tensor:
    """Pixels ``[1, 3, H, W]`` as ``[3, P]`` in float64 on the CPU."""
    return pixels.detach().cpu().to(torch.float64, copy=True)[0].flatten(1)


def _pixels(planes: Tensor, like: Tensor) -> Tensor:
    return planes.reshape(like.shape).to(like)


def _seen(picture: Picture) -> Tensor:
    """A mask ``[P]`` of the pixels that are not fully transparent; all of them if every pixel is."""
    if picture.alpha is None or not picture.alpha.any():
        return torch.ones(picture.pixels.shape[2:].numel(), dtype=torch.bool, device="cpu")
    return picture.alpha.flatten() > 0

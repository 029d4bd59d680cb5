"""Colour: the style's colours brought to the content's before the transfer, the content's put back after it.

Colours are sRGB as stored, 0..1. The arithmetic is in float64 on planes ``[C, P]``, a row for each channel and a column
for each pixel. Gatys, Bethge, Hertzmann and Shechtman, "Preserving color in neural artistic style transfer" (2016),
abbreviated Gatys 2016 here, compare keeping the luminance alone with matching colours before.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from fastnst import ops
from fastnst.errors import UsageError
from fastnst.images import Picture
from fastnst.settings import KEEP_COLOURS, MATCH_COLOURS, Settings, check_choice

# The luminance Y of YIQ. For grey it is the grey, so Y is changed and I and Q are kept by adding one number to R, G, B.
LUMINANCE = torch.tensor([[0.299, 0.587, 0.114]], dtype=torch.float64, device="cpu")
# Linear sRGB to CIE XYZ, IEC 61966-2-1; the sum of each row is the white D65, so that grey has no chroma.
TO_XYZ = torch.tensor(
    [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]], dtype=torch.float64, device="cpu"
)
FROM_XYZ: Tensor = torch.linalg.inv(TO_XYZ)
WHITE = TO_XYZ.sum(1, keepdim=True)
# Colours that spread less than one of 255 levels in some direction count as spread by one level: what a picture does
# not have would otherwise be made of its rounding errors.
LEAST_VARIANCE = 1 / 255**2
HALVINGS = 20  # of the interval in which a chroma that fits is sought: to a millionth of it


def content_for(content: Picture, settings: Settings) -> Picture:
    """The content as the transfer sees it: grey with ``keep_colour = "luminance"``, else itself."""
    if settings.keep_colour != "luminance":
        return content
    grey = _luminance(_planes(content.pixels))
    return dataclasses.replace(content, pixels=_pixels(grey.expand(3, -1), content.pixels))


def style_for(style: Picture, content: Picture, settings: Settings) -> Picture:
    """The style as the transfer sees it: its colours matched to the content's, or its luminance; else itself.

    Where pixels are fully transparent they are not counted, and get the mean of the others.
    """
    luminance = settings.keep_colour == "luminance"
    if settings.match_colour == "none" and not luminance:
        return style
    planes, target = _planes(style.pixels), _planes(content.pixels)
    seen, counted = _seen(style), _seen(content)
    if luminance:  # of one channel, all linear ways are the same
        matched = match(_luminance(planes[:, seen]), _luminance(target[:, counted]), "pca")
    else:
        matched = match(planes[:, seen], target[:, counted], settings.match_colour)
    matched = matched.clamp(0, 1).expand(3, -1)
    planes[:] = matched.mean(1, keepdim=True)
    planes[:, seen] = matched
    return dataclasses.replace(style, pixels=_pixels(planes, style.pixels))


def keep(image: Tensor, content: Tensor, how: str) -> Tensor:
    """Give ``image`` the colours of ``content``, both ``[1, 3, H, W]`` in 0..1; the dtype and device stay ``image``'s.

    ``how``: ``"none"``: ``image`` as it is; ``"yiq"`` and ``"luminance"``: Y of the image, I and Q of the content;
    ``"lab"``: L* of the image, a* and b* of the content (CIE 1976, D65). Where no colour of sRGB has both that
    lightness and that chroma, the chroma is scaled down until one has: lightness, which carries the strokes, and hue
    stay.

    Raises UsageError for another ``how`` and for pictures of different sizes.
    """
    check_choice("keep_colour", how, KEEP_COLOURS)
    if image.shape != content.shape:
        raise UsageError(f"keep: expected pictures of one size, got {tuple(image.shape)} and {tuple(content.shape)}")
    if how == "none":
        return image
    joined = (_keep_lab if how == "lab" else _keep_yiq)(_planes(image), _planes(content))
    return _pixels(joined.clamp(0, 1), image)


def match(style: Tensor, content: Tensor, how: str) -> Tensor:
    """The colours ``style`` ``[C, P]`` moved to the statistics of ``content`` ``[C, M]``, both float64.

    The result is not held to 0..1. ``how``:

    - ``"none"``: as they are.
    - ``"histogram"``: each channel gets the content's distribution: a value below which a share of the style lies
      becomes the value below which that share of the content lies.
    - Else ``A (x - m_s) + m_c`` with the means ``m`` and a matrix ``A S A^T = T`` of the covariances, ``S`` the style's
      and ``T`` the content's: mean and covariance become the content's. ``"cholesky"``: ``A = L_T L_S^-1`` of the
      Cholesky factors. ``"pca"``: ``A = T^(1/2) S^(-1/2)`` of symmetric roots, along principal axes, as in Image
      Analogies (Hertzmann 2001; both in Gatys 2016). ``"monge-kantorovich"``: ``A = S^(-1/2) (S^(1/2) T S^(1/2))^(1/2)
      S^(-1/2)``, symmetric and positive definite, of all such matrices the one that moves colours least (Pitie and
      Kokaram, "The linear Monge-Kantorovitch linear colour mapping for example-based colour transfer", 2007).

    Raises UsageError for another ``how``.
    """
    check_choice("match_colour", how, MATCH_COLOURS)
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


def _statistics(colours: Tensor) -> tuple[Tensor, Tensor]:
    """Mean ``[C, 1]`` and covariance ``[C, C]``, whose eigenvalues are at least LEAST_VARIANCE."""
    means, products = ops.moments(colours[None], scale=1 / colours.shape[1])
    mean = means[0][:, None]
    values, vectors = torch.linalg.eigh(products[0] - mean @ mean.T)
    return mean, vectors @ values.clamp_min(LEAST_VARIANCE).diag() @ vectors.T


def _power(matrix: Tensor, exponent: float) -> Tensor:
    """A power of a symmetric positive definite matrix."""
    values, vectors = torch.linalg.eigh(matrix)
    power: Tensor = vectors @ values.pow(exponent).diag() @ vectors.T
    return power


def _match_values(style: Tensor, content: Tensor) -> Tensor:
    """One channel. Equal values stay equal: each takes the middle of its ranks, so flat areas stay flat."""
    _, number, counts = torch.unique(style, return_inverse=True, return_counts=True)
    ranked = content.sort().values
    counts = counts.double()
    below_each = counts.cumsum(0) - counts / 2
    place = (below_each * len(ranked) / len(style) - 0.5).clamp(0, len(ranked) - 1)
    below = place.floor().long()
    above = (below + 1).clamp_max(len(ranked) - 1)
    return torch.lerp(ranked[below], ranked[above], place - below)[number]


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
    light, colour = lightness[:, misfits], chroma[:, misfits]
    low, high = torch.zeros_like(light), torch.ones_like(light)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        fits = _in_gamut(_from_lab(light, middle * colour))
        low, high = torch.where(fits, middle, low), torch.where(fits, high, middle)
    linear[:, misfits] = _from_lab(light, low * colour)
    linear.clamp_(0, 1)
    return torch.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear.pow(1 / 2.4) - 0.055)


def _to_lab(colours: Tensor) -> Tensor:
    linear = torch.where(colours <= 0.04045, colours / 12.92, ((colours + 0.055) / 1.055).pow(2.4))
    ratio = TO_XYZ @ linear / WHITE
    x, y, z = torch.where(ratio > (6 / 29) ** 3, ratio.pow(1 / 3), ratio / (3 * (6 / 29) ** 2) + 4 / 29)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def _from_lab(lightness: Tensor, chroma: Tensor) -> Tensor:
    """Linear sRGB; colours that it has no place for come out below 0 or above 1."""
    y = (lightness + 16) / 116
    roots = torch.cat([y + chroma[:1] / 500, y, y - chroma[1:] / 200])
    ratio = torch.where(roots > 6 / 29, roots.pow(3), 3 * (6 / 29) ** 2 * (roots - 4 / 29))
    return FROM_XYZ @ (ratio * WHITE)


def _in_gamut(linear: Tensor) -> Tensor:
    """Whether each colour is one of sRGB, but for rounding."""
    return ((linear >= -1e-9) & (linear <= 1 + 1e-9)).all(0)


def _luminance(colours: Tensor) -> Tensor:
    return LUMINANCE @ colours


def _planes(pixels: Tensor) -> Tensor:
    """Pixels ``[1, 3, H, W]`` as ``[3, P]`` in float64 on the CPU."""
    return pixels.detach().to("cpu", torch.float64, copy=True)[0].flatten(1)


def _pixels(planes: Tensor, like: Tensor) -> Tensor:
    return planes.reshape(like.shape).to(like)


def _seen(picture: Picture) -> Tensor:
    """Which pixels ``[P]`` are not fully transparent; all where a crop shows nothing."""
    if picture.alpha is None or not picture.alpha.any():
        return torch.ones(picture.pixels.shape[2:].numel(), dtype=torch.bool, device="cpu")
    return picture.alpha.flatten() > 0

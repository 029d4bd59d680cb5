"""Photorealism: a pass over the finished picture that takes its edges and texture from the content.

The pass replaces the styled picture ``y`` by the ``x`` that minimizes, for each channel,

    |x - y|^2 + 100 s x^T L x

with the strength ``s`` and the matting Laplacian ``L`` of the content (Levin, Lischinski and Weiss, "A closed-form
solution to natural image matting", 2008, equation 12): ``x^T L x`` is the sum over all windows of 3 x 3 pixels of

    min over a, b of  sum over the window of (x_i - a . I_i - b)^2  +  epsilon |a|^2

for the colors ``I`` of the content, that is, how far ``x`` is from being an affine function of these colors near each
pixel. Luan, Paris, Shechtman and Bala, "Deep photo style transfer" (2017), add this term to the loss; Li, Liu, Li, Yang
and Kautz, "A closed-form solution to photorealistic image stylization" (2018), apply it after the transfer, as here.
Their ``alpha = 0.9999`` weighs ``x^T L x`` by ``alpha / (9 (1 - alpha))``, a strength of 11.

``L`` is not built as a matrix. ``(L x)_i`` is the sum of ``x_i - a . I_i - b`` over the windows of pixel ``i``, with
the ``a`` and ``b`` of each (He, Sun and Tang, "Fast matting using large kernel matting Laplacian matrices", 2010).
Conjugate gradients solve ``(1 + 100 s L) x = y``, whose eigenvalues are at least 1: the error of ``x`` is at most the
residual. The result has the same bits for any number of threads.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from fastnst import images
from fastnst.config.checks import check_number
from fastnst.config.ranges import RANGES
from fastnst.errors import UsageError
from fastnst.spill import release_pages

WEIGHT = 100.0
"""Weight of ``x^T L x`` at strength 1: strokes are gone, regions keep their colors."""
EPSILON = 3e-5
"""A window of variance epsilon / 9, half a level of 255 squared, is half smooth: rounding and the blocks of JPEG are no
texture to take over. Published programs use 1e-7, with which these blocks are visible in skies."""
TOLERANCE = 2e-4
"""Root mean square of the residual at which a channel is solved: a twentieth of a level of 255."""
MOST_ITERATIONS = 5000
MOST_PIXELS = 2**18
"""Pixels of the largest picture that is solved itself."""
BLOCK = 2**14
"""Pixels whose windows each thread has in work at a time, which fit into its cache."""
BYTES, BLOCK_BYTES, MORE_BYTES = 36 * 8, 100 * 8, 2**23
"""Memory for each pixel of the solved picture (guide, means and inverses of windows, pictures of the solver), for each
pixel of the blocks in work, and for what is left in the heap."""
_TINY = 1e-300
_PAIRS = ((0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2))  # of the upper triangle of a symmetric matrix


def smooth(image: Tensor, content: Tensor, strength: float) -> Tensor:
    """Give ``image`` the edges and texture of ``content``.

    A picture of more than ``MOST_PIXELS`` is solved at a smaller size, with the weight of ``x^T L x`` divided by the
    ratio of pixels, so that it reaches as far. There ``x = A I + b`` at each pixel, with the mean ``A`` of its windows
    and the ``b`` that makes it exact; ``A`` and ``b`` are enlarged and applied to the content, as in He and Sun, "Fast
    guided filter", 2015. The memory is thus bounded: see :func:`pass_bytes`.

    Args:
        image, content: ``[1, 3, H, W]`` in 0..1.
        strength: 0 returns ``image``; see :class:`fastnst.Settings`.

    Returns:
        A picture in 0..1 with the dtype and device of ``image``. The computation is in float64 on the CPU.

    Raises:
        UsageError: pictures of different sizes, or a strength that is out of range.

    Example:
        >>> import torch
        >>> content = torch.rand(1, 3, 16, 16)
        >>> torch.allclose(smooth(0.5 * content, content, 1.0), 0.5 * content, atol=0.02)
        True
    """
    check_number("photoreal", strength, RANGES["photoreal"])
    if image.shape != content.shape:
        raise UsageError(f"smooth: expected pictures of one size, got {tuple(image.shape)} and {tuple(content.shape)}")
    height, width = image.shape[2:]
    if strength == 0 or min(height, width) < 3:
        return image
    weight = WEIGHT * strength
    if height * width <= MOST_PIXELS:
        return _as_picture(solve(_plane(image), MattingLaplacian(_plane(content)), weight)[None], image)
    small = _solved_size(height, width)
    laplacian = MattingLaplacian(_plane(images.resize(content, *small)))
    solved = solve(_plane(images.resize(image, *small)), laplacian, weight * small[0] * small[1] / (height * width))
    return _enlarged(laplacian.local(solved), image, content)


def pass_bytes(height: int, width: int, strength: float) -> int:
    """The memory in bytes that :func:`smooth` needs, besides its arguments and its result.

    Example:
        >>> pass_bytes(512, 512, 1.0) == pass_bytes(4096, 4096, 1.0), pass_bytes(512, 512, 0.0)
        (True, 0)
    """
    if strength == 0:
        return 0
    pixels = min(height * width, MOST_PIXELS)
    return BYTES * pixels + BLOCK_BYTES * min(_block(), pixels) + MORE_BYTES


class MattingLaplacian:
    """The matting Laplacian of a guide as a function of pictures.

    Args:
        guide: ``[3, H, W]``, float64, of at least 3 x 3 pixels.
        epsilon: of the formula.

    Example:
        >>> import torch
        >>> laplacian = MattingLaplacian(torch.rand(3, 8, 8, dtype=torch.float64))
        >>> bool(laplacian(torch.ones(1, 8, 8, dtype=torch.float64)).abs().max() < 1e-12)
        True
    """

    def __init__(self, guide: Tensor, epsilon: float = EPSILON) -> None:
        self.guide = guide
        _, height, width = guide.shape
        self.rows = max(_block() // width, 1)
        self.means = guide.new_empty(3, height - 2, width - 2)
        self.inverse = guide.new_empty(6, height - 2, width - 2)  # of the covariances: 00, 01, 02, 11, 12, 22
        for first in range(0, height - 2, self.rows):
            part = slice(first, min(first + self.rows, height - 2))
            colors = guide[:, first : part.stop + 2]
            self.means[:, part] = _window_sums(colors).div_(9)
            self.inverse[:, part] = _inverse(_covariances(colors, self.means[:, part], epsilon / 9))
        columns = _windows_at(width, guide)
        self.count = _windows_at(height, guide)[:, None] * columns

    def __call__(self, x: Tensor) -> Tensor:
        """``L x`` of a picture ``[C, H, W]``, each channel by itself."""
        result = torch.empty_like(x)
        for first in range(0, x.shape[1], self.rows):
            part = slice(first, min(first + self.rows, x.shape[1]))
            sums, colors = self._coefficient_sums(x, part), self.guide[:, part]
            rows = torch.mul(self.count[part], x[:, part], out=result[:, part]).sub_(sums[:, 3])
            for i in range(3):
                rows.addcmul_(sums[:, i], colors[i], value=-1)
        return result

    def local(self, x: Tensor) -> Tensor:
        """``[C, 4, H, W]``: for each pixel the factors of the guide's three channels, the mean of its windows, and the
        remainder, so that ``x = a . I + b``."""
        result = x.new_empty(x.shape[0], 4, *x.shape[1:])
        for first in range(0, x.shape[1], self.rows):
            part = slice(first, min(first + self.rows, x.shape[1]))
            factors = self._coefficient_sums(x, part)[:, :3] / self.count[part]
            result[:, :3, part] = factors
            result[:, 3, part] = x[:, part] - (factors * self.guide[:, part]).sum(1)
        return result

    def _coefficient_sums(self, x: Tensor, part: slice) -> Tensor:
        """``[C, 4, rows, W]``: for each pixel of some rows the sums of ``a`` and ``b`` over its windows."""
        windows = slice(max(part.start - 2, 0), min(part.stop, self.means.shape[1]))
        pixels, means = slice(windows.start, windows.stop + 2), self.means[:, windows]
        mean = _window_sums(x[:, pixels]).div_(9)
        covariance = _window_sums(x[:, None, pixels] * self.guide[:, pixels]).div_(9)
        covariance.addcmul_(mean[:, None], means, value=-1)
        # The windows at rows part.start - 2 to part.stop - 1; those outside the picture are zeros.
        found = x.new_zeros(x.shape[0], 4, part.stop - part.start + 2, x.shape[2] + 2)
        top = windows.start - part.start + 2
        inside = found[:, :, top : top + windows.stop - windows.start, 2:-2]
        for i in range(3):
            torch.mul(covariance[:, 0], self._inverse_at(i, 0, windows), out=inside[:, i])
            for j in (1, 2):
                inside[:, i].addcmul_(covariance[:, j], self._inverse_at(i, j, windows))
        inside[:, 3] = mean
        for i in range(3):
            inside[:, 3].addcmul_(inside[:, i], means[i], value=-1)
        return _window_sums(found)

    def _inverse_at(self, i: int, j: int, windows: slice) -> Tensor:
        i, j = min(i, j), max(i, j)
        return self.inverse[(0, 2, 3)[i] + j, windows]


def solve(y: Tensor, laplacian: MattingLaplacian, weight: float) -> Tensor:
    """The ``x`` with ``x + weight L x = y``, by conjugate gradients for each channel of ``y`` ``[C, H, W]``, float64.

    The root mean square of the error is at most ``TOLERANCE``.

    Example:
        >>> import torch
        >>> y = torch.rand(3, 8, 8, dtype=torch.float64)
        >>> laplacian = MattingLaplacian(torch.rand(3, 8, 8, dtype=torch.float64))
        >>> x = solve(y, laplacian, 100.0)
        >>> bool((x + 100 * laplacian(x) - y).square().mean().sqrt() < 1e-3)
        True
    """
    x = y.clone()
    residual = laplacian(x).mul_(-weight)
    direction = residual.clone()
    squares = _dot(residual, residual)
    for _ in range(MOST_ITERATIONS):
        if bool((squares <= TOLERANCE**2 * y[0].numel()).all()):
            break
        product = laplacian(direction).mul_(weight).add_(direction)
        # A channel that is solved exactly has no direction.
        step = squares / _dot(direction, product).clamp_min(_TINY)
        x.addcmul_(step, direction)
        residual.addcmul_(step, product, value=-1)
        before, squares = squares, _dot(residual, residual)
        direction.mul_(squares / before.clamp_min(_TINY)).add_(residual)
    return x


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """``[C, 1, 1]``: the dot product of each channel, with the same bits for any number of threads."""
    products = [torch.ops.fastnst.dot(x.flatten(), y.flatten()) for x, y in zip(a, b, strict=True)]
    return torch.stack(products)[:, None, None]


def _enlarged(local: Tensor, image: Tensor, content: Tensor) -> Tensor:
    """``a . I + b`` of a content with the coefficients ``[3, 4, h, w]`` of a smaller picture, enlarged linearly."""
    result, (height, width) = torch.empty_like(image), image.shape[2:]
    rows, local = local.shape[2], local.flatten(0, 1)
    step = max(BLOCK // width, 1)
    for first in range(0, height, step):
        part = slice(first, min(first + step, height))
        # The centers of pixels in rows of the smaller picture, as torch.nn.functional.interpolate has them.
        at = (torch.arange(part.start, part.stop, dtype=torch.float64, device="cpu") + 0.5) * (rows / height) - 0.5
        at = at.clamp(0, rows - 1)
        above = at.floor().long()
        below = (above + 1).clamp_max(rows - 1)
        lines = torch.lerp(local[:, above], local[:, below], (at - above)[:, None])
        found = F.interpolate(lines[None], (len(at), width), mode="bilinear", align_corners=False)[0].unflatten(
            0, (3, 4)
        )
        colors = content[0, :, part].to("cpu", torch.float64)
        result[0, :, part] = ((found[:, :3] * colors).sum(1) + found[:, 3]).clamp_(0, 1).to(result)
        release_pages()
    return result


def _block() -> int:
    """Pixels in work at a time. The result does not depend on them."""
    return BLOCK * torch.get_num_threads()


def _solved_size(height: int, width: int) -> tuple[int, int]:
    """The size of at most ``MOST_PIXELS``, and at least 3 x 3, at which a picture of this size is solved."""
    ratio = (MOST_PIXELS / (height * width)) ** 0.5
    return max(int(height * ratio), 3), max(int(width * ratio), 3)


def _window_sums(x: Tensor) -> Tensor:
    """Sums over all windows of 3 x 3 inside the last two dimensions, which become shorter by 2."""
    rows = (x[..., :-2, :] + x[..., 1:-1, :]).add_(x[..., 2:, :])
    return (rows[..., :-2] + rows[..., 1:-1]).add_(rows[..., 2:])


def _windows_at(side: int, like: Tensor) -> Tensor:
    """The number of windows along one side that contain each of its pixels."""
    at = torch.arange(side, dtype=like.dtype, device=like.device)
    return torch.minimum(at + 1, side - at).clamp_max_(min(3, side - 2))


def _covariances(colors: Tensor, means: Tensor, ridge: float) -> Tensor:
    """The covariances of colors in each window, and ``ridge`` on the diagonal: ``[6, H - 2, W - 2]``."""
    found = means.new_empty(6, *means.shape[1:])
    for k, (i, j) in enumerate(_PAIRS):
        found[k] = _window_sums(colors[i] * colors[j]).div_(9).sub_(means[i] * means[j])
        if i == j:
            found[k] += ridge
    return found


def _inverse(matrix: Tensor) -> Tensor:
    """The inverses of symmetric 3 x 3 matrices, ``[6, ...]`` as 00, 01, 02, 11, 12, 22, by cofactors."""
    a, b, c, d, e, f = matrix
    cofactors = (d * f - e * e, c * e - b * f, b * e - c * d, a * f - c * c, b * c - a * e, a * d - b * b)
    determinant = a * cofactors[0] + b * cofactors[1] + c * cofactors[2]
    return torch.stack(cofactors).div_(determinant)


def _plane(picture: Tensor) -> Tensor:
    """A picture ``[1, 3, H, W]`` as ``[3, H, W]`` in float64 on the CPU."""
    return picture.detach()[0].to("cpu", torch.float64, copy=True)


def _as_picture(found: Tensor, like: Tensor) -> Tensor:
    return found.clamp_(0, 1).to(like)

"""Adam on the coefficients of an image's Laplacian pyramid instead of its pixels."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from fastnst.optim.adam import Adam

LEAST_SIDE = 2  # pixels of the shorter side of the coarsest level, at least


class PyramidAdam(Adam):
    """Adam for the coefficients of a Laplacian pyramid, as the programs of NNST and STROTSS optimize images.

    Level i of the pyramid is half as large as level i - 1, rounded down, until a side would be below 2 pixels. The
    image is ``p_0 + U(p_1 + U(p_2 + ...))`` with bilinear interpolation U and the coefficients p of each level. Each
    coefficient takes steps of about the learning rate, so that the colors of large areas change faster than single
    pixels. The image is a linear function of the coefficients. Its change is therefore that function of the steps of
    the coefficients, which are not stored.

    Kolkin et al. 2019 and 2022 optimize such pyramids; the first with RMSprop, which is Adam with decay rates of 0 and
    0.99 but for the correction of the bias.

    Args:
        image: ``[1, 3, H, W]``, as for :class:`Adam`, and so are the other arguments.
    """

    carried: tuple[str, ...] = ()

    def __init__(
        self,
        image: Tensor,
        learning_rate: float,
        betas: tuple[float, float] = (0.9, 0.999),
        epsilon: float = 1e-8,
        unit: float = 1.0,
    ) -> None:
        self.sizes = pyramid_sizes(image.shape[-2], image.shape[-1])
        self._counts = [3 * height * width for height, width in self.sizes]
        super().__init__(image.new_zeros(sum(self._counts)), learning_rate, betas, epsilon, unit)

    def step(self, image: Tensor, gradient: Tensor) -> None:
        """Update ``image`` in place, given its gradient."""
        self.count += 1
        change = self._image.zero_()
        self.update(change, self._by_coefficients(gradient), *self.factors(self.count))
        image.add_(self._synthesized(change))

    def _by_coefficients(self, gradient: Tensor) -> Tensor:
        """The gradient by all coefficients, finest level first."""
        found = [gradient.contiguous()]
        for height, width in self.sizes[1:]:
            found.append(_interpolation_backward(_interpolation_backward(found[-1], height, 2), width, 3))
        return torch.cat([level.flatten() for level in found])

    def _synthesized(self, coefficients: Tensor) -> Tensor:
        """The image with these coefficients."""
        *levels, image = (
            level.view(1, 3, *size) for level, size in zip(coefficients.split(self._counts), self.sizes, strict=True)
        )
        found: Tensor = image
        for level in reversed(levels):
            found = level + F.interpolate(found, level.shape[2:], mode="bilinear")
        return found


def pyramid_sizes(height: int, width: int) -> list[tuple[int, int]]:
    """Height and width of each level of the pyramid of an image, finest first."""
    sizes = [(height, width)]
    while min(sizes[-1]) >= 2 * LEAST_SIDE:
        sizes.append((sizes[-1][0] // 2, sizes[-1][1] // 2))
    return sizes


def _interpolation_backward(x: Tensor, count: int, dim: int) -> Tensor:
    """The gradient of ``count`` values from that of ``x``, their linear interpolation to ``x.shape[dim]`` along a
    dimension.

    PyTorch's adds in an order that varies on CUDA; ranks that share a picture would drift apart.
    """
    total = x.shape[dim]
    ratio = total / count
    here = torch.arange(count, dtype=torch.float64, device="cpu")
    first = ((here - 0.5) * ratio - 0.5).floor().long()
    shape = [1] * x.dim()
    shape[dim] = count
    found: Tensor | None = None
    for i in range(int(2 * ratio) + 3):
        at = first + i
        inside = at.clamp(0, total - 1)
        place = ((inside + 0.5) / ratio - 0.5).clamp(0, count - 1)
        share = (1 - (place - here).abs()).clamp_min(0) * (at == inside)
        part = x.index_select(dim, inside.to(x.device)) * share.to(x.device, x.dtype).view(shape)
        found = part if found is None else found.add_(part)
    assert found is not None
    return found

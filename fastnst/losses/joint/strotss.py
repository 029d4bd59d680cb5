"""The losses of STROTSS: relaxed optimal transport between hypercolumns, and the self-similarity of the content."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from fastnst.errors import UsageError
from fastnst.losses.base import Target
from fastnst.losses.joint.base import IMAGE, Features, JointLoss, Stage
from fastnst.losses.joint.nearest import best_matches, nearest, unit_rows
from fastnst.ops.dtypes import accumulate_dtype

SAMPLES = 1024  # positions of the image in an evaluation
STYLE_SAMPLES, DRAWS = 1000, 5  # positions of the style in a draw, and number of draws
LARGEST_GRID = 128  # a larger image is sampled on a grid of at most about so many positions on a side
# Rows: the sum of the channels, and two differences, each orthogonal to the sum.
PALETTE = ((0.577350, 0.577350, 0.577350), (-0.577350, 0.788675, -0.211325), (-0.577350, -0.211325, 0.788675))
LEAST_SQUARE, MOST_SQUARE = 1e-5, 1e5  # of the distance between two colors


class RelaxedTransport(JointLoss):
    """Relaxed earth mover's distance, moments and palette between hypercolumns.

    ``R(X, Y; cosine) + moments * (|m - m'| + |K - K'|) + moments * share * R(colors)``: the relaxed earth mover's
    distance R is the larger of ``mean_i min_j d(x_i, y_j)`` and ``mean_j min_i d(x_i, y_j)``; m and K are mean and
    covariance of the hypercolumns, and ``|.|`` the mean of magnitudes; for colors, with their sum and differences as
    coordinates, d is the cosine distance plus the root of the mean squared difference. X are hypercolumns of the image
    at 1024 positions that are drawn anew at each step, Y those of the style at five times 1000 positions. A
    hypercolumn holds the picture and the features of each layer, times its weight, at one position.

    Kolkin, Salavon and Shakhnarovich, "Style transfer by relaxed optimal transport and self-similarity", 2019, eqs. 3
    to 7; numbers and the cost of colors are those of the authors' program.

    Args:
        samples: positions of the image.
        moments: weight of the moments and of the palette.
        palette: the share of the palette at the first scale; it doubles at each scale, up to 1.

    Example:
        >>> from fastnst.losses import style
        >>> style.register("strotss_more", RelaxedTransport(samples=4096))
        >>> style.style_loss("strotss_more").samples
        4096
    """

    def __init__(self, samples: int = SAMPLES, moments: float = 1.0, palette: float = 1 / 16) -> None:
        self.samples, self.moments, self.palette = samples, moments, palette

    def target(self, features: Features, stage: Stage) -> Target:
        """Return the sampled hypercolumns ``[M, C]``, float32 or float64."""
        height, width = features[IMAGE].shape[-2:]
        generator, draws = stage.generator(1), []
        for _ in range(DRAWS):
            places = torch.randperm(height * width, generator=generator, device="cpu")[:STYLE_SAMPLES]
            draws.append(hypercolumns(features, places // width, places % width, stage, interpolated=False))
        return (torch.cat(draws),)

    def blend(self, targets: Sequence[Target], weights: Sequence[float]) -> Target:
        """Return the union of the styles' hypercolumns, of each as many as its weight says."""
        most = max(weights)
        kept = [rows[: round(len(rows) * weight / most)] for (rows,), weight in zip(targets, weights, strict=True)]
        return (torch.cat(kept),)

    def begin(
        self, target: Target, content: Tensor, start: Tensor, measure: Callable[[Tensor], Features], stage: Stage
    ) -> Target:
        """Return the style's hypercolumns with their mean and covariance, which are the same at each step."""
        return target[0], *_mean_and_covariance(target[0])

    def loss(self, features: Features, target: Target, stage: Stage) -> Tensor:
        x, (y, *wanted) = hypercolumns(features, *_positions(features, self.samples, stage), stage), target
        with torch.no_grad():
            there, back = nearest(x.detach(), y)[0], nearest(y, x.detach())[0]
        distances = (
            (1 - (unit_rows(a) * unit_rows(b)).sum(1)).mean() for a, b in ((x, y[there]), (F.embedding(back, x), y))
        )
        value = torch.maximum(*distances)
        share = min(self.palette * 2.0 ** (stage.scale - 1), 1.0)
        moments = [(a - b).abs().mean() for a, b in zip(_mean_and_covariance(x), wanted, strict=True)]
        return value + self.moments * (torch.stack(moments).sum() + share * _palette(x[:, :3], y[:, :3]))

    def bytes(self, sizes: Mapping[str, tuple[int, int, int]], style: float, itemsize: int) -> int:
        return _sampled_bytes(sizes, 4 * self.samples + 4 * DRAWS * STYLE_SAMPLES, itemsize)


class SelfSimilarity(JointLoss):
    """How the similarities between positions of a picture differ from those of the content: a content loss.

    ``1 / N * sum_ij |D_ij / sum_i D_ij - D'_ij / sum_i D'_ij|`` for the cosine distances D between the hypercolumns of
    the image at N positions and D' of the content at the same positions, which are drawn anew at each step. See
    :class:`RelaxedTransport` for hypercolumns and source (eq. 8; the program multiplies the mean by N).

    Args:
        samples: positions of the image.
        decay: factor of the loss from one scale to the next.

    Example:
        >>> from fastnst.losses import style
        >>> style.register("similar", SelfSimilarity(decay=1.0))
        >>> style.content_loss("similar").decay
        1.0
    """

    def __init__(self, samples: int = SAMPLES, decay: float = 0.5) -> None:
        self.samples, self.decay = samples, decay

    def target(self, features: Features, stage: Stage) -> Target:
        return tuple(features[name] for name in (IMAGE, *stage.weights))

    def blend(self, targets: Sequence[Target], weights: Sequence[float]) -> Target:
        if len(targets) > 1:
            raise UsageError("'self_similarity' compares the image with one picture, the content")
        return targets[0]

    def loss(self, features: Features, target: Target, stage: Stage) -> Tensor:
        content = dict(zip((IMAGE, *stage.weights), target, strict=True))
        if content[IMAGE].shape != features[IMAGE].shape:
            raise UsageError("'self_similarity' compares pictures of one size: use it as content_loss, not style_loss")
        places = _positions(features, self.samples, stage)
        found, wanted = (_normalized_distances(hypercolumns(one, *places, stage)) for one in (features, content))
        return self.decay ** (stage.scale - 1) * (found - wanted).abs().sum() / len(found)

    def bytes(self, sizes: Mapping[str, tuple[int, int, int]], style: float, itemsize: int) -> int:
        content = sum(c * h * w for c, h, w in sizes.values()) * itemsize
        return content + _sampled_bytes(sizes, 8 * self.samples, itemsize) + 6 * 4 * self.samples**2


def hypercolumns(features: Features, y: Tensor, x: Tensor, stage: Stage, *, interpolated: bool = True) -> Tensor:
    """The hypercolumns ``[N, C]`` of pixels at rows ``y`` and columns ``x``, float32 or float64; differentiable.

    A pixel's place in a layer of stride s is its own divided by s, and the value there is interpolated linearly between
    the positions of the layer, or taken from the position before. The picture comes first.
    """
    dtype, (height, width) = accumulate_dtype(features[next(iter(stage.weights))].dtype), features[IMAGE].shape[-2:]
    rows = [_at(features[IMAGE], y.double(), x.double(), interpolated=False).to(dtype)]
    for name, weight in stage.weights.items():
        f = features[name]
        stride_y, stride_x = (
            1 << ((side // count).bit_length() - 1) for side, count in zip((height, width), f.shape[-2:], strict=True)
        )
        found = _at(f, y.double() / stride_y, x.double() / stride_x, interpolated=interpolated)
        rows.append(found.to(dtype) * (weight * stage.unit))
    return torch.cat(rows, 1)


def _at(f: Tensor, y: Tensor, x: Tensor, *, interpolated: bool) -> Tensor:
    """The features ``[N, C]`` of a layer at rows and columns, which may lie between positions."""
    height, width = f.shape[-2:]
    top, left = y.floor().clamp(0, height - 1), x.floor().clamp(0, width - 1)
    if not interpolated:
        return _rows_at(f, top, left)
    down, right = ((place - place.floor()).to(f.device, accumulate_dtype(f.dtype))[:, None] for place in (y, x))
    found: Tensor | None = None
    for below, share_y in ((0, 1 - down), (1, down)):
        for after, share_x in ((0, 1 - right), (1, right)):
            corner = _rows_at(f, (top + below).clamp_max(height - 1), (left + after).clamp_max(width - 1))
            part = corner * (share_y * share_x)
            found = part if found is None else found + part
    assert found is not None
    return found


def _rows_at(f: Tensor, y: Tensor, x: Tensor) -> Tensor:
    """The features ``[N, C]`` at whole rows and columns.

    As rows of a table, here and below: its backward pass adds up in order, that of an index in any.
    """
    places = (y.long() * f.shape[-1] + x.long()).to(f.device)
    return F.embedding(places, f[0].flatten(1).T)


def _positions(features: Features, samples: int, stage: Stage) -> tuple[Tensor, Tensor]:
    """Rows and columns of pixels, drawn for a step: all different, on a grid in a large picture."""
    generator = stage.generator()
    height, width = features[IMAGE].shape[-2:]
    stride = max(int((height * width / LARGEST_GRID**2) ** 0.5), 1)
    first = torch.randint(stride, (2,), generator=generator, device="cpu").tolist()
    rows, columns = (
        torch.arange(min(at, side - 1), side, stride, device="cpu")
        for at, side in zip(first, (height, width), strict=True)
    )
    places = torch.randperm(len(rows) * len(columns), generator=generator, device="cpu")[:samples]
    return rows[places // len(columns)], columns[places % len(columns)]


def _mean_and_covariance(rows: Tensor) -> tuple[Tensor, Tensor]:
    mean = rows.mean(0)
    centered = rows - mean
    return mean, centered.T @ centered / len(rows)


def _palette(x: Tensor, y: Tensor) -> Tensor:
    """The relaxed earth mover's distance of colors ``[N, 3]`` and ``[M, 3]``."""
    turn = torch.tensor(PALETTE, dtype=x.dtype, device=x.device).T
    x, y = x @ turn, y @ turn

    def score(a: Tensor, b: Tensor) -> Tensor:  # the negative of each row of a to each of b
        apart = (a.square().sum(1)[:, None] + b.square().sum(1) - 2 * a @ b.T).clamp(LEAST_SQUARE, MOST_SQUARE) / 3
        return unit_rows(a) @ unit_rows(b).T - apart.sqrt()

    def pair_cost(a: Tensor, b: Tensor) -> Tensor:
        apart = (a - b).square().sum(1).clamp(LEAST_SQUARE, MOST_SQUARE) / 3
        return 1 - (unit_rows(a) * unit_rows(b)).sum(1) + apart.sqrt()

    fixed = x.detach()
    with torch.no_grad():
        there, _ = best_matches(fixed.__getitem__, y.__getitem__, (len(x), len(y)), 3, score)
        back, _ = best_matches(y.__getitem__, fixed.__getitem__, (len(y), len(x)), 3, score)
    return torch.maximum(pair_cost(x, y[there]).mean(), pair_cost(F.embedding(back, x), y).mean())


def _normalized_distances(rows: Tensor) -> Tensor:
    """The cosine distances ``[N, N]`` between rows, each column divided by its sum."""
    unit = unit_rows(rows)
    found = 1 - unit @ unit.T
    total = found.sum(0, keepdim=True)
    return found / torch.where(total == 0, 1.0, total)


def _sampled_bytes(sizes: Mapping[str, tuple[int, int, int]], rows: int, itemsize: int) -> int:
    """Bytes of gradients, of ``rows`` hypercolumns and of four covariances."""
    channels = sum(c for c, _, _ in sizes.values())
    return sum(c * h * w for c, h, w in sizes.values()) * itemsize + 4 * channels * (rows + 4 * channels)

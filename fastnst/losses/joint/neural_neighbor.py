"""The loss of Neural Neighbor Style Transfer: hypercolumns near those of the style that the content resembles."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from fastnst.errors import UsageError
from fastnst.losses.autograd import leaf, recording
from fastnst.losses.base import Target
from fastnst.losses.joint.base import IMAGE, Features, JointLoss, Stage
from fastnst.losses.joint.nearest import mean_row, nearest, unit_rows
from fastnst.ops.dtypes import accumulate_dtype, autocast_disabled

GRID = 4  # pixels of the image from one hypercolumn to the next
SPLIT_SIDE = 64  # a layer with more positions on a side than this is sampled with a stride when layers are split
LEAST_SQUARE = 1e-8  # of the length of a hypercolumn


class NeuralNeighbor(JointLoss):
    """The mean cosine distance of hypercolumns to those of the style that replace them.

    A hypercolumn holds the features of all layers at one position, each layer times its weight over its channels, on a
    grid of a quarter of the image. Before the first step of a scale, each hypercolumn of the picture
    ``(1 - mix) * content + mix * (start + details of the content)`` is replaced by the nearest one of the style, by
    cosine distance between hypercolumns from which their means are subtracted. The loss is ``mean_i (1 - cos(h_i,
    t_i))`` for hypercolumns h of the image and their replacements t, which stay the same during a scale. At the first
    scale ``mix`` is 0.

    The second half of the steps of the last scale uses layers apart and matches them anew at each step: the loss is
    then the weighted mean over layers of ``mean_i min_j (1 - cos(x_i - m, s_j - m'))`` for features x of the layer and
    s of the style with means m and m'. Layers of more than 64 positions on a side are sampled with a stride and an
    offset that changes at each step.

    Kolkin, Kucera, Paris, Sykora, Shechtman and Shakhnarovich, "Neural Neighbor Style Transfer", 2022; the schedule is
    that of the authors' program.

    Args:
        mix: share of the image that a scale starts from in the picture that is matched, 0..1.
        rotations: whether the style is also used turned by 90, 180 and 270 degrees.
        split: the fraction of the steps of the last scale that use layers apart, 0..1.

    Example:
        >>> from fastnst.losses import style
        >>> style.register("nnst_upright", NeuralNeighbor(rotations=False))
        >>> style.style_loss("nnst_upright").rotations
        False
    """

    def __init__(self, mix: float = 0.25, rotations: bool = True, split: float = 0.5) -> None:
        for name, value in (("mix", mix), ("split", split)):
            if not 0 <= value <= 1:
                raise UsageError(f"NeuralNeighbor: expected {name} in 0..1, got {value:g}")
        self.mix, self.rotations, self.split = mix, rotations, split

    def views(self, picture: Tensor) -> Sequence[Tensor]:
        return [picture.rot90(turns, (2, 3)) for turns in range(4 if self.rotations else 1)]

    def target(self, features: Features, stage: Stage) -> Target:
        """Return the hypercolumns ``[M, C]`` and sampled positions ``[m, c]`` of each layer, in the network's dtype."""
        columns = torch.cat([_columns(features, name, weight) for name, weight in stage.weights.items()], 1)
        return columns, *(_sampled(features[name], stage, i) for i, name in enumerate(stage.weights))

    def blend(self, targets: Sequence[Target], weights: Sequence[float]) -> Target:
        """Return the union of the styles; each position of the image takes the nearest of all."""
        if max(weights) - min(weights) > 1e-6 * max(weights):
            raise UsageError("style_loss 'nnst' matches the union of the styles and takes no style_weights")
        return tuple(torch.cat(parts) for parts in zip(*targets, strict=True))

    def begin(
        self, target: Target, content: Tensor, start: Tensor, measure: Callable[[Tensor], Features], stage: Stage
    ) -> Target:
        source = content
        if stage.scale > 1 and self.mix:
            source = (1 - self.mix) * content + self.mix * (start + _details(content))
        features = measure(source)
        columns = torch.cat([_columns(features, name, weight) for name, weight in stage.weights.items()], 1)
        del features
        index, _ = nearest(columns, target[0], center=True)
        del columns
        replacements = target[0][index]
        for part in replacements.split(max(2**22 // replacements.shape[1], 1)):
            part.copy_(unit_rows(part.to(accumulate_dtype(part.dtype))))
        return replacements, *target[1:]

    def value_and_gradients(self, features: Features, target: Target, stage: Stage) -> tuple[Tensor, dict[str, Tensor]]:
        with autocast_disabled(features[IMAGE].device), torch.no_grad():
            if stage.last_scale and stage.step > stage.steps - round(self.split * stage.steps):
                return _split_layers(features, target[1:], stage)
            return _matched_columns(features, target[0], stage)

    def bytes(self, sizes: Mapping[str, tuple[int, int, int]], style: float, itemsize: int) -> int:
        height, width = sizes[IMAGE][1:]
        channels = sum(c for name, (c, _, _) in sizes.items() if name != IMAGE)
        column = (height // GRID) * (width // GRID) * channels * itemsize
        views = 4 if self.rotations else 1
        # Hypercolumns of all views, which are joined, of the content and their replacements; and the gradients.
        return int((2 * views * style + 2) * column) + super().bytes(sizes, style, itemsize)


def _columns(features: Features, name: str, weight: float) -> Tensor:
    """The part ``[N, c]`` of a layer in the hypercolumns, in the dtype of the features."""
    x, (height, width) = features[name], features[IMAGE].shape[-2:]
    size = (max(height // GRID, 1), max(width // GRID, 1))
    found = F.interpolate(x, size, mode="bilinear", align_corners=True)
    return found.flatten(2)[0].T * (weight / x.shape[1])


def _details(picture: Tensor) -> Tensor:
    """What a picture loses when it is halved: the finest level of its Laplacian pyramid."""
    height, width = picture.shape[-2:]
    half = F.interpolate(picture, (max(height // 2, 1), max(width // 2, 1)), mode="bilinear")
    return picture - F.interpolate(half, (height, width), mode="bilinear")


def _matched_columns(features: Features, wanted: Tensor, stage: Stage) -> tuple[Tensor, dict[str, Tensor]]:
    """The mean cosine distance of hypercolumns to ``wanted`` ``[N, C]``, of length 1 each, and its gradients.

    Hypercolumns are never joined: products and lengths are sums over layers.
    """
    dtype, count = accumulate_dtype(wanted.dtype), len(wanted)
    parts = dict(zip(stage.weights, wanted.split([features[name].shape[1] for name in stage.weights], 1), strict=True))
    product, square = (torch.zeros(count, dtype=dtype, device=wanted.device) for _ in range(2))
    for name, weight in stage.weights.items():
        found = _columns(features, name, weight).to(dtype)
        square += found.square().sum(1)
        product += found.mul_(parts[name]).sum(1)
    length = square.clamp_min(LEAST_SQUARE).sqrt()
    cosine = product / length
    radial = torch.where(square > LEAST_SQUARE, cosine / length.square(), 0)[:, None]
    gradients = {}
    for name, weight in stage.weights.items():
        with recording():
            free = leaf(features[name])
            found = _columns({**features, name: free}, name, weight)
            by_column = found.detach().to(dtype) * radial
            by_column.sub_(parts[name] / length[:, None]).div_(count)
            (gradients[name],) = torch.autograd.grad(found, free, by_column.to(found.dtype))
    return 1 - cosine.mean(), gradients


def _split_layers(features: Features, styles: Target, stage: Stage) -> tuple[Tensor, dict[str, Tensor]]:
    """The weighted mean over layers of the mean cosine distance of features to their nearest in ``styles``."""
    total, gradients, values = sum(stage.weights.values()), {}, []
    for i, (name, weight) in enumerate(stage.weights.items()):
        x, part = features[name], weight / total
        places = _places(x, stage, i)
        map_part = x[places]
        rows = map_part.flatten(2)[0].T
        keys, dtype = styles[i], accumulate_dtype(x.dtype)
        index, cosine = nearest(rows, keys, center=True)
        rows = rows.to(dtype)
        rows = rows - mean_row(rows)
        length = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
        length = torch.where(length == 0, 1.0, length)
        wanted = unit_rows(keys[index].to(dtype) - mean_row(keys))
        by_row = rows.mul_(cosine[:, None]).sub_(wanted.mul_(length)).div_(length.square() * len(rows))
        by_row -= by_row.mean(0)  # since the mean depends on every row
        gradients[name] = torch.zeros_like(x)
        gradients[name][places] = (part * by_row).T.reshape(map_part.shape).to(x.dtype)
        values.append(part * (1 - cosine.mean()))
    return torch.stack(values).sum(), gradients


def _places(x: Tensor, stage: Stage, layer: int) -> tuple[slice, slice, slice, slice]:
    """The sampled positions of a layer: all, or a grid with a stride and a random offset."""
    side = max(x.shape[-2:])
    stride = side // SPLIT_SIDE if side > SPLIT_SIDE else 1
    offsets = torch.randint(stride, (2,), generator=stage.generator(layer), device="cpu").tolist()
    rows, columns = (
        slice(min(offset, count - 1), None, stride) for offset, count in zip(offsets, x.shape[-2:], strict=True)
    )
    return slice(None), slice(None), rows, columns


def _sampled(x: Tensor, stage: Stage, layer: int) -> Tensor:
    """The sampled positions ``[m, C]`` of a style's layer."""
    return x[_places(x, stage, layer)].flatten(2)[0].T.contiguous()

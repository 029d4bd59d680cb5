"""One question, one answer: the losses of an image and their gradient.

VGG is a chain, so its reverse sweep is written down instead of recorded. The forward sweep keeps each ReLU output once,
in the features' dtype; its sign is the ReLU's mask. The reverse sweep carries one gradient down the chain: at a tapped
layer the style and content pulls and the mask are added in place by one op, and each activation is let go as soon as it
has been used. Autograd through :meth:`fastnst.vgg.VGG.features` gives the same gradient and is the oracle of the tests.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from fastnst import ops
from fastnst.errors import UsageError
from fastnst.losses import content_form, style_form
from fastnst.settings import Settings
from fastnst.vgg import VGG, Layer, check_size

aten = torch.ops.aten


@dataclass(frozen=True)
class Losses:
    """The weighted parts of a loss: ``total`` is the sum of every part."""

    total: float
    content: Mapping[str, float] = field(default_factory=dict)
    style: Mapping[str, float] = field(default_factory=dict)
    tv: float = 0.0


StyleTargets = Mapping[str, Tensor]
"""For each style layer, the style's Gram matrix [1, C, C] in the settings' form."""


def style_targets(network: VGG, style: Tensor, settings: Settings) -> StyleTargets:
    """The Gram matrices of a style picture, pixels ``[1, 3, H, W]`` in 0..255; computed once for any number of runs."""
    form = style_form(settings.style_form)
    names = [name for name, weight in settings.style_layers if weight > 0]
    if not names or settings.style_weight == 0:
        return {}
    with torch.no_grad():
        features = network.features(style.to(network.device), names)
        return {name: ops.gram(f, scale=form.gram(f.shape[1], f.shape[2:].numel())) for name, f in features.items()}


@dataclass(frozen=True)
class _Tap:
    """What is asked of one layer: factors of the two losses (0: not asked) and their targets."""

    style: float
    scale: float
    gram: Tensor | None
    content: float
    target: Tensor | None


class Objective:
    """``content_weight * content + style_weight * style + tv_weight * TV`` of one content picture and one style.

    Args:
        network: built for at least ``settings.layer_names()``.
        content: pixels ``[1, 3, H, W]``, RGB, 0..255; every image evaluated has this size.
        targets: from :func:`style_targets`.
        settings: the weights, layers and forms; the rest is not read.

    Raises:
        UsageError: the picture is too small for the deepest layer, or a form is unknown.
    """

    def __init__(self, network: VGG, content: Tensor, targets: StyleTargets, settings: Settings) -> None:
        self.network, self.settings = network, settings
        self.size = (content.shape[-2], content.shape[-1])
        form, content_factor = style_form(settings.style_form), content_form(settings.content_form)
        content_weights = {
            name: settings.content_weight * w for name, w in settings.content_layers if settings.content_weight * w > 0
        }
        style_weights = {
            name: settings.style_weight * w for name, w in settings.style_layers if settings.style_weight * w > 0
        }
        wanted = content_weights | style_weights
        self.chain: tuple[Layer, ...] = _prefix(network.chain, wanted)
        check_size(self.chain, *self.size)
        with torch.no_grad():
            features = network.features(content.to(network.device), content_weights) if content_weights else {}
        self.taps: dict[str, _Tap] = {}
        for layer in self.chain:
            if layer.name not in wanted:
                continue
            c, n = layer.channels, (self.size[0] // layer.stride) * (self.size[1] // layer.stride)
            styled, kept = layer.name in style_weights, layer.name in content_weights
            if styled and layer.name not in targets:
                raise UsageError(f"no style target for layer {layer.name}")
            self.taps[layer.name] = _Tap(
                style=style_weights[layer.name] * form.loss(c) if styled else 0.0,
                scale=form.gram(c, n),
                gram=targets[layer.name] if styled else None,
                content=content_weights[layer.name] * content_factor(c, n) if kept else 0.0,
                target=features.get(layer.name),
            )

    @torch.no_grad()
    def value_and_grad(self, image: Tensor) -> tuple[Losses, Tensor]:
        """Losses and gradient of an image ``[1, 3, H, W]``, RGB, 0..255, float32 (or float64).

        The gradient has the shape, dtype and device of the image. Raises UsageError for an image of another shape.
        """
        if image.shape != (1, 3, *self.size):
            raise UsageError(
                f"expected an image of shape {(1, 3, *self.size)} like the content, got {tuple(image.shape)}"
            )
        kept: dict[str, Tensor] = {}
        places: dict[str, Tensor] = {}
        parts: list[tuple[str, str, Tensor]] = []
        residuals: dict[str, Tensor] = {}
        x = self.network.prepare(image)
        for i, layer in enumerate(self.chain):
            tap = self.taps.get(layer.name)
            if layer.kind == "conv":
                x = self.network.convolve(x, layer.name)
                if tap is not None:
                    kept[layer.name] = x
            elif layer.kind == "relu":
                below = "conv" + layer.name[4:]
                x = F.relu(x) if below in kept else F.relu_(x)
                kept[layer.name] = x
            elif self._remembers_places(i):
                x, places[layer.name] = _pool_places(kept.pop(self.chain[i - 1].name))
                if tap is not None:
                    kept[layer.name] = x
            else:
                x = self.network.pool(x)
                if tap is not None or self.network.pooling == "l2":
                    kept[layer.name] = x
            if tap is not None:
                self._measure(layer.name, tap, x, parts, residuals)
        del x
        gradient = self._reverse(kept, places, residuals, image)
        if self.settings.tv_weight > 0:
            weight = torch.tensor(self.settings.tv_weight, dtype=image.dtype, device=image.device)
            parts.append(("tv", "", weight * torch.ops.fastnst.total_variation(image, self.settings.tv_kind)))
            gradient += torch.ops.fastnst.total_variation_backward(weight, image, self.settings.tv_kind)
        return _losses(parts), gradient

    def _measure(
        self, name: str, tap: _Tap, x: Tensor, parts: list[tuple[str, str, Tensor]], residuals: dict[str, Tensor]
    ) -> None:
        if tap.gram is not None:
            loss, residuals[name] = torch.ops.fastnst.style_loss(x, tap.gram, None, tap.scale)
            parts.append(("style", name, tap.style * loss))
        if tap.target is not None:
            parts.append(("content", name, tap.content * torch.ops.fastnst.content_loss(x, tap.target)))

    def _remembers_places(self, i: int) -> bool:
        """Whether the pool at ``i`` keeps where its maxima lie and lets the ReLU below go, which no loss looks at."""
        return self.network.pooling == "max" and self.chain[i - 1].name not in self.taps

    def _reverse(
        self, kept: dict[str, Tensor], places: dict[str, Tensor], residuals: dict[str, Tensor], image: Tensor
    ) -> Tensor:
        grad: Tensor | None = None
        chain = self.chain
        for i in range(len(chain) - 1, -1, -1):
            layer = chain[i]
            # A layer's output is let go here, unless the pool above it was the one that needed it last.
            x = kept.pop(layer.name, None)
            tap = self.taps.get(layer.name)
            if x is not None and (tap is not None or layer.kind == "relu"):
                if grad is None:
                    grad = torch.zeros_like(x)
                _pull(grad, x, tap, residuals.pop(layer.name, None), relu=layer.kind == "relu")
            if layer.kind == "pool":
                assert grad is not None
                if layer.name in places:
                    grad = _unpool_places(grad, places.pop(layer.name), self._size_of(chain[i - 1]))
                else:
                    grad = self._unpool(grad, kept[chain[i - 1].name], x)
            elif layer.kind == "conv":
                assert grad is not None
                grad = self._unconvolve(grad, layer)
        assert grad is not None
        return (grad.to(image.dtype) * self.network.scale.to(image.dtype)).contiguous()

    def _size_of(self, layer: Layer) -> tuple[int, int]:
        return self.size[0] // layer.stride, self.size[1] // layer.stride

    def _unconvolve(self, grad: Tensor, layer: Layer) -> Tensor:
        """The convolution's backward with respect to its input: the transposed convolution."""
        weight, _ = self.network.convs[layer.name]
        if self.network.padding == "zeros":
            return F.conv_transpose2d(grad, weight, padding=1)
        around = F.conv_transpose2d(grad, weight)
        b, c, h, w = around.shape
        inside = around.new_empty((1,)).expand(b, c, h - 2, w - 2)  # only its sizes are read
        below: Tensor = aten.replication_pad2d_backward(around, inside, [1, 1, 1, 1])
        return below.contiguous(memory_format=torch.channels_last)

    def _unpool(self, grad: Tensor, x: Tensor, y: Tensor | None) -> Tensor:
        """The pool's backward with respect to its input ``x``; ``y`` is its output, kept for L2 pooling only."""
        window, none = [2, 2], [0, 0]
        if self.network.pooling == "max":
            # Found again here rather than kept: the indices would take as much memory as the features.
            _, where = aten.max_pool2d_with_indices(x, window)
            below: Tensor = aten.max_pool2d_with_indices_backward(grad, x, window, window, none, [1, 1], False, where)
            return below
        if self.network.pooling == "average":
            below = aten.avg_pool2d_backward(grad, x, window, window, none, False, True, None)
            return below
        assert y is not None
        below = aten.avg_pool2d_backward(grad / y, x, window, window, none, False, True, None)
        return below.mul_(x)


def _pool_places(x: Tensor) -> tuple[Tensor, Tensor]:
    """Max pooling of a ReLU's output, and the position of each maximum as int32, -1 where it is not above zero.

    That is all the ReLU's and the pool's backward need: a quarter of the memory of x in float32, half in bfloat16.
    """
    pooled, where = aten.max_pool2d_with_indices(x, [2, 2])
    return pooled, torch.where(pooled > 0, where, -1).to(torch.int32)


def _unpool_places(grad: Tensor, places: Tensor, size: tuple[int, int]) -> Tensor:
    """The backward of a ReLU and the max pooling after it."""
    # Only the sizes and the layout of the pool's input are read; memory never touched is never resident.
    shape = (*grad.shape[:2], *size)
    like = torch.empty(shape, dtype=grad.dtype, device=grad.device, memory_format=torch.channels_last)
    grad.mul_(places >= 0)
    where = places.clamp_(min=0).long()
    below: Tensor = aten.max_pool2d_with_indices_backward(grad, like, [2, 2], [2, 2], [0, 0], [1, 1], False, where)
    return below


def _pull(grad: Tensor, x: Tensor, tap: _Tap | None, residual: Tensor | None, *, relu: bool) -> None:
    style = 4.0 * tap.style * tap.scale if tap is not None else 0.0
    content = 2.0 * tap.content if tap is not None else 0.0
    target = tap.target if tap is not None else None
    torch.ops.fastnst.tapped_backward_(grad, x, residual, None, style, target, content, relu)


def _prefix(chain: tuple[Layer, ...], wanted: Mapping[str, float]) -> tuple[Layer, ...]:
    deepest = max(i for i, layer in enumerate(chain) if layer.name in wanted)
    return chain[: deepest + 1]


def _losses(parts: list[tuple[str, str, Tensor]]) -> Losses:
    """Every part with one transfer from the device."""
    values = torch.stack([value for _, _, value in parts]).tolist()
    named = [(kind, layer, value) for (kind, layer, _), value in zip(parts, values, strict=True)]
    return Losses(
        total=sum(values),
        content={layer: value for kind, layer, value in named if kind == "content"},
        style={layer: value for kind, layer, value in named if kind == "style"},
        tv=sum(value for kind, _, value in named if kind == "tv"),
    )

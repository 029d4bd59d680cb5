"""The two sweeps over a network with losses at its layers: forward to the values, in reverse to the image's gradient.

VGG is a chain, so its reverse sweep is written down instead of recorded. The forward sweep keeps each ReLU output once,
in the features' dtype; its sign is the ReLU's mask. The reverse sweep carries one gradient down the chain: at a tapped
layer the style and content pulls and the mask are added in place by one op, and each activation is let go as soon as it
has been used. Nothing here waits for the device or makes a tensor of a number on the host, so that a CUDA graph can
hold an evaluation.

:class:`Engine` leaves biases and ReLUs to PyTorch, :class:`FusedEngine` gives them to ops of ours, which spare passes
where they have a kernel.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from fastnst import ops
from fastnst.vgg import VGG, Layer

aten = torch.ops.aten


@dataclass(frozen=True)
class Tap:
    """What is asked of one layer: factors of the two losses (0: not asked) and their targets."""

    style: float
    scale: float
    gram: Tensor | None
    content: float
    target: Tensor | None


@dataclass
class Tape:
    """What one evaluation keeps on its way up for its way down, by layer, and the values it has found."""

    features: dict[str, Tensor] = field(default_factory=dict)
    places: dict[str, Tensor] = field(default_factory=dict)
    residuals: dict[str, Tensor] = field(default_factory=dict)
    values: list[Tensor] = field(default_factory=list)


class Engine:
    """Biases and ReLUs by PyTorch: any device, and what the fused engine is held to.

    Args:
        network: a network of at least ``chain``.
        chain: the layers up to the deepest tap.
        taps: what is asked, by layer.
        size: height and width of the images.
    """

    def __init__(self, network: VGG, chain: tuple[Layer, ...], taps: Mapping[str, Tap], size: tuple[int, int]) -> None:
        self.network, self.chain, self.taps, self.size = network, chain, taps, size
        # In the order in which the forward sweep finds them.
        self.parts: tuple[tuple[str, str], ...] = tuple(
            (kind, layer.name)
            for layer in chain
            if (tap := taps.get(layer.name)) is not None
            for kind, asked in (("style", tap.gram), ("content", tap.target))
            if asked is not None
        )

    def evaluate(self, image: Tensor) -> tuple[list[Tensor], Tensor]:
        """The weighted value of each of ``parts``, and the gradient of their sum, contiguous, in the image's dtype."""
        tape = Tape()
        self._forward(image, tape)
        gradient = self._reverse(tape)
        return tape.values, (gradient.to(image.dtype) * self.network.scale.to(image.dtype)).contiguous()

    def _forward(self, image: Tensor, tape: Tape) -> None:
        x = self.network.prepare(image)
        for i, layer in enumerate(self.chain):
            if layer.kind == "conv":
                x = self._convolve(i, x, tape)
            elif layer.kind == "relu":
                x = self._rectify(i, x, tape)
            else:
                x = self._pool(i, x, tape)
            tap = self.taps.get(layer.name)
            if tap is None:
                continue
            if tap.gram is not None and layer.name not in tape.residuals:
                loss, tape.residuals[layer.name] = torch.ops.fastnst.style_loss(x, tap.gram, None, tap.scale)
                tape.values.append(tap.style * loss)
            if tap.target is not None:
                tape.values.append(tap.content * torch.ops.fastnst.content_loss(x, tap.target))

    def _reverse(self, tape: Tape) -> Tensor:
        """The gradient of the network's input."""
        grad: Tensor | None = None
        chain = self.chain
        for i in range(len(chain) - 1, -1, -1):
            layer = chain[i]
            # A layer's output is let go here, unless the pool above it was the one that needed it last.
            x = tape.features.pop(layer.name, None)
            tap = self.taps.get(layer.name)
            if x is not None and (tap is not None or layer.kind == "relu"):
                if grad is None:
                    grad = torch.zeros_like(x)
                _pull(grad, x, tap, tape.residuals.pop(layer.name, None), relu=layer.kind == "relu")
            assert grad is not None
            if layer.kind == "pool":
                grad = self._unpool(i, grad, x, tape)
            elif layer.kind == "conv":
                grad = self._unconvolve(grad, layer)
        assert grad is not None
        return grad

    def _convolve(self, i: int, x: Tensor, tape: Tape) -> Tensor:
        name = self.chain[i].name
        x = self.network.convolve(x, name)
        if name in self.taps:
            tape.features[name] = x
        return x

    def _rectify(self, i: int, x: Tensor, tape: Tape) -> Tensor:
        x = F.relu(x) if self.chain[i - 1].name in self.taps else F.relu_(x)
        tape.features[self.chain[i].name] = x
        return x

    def _pool(self, i: int, x: Tensor, tape: Tape) -> Tensor:
        name, kind = self.chain[i].name, self.network.pooling
        y: Tensor
        y, places = torch.ops.fastnst.pool(x, kind)
        if kind == "max":
            tape.places[name] = places
        if self._lets_go(i):
            del tape.features[self.chain[i - 1].name]
        if name in self.taps or kind == "l2":
            tape.features[name] = y
        return y

    def _lets_go(self, i: int) -> bool:
        """Whether the pool at ``i`` keeps where its maxima lie and lets the ReLU below go, which no loss looks at."""
        return self.network.pooling == "max" and self.chain[i - 1].name not in self.taps

    def _unpool(self, i: int, grad: Tensor, y: Tensor | None, tape: Tape) -> Tensor:
        """The backward of the pool at ``i``, and of the ReLU below where that was let go."""
        below, kind = self.chain[i - 1], self.network.pooling
        x = tape.features[below.name] if kind == "l2" else None
        y = y if kind == "l2" else None
        places, (height, width) = tape.places.pop(self.chain[i].name, None), self._size_of(below)
        back: Tensor = torch.ops.fastnst.pool_backward(grad, x, y, places, kind, height, width, self._lets_go(i))
        # The layout of a gradient of one pixel can be read both ways.
        return back.contiguous(memory_format=torch.channels_last)

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


class FusedEngine(Engine):
    """One op for a bias, its ReLU and the style loss of that.

    Where a loss looks at a convolution, its ReLU is plain.
    """

    def _convolve(self, i: int, x: Tensor, tape: Tape) -> Tensor:
        name = self.chain[i].name
        if name in self.taps:
            return super()._convolve(i, x, tape)
        return self.network.convolve(x, name, bias=False)

    def _rectify(self, i: int, x: Tensor, tape: Tape) -> Tensor:
        name, below = self.chain[i].name, self.chain[i - 1].name
        if below in self.taps:
            return super()._rectify(i, x, tape)
        _, bias = self.network.convs[below]
        tap = self.taps.get(name)
        if tap is None or tap.gram is None:
            torch.ops.fastnst.bias_relu_(x, bias)
        else:
            x, loss, tape.residuals[name] = torch.ops.fastnst.bias_relu_style_loss(x, bias, tap.gram, tap.scale)
            tape.values.append(tap.style * loss)
        tape.features[name] = x
        return x


def choose(device: torch.device) -> type[Engine]:
    """The engine for a device: fused where its ops have kernels between convolutions."""
    return FusedEngine if ops.kernels(device.type)["bias_relu_"] == "cuda" else Engine


def _pull(grad: Tensor, x: Tensor, tap: Tap | None, residual: Tensor | None, *, relu: bool) -> None:
    style = 4.0 * tap.style * tap.scale if tap is not None else 0.0
    content = 2.0 * tap.content if tap is not None else 0.0
    target = tap.target if tap is not None else None
    torch.ops.fastnst.tapped_backward_(grad, x, residual, None, style, target, content, relu)

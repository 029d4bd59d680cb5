"""The two sweeps over a network with losses at its layers: forward to the values, in reverse to the image's gradient.

VGG is a chain, so its reverse sweep is written down instead of recorded. The forward sweep keeps each ReLU output once,
in the features' dtype; its sign is the ReLU's mask. The reverse sweep carries one gradient down the chain: at a tapped
layer the style and content pulls and the mask are added in place by one op, and each activation is let go as soon as it
has been used. Nothing here waits for the device or makes a tensor of a number on the host, so that a CUDA graph can
hold an evaluation.

:class:`Engine` leaves convolutions, biases and ReLUs to PyTorch. :class:`FusedEngine` gives biases and ReLUs to ops of
ours, for CUDA. :class:`WinogradEngine` gives convolutions to ops of ours with all that stands between, for the CPU.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from threading import Lock

import torch
import torch.nn.functional as F
from torch import Tensor

from fastnst import ops
from fastnst.arena import Arena
from fastnst.ops.conv3x3 import conv3x3_backward
from fastnst.styles import Pull
from fastnst.taps import Slope, Tap, lay_on, look_at_content, look_at_style
from fastnst.vgg import VGG, Layer

TILE = 4  # rows that a convolution of ours makes together, and more than its window looks beyond them


@dataclass
class Tape:
    """What one evaluation keeps on its way up for its way down, by layer, its values, and where it began."""

    features: dict[str, Tensor] = field(default_factory=dict)
    places: dict[str, Tensor] = field(default_factory=dict)
    slopes: dict[str, list[Slope]] = field(default_factory=dict)
    values: list[Tensor] = field(default_factory=list)
    start: Tensor | None = None


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
            for kind, asked in (("style", bool(tap.styles)), ("content", tap.target is not None))
            if asked
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
            if tap.styles and layer.name not in tape.slopes:
                value, tape.slopes[layer.name] = look_at_style(x, tap)
                tape.values.append(value)
            if tap.target is not None:
                tape.values.append(look_at_content(x, tap))

    def _reverse(self, tape: Tape) -> Tensor:
        """The gradient of the network's input."""
        grad: Tensor | None = None
        chain = self.chain
        for i in range(len(chain) - 1, -1, -1):
            layer = chain[i]
            # A layer's output is let go here, unless the pool above it was the one that needed it last.
            x = tape.features.pop(layer.name, None)
            tap = self.taps.get(layer.name)
            if x is not None and (tap is not None or (layer.kind == "relu" and not self._masks(i + 1))):
                if grad is None:
                    grad = torch.zeros_like(x)
                lay_on(grad, x, tap, tape.slopes.pop(layer.name, ()), relu=layer.kind == "relu")
            assert grad is not None
            if layer.kind == "pool":
                grad = self._unpool(i, grad, x, tape)
            elif layer.kind == "conv":
                grad = self._unconvolve(i, grad, tape)
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

    def _masks(self, i: int) -> bool:
        """Whether the way down through layer ``i`` brings the ReLU below it with it."""
        return False

    def _unconvolve(self, i: int, grad: Tensor, tape: Tape) -> Tensor:
        """The convolution's backward with respect to its input: the transposed convolution."""
        return self.network.unconvolve(grad, self.chain[i].name)


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
        term = tap.plain_gram if tap is not None else None
        if term is None:
            torch.ops.fastnst.bias_relu_(x, bias)
        else:
            x, loss, residual = torch.ops.fastnst.bias_relu_style_loss(x, bias, term.target[0], term.scale)
            tape.slopes[name] = [Slope(4.0 * term.factor * term.scale, Pull(matrix=residual))]
            tape.values.append(term.factor * loss)
        tape.features[name] = x
        return x


class WinogradEngine(Engine):
    """A convolution by our own op, with its bias, its ReLU and a max pool above that no loss looks below.

    On the way down the same: the pool's gradient is spread out while the convolution reads it, and the mask of a ReLU
    that no loss looks at is laid on while it writes. Maps lie in an arena.

    The first map is the largest and costs least: it is let go when the second convolution has read it, and made again
    on the way down. There it and its gradient come strip by strip, and are never whole.
    """

    def __init__(self, network: VGG, chain: tuple[Layer, ...], taps: Mapping[str, Tap], size: tuple[int, int]) -> None:
        super().__init__(network, chain, taps, size)
        self._arena, self._lock = Arena(), Lock()

    def evaluate(self, image: Tensor) -> tuple[list[Tensor], Tensor]:
        with self._lock, self._arena.evaluation():
            return super().evaluate(image)

    def _pools(self, i: int) -> bool:
        """Whether the convolution at ``i`` brings ReLU and pool with it."""
        above = self.chain[i + 1 : i + 3]
        return (
            len(above) == 2 and above[1].kind == "pool" and self.chain[i].name not in self.taps and self._lets_go(i + 2)
        )

    def _convolve(self, i: int, x: Tensor, tape: Tape) -> Tensor:
        if i == 0:
            tape.start = x
        name, network = self.chain[i].name, self.network
        if self._pools(i):
            pool = self.chain[i + 2]
            y, places = self._empty(pool, x.dtype), self._empty(pool, torch.uint8)
            torch.ops.fastnst.conv3x3_pool_out(x, *network.convs[name], network.border(name), 0, y, places)
            tape.places[pool.name] = places
        else:
            y = self._empty(self.chain[i], x.dtype)
            torch.ops.fastnst.conv3x3_out(x, *network.convs[name], name not in self.taps, network.border(name), 0, y)
            if name in self.taps:
                tape.features[name] = y
        if i == 2 and self._in_strips():
            del tape.features[self.chain[1].name]
        return y

    def _in_strips(self) -> bool:
        """Whether the first map is let go once it has been read, and the way down through it goes strip by strip."""
        tap = self.taps.get(self.chain[1].name) if len(self.chain) > 2 else None
        whole = tap is not None and tap.norms is not None  # a norm is of the whole map
        return len(self.chain) > 2 and self.chain[0].name not in self.taps and not whole

    def _unconvolve_in_strips(self, grad: Tensor, tape: Tape) -> Tensor:
        """The way down through the second convolution, the ReLU below and the first: a strip of rows after the other,
        with the rows beside it that its gradient looks at.

        Strips begin at tiles of the convolution, so the result is that of the whole map, bit for bit.
        """
        assert tape.start is not None
        first, second = self.chain[0], self.chain[2]
        tap, places = self.taps.get(self.chain[1].name), tape.places.pop(self.chain[4].name) if self._pools(2) else None
        slopes = tape.slopes.pop(self.chain[1].name, [])
        (height, width), start = self.size, tape.start
        below = self._arena.empty(start.shape[1], height, width, start.dtype)
        rows = strip(height)
        for top in range(0, height, rows):
            bottom = min(top + rows, height)
            low, high = max(top - TILE, 0), min(bottom + TILE, height)
            size, above = (high - low, width), slice(low, high)
            x = self._arena.empty(first.channels, *size, start.dtype)
            torch.ops.fastnst.conv3x3_out(
                start[:, :, above], *self.network.convs[first.name], True, self.network.border(first.name), 0, x
            )
            part, where = grad[:, :, above], None
            if places is not None:
                pooled = slice(low // 2, high // 2)
                part, where = grad[:, :, pooled], places[:, :, pooled]
            strip_grad = self._transposed(second, part, size, None if tap else x, where)
            if tap is not None:
                lay_on(strip_grad, x, tap.rows(above), [slope.rows(above) for slope in slopes], relu=True)
            image_grad = self._transposed(first, strip_grad, size, None, None)
            below[:, :, top:bottom] = image_grad[:, :, top - low : bottom - low]
        return below

    def _rectify(self, i: int, x: Tensor, tape: Tape) -> Tensor:
        if self.chain[i - 1].name in self.taps:
            return super()._rectify(i, x, tape)
        if not self._pools(i - 1):
            tape.features[self.chain[i].name] = x
        return x

    def _pool(self, i: int, x: Tensor, tape: Tape) -> Tensor:
        if not self._pools(i - 2):
            return super()._pool(i, x, tape)
        if self.chain[i].name in self.taps:
            tape.features[self.chain[i].name] = x
        return x

    def _masks(self, i: int) -> bool:
        below = self.chain[i - 1]
        above = self.chain[i : i + 1]
        return bool(above) and above[0].kind == "conv" and below.kind == "relu" and below.name not in self.taps

    def _unpool(self, i: int, grad: Tensor, y: Tensor | None, tape: Tape) -> Tensor:
        return grad if self._pools(i - 2) else super()._unpool(i, grad, y, tape)

    def _unconvolve(self, i: int, grad: Tensor, tape: Tape) -> Tensor:
        if i <= 2 and self._in_strips():
            return self._unconvolve_in_strips(grad, tape) if i == 2 else grad  # which has come all the way
        mask = tape.features[self.chain[i - 1].name] if i > 0 and self._masks(i) else None
        places = tape.places.pop(self.chain[i + 2].name) if self._pools(i) else None
        return self._transposed(self.chain[i], grad, self._size_of(self.chain[i]), mask, places)

    def _transposed(
        self, layer: Layer, grad: Tensor, size: tuple[int, int], mask: Tensor | None, places: Tensor | None
    ) -> Tensor:
        """The gradient of a convolution's input of ``size``."""
        weight, _ = self.network.convs[layer.name]
        border = self.network.border(layer.name)
        if border != "zeros":
            return conv3x3_backward(grad, weight, mask=mask, places=places, size=size, padding=border)
        below = self._arena.empty(weight.shape[1], *size, grad.dtype)
        torch.ops.fastnst.conv3x3_backward_out(grad, weight, mask, places, *size, False, 0, below)
        return below

    def _empty(self, layer: Layer, dtype: torch.dtype) -> Tensor:
        return self._arena.empty(layer.channels, *self._size_of(layer), dtype)


def strip(height: int) -> int:
    """Rows of a strip: a third of the map, since with less the way up needs the most memory; whole tiles."""
    return -(-height // (3 * TILE)) * TILE


def choose(network: VGG) -> type[Engine]:
    """The engine for a network: by its convolutions, else fused where its ops have kernels between convolutions."""
    if network.winograd:
        return WinogradEngine
    return FusedEngine if ops.kernels(network.device.type)["bias_relu_"] == "cuda" else Engine

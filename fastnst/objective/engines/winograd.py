"""The engine for the CPU: fastnst's convolutions, which apply ReLUs, pools and masks while they compute."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from threading import Lock

import torch
from torch import Tensor

from fastnst.network.fusion import TILE_ROWS
from fastnst.network.layer import Layer
from fastnst.network.vgg import VGG
from fastnst.objective.arena import Arena
from fastnst.objective.engines.plain import Activations, PlainEngine
from fastnst.objective.joint import JointTerm
from fastnst.objective.terms import LayerTerms, add_gradient_
from fastnst.ops.conv3x3 import conv3x3_backward


class WinogradEngine(PlainEngine):
    """One op for a convolution, its bias, its ReLU and the max pool after it, where no loss observes the maps between.

    The backward is as fused: the op spreads the pool's gradient while it reads it, and applies the mask of the ReLU
    below while it writes. Maps are placed in an :class:`fastnst.objective.arena.Arena`.

    The first map is the largest and the cheapest to compute. It is released when the second convolution has read it,
    and the backward pass recomputes it. There it and its gradient are computed in strips, and never exist as a whole.
    """

    conv_masks = True

    def __init__(
        self,
        network: VGG,
        chain: tuple[Layer, ...],
        terms: Mapping[str, LayerTerms],
        size: tuple[int, int],
        joint: Sequence[JointTerm] = (),
    ) -> None:
        super().__init__(network, chain, terms, size, joint)
        self._arena, self._lock = Arena(), Lock()

    @contextmanager
    def _evaluation(self) -> Iterator[None]:
        with self._lock, self._arena.evaluation():
            yield

    def _convolve(self, i: int, x: Tensor, activations: Activations) -> Tensor:
        if i == 0:
            activations.input = x
        name, network = self.chain[i].name, self.network
        if self.plan.fuses_pool(i):
            pool = self.chain[i + 2]
            y, argmax = self._empty(pool, x.dtype), self._empty(pool, torch.uint8)
            torch.ops.fastnst.conv3x3_pool_out(x, *network.convs[name], network.padding_of(name), 0, y, argmax)
            activations.argmax[pool.name] = argmax
        else:
            y, relu = self._empty(self.chain[i], x.dtype), self.plan.fuses_relu(i)
            torch.ops.fastnst.conv3x3_out(x, *network.convs[name], relu, network.padding_of(name), 0, y)
            if name in self.terms:
                activations.features[name] = y
        if i == 2 and self.plan.recomputes_first():
            del activations.features[self.chain[1].name]
        return y

    def _relu(self, i: int, x: Tensor, activations: Activations) -> Tensor:
        if not self.plan.fuses_relu(i - 1):
            return super()._relu(i, x, activations)
        if not self.plan.fuses_pool(i - 1):
            activations.features[self.chain[i].name] = x
        return x

    def _pool(self, i: int, x: Tensor, activations: Activations) -> Tensor:
        if not self.plan.fuses_pool(i - 2):
            return super()._pool(i, x, activations)
        if self.chain[i].name in self.terms:
            activations.features[self.chain[i].name] = x
        return x

    def _pool_backward(self, i: int, grad: Tensor, y: Tensor | None, activations: Activations) -> Tensor:
        return grad if self.plan.fuses_pool(i - 2) else super()._pool_backward(i, grad, y, activations)

    def _convolve_backward(self, i: int, grad: Tensor, activations: Activations) -> Tensor:
        if i <= 2 and self.plan.recomputes_first():
            # The strips of the second convolution include the first, which has nothing left to do.
            return self._backward_in_strips(grad, activations) if i == 2 else grad
        mask = activations.features[self.chain[i - 1].name] if self.plan.masks_relu(i) else None
        argmax = activations.argmax.pop(self.chain[i + 2].name) if self.plan.fuses_pool(i) else None
        return self._transposed(self.chain[i], grad, self._size_of(self.chain[i]), mask, argmax)

    def _backward_in_strips(self, grad: Tensor, activations: Activations) -> Tensor:
        """The backward of the second convolution, the ReLU below and the first convolution, one strip after another.

        Each strip has a margin of ``TILE_ROWS`` on both sides, whose gradient is incomplete and dropped. Strips begin
        where tiles of the convolution do, so that the result has the bits of a backward of the whole map. A reflected
        row is wrong one row further inside, where a tile of the strip's own rows reads it: the margin is twice as wide.
        """
        assert activations.input is not None
        second, name = self.chain[2], self.chain[1].name
        terms, argmax = self.terms.get(name), None
        if self.plan.fuses_pool(2):
            argmax = activations.argmax.pop(self.chain[4].name)
        gradients = activations.gradients.pop(name, [])
        (height, width), x = self.size, activations.input
        below = self._arena.empty(x.shape[1], height, width, x.dtype)
        rows, margin = strip_rows(height), TILE_ROWS * (2 if "reflect" in self.network.padding else 1)
        for top in range(0, height, rows):
            bottom = min(top + rows, height)
            low, high = max(top - margin, 0), min(bottom + margin, height)
            strip, size = slice(low, high), (high - low, width)
            features = self._first_features(x[:, :, strip], size)
            if argmax is None:
                grad_out, argmax_out = grad[:, :, strip], None
            else:
                pooled = slice(low // 2, high // 2)
                grad_out, argmax_out = grad[:, :, pooled], argmax[:, :, pooled]
            strip_grad = self._transposed(second, grad_out, size, None if terms else features, argmax_out)
            if terms is not None:
                some = [gradient.rows(strip) for gradient in gradients]
                add_gradient_(strip_grad, features, terms.rows(strip), some, relu=True)
            input_grad = self._transposed(self.chain[0], strip_grad, size, None, None)
            below[:, :, top:bottom] = input_grad[:, :, top - low : bottom - low]
        return below

    def _first_features(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        """The first convolution and its ReLU for some rows ``x`` of the network's input."""
        first = self.chain[0]
        y = self._arena.empty(first.channels, *size, x.dtype)
        padding = self.network.padding_of(first.name)
        torch.ops.fastnst.conv3x3_out(x, *self.network.convs[first.name], True, padding, 0, y)
        return y

    def _transposed(
        self, layer: Layer, grad: Tensor, size: tuple[int, int], mask: Tensor | None, argmax: Tensor | None
    ) -> Tensor:
        """The gradient of the input, of height and width ``size``, of a convolution."""
        weight, _ = self.network.convs[layer.name]
        padding = self.network.padding_of(layer.name)
        if padding != "zeros":
            return conv3x3_backward(grad, weight, mask=mask, argmax=argmax, size=size, padding=padding)
        below = self._arena.empty(weight.shape[1], *size, grad.dtype)
        torch.ops.fastnst.conv3x3_backward_out(grad, weight, mask, argmax, *size, False, 0, below)
        return below

    def _empty(self, layer: Layer, dtype: torch.dtype) -> Tensor:
        return self._arena.empty(layer.channels, *self._size_of(layer), dtype)


def strip_rows(height: int) -> int:
    """Rows of a strip of the first map: whole tiles, a third of the map.

    With fewer rows the forward pass would be what needs the most memory, so that nothing is gained.
    """
    return -(-height // (3 * TILE_ROWS)) * TILE_ROWS

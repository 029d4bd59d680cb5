"""The convolutions and pools of one strip, forward and backward."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from fastnst.network.vgg import VGG
from fastnst.objective.arena import Arena
from fastnst.strips.layout import StripLayout


@dataclass
class StripActivations:
    """What the forward pass of one strip keeps for its backward pass, by layer.

    Attributes:
        inputs: of convolutions and pools, with the carried-over rows before the strip and the halo rows after it.
        outputs: of observed layers, of ReLUs whose mask no other layer applies, and of the deepest layer.
        argmax: of max pools.
        pooled: the outputs of pools of their own.
    """

    inputs: dict[str, Tensor] = field(default_factory=dict)
    outputs: dict[str, Tensor] = field(default_factory=dict)
    argmax: dict[str, Tensor] = field(default_factory=dict)
    pooled: dict[str, Tensor] = field(default_factory=dict)


class StripSteps:
    """Computes the rows of a layer in strip ``k`` from its input, and the gradient of the input.

    ``i`` is the index of the layer in the chain. ``carried`` has the rows that the strip before carried over, by the
    name of the layer that reads them.
    """

    def __init__(self, network: VGG, layout: StripLayout) -> None:
        self.network, self.layout, self.plan, self.chain = network, layout, layout.plan, layout.chain
        self.arena = Arena()

    def convolve(
        self, k: int, i: int, x: Tensor, carried: Mapping[str, Tensor], activations: StripActivations | None
    ) -> Tensor:
        """The carried-over rows and the new rows of a convolution, with the ReLU and pool that it applies."""
        if activations is not None:
            activations.inputs[self.chain[i].name] = x
        if self.network.winograd:
            return self._convolve_winograd(k, i, x, carried, activations)
        name, channels, relu = self.chain[i].name, self.chain[i].channels, self.plan.fuses_relu(i)
        start, stop = self.layout.ends[k][i + 1], self.layout.ends[k + 1][i + 1]
        last = i + 1 if relu else i
        if start == stop:
            return self.prepend_carried(carried, last, x.new_empty((1, channels, 0, x.shape[3])))
        first = start - self.layout.input_start(k, i)
        y = self.network.convolve(x, name, relu=relu)
        return self.prepend_carried(carried, last, y[:, :, first : first + stop - start])

    def _convolve_winograd(
        self, k: int, i: int, x: Tensor, carried: Mapping[str, Tensor], activations: StripActivations | None
    ) -> Tensor:
        name, channels = self.chain[i].name, self.chain[i].channels
        pooled, relu = self.plan.fuses_pool(i), self.plan.fuses_relu(i)
        last = i + 2 if pooled else i + 1 if relu else i
        before = self._carried_rows(carried, last)
        lead = 0 if before is None else before.shape[2]
        rows = self.layout.ends[k + 1][last + 1] - self.layout.ends[k][last + 1]
        y = self._empty(channels, lead + rows, x.shape[3] // (2 if pooled else 1), x)
        out, first = y[:, :, lead:], self.layout.ends[k][i + 1] - self.layout.input_start(k, i)
        conv, padding = self.network.convs[name], self.network.padding_of(name)
        if pooled:
            argmax = self._empty(channels, rows, out.shape[3], x, torch.uint8)
            if rows:
                torch.ops.fastnst.conv3x3_pool_out(x, *conv, padding, first, out, argmax)
            if activations is not None:
                activations.argmax[self.chain[last].name] = argmax
        elif rows:
            torch.ops.fastnst.conv3x3_out(x, *conv, relu, padding, first, out)
        if before is not None:
            y[:, :, :lead] = before
        return y

    def pool(self, k: int, i: int, x: Tensor, activations: StripActivations | None) -> Tensor:
        """The new rows of a pool of its own."""
        kind, name = self.network.pooling, self.chain[i].name
        count = self.layout.ends[k + 1][i + 1] - self.layout.ends[k][i + 1]
        y: Tensor
        y, argmax = torch.ops.fastnst.pool(x[:, :, : 2 * count], kind)
        if activations is not None:
            activations.argmax[name] = argmax
            # The backward of the other pools reads the shape alone.
            activations.inputs[name] = x if kind == "l2" else x.new_empty(()).expand(x.shape)
            activations.pooled[name] = y
        return y

    def prepend_carried(self, carried: Mapping[str, Tensor], i: int, y: Tensor) -> Tensor:
        """The output of layer ``i`` with its carried-over rows."""
        before = self._carried_rows(carried, i)
        return y if before is None else torch.cat((before, y), 2)

    def _carried_rows(self, carried: Mapping[str, Tensor], i: int) -> Tensor | None:
        """The carried-over rows of the output of layer ``i``; the layer that reads them has a window."""
        following = self.chain[i + 1 : i + 2]
        return carried.get(following[0].name) if following and following[0].kind != "relu" else None

    def backward(self, k: int, i: int, grad: Tensor, activations: StripActivations) -> Tensor:
        """The gradient of all rows that layer ``i`` reads in strip ``k``, from the gradient of its own rows."""
        x = activations.inputs.pop(self.chain[i].name)
        if self.layout.ends[k][i + 1] == self.layout.ends[k + 1][i + 1]:
            return self._empty(x.shape[1], x.shape[2], x.shape[3], x).zero_()
        if self.chain[i].kind == "pool":
            return self._pool_backward(i, grad, x, activations)
        argmax = activations.argmax.pop(self.chain[i + 2].name) if self.plan.fuses_pool(i) else None
        return self._convolve_backward(k, i, grad, x, argmax)

    def _pool_backward(self, i: int, grad: Tensor, x: Tensor, activations: StripActivations) -> Tensor:
        name, kind = self.chain[i].name, self.network.pooling
        values = (x, activations.pooled.pop(name)) if kind == "l2" else (None, None)
        argmax = activations.argmax.pop(name) if kind == "max" else None
        size, relu = (x.shape[2], x.shape[3]), self.plan.masks_relu(i)
        found: Tensor = torch.ops.fastnst.pool_backward(grad, *values, argmax, kind, *size, relu)
        return found.contiguous(memory_format=torch.channels_last)

    def _convolve_backward(self, k: int, i: int, grad: Tensor, x: Tensor, argmax: Tensor | None) -> Tensor:
        layout, network, name = self.layout, self.network, self.chain[i].name
        start = layout.ends[k][i + 1] if argmax is None else 2 * layout.ends[k][i + 3]
        stop, first = layout.ends[k + 1][i + 1], layout.input_start(k, i)
        mask = x if self.plan.masks_relu(i) else None
        size = (stop - start, x.shape[3])
        if network.winograd and network.padding_of(name) == "zeros":
            weight, _ = network.convs[name]
            found = self._empty(x.shape[1], x.shape[2], x.shape[3], x)
            rows = slice(max(start - 1 - first, 0), min(stop + 1 - first, x.shape[2]))
            found[:, :, : rows.start] = 0
            found[:, :, rows.stop :] = 0
            mask = None if mask is None else mask[:, :, rows]
            offset, out = first + rows.start - start, found[:, :, rows]
            torch.ops.fastnst.conv3x3_backward_out(grad, weight, mask, argmax, *size, False, offset, out)
            return found
        if argmax is not None:
            grad = torch.ops.fastnst.pool_backward(grad, None, None, argmax, "max", *size, True)
        # The op returns as many rows as it gets, so the gradient is extended by zeros to the rows of the input.
        grad = F.pad(grad, (0, 0, start - first, first + x.shape[2] - stop))
        return network.convolve_backward(grad.contiguous(memory_format=torch.channels_last), name, mask)

    def _empty(self, channels: int, rows: int, width: int, like: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """An uninitialized map of a strip, channels_last, by default of the dtype of ``like`` and on its device."""
        dtype = dtype or like.dtype
        if like.device.type == "cpu":
            return self.arena.empty(channels, rows, width, dtype)
        return like.new_empty((1, rows, width, channels), dtype=dtype).permute(0, 3, 1, 2)

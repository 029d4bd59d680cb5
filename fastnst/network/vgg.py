"""VGG-16 and VGG-19: their layers, and a frozen network with its forward pass.

Simonyan and Zisserman, "Very deep convolutional networks for large-scale image recognition", ICLR 2015, columns D
and E. Layers are named as in Gatys et al.: ``conv1_1``, ``relu1_1``, ..., ``pool1``, ..., ``relu5_1``.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from fastnst import ops
from fastnst.config.layer_names import BLOCKS, CHANNELS, layer_names, layer_stride
from fastnst.errors import UsageError, WeightsError, nearest
from fastnst.network.cudnn import ReluEpilogue
from fastnst.network.fusion import FusionPlan
from fastnst.network.layer import Layer
from fastnst.ops.conv3x3 import conv3x3_backward
from fastnst.weights import Weights

POOLINGS = ops.reference.POOLS
PADDINGS = (*ops.reference.PADDINGS, "replicate_first")
"""How a convolution's input is padded: with zeros, with the nearest pixel, with the pixels of the opposite side, with
the map mirrored at its outermost pixels, or with the nearest pixel at the first convolution and zeros at all others
(``"replicate_first"``), as in style-transfer-pytorch."""


def layers(arch: str) -> tuple[Layer, ...]:
    """The layers of ``"vgg16"`` or ``"vgg19"``, first layer first."""
    if arch not in BLOCKS:
        raise UsageError(f"unknown network {arch!r}{nearest(arch, BLOCKS)} (known: {', '.join(BLOCKS)})")
    chain = []
    for name in layer_names(arch):
        kind, block = name[:4], int(name[4])
        chain.append(Layer(name, kind, CHANNELS[block - 1], layer_stride(name)))
    return tuple(chain)


def chain_to(arch: str, names: Iterable[str]) -> tuple[Layer, ...]:
    """The layers up to the deepest of ``names``. Raises UsageError for an unknown name and suggests the nearest."""
    chain = layers(arch)
    index = {layer.name: i for i, layer in enumerate(chain)}
    deepest = -1
    for name in names:
        if name not in index:
            raise UsageError(f"unknown layer {name!r} of {arch}{nearest(name, index)}")
        deepest = max(deepest, index[name])
    return chain[: deepest + 1]


def convolutions(chain: Iterable[Layer]) -> tuple[str, ...]:
    """The names of the convolutions in ``chain``."""
    return tuple(layer.name for layer in chain if layer.kind == "conv")


def smallest_side(chain: Iterable[Layer]) -> int:
    """The least height and width of an image at which every layer of ``chain`` has a position."""
    return max((layer.stride for layer in chain), default=1)


class VGG:
    """A frozen VGG up to the deepest of the named layers, with its weights on one device in one dtype.

    Args:
        weights: from :func:`fastnst.weights.load`.
        names: the layers that will be used; deeper convolutions are not loaded.
        pooling: ``"max"``, ``"average"`` or ``"l2"`` (root mean square of the four values).
        padding: one of ``PADDINGS``, or two of them for rows and for columns, such as ``"zeros,circular"``.
        device, dtype: of the weights and the features.
        winograd: whether to use :func:`fastnst.ops.conv3x3` for convolutions instead of PyTorch.

    Raises:
        UsageError: an unknown layer, pooling or padding. WeightsError: a needed convolution is missing.

    Example::

        network = VGG(weights.load(), ["relu1_1", "relu4_2"])
        features = network.features(255 * torch.rand(1, 3, 256, 256))["relu4_2"]  # [1, 512, 32, 32]
    """

    def __init__(
        self,
        weights: Weights,
        names: Iterable[str],
        *,
        pooling: str = "max",
        padding: str = "zeros",
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        winograd: bool = False,
    ) -> None:
        paddings = [("padding", side, PADDINGS) for side in ops.reference.sides(padding)]
        for what, value, known in (("pooling", pooling, POOLINGS), *paddings):
            if value not in known:
                raise UsageError(f"unknown {what} {value!r}{nearest(value, known)} (known: {', '.join(known)})")
        self.arch = weights.arch
        self.chain = chain_to(weights.arch, names)
        missing = [name for name in convolutions(self.chain) if name not in weights.convs]
        if missing:
            held = [name for name in convolutions(layers(weights.arch)) if name in weights.convs]
            raise WeightsError(
                f"weights {weights.name}: lacks {', '.join(missing)}; it holds {', '.join(held) or 'no convolution'}"
            )
        self.pooling, self.padding = pooling, padding
        self.device, self.dtype = torch.device(device), dtype
        self.winograd = winograd
        self._relu_epilogue = ReluEpilogue()
        self.convs: Mapping[str, tuple[Tensor, Tensor]] = {
            name: (self._in_memory_order(weights.convs[name][0]), weights.convs[name][1].to(self.device, dtype))
            for name in convolutions(self.chain)
        }
        exact = torch.float64 if dtype == torch.float64 else torch.float32
        self.mean = torch.tensor(weights.mean, dtype=exact, device=self.device).reshape(1, 3, 1, 1)
        self.scale = torch.tensor(weights.scale, dtype=exact, device=self.device).reshape(1, 3, 1, 1)

    def _in_memory_order(self, weight: Tensor) -> Tensor:
        """A weight ``[K, C, 3, 3]`` in the memory layout in which the convolutions read it fastest."""
        if not self.winograd:
            return weight.to(self.device, self.dtype, memory_format=torch.channels_last)
        return weight.to(self.device, self.dtype).permute(1, 2, 3, 0).contiguous().permute(3, 0, 1, 2)

    def transposed(self) -> VGG:
        """The network whose features of a transposed picture are the transposed features of this one.

        The weights are views of this network's.
        """
        rows, columns = ops.reference.sides(self.padding)
        network = self.padded(ops.reference.joined(columns, rows))
        network.convs = {name: (weight.transpose(2, 3), bias) for name, (weight, bias) in self.convs.items()}
        return network

    @property
    def wraps_rows(self) -> bool:
        """Whether the padding of rows is that of the opposite side."""
        return ops.reference.sides(self.padding)[0] == "circular"

    def padded(self, padding: str) -> VGG:
        """The network with another padding. The weights are this network's."""
        network = copy.copy(self)
        network.padding = padding
        return network

    def padding_of(self, name: str) -> str:
        """The padding of the convolution ``name``, as :func:`fastnst.ops.conv3x3` takes it."""
        if "replicate_first" not in self.padding:
            return self.padding
        first = "replicate" if name == self.chain[0].name else "zeros"
        rows, columns = ops.reference.sides(self.padding.replace("replicate_first", first))
        return ops.reference.joined(rows, columns)

    def map_size(self, layer: Layer, size: tuple[int, int]) -> tuple[int, int]:
        """Height and width of a layer's output for pictures of a height and width."""
        return size[0] // layer.stride, size[1] // layer.stride

    def prepare(self, image: Tensor) -> Tensor:
        """The network's input for pixels ``[B, 3, H, W]``, RGB, 0..255: normalized, in its dtype, channels_last."""
        centered = (image - self.mean.to(image.dtype)) * self.scale.to(image.dtype)
        return centered.to(self.dtype, memory_format=torch.channels_last)

    def convolve(self, x: Tensor, name: str, *, bias: bool = True, relu: bool = False) -> Tensor:
        """The output of the convolution ``name``, optionally without its bias or with its ReLU."""
        weight, offset = self.convs[name]
        if self.winograd:
            return ops.conv3x3(x, weight, offset if bias else None, relu=relu, padding=self.padding_of(name))
        x, padding = self._padded(x, name)
        y = F.conv2d(x, weight, offset if bias else None, padding=padding)
        return F.relu_(y) if relu else y

    def convolve_relu(self, x: Tensor, name: str) -> Tensor:
        """The output of the convolution ``name`` with its ReLU: in one op where cuDNN can, for CUDA."""
        weight, bias = self.convs[name]
        x, padding = self._padded(x, name)

        def two_ops() -> Tensor:
            y = F.conv2d(x, weight, padding=padding)
            torch.ops.fastnst.bias_relu_(y, bias)
            return y

        return self._relu_epilogue(x, weight, bias, padding, two_ops)

    def _padded(self, x: Tensor, name: str) -> tuple[Tensor, int]:
        """The input of the convolution ``name``, padded unless with zeros, and the width of the zeros to add."""
        padding = self.padding_of(name)
        if padding == "zeros":
            return x, 1
        return ops.reference.pad(x, padding).contiguous(memory_format=torch.channels_last), 0

    def convolve_backward(self, grad: Tensor, name: str, mask: Tensor | None = None) -> Tensor:
        """The gradient of the input of the convolution ``name`` from the gradient of its output, channels_last.

        With ``mask``, the input itself, it is zero where the input is not positive, as the backward of a ReLU below.
        """
        weight, _ = self.convs[name]
        if self.winograd:
            height, width = grad.shape[2:]
            return conv3x3_backward(grad, weight, mask=mask, size=(height, width), padding=self.padding_of(name))
        padding = self.padding_of(name)
        below = F.conv_transpose2d(grad, weight, padding=int(padding == "zeros"))
        if padding != "zeros":
            below = ops.reference.fold(below, padding).contiguous(memory_format=torch.channels_last)
        return below if mask is None else torch.ops.aten.threshold_backward(below, mask, 0)

    def pool(self, x: Tensor) -> Tensor:
        """2 x 2 pooling with stride 2; an odd last row or column is ignored."""
        return ops.pool(x, self.pooling)

    def features(self, image: Tensor, names: Iterable[str] | None = None) -> dict[str, Tensor]:
        """The outputs of the named layers for pixels ``[B, 3, H, W]``, RGB, 0..255; differentiable by autograd.

        Without ``names``, that of the deepest layer. Raises UsageError where the image is too small for a layer or the
        network was not built for it.
        """
        wanted = set(names) if names is not None else {self.chain[-1].name}
        return dict(self.iter_features(image, wanted))

    def iter_features(self, image: Tensor, names: Iterable[str]) -> Iterator[tuple[str, Tensor]]:
        """As :meth:`features`, one named layer at a time, shallow layers first; the network keeps no reference."""
        wanted = frozenset(names)
        unknown = wanted - {layer.name for layer in self.chain}
        if unknown:
            raise UsageError(f"layer {min(unknown)!r} is not among the layers this network was built for")
        chain = chain_to(self.arch, wanted)
        check_size(chain, image.shape[-2], image.shape[-1])
        x = self.prepare(image)
        # Autograd knows the op for a convolution with its ReLU, but not the one that includes the pool.
        plan = FusionPlan(chain, wanted, self.pooling, self.winograd and not x.requires_grad)
        for i, layer in enumerate(chain):
            if layer.kind == "conv":
                if plan.fuses_pool(i):
                    x = self._convolve_and_pool(x, layer)
                else:
                    x = self.convolve(x, layer.name, relu=plan.fuses_relu(i))
            elif layer.kind == "relu":
                x = x if plan.fuses_relu(i - 1) else F.relu(x)
            elif plan.is_window(i):
                x = self.pool(x)
            if layer.name in wanted:
                yield layer.name, x

    def _convolve_and_pool(self, x: Tensor, layer: Layer) -> Tensor:
        """The convolution ``layer`` with its ReLU and its max pool; the map before the pool is never stored."""
        shape = (x.shape[0], x.shape[2] // 2, x.shape[3] // 2, layer.channels)
        y, argmax = (x.new_empty(shape, dtype=dtype).permute(0, 3, 1, 2) for dtype in (x.dtype, torch.uint8))
        torch.ops.fastnst.conv3x3_pool_out(x, *self.convs[layer.name], self.padding_of(layer.name), 0, y, argmax)
        return y


def check_size(chain: tuple[Layer, ...], height: int, width: int) -> None:
    """Raise UsageError where an image of this size has no position at the deepest layer."""
    least = smallest_side(chain)
    if min(height, width) < least:
        raise UsageError(
            f"image of {width}x{height} pixels is too small for layer {chain[-1].name}: it needs at least {least} "
            "on the shorter side (raise --size or choose shallower layers)"
        )

"""VGG-16 and VGG-19 as data: names of layers, which convolutions they need, and a plain forward pass.

Simonyan and Zisserman, "Very deep convolutional networks for large-scale image recognition", ICLR 2015, columns D
and E. Layers are named as in Gatys et al.: ``conv1_1``, ``relu1_1``, ..., ``pool1``, ..., ``relu5_1``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from fastnst import ops
from fastnst.errors import UsageError, WeightsError, nearest
from fastnst.names import BLOCKS, CHANNELS, layer_names
from fastnst.ops.conv3x3 import conv3x3_backward
from fastnst.weights import Weights

POOLINGS = ops.reference.POOLS
PADDINGS = ("zeros", "replicate", "replicate_first")
"""What lies beyond the border of a convolution's input. ``"replicate_first"``: the nearest pixel at the first
convolution alone, as style-transfer-pytorch has it, and zeros at all others."""


@dataclass(frozen=True)
class Layer:
    """One step of the chain: ``kind`` is conv, relu or pool; ``channels`` what it puts out; ``stride`` its pixels."""

    name: str
    kind: str
    channels: int
    stride: int


def layers(arch: str) -> tuple[Layer, ...]:
    """The chain of ``"vgg16"`` or ``"vgg19"``, first layer first."""
    if arch not in BLOCKS:
        raise UsageError(f"unknown network {arch!r}{nearest(arch, BLOCKS)} (known: {', '.join(BLOCKS)})")
    chain = []
    for name in layer_names(arch):
        kind, block = name[:4], int(name[4])
        chain.append(Layer(name, kind, CHANNELS[block - 1], 2 ** (block - (kind != "pool"))))
    return tuple(chain)


def chain_to(arch: str, names: Iterable[str]) -> tuple[Layer, ...]:
    """The chain up to the deepest of ``names``; an unknown name raises UsageError and suggests the nearest."""
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
    """The least height and width at which every layer of ``chain`` still has a position."""
    return max((layer.stride for layer in chain), default=1)


class VGG:
    """A frozen VGG up to the deepest layer asked for, with its weights on one device in one dtype.

    Args:
        weights: from :func:`fastnst.weights.load`.
        names: the layers that will be asked for; nothing deeper is kept.
        pooling: ``"max"``, ``"average"`` or ``"l2"`` (root mean square of the four values).
        padding: one of ``PADDINGS``.
        device, dtype: where and in what precision the convolutions run.
        winograd: whether the convolutions are :func:`fastnst.ops.conv3x3`, else PyTorch's.

    Raises:
        UsageError: an unknown layer, pooling or padding. WeightsError: a needed convolution is missing.
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
        for what, value, known in (("pooling", pooling, POOLINGS), ("padding", padding, PADDINGS)):
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
        self.convs: Mapping[str, tuple[Tensor, Tensor]] = {
            name: (self._laid_out(weights.convs[name][0]), weights.convs[name][1].to(self.device, dtype))
            for name in convolutions(self.chain)
        }
        exact = torch.float64 if dtype == torch.float64 else torch.float32
        self.mean = torch.tensor(weights.mean, dtype=exact, device=self.device).reshape(1, 3, 1, 1)
        self.scale = torch.tensor(weights.scale, dtype=exact, device=self.device).reshape(1, 3, 1, 1)

    def _laid_out(self, weight: Tensor) -> Tensor:
        """A weight ``[K, C, 3, 3]`` in the order of memory that the convolutions read fastest."""
        if not self.winograd:
            return weight.to(self.device, self.dtype, memory_format=torch.channels_last)
        return weight.to(self.device, self.dtype).permute(1, 2, 3, 0).contiguous().permute(3, 0, 1, 2)

    def border(self, name: str) -> str:
        """What lies beyond the border of the input of the convolution ``name``: ``"zeros"`` or ``"replicate"``."""
        if self.padding == "replicate_first":
            return "replicate" if name == self.chain[0].name else "zeros"
        return self.padding

    def prepare(self, image: Tensor) -> Tensor:
        """Pixels ``[B, 3, H, W]``, RGB, 0..255, to the network's input in its dtype, channels_last."""
        centred = (image - self.mean.to(image.dtype)) * self.scale.to(image.dtype)
        return centred.to(self.dtype, memory_format=torch.channels_last)

    def convolve(self, x: Tensor, name: str, *, bias: bool = True, relu: bool = False) -> Tensor:
        """The convolution ``name``, with its bias unless that is added later, and with its ReLU if asked for."""
        weight, offset = self.convs[name]
        if self.winograd:
            return ops.conv3x3(x, weight, offset if bias else None, relu=relu, padding=self.border(name))
        if self.border(name) == "replicate":
            y = F.conv2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), weight, offset if bias else None)
        else:
            y = F.conv2d(x, weight, offset if bias else None, padding=1)
        return F.relu_(y) if relu else y

    def unconvolve(self, grad: Tensor, name: str, mask: Tensor | None = None) -> Tensor:
        """The gradient of the input of the convolution ``name`` from that of its output, of one size, channels_last.

        It is zero where ``mask``, features of the input's shape, is not above zero.
        """
        weight, _ = self.convs[name]
        if self.winograd:
            height, width = grad.shape[2:]
            return conv3x3_backward(grad, weight, mask=mask, size=(height, width), padding=self.border(name))
        if self.border(name) == "zeros":
            below = F.conv_transpose2d(grad, weight, padding=1)
        else:
            around = F.conv_transpose2d(grad, weight)
            b, c, h, w = around.shape
            inside = around.new_empty((1,)).expand(b, c, h - 2, w - 2)  # only its sizes are read
            below = torch.ops.aten.replication_pad2d_backward(around, inside, [1, 1, 1, 1])
            below = below.contiguous(memory_format=torch.channels_last)
        return below if mask is None else torch.ops.aten.threshold_backward(below, mask, 0)

    def pool(self, x: Tensor) -> Tensor:
        """2 x 2 pooling with stride 2; an odd last row or column is dropped."""
        return ops.pool(x, self.pooling)

    def features(self, image: Tensor, names: Iterable[str] | None = None) -> dict[str, Tensor]:
        """The named layers' outputs for pixels ``[B, 3, H, W]``, RGB, 0..255; differentiable by autograd.

        Without ``names``: the deepest layer alone. Raises UsageError where the image is too small for it.
        """
        wanted = set(names) if names is not None else {self.chain[-1].name}
        return dict(self.walk(image, wanted))

    def walk(self, image: Tensor, names: Iterable[str]) -> Iterator[tuple[str, Tensor]]:
        """As :meth:`features`, one named layer after the other, shallow first; none is kept here."""
        wanted = set(names)
        unknown = wanted - {layer.name for layer in self.chain}
        if unknown:
            raise UsageError(f"layer {min(unknown)!r} is not among the layers this network was built for")
        chain = chain_to(self.arch, wanted)
        check_size(chain, image.shape[-2], image.shape[-1])
        x = self.prepare(image)
        whole = True
        for i, layer in enumerate(chain):
            if layer.kind == "conv":
                # ReLU and pool come with it unless the values before them are asked for.
                whole = x.requires_grad or not self._comes_pooled(chain[i : i + 3], wanted)
                x = self.convolve(x, layer.name, relu=layer.name not in wanted) if whole else self._pooled(x, layer)
            elif layer.kind == "relu":
                x = F.relu(x) if f"conv{layer.name[4:]}" in wanted else x
            elif whole:
                x = self.pool(x)
            if layer.name in wanted:
                yield layer.name, x

    def _comes_pooled(self, part: tuple[Layer, ...], wanted: set[str]) -> bool:
        """Whether ``part`` is a convolution, a ReLU and a pool that one op of ours makes."""
        kinds = [layer.kind for layer in part]
        ours = self.winograd and self.pooling == "max" and kinds == ["conv", "relu", "pool"]
        return ours and wanted.isdisjoint(layer.name for layer in part[:2])

    def _pooled(self, x: Tensor, layer: Layer) -> Tensor:
        """The convolution ``layer`` with its ReLU and the max pool above; the map before the pool is never whole."""
        shape = (x.shape[0], x.shape[2] // 2, x.shape[3] // 2, layer.channels)
        y, places = (x.new_empty(shape, dtype=dtype).permute(0, 3, 1, 2) for dtype in (x.dtype, torch.uint8))
        torch.ops.fastnst.conv3x3_pool_out(x, *self.convs[layer.name], self.border(layer.name), 0, y, places)
        return y


def check_size(chain: tuple[Layer, ...], height: int, width: int) -> None:
    """Raise UsageError where an image of this size has no position left at the deepest layer."""
    least = smallest_side(chain)
    if min(height, width) < least:
        raise UsageError(
            f"image of {width}x{height} pixels is too small for layer {chain[-1].name}: it needs at least {least} "
            "on the shorter side (raise --size or choose shallower layers)"
        )

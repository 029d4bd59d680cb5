"""The engine for CUDA: one op for a bias, its ReLU and what follows them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from fastnst.losses.style import FeatureGradient
from fastnst.network.layer import Layer
from fastnst.network.vgg import VGG
from fastnst.objective.engines.plain import Activations, PlainEngine
from fastnst.objective.joint import JointTerm
from fastnst.objective.terms import LayerTerms, ScaledFeatureGradient, StyleTerm

# With more channels, a pass for bias, ReLU and Gram matrix would activate each row for several tiles, and the op
# computes bias and ReLU in a pass of their own: fuses_bias in csrc/kernels/gram.cuh.
MOST_CHANNELS = 128


class FusedEngine(PlainEngine):
    """PyTorch's convolutions, with one op for bias, ReLU and what follows them.

    That is a single Gram loss of few channels, the pool where no loss observes the ReLU, or nothing: then cuDNN adds
    the bias and applies the ReLU where it can (:meth:`fastnst.network.vgg.VGG.convolve_relu`). Where a loss observes a
    convolution before its ReLU, both are computed as in :class:`PlainEngine`.
    """

    def __init__(
        self,
        network: VGG,
        chain: tuple[Layer, ...],
        terms: Mapping[str, LayerTerms],
        size: tuple[int, int],
        joint: Sequence[JointTerm] = (),
    ) -> None:
        super().__init__(network, chain, terms, size, joint)
        self._shift = -network.mean * network.scale

    def _input(self, image: Tensor) -> Tensor:
        """As :meth:`fastnst.network.vgg.VGG.prepare`, in one launch."""
        dtype, shift, scale = image.dtype, self._shift, self.network.scale
        x = torch.empty_like(image, dtype=self.network.dtype, memory_format=torch.channels_last)
        return torch.addcmul(shift.to(dtype), image, scale.to(dtype), out=x)

    def _image_gradient(self, gradient: Tensor, dtype: torch.dtype, other: Callable[[], Tensor] | None) -> Tensor:
        scale = self.network.scale.to(dtype)
        if other is None:
            out = torch.empty_like(gradient, dtype=dtype, memory_format=torch.contiguous_format)
            return torch.mul(gradient, scale, out=out)
        found = other()
        return torch.addcmul(found, gradient, scale, out=found)

    def _convolve(self, i: int, x: Tensor, activations: Activations) -> Tensor:
        if not self.plan.fuses_relu(i):
            return super()._convolve(i, x, activations)
        if self.plan.pools_relu(i) or self._gram(i + 1) is not None:
            return self.network.convolve(x, self.chain[i].name, bias=False)
        return self.network.convolve_relu(x, self.chain[i].name)

    def _relu(self, i: int, x: Tensor, activations: Activations) -> Tensor:
        if not self.plan.fuses_relu(i - 1):
            return super()._relu(i, x, activations)
        name, gram = self.chain[i].name, self._gram(i)
        if gram is not None:
            bias = self._bias(i - 1)
            x, loss, residual = torch.ops.fastnst.bias_relu_style_loss(x, bias, gram.target[0], gram.scale)
            gradient = ScaledFeatureGradient(4.0 * gram.factor * gram.scale, FeatureGradient(matrix=residual))
            activations.gradients[name] = [gradient]
            activations.values.append(loss)
        activations.features[name] = x  # where the pool computes the ReLU, it does so in place
        return x

    def _pooled(self, i: int, x: Tensor) -> tuple[Tensor, Tensor]:
        if not self.plan.pools_relu(i - 2):
            return super()._pooled(i, x)
        keep = not self.plan.releases_relu(i)
        y, argmax = torch.ops.fastnst.bias_relu_pool_(x, self._bias(i - 2), self.network.pooling, keep)
        return y, argmax

    def _gram(self, i: int) -> StyleTerm | None:
        """The style loss of layer ``i`` if it can be computed with its bias and ReLU."""
        terms = self.terms.get(self.chain[i].name)
        return terms.single_gram if terms is not None and self.chain[i].channels <= MOST_CHANNELS else None

    def _bias(self, i: int) -> Tensor:
        return self.network.convs[self.chain[i].name][1]

"""The engine for CUDA: one op for a bias, its ReLU and the style loss there."""

from __future__ import annotations

import torch
from torch import Tensor

from fastnst.losses.style import FeatureGradient
from fastnst.objective.engines.plain import Activations, PlainEngine
from fastnst.objective.terms import ScaledFeatureGradient


class FusedEngine(PlainEngine):
    """PyTorch's convolutions without their bias, then one op for bias, ReLU and a single Gram loss.

    Where a loss observes a convolution before its ReLU, both are computed as in :class:`PlainEngine`.
    """

    def _convolve(self, i: int, x: Tensor, activations: Activations) -> Tensor:
        if not self.plan.fuses_relu(i):
            return super()._convolve(i, x, activations)
        return self.network.convolve(x, self.chain[i].name, bias=False)

    def _relu(self, i: int, x: Tensor, activations: Activations) -> Tensor:
        if not self.plan.fuses_relu(i - 1):
            return super()._relu(i, x, activations)
        name = self.chain[i].name
        _, bias = self.network.convs[self.chain[i - 1].name]
        terms = self.terms.get(name)
        gram = terms.single_gram if terms is not None else None
        if gram is None:
            torch.ops.fastnst.bias_relu_(x, bias)
        else:
            x, loss, residual = torch.ops.fastnst.bias_relu_style_loss(x, bias, gram.target[0], gram.scale)
            gradient = ScaledFeatureGradient(4.0 * gram.factor * gram.scale, FeatureGradient(matrix=residual))
            activations.gradients[name] = [gradient]
            activations.values.append(gram.factor * loss)
        activations.features[name] = x
        return x

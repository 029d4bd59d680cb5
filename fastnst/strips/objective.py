"""The objective of a picture whose feature maps do not fit into memory: the same loss and gradient, in strips.

The Gram matrix and the other statistics of a layer are sums over positions, so they can be summed over strips. One
forward pass gives the statistics of the whole picture, and with them the gradient by the features of each layer. The
backward pass recomputes the features of each strip and applies it. See :mod:`fastnst.strips.sweep` for the passes.

Strips lie along the longer side: a picture that is wider than high is computed transposed, by a network with transposed
kernels, so that it costs as much as one that is higher than wide.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from fastnst import ops
from fastnst.config.settings import Settings
from fastnst.devices import wide_dtype
from fastnst.distributed import SINGLE, Ranks
from fastnst.errors import UsageError
from fastnst.losses.variation import add_variation
from fastnst.network.vgg import VGG, chain_to, check_size
from fastnst.objective.build import layer_terms
from fastnst.objective.joint import refuse_strips
from fastnst.objective.pixels import PixelTarget
from fastnst.objective.protocol import Losses
from fastnst.objective.targets import (
    Region,
    StyleTargets,
    chosen_style_loss,
    gram_scale_and_weight,
    styled_layers,
)
from fastnst.objective.terms import (
    NORM_EPSILON,
    LayerTerms,
    ScaledFeatureGradient,
    StyleTerm,
    add_gradient_,
    content_value,
    feature_gradient,
    one_norm,
)
from fastnst.objective.whole import check_image
from fastnst.spill import SpillBuffer
from fastnst.strips.statistics import StreamingStatistics
from fastnst.strips.sweep import StripSweep
from fastnst.strips.wrapped import WrappedSweep


@dataclass
class LayerResult:
    """One layer in one evaluation: the statistics of each style term, the losses, and the gradients once known."""

    statistics: list[StreamingStatistics]
    style: Tensor
    content: Tensor
    gradients: list[ScaledFeatureGradient] = field(default_factory=list)


class StripObjective:
    """As :class:`fastnst.objective.whole.Objective`, with the feature maps of one strip of the picture at a time.

    Args:
        network, content, styles, settings, content_mask, pixel_target: as there; the content may be on the CPU.
        rows: of the picture in a strip, or columns of a picture that is wider than high; the last strip may have fewer.
        ranks: the processes that share the work; each takes a band of the picture.

    Raises:
        UsageError: as there. FastnstError: no disk space is left for features, or a rank does not answer.
    """

    def __init__(
        self,
        network: VGG,
        content: Tensor,
        styles: StyleTargets | Sequence[Region],
        settings: Settings,
        rows: int,
        content_mask: Tensor | None = None,
        ranks: Ranks = SINGLE,
        *,
        pixel_target: PixelTarget | None = None,
    ) -> None:
        refuse_strips(settings)
        if not isinstance(network, VGG):
            raise UsageError("a module has no strips, since its receptive fields are not known: use Objective")
        ops.follow_matmul_precision()
        self.settings, self.ranks = settings, ranks
        self.size = (content.shape[-2], content.shape[-1])
        self._turns = turns(self.size)
        if self._turns:
            network, content = network.transposed(), content.mT
            content_mask = None if content_mask is None else content_mask.mT
            pixel_target = None if pixel_target is None else pixel_target.transposed()
            styles = styles if isinstance(styles, Mapping) else [_turned(region) for region in styles]
        self.network, self._swept = network, (content.shape[-2], content.shape[-1])
        self.chain, self.terms = layer_terms(network, self._swept, styles, settings, content_mask)
        self.strips = _sweep(network)(network, self.chain, self.terms, self._swept, rows, ranks)
        self._pixel_target = pixel_target
        self._layers = {layer.name: layer for layer in self.chain}
        self._spill = SpillBuffer()
        self._content: dict[tuple[str, int], SpillBuffer.Slot] = {}  # by layer and first row
        if any(terms.content for terms in self.terms.values()):
            self.strips.forward(content, self._store_content, keep=False)

    def value_and_grad(self, image: Tensor) -> tuple[Losses, Tensor]:
        """Losses and gradient of an image ``[1, 3, H, W]``, as :meth:`Objective.value_and_grad`."""
        check_image(image, self.size)
        gradient = torch.zeros_like(image)
        losses = self._evaluate(*((image.mT, gradient.mT) if self._turns else (image, gradient)))
        return losses, gradient

    def _evaluate(self, image: Tensor, gradient: Tensor) -> Losses:
        """The losses of an image as it is swept; its gradient is added to ``gradient``."""
        results = {name: self._empty_result(name, image.device) for name in self.terms}
        self.strips.forward(image, lambda name, rows, x: self._add_features(results[name], name, rows, x))
        settings, band = self.settings, slice(*self.strips.band)
        variation, temporal = torch.zeros(2, dtype=wide_dtype(image.device), device=image.device).unbind()
        if settings.tv_weight:
            wraps = settings.wraps[::-1] if self._turns else settings.wraps
            variation += add_variation(gradient, image, settings.tv_kind, settings.tv_weight, band, wraps)
        if self._pixel_target is not None:
            temporal += self._pixel_target.add_gradient_(gradient, image, band)
        self._finish(results, [variation, temporal])
        scaled = self._normalized(image, results) if settings.normalize_gradients else self.terms

        def add_gradients(name: str, rows: slice, grad: Tensor, x: Tensor, relu: bool) -> None:
            content = self._content_terms(scaled[name], name, rows) if name in scaled else None
            styles = [one.rows(rows) for one in results[name].gradients] if name in results else []
            add_gradient_(grad, x, content, styles, relu=relu)

        self.strips.backward(image, add_gradients, gradient)
        self.ranks.gather_bands(gradient, self.strips.bands)
        style = {name: float(result.style) for name, result in results.items() if result.statistics}
        content = {name: float(result.content) for name, result in results.items() if self.terms[name].content}
        tv, change = float(variation), float(temporal)
        return Losses(sum(style.values()) + sum(content.values()) + tv + change, content, style, tv, change)

    def _empty_result(self, name: str, device: torch.device) -> LayerResult:
        style, content = (torch.zeros((), dtype=wide_dtype(device), device=device) for _ in range(2))
        return LayerResult([self._statistics(name, term) for term in self.terms[name].styles], style, content)

    def _statistics(self, name: str, term: StyleTerm) -> StreamingStatistics:
        layer = self._layers[name]
        positions = (self._swept[0] // layer.stride) * (self._swept[1] // layer.stride)
        return StreamingStatistics(term.loss, term.scale, positions, term.weight)

    def _store_content(self, name: str, rows: slice, x: Tensor) -> None:
        """Store the content picture's features of some rows."""
        if self.terms[name].content:
            self._content[name, rows.start] = self._spill.put(x)

    def _content_terms(self, terms: LayerTerms, name: str, rows: slice) -> LayerTerms:
        """The content term of a layer for the rows of one strip; the factor is that of ``terms``."""
        if (name, rows.start) not in self._content:
            return LayerTerms()
        weight = None if terms.content_weight is None else terms.content_weight[rows]
        target = self._spill.get(self._content[name, rows.start])
        return LayerTerms(content=terms.content, target=target, content_weight=weight)

    def _add_features(self, result: LayerResult, name: str, rows: slice, x: Tensor) -> None:
        """Add some rows of a layer to its statistics and its content loss."""
        terms = self.terms[name]
        for statistics in result.statistics:
            statistics.add(x, rows)
        if terms.content:
            value = content_value(x, self._content_terms(terms, name, rows))
            result.content += (terms.content * value).to(result.content.dtype)

    def _finish(self, results: Mapping[str, LayerResult], pixel_values: list[Tensor]) -> None:
        """Sum over all ranks, and compute the values and gradients of the styles."""
        sums = [total for result in results.values() for one in result.statistics for total in one.sums]
        self.ranks.all_reduce([*pixel_values, *(result.content for result in results.values()), *sums])
        for name, result in results.items():
            for statistics, term in zip(result.statistics, self.terms[name].styles, strict=True):
                if statistics.features:
                    features = torch.cat(statistics.features, 2)
                    statistics.features = [self.ranks.concatenate_rows(features)]
                value, gradient = statistics.value_and_gradient(term)
                result.style += value
                result.gradients.append(gradient)

    def _normalized(self, image: Tensor, results: Mapping[str, LayerResult]) -> dict[str, LayerTerms]:
        """Divide the gradients of each layer by their 1-norms, which takes one more forward pass.

        Style gradients are changed in ``results``; the terms with the new content factors are returned.
        """
        norms = {name: torch.zeros(2, dtype=wide_dtype(image.device), device=image.device) for name in self.terms}

        def add_norms(name: str, rows: slice, x: Tensor) -> None:
            styles = [one.rows(rows) for one in results[name].gradients]
            content = self._content_terms(self.terms[name], name, rows)
            style_norm = one_norm(feature_gradient(x, styles, None))
            norms[name] += torch.stack([style_norm, one_norm(feature_gradient(x, (), content))])

        self.strips.forward(image, add_norms)
        self.ranks.all_reduce(list(norms.values()))
        scaled = {}
        for name, terms in self.terms.items():
            assert terms.norms is not None
            style, content = (
                factor / (norm + NORM_EPSILON) for factor, norm in zip(terms.norms, norms[name].tolist(), strict=True)
            )
            gradients = results[name].gradients
            gradients[:] = [replace(one, factor=one.factor * style) for one in gradients]
            scaled[name] = replace(terms, content=terms.content * content)
        return scaled


def _sweep(network: VGG) -> type[StripSweep] | type[WrappedSweep]:
    """The sweep for the padding of a network's rows."""
    return WrappedSweep if network.wraps_rows else StripSweep


def turns(size: tuple[int, int]) -> bool:
    """Whether a picture of this height and width is computed transposed in strips: if it is wider than high."""
    return size[1] > size[0]


def _turned(region: Region) -> Region:
    return region if region.mask is None else replace(region, mask=region.mask.mT)


def strip_targets(
    network: VGG, style: Tensor, settings: Settings, rows: int, mask: Tensor | None = None
) -> StyleTargets:
    """As :func:`fastnst.objective.targets.style_targets`, in strips of ``rows`` along the style's longer side."""
    refuse_strips(settings)
    names = styled_layers(settings)
    if not names:
        return {}
    chain, loss = chain_to(network.arch, names), chosen_style_loss(settings)
    if turns((style.shape[-2], style.shape[-1])):
        network, style, mask = network.transposed(), style.mT, None if mask is None else mask.mT
    size = (style.shape[-2], style.shape[-1])
    check_size(chain, *size)
    statistics = {}
    for layer in chain:
        if layer.name in names:
            shape = (layer.channels, size[0] // layer.stride, size[1] // layer.stride)
            scale, weight = gram_scale_and_weight(network, layer.name, shape, settings, mask)
            statistics[layer.name] = StreamingStatistics(loss, scale, shape[1] * shape[2], weight)
    sweep = _sweep(network)(network, chain, names, size, rows)
    sweep.forward(style, lambda name, some, x: statistics[name].add(x, some), keep=False)
    return {name: one.target() for name, one in statistics.items()}

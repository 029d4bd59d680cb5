"""From settings to the loss terms of each layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from fastnst.config.settings import Settings
from fastnst.devices import to_float64
from fastnst.errors import UsageError
from fastnst.losses.forms import content_form, style_form
from fastnst.network.encoder import Encoder
from fastnst.network.layer import Layer
from fastnst.network.vgg import check_size
from fastnst.objective.joint import content_joint, style_joint, weights_of
from fastnst.objective.targets import (
    Region,
    StyleTargets,
    chosen_style_loss,
    gram_scale_and_weight,
    resize_mask,
)
from fastnst.objective.terms import LayerTerms, StyleTerm
from fastnst.ops.dtypes import accumulate_dtype


def layer_terms(
    network: Encoder,
    size: tuple[int, int],
    styles: StyleTargets | Sequence[Region],
    settings: Settings,
    content_mask: Tensor | None = None,
) -> tuple[tuple[Layer, ...], dict[str, LayerTerms]]:
    """The layers up to the deepest one with a loss, and the terms of each layer for images of ``size``.

    The content targets are left out, since they take a forward pass, and so are losses of several layers: their layers
    have terms without a loss. Arguments and errors are those of
    :class:`fastnst.objective.whole.Objective`.
    """
    regions = [Region(styles)] if isinstance(styles, Mapping) else list(styles)
    content_weights, style_weights = (
        {name: factor * weight for name, weight in weights_of(factor, layers).items()}
        for factor, layers in (
            (settings.content_weight, settings.content_layers),
            (settings.style_weight, settings.style_layers),
        )
    )
    observed = content_weights | style_weights
    if content_joint(settings) is not None:
        content_weights = {}
    if style_joint(settings) is not None:
        style_weights = {}
    chain = _up_to_deepest(network.chain, observed)
    check_size(chain, *size)
    factor_of = content_form(settings.content_form)
    terms: dict[str, LayerTerms] = {}
    for layer in chain:
        if layer.name not in observed:
            continue
        height, width = network.map_size(layer, size)
        style_weight, content_weight = style_weights.get(layer.name, 0.0), content_weights.get(layer.name, 0.0)
        weight = None
        if content_weight and content_mask is not None:
            weight = resize_mask(content_mask, height, width)[0].to(network.device, accumulate_dtype(network.dtype))
        styled = regions if style_weight else []
        terms[layer.name] = LayerTerms(
            styles=tuple(_style_term(network, r, layer, (height, width), style_weight, settings) for r in styled),
            content=content_weight * factor_of(layer.channels, height * width),
            content_weight=weight,
            norms=(style_weight, content_weight) if settings.normalize_gradients else None,
        )
    return chain, terms


def _style_term(
    network: Encoder, region: Region, layer: Layer, size: tuple[int, int], factor: float, settings: Settings
) -> StyleTerm:
    """The style term of a region at a layer of ``size``; ``factor`` is the weight of the layer."""
    if layer.name not in region.targets:
        raise UsageError(f"no style target for layer {layer.name}")
    form, loss = style_form(settings.style_form), chosen_style_loss(settings)
    scale, weight = gram_scale_and_weight(network, layer.name, (layer.channels, *size), settings, region.mask)
    share = 1.0 if region.mask is None else float(to_float64(region.mask).mean())
    factor *= region.weight * share * (form.loss(layer.channels) if loss is None else 1.0)
    return StyleTerm(factor, region.targets[layer.name], scale, weight, loss)


def _up_to_deepest(chain: tuple[Layer, ...], names: Mapping[str, float]) -> tuple[Layer, ...]:
    deepest = max(i for i, layer in enumerate(chain) if layer.name in names)
    return chain[: deepest + 1]

"""How large a network's features are beside those of the network that the losses' default weights are made for."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import torch

from fastnst import vgg, weights
from fastnst.presets import Layers
from fastnst.settings import Settings

log = logging.getLogger("fastnst")

SIDE = 64  # of the picture that both networks are shown
MUCH = 4.0  # features so many times larger or smaller are warned of
# The power of the features' scale that a style loss grows with; 2 for all others, and for the content loss.
_POWERS = {"gram": 4, "covariance": 4}
_BALANCE = ("content_layers", "style_layers", "content_weight", "style_weight", "tv_weight")


def warn_of_scale(network: vgg.VGG, settings: Settings) -> None:
    """Warn where the weights of the losses do not suit a network of the user's, and say which weights would.

    Weights of the losses that are not the preset's are the user's own choice. A preset that names a network of its own
    has weights for that one, which is not at hand to compare with.
    """
    usual_settings = Settings.of(settings.preset)
    chosen = any(getattr(settings, name) != getattr(usual_settings, name) for name in _BALANCE)
    if settings.weights is None or usual_settings.weights is not None or chosen:
        return
    bundled = weights.load()
    names = [name for name in settings.layer_names() if name in _known(bundled)]
    if not names:
        return
    usual = vgg.VGG(bundled, names, pooling=settings.pooling, padding=settings.padding)
    sizes, usual_sizes = _sizes(network, names), _sizes(usual, names)
    ratios = {name: sizes[name] / usual_sizes[name] for name in names if sizes[name] > 0}
    far = {name: ratio for name, ratio in ratios.items() if not 1 / MUCH <= ratio <= MUCH}
    if not far:
        return
    name, ratio = next(iter(far.items()))
    style = _adapted(settings.style_layers, ratios, _POWERS.get(settings.style_loss, 2))
    log.warning(
        "%s: its features at %s are %.2g times those of the network that the losses' weights are made for; "
        "for the same balance of the losses give --content-layers %s --style-layers %s",
        settings.weights,
        name,
        ratio,
        _option(_adapted(settings.content_layers, ratios, 2)),
        _option(style),
    )


def _known(bundled: weights.Weights) -> set[str]:
    """The layers that the bundled network has."""
    chain = vgg.layers(bundled.arch)
    deepest = max(i for i, layer in enumerate(chain) if layer.name in bundled.convs)
    return {layer.name for layer in chain[: deepest + 2]}


def _sizes(network: vgg.VGG, names: list[str]) -> dict[str, float]:
    """The root mean square of each layer's features for a picture of coarse random patches."""
    generator = torch.Generator("cpu").manual_seed(0)
    patches = torch.rand(1, 3, SIDE // 8, SIDE // 8, generator=generator, dtype=torch.float32, device="cpu")
    picture = torch.nn.functional.interpolate(patches, (SIDE, SIDE), mode="bilinear") * 255
    with torch.no_grad():
        features = network.features(picture.to(network.device), names)
    return {name: float(x.double().square().mean().sqrt()) for name, x in features.items()}


def _adapted(layers: Layers, ratios: Mapping[str, float], power: int) -> Layers:
    return tuple((name, weight / ratios.get(name, 1.0) ** power) for name, weight in layers)


def _option(layers: Layers) -> str:
    return ",".join(f"{name}:{weight:.3g}" for name, weight in layers)

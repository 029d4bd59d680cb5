"""The scale of a network's features, compared with the network that the default weights of the losses suit."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import torch

from fastnst import weights
from fastnst.config.presets import Layers
from fastnst.config.settings import Settings
from fastnst.devices import to_float64
from fastnst.network import vgg

log = logging.getLogger("fastnst")

SIDE = 64  # height and width of the test picture
WARN_RATIO = 4.0  # a warning is given for features larger or smaller by more than this factor
# A style loss grows with this power of the scale of the features; other losses, also of content, with its
# square, and those of cosine distances do not change.
_POWERS = {"gram": 4, "covariance": 4, "nnst": 0, "strotss": 0}
_BALANCE = ("content_layers", "style_layers", "content_weight", "style_weight", "tv_weight")


def warn_of_scale(network: vgg.VGG, settings: Settings) -> None:
    """Log a warning where the preset's layer weights do not suit the user's network, with layer weights that do.

    Nothing is logged where the settings differ from the preset in layers or weights of the losses, since the user chose
    them, or where the preset names a network itself, since its layer weights are for that network.
    """
    preset = Settings.from_preset(settings.preset)
    chosen = any(getattr(settings, name) != getattr(preset, name) for name in _BALANCE)
    if settings.weights is None or preset.weights is not None or chosen:
        return
    bundled = weights.load()
    names = [name for name in settings.layer_names() if name in _available_layers(bundled)]
    if not names:
        return
    reference = vgg.VGG(bundled, names, pooling=settings.pooling, padding=settings.padding)
    sizes, reference_sizes = _sizes(network, names), _sizes(reference, names)
    ratios = {name: sizes[name] / reference_sizes[name] for name in names if sizes[name] > 0}
    far = {name: ratio for name, ratio in ratios.items() if not 1 / WARN_RATIO <= ratio <= WARN_RATIO}
    if not far:
        return
    name, ratio = next(iter(far.items()))
    style = _adapted(settings.style_layers, ratios, _POWERS.get(settings.style_loss, 2))
    log.warning(
        "%s: its features at %s are %.2g times those of the network that the weights of the losses are made for; "
        "for the same balance of the losses use --content-layers %s --style-layers %s",
        settings.weights,
        name,
        ratio,
        _option(_adapted(settings.content_layers, ratios, 2)),
        _option(style),
    )


def _available_layers(bundled: weights.Weights) -> set[str]:
    """The names of the layers up to the deepest bundled convolution and its ReLU."""
    chain = vgg.layers(bundled.arch)
    deepest = max(i for i, layer in enumerate(chain) if layer.name in bundled.convs)
    return {layer.name for layer in chain[: deepest + 2]}


def _sizes(network: vgg.VGG, names: list[str]) -> dict[str, float]:
    """The root mean square of each layer's features for a picture of random patches, the same at every call."""
    generator = torch.Generator("cpu").manual_seed(0)
    patches = torch.rand(1, 3, SIDE // 8, SIDE // 8, generator=generator, dtype=torch.float32, device="cpu")
    picture = torch.nn.functional.interpolate(patches, (SIDE, SIDE), mode="bilinear") * 255
    with torch.no_grad():
        features = network.features(picture.to(network.device), names)
    return {name: float(to_float64(x).square().mean().sqrt()) for name, x in features.items()}


def _adapted(layers: Layers, ratios: Mapping[str, float], power: int) -> Layers:
    return tuple((name, weight / ratios.get(name, 1.0) ** power) for name, weight in layers)


def _option(layers: Layers) -> str:
    return ",".join(f"{name}:{weight:.3g}" for name, weight in layers)

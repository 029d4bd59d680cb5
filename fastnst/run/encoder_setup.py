"""Which settings an encoder of the registry serves, and the network from it."""

from __future__ import annotations

import torch

from fastnst.config.encoders import find_encoder
from fastnst.config.layer_names import BLOCKS
from fastnst.config.resolve import choose_device, choose_precision
from fastnst.config.settings import Settings
from fastnst.errors import UsageError
from fastnst.network.registered import RegisteredEncoder

# What VGG has and an encoder has not: the setting, the values that are possible, and why no other is.
_FIXED = (
    ("weights", (None,), "has weights of its own; leave out weights"),
    ("pooling", ("max",), "has its own pooling; use pooling max"),
    ("padding", ("zeros",), "pads its maps itself; use padding zeros"),
    ("tileable", ("none",), "pads its maps itself, so that no picture continues at its opposite side; use vgg19"),
    ("convolution", ("auto", "direct"), "has convolutions of PyTorch; use convolution auto"),
    ("graph", ("auto", "off"), "is differentiated by autograd, which no graph captures; use graph auto"),
)


def check_encoder(settings: Settings) -> None:
    """Raise UsageError for an unknown network, or a setting that an encoder does not serve; VGG serves all."""
    if settings.arch in BLOCKS:
        return
    entry = find_encoder(settings.arch)
    for name in settings.layer_names():
        if settings.preset != "default" and name not in entry.fields:
            raise UsageError(
                f"layer {name!r} of preset {settings.preset} is none of {entry.name}; use preset default, or give "
                f"layers of {entry.name}: {entry.span}"
            )
        entry.check_layer(name)
    for name, possible, reason in _FIXED:
        value = getattr(settings, name)
        if value not in possible:
            raise UsageError(f"{name} {value!r}: {settings.arch} {reason}")
    if settings.tiles not in ("auto", "off"):
        raise UsageError(
            f"tiles {settings.tiles!r}: {settings.arch} is evaluated on whole pictures; use tiles auto, or arch vgg19, "
            "which has strips"
        )


def load_encoder(settings: Settings) -> RegisteredEncoder:
    """The encoder that the settings name, on its device.

    ``precision`` ``"auto"`` is float32. Raises UsageError and WeightsError for settings that cannot be met.
    """
    check_encoder(settings)
    device = choose_device(settings.device)
    auto = settings.precision == "auto"
    dtype = torch.float32 if auto else choose_precision(settings.precision, device, "direct")
    return RegisteredEncoder(find_encoder(settings.arch), settings.layer_names(), device=device, dtype=dtype)

"""Help texts of settings, from the metadata of ``Settings`` and the accepted values."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping

from fastnst.config.presets import PRESETS, Layers
from fastnst.config.ranges import CHOICES, RANGES
from fastnst.config.settings import Settings

_LAYERS = ", such as relu4_2:0.5,conv5_1; patterns and geometric series of weights, such as relu?_1:256*0.25"
_DETAILS = {
    "content_layers": _LAYERS,
    "style_layers": ", in the same form",
    "scales": ", such as 128,256,512",
    "scale_factor": ", a number or sqrt2",
    "photoreal": "; 1 without a value",
    "style_loss": ", see docs/howto/style_losses.md",
}
"""How the command line writes a value, where that is not obvious."""
_DEFAULTS = {"weights": "the bundled VGG-19", "style_weights": "all equal"}


def setting_help(name: str, preset: Settings, details: Mapping[str, str] | None = None) -> str:
    """The help of the option for a setting: what it does, the accepted values with their unit, and the default."""
    metadata = Settings.__dataclass_fields__[name].metadata
    text = {**_DETAILS, **(details or {})}.get(name, "")
    text = re.sub(r"`([a-z_]+)`", lambda found: f"--{found[1].replace('_', '-')}", metadata["help"] + text)
    value = getattr(preset, name)
    default = _DEFAULTS.get(name, "none") if value is None or value == () else shown_value(value)
    return f"{text} ({_accepted(name, metadata['unit'])}default: {default})".replace("%", "%%")


def _accepted(name: str, unit: str) -> str:
    if name in CHOICES:
        return f"{', '.join(CHOICES[name])}; "
    if name not in RANGES or name.endswith("_layers"):
        return ""
    return f"{RANGES[name].short()}{' ' * bool(unit)}{unit}; "


def presets_help() -> str:
    """What each preset changes."""
    paragraphs = []
    for name, changes in PRESETS.items():
        facts = [
            f"{field.replace('_', '-')} {'none' if value is None or value == () else shown_value(value)}"
            for field, value in changes.items()
            if not (field == "size" and "crop" in changes)
        ]
        text = f"{name}: {'; '.join(facts) or 'the defaults of `fastnst stylize`'}"
        paragraphs.append(textwrap.fill(text, 100, initial_indent="  ", subsequent_indent="      "))
    return "presets, by what they change:\n" + "\n".join(paragraphs)


def shown_value(value: object) -> str:
    """The value of a setting as the command line writes it."""
    if isinstance(value, bool):
        return "on" if value else "off"
    if not isinstance(value, tuple):
        return f"{value:g}" if isinstance(value, float) and value != round(value, 6) else f"{value}"
    return ",".join(map(str, value)) if all(isinstance(item, (int, float)) for item in value) else _layers(value)


def _layers(layers: Layers) -> str:
    """Names of layers, and their weights where they are not 1."""
    weights = {weight for _, weight in layers}
    if len(weights) == 1 and weights != {1.0}:
        return ", ".join(name for name, _ in layers) + f", each {weights.pop():.4g}"
    return ", ".join(name if weight == 1 else f"{name}:{weight:.4g}" for name, weight in layers)

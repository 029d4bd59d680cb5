"""The options of the command line that become settings, by group."""

from __future__ import annotations

import argparse
from collections.abc import Collection, Mapping
from typing import Any

from fastnst.cli.help_text import setting_help
from fastnst.config.description import GROUPS
from fastnst.config.presets import PRESETS
from fastnst.config.settings import Settings

_SWITCH = ""  # instead of a metavar: an option --name and its opposite --no-name
_ALONE = {"tiles": "on", "photoreal": "1"}  # the value of an option that is given without one

# The metavar of each setting that has an option.
_METAVARS = {
    "size": "N",
    "crop": "N",
    "steps": "N,...",
    "scales": "N,...",
    "scale_factor": "X",
    "min_scale": "N",
    "min_shorter_side": "N",
    "init": "START",
    "keep_color": "HOW",
    "match_color": "HOW",
    "photoreal": "X",
    "seed": "N",
    "snapshot_every": "N",
    "content_weight": "X",
    "style_weight": "X",
    "tv_weight": "X",
    "content_layers": "LAYERS",
    "style_layers": "LAYERS",
    "style_loss": "NAME",
    "content_loss": "NAME",
    "style_weights": "X,X",
    "normalize_gradients": _SWITCH,
    "style_fit": "HOW",
    "style_scale": "X",
    "style_size": "N",
    "pooling": "HOW",
    "padding": "HOW",
    "edges": "HOW",
    "arch": "NAME",
    "weights": "NAME|FILE",
    "optimizer": "NAME",
    "learning_rate": "X",
    "carry": _SWITCH,
    "average": "X",
    "betas": "X,X",
    "epsilon": "X",
    "clamp": _SWITCH,
    "history": "N,...",
    "first_change": "X",
    "history_dtype": "NAME",
    "max_pixels": "N",
    "device": "NAME",
    "precision": "NAME",
    "convolution": "HOW",
    "tiles": "ROWS",
    "memory": "SIZE",
    "graph": "WHEN",
}


def add_setting_options(
    parser: argparse.ArgumentParser, preset: str, details: Mapping[str, str], without: Collection[str] = ()
) -> None:
    """Add the options that become Settings. Options that are not given are absent from the namespace."""
    parser.set_defaults(default_preset=preset)
    group = parser.add_argument_group(f"the result (defaults of the preset {preset})")
    group.add_argument("--preset", metavar="NAME", help=f"{', '.join(PRESETS)} (default: {preset})")
    group.add_argument(
        "--settings",
        metavar="FILE",
        help="read settings from a TOML file or a picture made by fastnst; options override them",
    )
    group.add_argument("--save-settings", metavar="FILE", help="save the settings of the run in FILE, a .toml file")
    defaults = Settings.from_preset(preset)
    for number, (title, names) in enumerate(GROUPS.items()):
        group = parser.add_argument_group(title[0].lower() + title[1:]) if number else group
        for name in names:
            if name in without or name not in _METAVARS:
                continue
            metavar = _METAVARS[name]
            keywords: dict[str, Any] = {"metavar": metavar}
            if metavar == _SWITCH:
                keywords = {"action": argparse.BooleanOptionalAction}
            elif name in _ALONE:
                keywords |= {"nargs": "?", "const": _ALONE[name]}
            text = setting_help(name, defaults, details)
            group.add_argument(f"--{name.replace('_', '-')}", default=argparse.SUPPRESS, help=text, **keywords)
    add_threads(group)  # the machine


def add_threads(parser: argparse._ActionsContainer) -> None:
    text = "threads of the CPU (1 to 4096; default: as many as the process has CPUs, by affinity and quota)"
    parser.add_argument("--threads", metavar="N", help=text)

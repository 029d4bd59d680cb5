"""The arguments of ``fastnst texture`` that other commands do not have."""

from __future__ import annotations

import argparse

from fastnst.cli.help_text import setting_help
from fastnst.config.settings import Settings

NOT_OF_TEXTURES = ("size", "crop", "keep_color", "match_color", "photoreal", "content_weight", "content_layers")
"""Settings without an option, since a texture has no content picture."""


def add_texture_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the pictures, the output and the size."""
    parser.description = (
        "Make a picture of any size with the texture of the picture STYLE, or of several, without a content picture."
    )
    parser.usage = "%(prog)s [OPTION ...] STYLE [STYLE ...]"
    parser.set_defaults(command="texture", content=None, content_mask=None)
    style = parser.add_argument("style", metavar="STYLE", nargs="+", help="the style picture; several are blended")
    style.required = False  # --like may name it
    parser.add_argument(
        "-o",
        "--output",
        metavar="OUT",
        help="file to write, in a format of `fastnst stylize` (default: STYLE_texture.png in the current folder)",
    )
    parser.add_argument(
        "--size",
        dest="texture_size",
        metavar="WxH",
        help="width and height of the result, or one side (2 to 1000000 pixels; default: 512x512)",
    )
    parser.add_argument(
        "--inpaint",
        metavar="MASK",
        help="fill the first STYLE where the picture MASK is white, with the texture of the other styles or, without "
        "others, of its own; where MASK is black, STYLE keeps its pixels (the default preset is then inpaint)",
    )
    parser.add_argument(
        "--tileable",
        metavar="HOW",
        nargs="?",
        const="both",
        default=argparse.SUPPRESS,
        help=setting_help("tileable", Settings.from_preset("texture"), {"tileable": "; both without a value"}),
    )
    parser.add_argument(
        "--like",
        metavar="PICTURE",
        help="repeat the run that made PICTURE with its settings and size and, unless STYLE is given, its input files",
    )
    parser.add_argument(
        "--plan",
        action="store_true",
        help="print the sizes, memory and time of the run, measured by a short trial, and write nothing",
    )
    _add_output(parser)


def _add_output(parser: argparse.ArgumentParser) -> None:
    _add_repetition(parser)


def _add_repetition(parser: argparse.ArgumentParser) -> None:
    """Add what is said of files that exist, and of runs to repeat."""
    parser.add_argument("--parents", action="store_true", help="create the folder of OUT and its parents")
    parser.add_argument(
        "--force",
        action="store_true",
        help="replace an existing file of --save-settings, of --checkpoint without --resume, and of the result "
        "without -o",
    )

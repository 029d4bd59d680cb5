"""The argparse parser of the command line. It imports neither torch nor NumPy, so that ``--help`` is fast."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from typing import NoReturn

from fastnst import __version__
from fastnst.cli.film_options import add_film_options
from fastnst.cli.help_text import presets_help
from fastnst.cli.setting_options import add_setting_options, add_threads
from fastnst.cli.studio_arguments import add_studio_arguments
from fastnst.cli.texture_arguments import NOT_OF_TEXTURES, add_texture_arguments
from fastnst.cli.video_arguments import NOT_OF_FILMS, add_video_arguments
from fastnst.errors import UsageError


class Parser(argparse.ArgumentParser):
    """A parser that raises UsageError, so that wrong usage is reported like every other error."""

    def __init__(self, **arguments: object) -> None:
        usual = {"allow_abbrev": False, "formatter_class": argparse.RawDescriptionHelpFormatter}
        super().__init__(**{**usual, **arguments})  # type: ignore[arg-type]

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message} (see {self.prog} --help)")

    def options(self) -> Iterable[str]:
        """The long options of this parser."""
        return [name for name in self._option_string_actions if name.startswith("--")]


def build_parser() -> tuple[Parser, dict[str, Parser]]:
    """The parser, and the parsers of its commands by name."""
    parser = Parser(prog="fastnst", description="Paint a picture in the style of another.")
    parser.add_argument("--version", action="version", version=f"fastnst {__version__}")
    parser.add_argument("--debug", action="store_true", help=argparse.SUPPRESS)
    parser.set_defaults(command=None, quiet=False, json=False, threads=None)
    added = parser.add_subparsers(title="commands", metavar="COMMAND", parser_class=Parser)
    commands = {
        "stylize": added.add_parser("stylize", help="style one picture", epilog=presets_help()),
        "gallery": added.add_parser("gallery", help="style a folder of pictures", epilog=presets_help()),
        "video": added.add_parser("video", help="style a film", epilog=presets_help()),
        "texture": added.add_parser("texture", help="make a picture with the texture of others", epilog=presets_help()),
        "studio": added.add_parser("studio", help="open a page where runs are started, watched and steered"),
        "settings": added.add_parser("settings", help="print the settings in a picture or a file as TOML"),
        "weights": added.add_parser("weights", help="list, fetch or show weights of the network"),
        "info": added.add_parser("info", help="print versions, the device and the kernels in use"),
        "demo": added.add_parser("demo", help="style the pictures that come with fastnst"),
    }
    _add_stylize(commands["stylize"])
    _add_gallery(commands["gallery"])
    _add_texture(commands["texture"])
    _add_video(commands["video"])
    add_studio_arguments(commands["studio"])
    _add_settings(commands["settings"])
    _add_weights(commands["weights"])
    _add_info(commands["info"])
    _add_demo(commands["demo"])
    return parser, commands


def _add_stylize(parser: Parser) -> None:
    parser.description = "Paint the picture CONTENT in the style of the picture STYLE, or of several."
    parser.usage = "%(prog)s [OPTION ...] CONTENT STYLE [STYLE ...]"
    parser.set_defaults(command="stylize")
    content = parser.add_argument("content", metavar="CONTENT", help="the picture to paint")
    style = parser.add_argument("style", metavar="STYLE", nargs="+", help="the style picture; several are blended")
    content.required = style.required = False  # --like may name them
    parser.add_argument(
        "-o",
        "--output",
        metavar="OUT",
        help="file to write: .png, .jpg, .webp, .tif, .avif, .jp2 or .bmp; an existing file is replaced "
        "(default: CONTENT_STYLE.png in the current folder)",
    )
    parser.add_argument("--parents", action="store_true", help="create the folder of OUT and its parents")
    parser.add_argument(
        "--force",
        action="store_true",
        help="replace an existing file of --save-settings, of --checkpoint without --resume, and of the result "
        "without -o",
    )
    parser.add_argument(
        "--like",
        metavar="PICTURE",
        help="repeat the run that made PICTURE with its settings and, unless CONTENT and STYLE are given, its input "
        "files, found beside PICTURE or in the current folder (default output: PICTURE_again)",
    )
    parser.add_argument(
        "--plan",
        action="store_true",
        help="print the sizes, memory and time of the run, measured by a short trial, and write nothing",
    )
    details = {"snapshot_every": "; written to OUT_0050.png and so on"}
    add_setting_options(parser, "default", details)
    _add_masks(parser)
    _add_checkpoint(parser)
    add_film_options(parser)
    _add_reporting(parser)


def _add_masks(parser: Parser, *, content: bool = True, more: str = "") -> None:
    group = parser.add_argument_group("masks: pictures of the size of their picture; white is 1, black is 0")
    for name, text in (
        ("--mask", f"where in the result each STYLE applies; one mask for each STYLE{more}"),
        ("--style-mask", "which part of each STYLE is used; one mask for each STYLE"),
    ):
        group.add_argument(name, metavar="FILE", nargs="+", action="extend", default=[], help=text)
    if content:
        group.add_argument("--content-mask", metavar="FILE", help="factor of the content loss at each position")


def _add_checkpoint(parser: Parser) -> None:
    group = parser.add_argument_group("long runs")
    group.add_argument("--checkpoint", metavar="FILE", help="save the state of the run in FILE")
    group.add_argument(
        "--checkpoint-every", metavar="N", help="steps from one checkpoint to the next (1 to 1000000000; default: 50)"
    )
    group.add_argument("--resume", action="store_true", help="continue the run in FILE if it exists")


def _add_video(parser: Parser) -> None:
    add_video_arguments(parser)
    add_setting_options(parser, "default", {"steps": "; of the first frame of a shot"}, without=NOT_OF_FILMS)
    _add_masks(parser, more="; a picture, or a film of as many frames")
    _add_reporting(parser)


def _add_gallery(parser: Parser) -> None:
    parser.description = (
        "Paint the pictures content_* of the folder DIR in the styles of its pictures style_*. Each pair gets a\n"
        "folder gen_0, gen_1, ... in OUT; sheet.jpg shows all of them. Finished pairs are not made again."
    )
    parser.usage = "%(prog)s [OPTION ...] DIR"
    parser.set_defaults(command="gallery")
    parser.add_argument("directory", metavar="DIR", help="a folder with content_* and style_* pictures")
    parser.add_argument(
        "-o", "--output", metavar="OUT", default="gallery", help="folder to write to (default: gallery)"
    )
    parser.add_argument(
        "--pairs",
        metavar="HOW",
        default="product",
        help="product: every content with every style; order: the first content with the first style and so on; "
        "shuffle: the same after shuffling by --seed (default: product)",
    )
    parser.add_argument(
        "--force", action="store_true", help="make finished pairs again; replace the file of --save-settings"
    )
    details = {
        "snapshot_every": "; written to gen_50.jpg and so on",
        "seed": " and of shuffled pairs",
    }
    add_setting_options(parser, "tutorial", details)
    _add_reporting(parser)


def _add_texture(parser: Parser) -> None:
    add_texture_arguments(parser)
    details = {"snapshot_every": "; written to OUT_0050.png and so on"}
    add_setting_options(parser, "texture", details, without=NOT_OF_TEXTURES)
    _add_masks(parser, content=False)
    _add_checkpoint(parser)
    add_film_options(parser)
    _add_reporting(parser)


def _add_settings(parser: Parser) -> None:
    parser.description = "Print all settings in a picture made by fastnst, or in a TOML file, as TOML."
    parser.set_defaults(command="settings")
    parser.add_argument("file", metavar="PICTURE|FILE", help="a picture made by fastnst, or a file of --save-settings")
    _add_reporting(parser)


def _add_weights(parser: Parser) -> None:
    parser.description = "Weights of the network: those known by name, and what a file contains."
    parser.set_defaults(command="weights", action="list")
    added = parser.add_subparsers(title="commands", metavar="COMMAND", parser_class=Parser)
    listing = added.add_parser("list", help="list the weights known by name (the default)")
    listing.set_defaults(action="list")
    fetching = added.add_parser("fetch", help="download weights once and print their path")
    fetching.set_defaults(action="fetch")
    fetching.add_argument("name", metavar="NAME", help="a name from the list")
    showing = added.add_parser("show", help="print the layers and the input scaling of weights")
    showing.set_defaults(action="show")
    showing.add_argument("name", metavar="NAME|FILE", help="a name from the list, or a file")
    showing.add_argument("--arch", help="vgg16 or vgg19, for a file that could be either")
    for one in (listing, fetching, showing):
        _add_reporting(one)


def _add_info(parser: Parser) -> None:
    parser.description = "Print versions, the device and kernels in use, and the folder of downloaded weights."
    parser.set_defaults(command="info")
    _add_reporting(parser)


def _add_demo(parser: Parser) -> None:
    parser.description = "Style the photograph that comes with fastnst with the painting that comes with it, offline."
    parser.set_defaults(command="demo")
    parser.add_argument("-o", "--output", metavar="DIR", default="demo", help="folder to write to (default: demo)")
    parser.add_argument("--size", metavar="N", default="384", help="longest side in pixels (default: 384)")
    parser.add_argument("--steps", metavar="N", default="70", help="steps at each scale (default: 70)")
    parser.add_argument(
        "--device",
        default="auto",
        help="device: auto, cpu, cuda, cuda:1, xpu, mps or another of PyTorch (default: auto)",
    )
    add_threads(parser)
    _add_reporting(parser)


def _add_reporting(parser: Parser) -> None:
    group = parser.add_argument_group("reporting")
    group.add_argument("-q", "--quiet", action="store_true", help="show no progress and no warnings")
    group.add_argument("--json", action="store_true", help="print one JSON object to stdout")
    # SUPPRESS keeps the value that `fastnst --debug COMMAND` has set.
    group.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help="show the traceback of an error")

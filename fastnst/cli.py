"""The command line: what can be asked, and what an error looks like. What is done stands in ``commands.py``.

Exit codes: 0; 1 for a failure; 2 for wrong usage; 128 and the number of the signal after one that ended the run: 130
for Ctrl-C, 143 for SIGTERM, 129 for SIGHUP. Whatever a file or an error says comes to the terminal as one line of
printable characters.

Nothing heavy is imported before the arguments are understood, so that ``--help`` and a mistyped option answer at once.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import re
import signal
import sys
import textwrap
import traceback
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NoReturn

from fastnst import __version__
from fastnst.errors import FastnstError, UsageError, nearest, printable
from fastnst.interrupts import Interrupts, heeded
from fastnst.presets import PRESETS, Layers
from fastnst.settings import (
    CONVOLUTIONS,
    GRAPHS,
    HISTORY_DTYPES,
    KEEP_COLOURS,
    MATCH_COLOURS,
    OPTIMIZERS,
    PRECISIONS,
    STYLE_FITS,
    TILES,
    Settings,
)

LONGEST = 4000
"""Characters of a line on stderr at most: names of files can be that long."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code: 0, 1 for a failure, 2 for wrong usage, and after a signal, which
    has what there is saved, 128 and its number: 130 after Ctrl-C.

    ``--help`` and ``--version`` raise SystemExit, as argparse does.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # read when torch is loaded: threads that wait do not spin
    _prepare_streams()
    with heeded(_ranks(), to_the_end=argv is None) as interrupts:
        try:
            options = _parse(arguments)
            with warnings.catch_warnings():
                if not sys.warnoptions and not options.debug:
                    warnings.simplefilter("ignore")  # those of libraries, which say nothing to whoever styles a picture
                return _run(options)
        except BaseException as error:
            if isinstance(error, SystemExit):
                raise
            text, code = _explain(error, interrupts)
            with contextlib.suppress(OSError):
                if "--debug" in arguments:
                    for line in traceback.format_exc().splitlines():
                        print(printable(line, LONGEST), file=sys.stderr)
                print(f"fastnst: {printable(text, LONGEST)}", file=sys.stderr)
            return code
        finally:
            _flush()


def _ranks() -> int:
    """How many processes make the run together; 0 for what is no number, which is refused later."""
    count = os.environ.get("WORLD_SIZE", "1")
    return int(count) if count.isascii() and count.isdigit() else 0


def _run(options: argparse.Namespace) -> int:
    from fastnst import commands
    from fastnst.progress import messages

    with messages(options.quiet):
        code: int = getattr(commands, options.command)(options)
    return code


def _explain(error: BaseException, interrupts: Interrupts) -> tuple[str, int]:
    """What to say of an error, and the exit code."""
    text = " ".join(line.strip() for line in str(error).splitlines() if line.strip())
    if isinstance(error, KeyboardInterrupt):
        came = interrupts.first or signal.SIGINT
        by = "" if came == signal.SIGINT else f" by {came.name}"
        return f"interrupted{by}" + (f"; {text}" if text else ""), 128 + came
    if isinstance(error, FastnstError):
        return f"error: {text}", error.exit_code
    if isinstance(error, MemoryError):
        return "error: out of memory; use a smaller --size", 1
    if isinstance(error, OSError) and error.strerror:
        return f"error: {f'{error.filename}: ' if error.filename else ''}{error.strerror}", 1
    return f"error: {type(error).__name__}: {text}; run again with --debug for the traceback", 1


def _flush() -> None:
    """Empty stdout now: at exit, Python would complain of a reader that has gone."""
    try:
        sys.stdout.flush()
    except OSError:
        from fastnst.progress import discard

        discard(sys.stdout)


def _prepare_streams() -> None:
    """Make closed streams harmless, and let file names that are not text in the terminal's encoding through."""
    nowhere = Path(os.devnull)
    sys.stdout = sys.stdout or nowhere.open("w")
    sys.stderr = sys.stderr or nowhere.open("w")
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="surrogateescape")


class _Parser(argparse.ArgumentParser):
    """Raises UsageError, so that wrong usage is one line like every other error."""

    def __init__(self, **arguments: object) -> None:
        settled = {"allow_abbrev": False, "formatter_class": argparse.RawDescriptionHelpFormatter}
        super().__init__(**{**settled, **arguments})  # type: ignore[arg-type]

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message} (see {self.prog} --help)")

    def options(self) -> Iterable[str]:
        """The long options, of this parser alone."""
        return [name for name in self._option_string_actions if name.startswith("--")]


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser, commands = _build()
    chosen = commands.get(arguments[0], parser) if arguments else parser
    try:
        options, unknown = parser.parse_known_args(_with_tiles(arguments))
    except UsageError as error:
        about_values = any(words in str(error) for words in ("expected", "explicit argument"))
        raise UsageError(f"{error}{_about_dashes(arguments) if about_values else ''}") from None
    if unknown:
        first = unknown[0]
        hint = _about_dashes([first]) or (
            nearest(first.partition("=")[0], chosen.options()) if first.startswith("-") else ""
        )
        raise UsageError(f"unrecognised argument {first!r}{hint} (see {chosen.prog} --help)")
    if options.command is None:
        raise UsageError(f"expected a command: {', '.join(commands)} (see fastnst --help)")
    return options


def _with_tiles(arguments: Sequence[str]) -> list[str]:
    """The arguments with ``--tiles`` alone as ``--tiles=on``: what follows is its value only if it can be one."""
    found = list(arguments)
    end = found.index("--") if "--" in found else len(found)
    for i, argument in enumerate(found[:end]):
        value = found[i + 1] if i + 1 < end else ""
        if argument == "--tiles" and value not in TILES and not re.fullmatch(r"[+-]?\d+", value):
            found[i] = "--tiles=on"
    return found


def _about_dashes(arguments: Sequence[str]) -> str:
    """How to name a file whose name begins with a dash, where there is one that looks so."""
    for argument in arguments:
        if re.fullmatch(r"-[^-].*\.[A-Za-z]\w*", argument, re.DOTALL):
            return f"; for the file of this name write ./{argument}"
    return ""


def _build() -> tuple[_Parser, dict[str, _Parser]]:
    """The parser, and those of its commands by name."""
    parser = _Parser(prog="fastnst", description="Paint a picture in the style of another.")
    parser.add_argument("--version", action="version", version=f"fastnst {__version__}")
    parser.add_argument("--debug", action="store_true", help=argparse.SUPPRESS)
    parser.set_defaults(command=None, quiet=False, json=False)
    added = parser.add_subparsers(title="commands", metavar="COMMAND", parser_class=_Parser)
    commands = {
        "stylize": added.add_parser("stylize", help="style one picture", epilog=_presets()),
        "gallery": added.add_parser("gallery", help="style a folder of pictures", epilog=_presets()),
        "settings": added.add_parser("settings", help="the settings in a picture or a file, as TOML"),
        "weights": added.add_parser("weights", help="list, fetch or show the weights of the network"),
        "info": added.add_parser("info", help="what was built and what serves this machine"),
        "demo": added.add_parser("demo", help="style the pictures that come with fastnst"),
    }
    _stylize(commands["stylize"])
    _gallery(commands["gallery"])
    _settings(commands["settings"])
    _weights(commands["weights"])
    _info(commands["info"])
    _demo(commands["demo"])
    return parser, commands


def _stylize(parser: _Parser) -> None:
    parser.description = "Paint the picture CONTENT in the style of the picture STYLE, or of several."
    parser.set_defaults(command="stylize")
    content = parser.add_argument("content", metavar="CONTENT", help="the picture to paint")
    style = parser.add_argument(
        "style", metavar="STYLE", nargs="+", help="the picture whose style to paint it in; several are blended"
    )
    content.required = style.required = False  # --like may name them
    parser.add_argument(
        "-o",
        "--output",
        metavar="OUT",
        help="where to write: .png, .jpg, .webp, .tif, .avif, .jp2 or .bmp; replaced if it is there (default: "
        "CONTENT_STYLE.png here)",
    )
    parser.add_argument("--parents", action="store_true", help="make the folder of OUT, and those above it")
    parser.add_argument(
        "--force",
        action="store_true",
        help="replace the files of --save-settings, of --checkpoint if it is not resumed and, without -o, the result",
    )
    parser.add_argument(
        "--like",
        metavar="PICTURE",
        help="repeat the run that made PICTURE: its settings and, unless CONTENT and STYLE are given, its inputs, by "
        "their names beside PICTURE or here (default output: PICTURE_again here)",
    )
    parser.add_argument(
        "--plan",
        action="store_true",
        help="write nothing, but say what the run would take here: sizes, memory, and time by a short trial",
    )
    _add_settings(parser, "default", "write OUT_0050.png and so on beside OUT every N steps over all scales")
    group = parser.add_argument_group(
        "masks, of the size of their pictures: white counts, black does not, grey in part"
    )
    group.add_argument(
        "--mask",
        metavar="FILE",
        nargs="+",
        action="extend",
        default=[],
        help="for each STYLE, where in the result it goes",
    )
    group.add_argument(
        "--style-mask",
        metavar="FILE",
        nargs="+",
        action="extend",
        default=[],
        help="for each STYLE, which part of it counts",
    )
    group.add_argument("--content-mask", metavar="FILE", help="how much of the content is held where")
    group = parser.add_argument_group("long runs")
    group.add_argument("--checkpoint", metavar="FILE", help="keep the run in FILE, to go on with it after anything")
    group.add_argument(
        "--checkpoint-every", metavar="N", help="steps from one writing of FILE to the next (default: 50)"
    )
    group.add_argument("--resume", action="store_true", help="go on with the run in FILE, if it is there")
    _add_reporting(parser)


def _gallery(parser: _Parser) -> None:
    parser.description = (
        "Paint the pictures content_* of the folder DIR in the styles of its pictures style_*. Each pair gets a\n"
        "folder gen_0, gen_1, ... in OUT; sheet.jpg shows them all. Pairs that are finished are not made again."
    )
    parser.set_defaults(command="gallery")
    parser.add_argument("directory", metavar="DIR", help="a folder with content_* and style_* pictures")
    parser.add_argument(
        "-o", "--output", metavar="OUT", default="gallery", help="folder to write to (default: gallery)"
    )
    parser.add_argument(
        "--pairs",
        metavar="HOW",
        default="product",
        help="product: every content with every style; order: the first with the first and so on; "
        "shuffle: the same after shuffling by --seed (default: product)",
    )
    parser.add_argument(
        "--force", action="store_true", help="make finished pairs again; replace the file of --save-settings"
    )
    _add_settings(parser, "tutorial", "write gen_50.jpg and so on every N steps over all scales")
    _add_reporting(parser)


def _settings(parser: _Parser) -> None:
    parser.description = "Print the settings in a picture that fastnst made, or in a TOML file, all of them, as TOML."
    parser.set_defaults(command="settings_show")
    parser.add_argument("file", metavar="PICTURE|FILE", help="a picture, or a file of --save-settings")
    _add_reporting(parser)


def _weights(parser: _Parser) -> None:
    parser.description = "The weights of the network: what is known by name, what a file holds."
    parser.set_defaults(command="weights_list")
    added = parser.add_subparsers(title="commands", metavar="COMMAND", parser_class=_Parser)
    listing = added.add_parser("list", help="the weights known by name (the default)")
    listing.set_defaults(command="weights_list")
    fetching = added.add_parser("fetch", help="download weights once and print where they are")
    fetching.set_defaults(command="weights_fetch")
    fetching.add_argument("name", metavar="NAME", help="a name of the list")
    showing = added.add_parser("show", help="what weights hold")
    showing.set_defaults(command="weights_show")
    showing.add_argument("name", metavar="NAME|FILE", help="a name of the list, or a file")
    showing.add_argument("--arch", help="vgg16 or vgg19, for a file that could be either")
    for one in (listing, fetching, showing):
        _add_reporting(one)


def _info(parser: _Parser) -> None:
    parser.description = "What was built, which kernels serve this machine, where weights are kept."
    parser.set_defaults(command="info")
    _add_reporting(parser)


def _demo(parser: _Parser) -> None:
    parser.description = "Style the photograph that comes with fastnst with the painting that comes with it, offline."
    parser.set_defaults(command="demo")
    parser.add_argument("-o", "--output", metavar="DIR", default="demo", help="folder to write to (default: demo)")
    parser.add_argument("--size", metavar="N", default="384", help="longest side (default: 384)")
    parser.add_argument("--steps", metavar="N", default="70", help="steps at each scale (default: 70)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, ... (default: auto)")
    _add_reporting(parser)


def _add_reporting(parser: _Parser) -> None:
    group = parser.add_argument_group("reporting")
    group.add_argument("-q", "--quiet", action="store_true", help="no progress and no warnings")
    group.add_argument("--json", action="store_true", help="one JSON object on stdout")
    # SUPPRESS keeps what `fastnst --debug COMMAND` has set
    debug = "show the traceback of an error"
    group.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help=debug)


def _add_settings(parser: _Parser, preset: str, snapshots: str) -> None:
    """The options that become Settings; those that are not given leave no trace."""
    preset_values = Settings.of(preset)
    parser.set_defaults(usual_preset=preset)

    def add(group: argparse._ArgumentGroup, name: str, metavar: str, text: str) -> None:
        value = getattr(preset_values, name.removeprefix("--").replace("-", "_"))
        shown = "none" if value is None else _shown(value)
        shown = {"--weights": "the bundled VGG-19", "--style-weights": "all alike"}.get(name, shown)
        told = f"{text} (default: {shown})".replace("%", "%%")
        group.add_argument(name, metavar=metavar, default=argparse.SUPPRESS, help=told)

    def switch(group: argparse._ArgumentGroup, name: str, text: str) -> None:
        value = getattr(preset_values, name.removeprefix("--").replace("-", "_"))
        told = f"{text} (default: {value})"
        group.add_argument(name, action=argparse.BooleanOptionalAction, default=argparse.SUPPRESS, help=told)

    group = parser.add_argument_group(f"the result (defaults of preset {preset})")
    group.add_argument("--preset", metavar="NAME", help=f"{', '.join(PRESETS)} (default: {preset})")
    group.add_argument(
        "--settings",
        metavar="FILE",
        help="settings of a TOML file or a picture; they go before the preset's, options given here before them",
    )
    group.add_argument("--save-settings", metavar="FILE", help="write what the run uses to FILE.toml before it starts")
    add(group, "--size", "N", "longest side of the result, in pixels; none: the content's own")
    add(group, "--crop", "N", "side of a square centre crop, instead of --size")
    add(group, "--steps", "N,...", "evaluations of loss and gradient at each scale, the last number for the rest")
    add(group, "--scales", "N,...", "coarse to fine: how many, auto, or the longest side of each as 128,256,512")
    add(group, "--scale-factor", "X", "how many times larger each scale is than the one before: a number or sqrt2")
    add(group, "--min-scale", "N", "longest side of the coarsest scale, at least")
    add(group, "--min-shorter-side", "N", "shorter side of the coarsest scale, at least")
    add(group, "--init", "START", "content, noise, style or a picture to start from")
    add(group, "--keep-colour", "HOW", f"put the content's colours back: {', '.join(KEEP_COLOURS)}")
    add(group, "--match-colour", "HOW", f"first match the style's to the content's: {', '.join(MATCH_COLOURS)}")
    add(group, "--seed", "N", "of the noise, and of shuffled pairs")
    add(group, "--snapshot-every", "N", f"{snapshots}; 0: none")
    group = parser.add_argument_group("the loss")
    add(group, "--content-weight", "X", "weight of the content loss")
    add(group, "--style-weight", "X", "weight of the style loss")
    add(group, "--tv-weight", "X", "weight of the total variation")
    layers = "names or patterns with an optional weight or curve: relu4_2:0.5,conv5_1 or relu?_1:256*0.25"
    add(group, "--content-layers", "LAYERS", layers)
    add(group, "--style-layers", "LAYERS", "the same for the style")
    add(group, "--style-loss", "NAME", "gram, or another of docs/control.md, or one of an installed package")
    add(group, "--style-weights", "X,X", "of several styles, in their order")
    switch(group, "--normalise-gradients", "give every layer's losses gradients of one size, times their weights")
    add(group, "--style-fit", "HOW", f"which side of the style follows the content: {', '.join(STYLE_FITS)}")
    add(group, "--style-scale", "X", "that side of the style picture, relative to the content's")
    add(group, "--style-size", "N", "longest side of the style picture in pixels, instead of --style-scale")
    add(group, "--pooling", "HOW", "max, average or l2")
    add(group, "--padding", "HOW", "zeros, replicate, or replicate_first for the first convolution alone")
    add(group, "--weights", "NAME|FILE", "weights of the network: a name of `fastnst weights list` or a file")
    group = parser.add_argument_group("the optimiser and the machine")
    add(group, "--optimizer", "NAME", " or ".join(OPTIMIZERS))
    add(group, "--learning-rate", "X", "length of a step")
    switch(group, "--carry", "take Adam's moments from one scale to the next")
    add(group, "--average", "X", "decay of a moving average of the images, which is the result; 0: the last is")
    add(group, "--betas", "X,X", "Adam's decays of the gradient and of its square")
    add(group, "--epsilon", "X", "beside Adam's root of the squares")
    switch(group, "--clamp", "hold every pixel between black and white after each step")
    add(group, "--history", "N,...", "steps that L-BFGS remembers at each scale, the last number for the rest")
    add(group, "--history-dtype", "NAME", f"of what L-BFGS remembers: {', '.join(HISTORY_DTYPES)}")
    add(group, "--max-pixels", "N", "pixels of a picture that is read, at most; raise it for files that you trust")
    add(group, "--device", "NAME", "auto, cpu, cuda, cuda:1, ...")
    add(group, "--precision", "NAME", f"of features: {', '.join(PRECISIONS)}")
    add(group, "--convolution", "HOW", f"by whose algorithm: {', '.join(CONVOLUTIONS)}")
    group.add_argument(
        "--tiles",
        nargs="?",
        const="on",
        default=argparse.SUPPRESS,
        metavar="ROWS",
        help=f"a strip of the picture at a time: {', '.join(TILES)}, or its rows (default: auto, for lack of memory)",
    )
    add(group, "--memory", "SIZE", "how much memory the run may hold, like 4GB; none: what is free")
    add(group, "--graph", "WHEN", f"a step as one CUDA graph: {', '.join(GRAPHS)}")


def _shown(value: object) -> str:
    """A setting for people."""
    if not isinstance(value, tuple):
        return f"{value}"
    return ",".join(map(str, value)) if all(isinstance(item, (int, float)) for item in value) else _layers(value)


def _layers(layers: Layers) -> str:
    """Layers for people: names, and weights where they are not 1."""
    weights = {weight for _, weight in layers}
    if len(weights) == 1 and weights != {1.0}:
        return ", ".join(name for name, _ in layers) + f" (each {weights.pop():.4g})"
    return ", ".join(name if weight == 1 else f"{name}:{weight:.4g}" for name, weight in layers)


def _presets() -> str:
    """What each preset changes, for the help."""
    paragraphs = []
    for name, changes in PRESETS.items():
        facts = [
            f"{field.replace('_', '-')} {_shown(value)}"
            for field, value in changes.items()
            if not (field == "size" and value is None)
        ]
        text = f"{name}: {'; '.join(facts) or 'the defaults of `fastnst stylize`'}"
        paragraphs.append(textwrap.fill(text, 100, initial_indent="  ", subsequent_indent="      "))
    return "presets, by what they change:\n" + "\n".join(paragraphs)

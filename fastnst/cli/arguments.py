"""Parse the arguments of the command line, with hints for common mistakes."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence

from fastnst.cli.parser import build_parser
from fastnst.config.ranges import TILES, WRAPS
from fastnst.errors import UsageError, nearest


def parse_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    """The parsed options. Raises UsageError for wrong usage, and SystemExit for ``--help`` and ``--version``."""
    parser, commands = build_parser()
    chosen = commands.get(arguments[0], parser) if arguments else parser
    try:
        options, unknown = parser.parse_known_args(_complete_values(arguments))
    except UsageError as error:
        about_values = any(words in str(error) for words in ("expected", "explicit argument"))
        raise UsageError(f"{error}{_dash_hint(arguments) if about_values else ''}") from None
    if unknown:
        first = unknown[0]
        hint = _dash_hint([first]) or (
            nearest(first.partition("=")[0], chosen.options()) if first.startswith("-") else ""
        )
        raise UsageError(f"unrecognized argument {first!r}{hint} (see {chosen.prog} --help)")
    if options.command is None:
        raise UsageError(f"expected a command: {', '.join(commands)} (see fastnst --help)")
    return options


def _complete_values(arguments: Sequence[str]) -> list[str]:
    """Replace ``--tiles`` by ``--tiles=on`` unless a valid value follows: a picture that follows is not its value.

    In the same way ``--tileable`` by ``--tileable=both``.
    """
    completed = list(arguments)
    end = completed.index("--") if "--" in completed else len(completed)
    for i, argument in enumerate(completed[:end]):
        value = completed[i + 1] if i + 1 < end else ""
        if argument == "--tiles" and value not in TILES and not re.fullmatch(r"[+-]?\d+", value):
            completed[i] = "--tiles=on"
        if argument == "--tileable" and value not in WRAPS:
            completed[i] = "--tileable=both"
    return completed


def _dash_hint(arguments: Sequence[str]) -> str:
    """How to write the name of a file that begins with a dash, if an argument looks like one."""
    for argument in arguments:
        if re.fullmatch(r"-[^-].*\.[A-Za-z]\w*", argument, re.DOTALL):
            return f"; for the file of this name write ./{argument}"
    return ""

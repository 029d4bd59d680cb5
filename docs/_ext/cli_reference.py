"""The directive ``cli-command``: a command's options, read from the parser when the documentation is built."""

from __future__ import annotations

import argparse
import re
from typing import Any

from docutils import nodes
from docutils.parsers.rst import Directive
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.errors import ExtensionError


def parsers() -> dict[str, argparse.ArgumentParser]:
    """The parser of each command by its full name, such as ``"weights fetch"``."""
    from fastnst.cli.parser import build_parser

    return _below(build_parser()[0], "")


def _below(parser: argparse.ArgumentParser, prefix: str) -> dict[str, argparse.ArgumentParser]:
    found: dict[str, argparse.ArgumentParser] = {}
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, below in action.choices.items():
                found[f"{prefix}{name}"] = below
                found |= _below(below, f"{prefix}{name} ")
    return found


def _help(action: argparse.Action) -> str:
    return " ".join((action.help or "").replace("%%", "%").split())


def escaped(text: str) -> str:
    """Text for reStructuredText: backquoted parts and options become literals, stars and bars stay as they are."""
    parts = re.split(r"`([^`]+)`", re.sub(r"(?<![\w`-])(--?[a-z][\w-]*)", r"`\1`", text))
    plain = [re.sub(r"([*|_\\])", r"\\\1", part) for part in parts[::2]]
    return "".join(a + (f"``{b}``" if b else "") for a, b in zip(plain, [*parts[1::2], ""], strict=True))


class CliCommand(Directive):
    """``.. cli-command:: weights fetch``, inside ``eval-rst``."""

    required_arguments = 1
    final_argument_whitespace = True

    def run(self) -> list[nodes.Node]:
        name = self.arguments[0]
        env: BuildEnvironment = self.state.document.settings.env
        env.metadata.setdefault("cli-commands", {})[name] = True
        lines = _command(name, parsers()[name])
        parent = nodes.Element()
        self.state.nested_parse(StringList(lines, source=f"<cli-command {name}>"), self.content_offset, parent)
        return parent.children


def _command(name: str, parser: argparse.ArgumentParser) -> list[str]:
    lines = [escaped(" ".join((parser.description or "").split())), ""]
    lines += [f".. program:: fastnst {name}", ""]
    for group in parser._action_groups:
        actions = [action for action in group._group_actions if _shown(action)]
        if not actions:
            continue
        title = {"positional arguments": "Arguments", "options": "Options"}.get(group.title or "", group.title or "")
        lines += [f".. rubric:: {escaped(title[:1].upper() + title[1:])}", ""]
        for action in actions:
            lines += [f".. option:: {_signature(action)}", "", f"   {escaped(_help(action))}", ""]
    return lines


def _shown(action: argparse.Action) -> bool:
    return action.help != argparse.SUPPRESS and not isinstance(action, argparse._SubParsersAction)


def _signature(action: argparse.Action) -> str:
    value = action.metavar if isinstance(action.metavar, str) else (action.dest.upper() if action.nargs != 0 else "")
    if not action.option_strings:
        return f"{value} ..." if action.nargs == "+" else value
    if action.nargs == 0 or isinstance(action, argparse.BooleanOptionalAction):
        value = ""
    if action.nargs == "?":
        value = f"[{value}]"
    more = " ..." if action.nargs == "+" else ""
    return ", ".join(f"{option} {value}{more}".strip() for option in action.option_strings)


def check(app: Sphinx, env: BuildEnvironment) -> None:
    """Every command must have its place in the documentation."""
    missing = set(parsers()) - set(env.metadata.get("cli-commands", {}))
    if missing:
        raise ExtensionError(f"no page has cli-command:: {', '.join(sorted(missing))}")


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("cli-command", CliCommand)
    app.connect("env-check-consistency", check)
    return {"parallel_read_safe": False, "parallel_write_safe": True}

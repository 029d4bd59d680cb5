"""The commands, one module each. ``main`` of a module builds its request from the parsed options and runs it."""

from __future__ import annotations

import argparse
import importlib

from fastnst.cli.threads import limited_threads


def run(options: argparse.Namespace) -> int:
    """Run the command ``options.command``, importing no other, and return the exit code."""
    module = importlib.import_module(f"fastnst.cli.commands.{options.command}")
    with limited_threads(options.threads):
        code: int = module.main(options)
    return code

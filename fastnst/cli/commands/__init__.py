"""The commands, one module each. ``main`` of a module builds its request from the parsed options and runs it."""

from __future__ import annotations

import argparse
import importlib


def run(options: argparse.Namespace) -> int:
    """Run the command ``options.command``, importing no other, and return the exit code."""
    module = importlib.import_module(f"fastnst.cli.commands.{options.command}")
    code: int = module.main(options)
    return code

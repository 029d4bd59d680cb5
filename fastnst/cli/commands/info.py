"""``fastnst info``: print versions, the device and the kernels in use."""

from __future__ import annotations

import argparse
from dataclasses import dataclass

from fastnst.cli import info as machine
from fastnst.cli.output import say, say_json


@dataclass(frozen=True)
class InfoRequest:
    """The options of ``fastnst info``."""

    json: bool


def main(options: argparse.Namespace) -> int:
    """Run the command and return the exit code."""
    return info(InfoRequest(options.json))


def info(request: InfoRequest) -> int:
    """Print the facts as a table or as JSON."""
    facts = machine.collect()
    if request.json:
        say_json(facts)
    else:
        say(machine.table(facts))
    return 0

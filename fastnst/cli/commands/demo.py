"""``fastnst demo``: style the pictures that come with the package."""

from __future__ import annotations

import argparse
from dataclasses import dataclass

from fastnst.cli import demo as demonstration
from fastnst.cli.output import Results
from fastnst.cli.progress import StepBar
from fastnst.cli.runs import exit_code, result_facts
from fastnst.config.parsing import parse
from fastnst.config.settings import Settings


@dataclass(frozen=True)
class DemoRequest:
    """The options of ``fastnst demo``."""

    output: str
    settings: Settings
    quiet: bool
    json: bool

    @classmethod
    def from_namespace(cls, options: argparse.Namespace) -> DemoRequest:
        """Read settings. Raises UsageError."""
        changes = {name: parse(name, getattr(options, name)) for name in ("size", "steps", "device")}
        return cls(options.output, Settings.from_preset(**changes), options.quiet, options.json)


def main(options: argparse.Namespace) -> int:
    """Run the command and return the exit code."""
    return demo(DemoRequest.from_namespace(options))


def demo(request: DemoRequest) -> int:
    """Style the pictures that come with the package."""
    results = Results(request.json)
    with StepBar(request.quiet) as bar:
        result = demonstration.run(request.output, request.settings, callback=bar, finished=results.add)
    results.finish(**result_facts(result))
    return exit_code(result.stopped)

"""``fastnst studio``: the local page."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import Any

from fastnst.cli.output import say
from fastnst.config.checks import check_number
from fastnst.config.parsing import parse_number
from fastnst.config.ranges import RANGES, Range

_PORT, _PARALLEL = Range(0, 65535), Range(1, 16)


@dataclass(frozen=True)
class StudioRequest:
    """The options of ``fastnst studio``."""

    folder: str
    host: str
    port: int
    token: str | None
    parallel: int
    max_pixels: int | None
    demo: bool
    open: bool

    @classmethod
    def from_namespace(cls, options: argparse.Namespace) -> StudioRequest:
        """Check the numbers. Raises UsageError."""

        def number(name: str, allowed: Range) -> Any:
            return check_number(f"--{name.replace('_', '-')}", parse_number(getattr(options, name), int), allowed)

        max_pixels = None if options.max_pixels is None else number("max_pixels", RANGES["max_pixels"])
        return cls(
            options.folder,
            options.host,
            number("port", _PORT),
            options.token,
            number("parallel", _PARALLEL),
            max_pixels,
            options.demo,
            options.open,
        )


def main(options: argparse.Namespace) -> int:
    """Serve the studio until it is interrupted, and return the exit code."""
    from fastnst.studio import serve

    request = StudioRequest.from_namespace(options)
    serve(
        request.folder,
        host=request.host,
        port=request.port,
        token=request.token,
        parallel=request.parallel,
        max_pixels=request.max_pixels,
        demo=request.demo,
        open_browser=request.open,
        say=say,
    )
    return 0

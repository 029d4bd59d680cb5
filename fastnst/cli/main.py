"""The entry point of the command line: streams, signals, errors and exit codes.

Exit codes: 0 for success; 1 for a failure; 2 for wrong usage; 128 plus the number of the signal that ended the run:
130 for Ctrl-C, 143 for SIGTERM and 129 for SIGHUP. An error is one line of printable characters on stderr.

Heavy modules such as torch are imported after the arguments are parsed, so that ``--help`` and a mistyped option answer
at once.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Sequence

from fastnst.cli import streams
from fastnst.cli.arguments import parse_arguments
from fastnst.errors import FastnstError, printable
from fastnst.process import Interrupts, handling_signals, limit_kept_memory


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code.

    ``argv`` defaults to ``sys.argv[1:]``. A signal stops the run and saves the image so far. ``--help`` and
    ``--version`` raise SystemExit, as argparse does.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # read when torch is imported: waiting threads do not spin
    streams.prepare()
    with handling_signals(_world_size(), to_the_end=argv is None) as interrupts:
        try:
            options = parse_arguments(arguments)
            with warnings.catch_warnings():
                if not sys.warnoptions and not options.debug:
                    warnings.simplefilter("ignore")  # warnings of libraries do not help the user of the command
                return _run(options)
        except BaseException as error:
            if isinstance(error, SystemExit):
                raise
            text, code = _explain(error, interrupts)
            _report(text, traceback.format_exc() if "--debug" in arguments else "")
            return code
        finally:
            streams.flush()


def _world_size() -> int:
    """The number of processes that torchrun has started; 0 if the variable is no number, which is refused later."""
    count = os.environ.get("WORLD_SIZE", "1")
    return int(count) if count.isascii() and count.isdigit() else 0


def _run(options: argparse.Namespace) -> int:
    from fastnst.cli import commands

    limit_kept_memory()
    from fastnst.cli.output import messages

    with messages(options.quiet):
        return commands.run(options)


def _explain(error: BaseException, interrupts: Interrupts) -> tuple[str, int]:
    """The message of an error and the exit code."""
    text = " ".join(line.strip() for line in str(error).splitlines() if line.strip())
    if isinstance(error, KeyboardInterrupt):
        received = interrupts.first or signal.SIGINT
        by = "" if received == signal.SIGINT else f" by {received.name}"
        return f"interrupted{by}" + (f"; {text}" if text else ""), 128 + received
    if isinstance(error, FastnstError):
        return f"error: {text}", error.exit_code
    if isinstance(error, MemoryError):
        return "error: out of memory; use a smaller --size", 1
    if isinstance(error, OSError) and error.strerror:
        return f"error: {f'{error.filename}: ' if error.filename else ''}{error.strerror}", 1
    return f"error: {type(error).__name__}: {text}; run again with --debug for the traceback", 1


def _report(text: str, trace: str) -> None:
    with contextlib.suppress(OSError):
        for line in trace.splitlines():
            print(printable(line, streams.LONGEST_LINE), file=sys.stderr)
        print(f"fastnst: {printable(text, streams.LONGEST_LINE)}", file=sys.stderr)

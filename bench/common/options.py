"""Options that several benchmarks have."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterable
from pathlib import Path

from bench.common.results import RESULTS


def parser(doc: str | None, *, threads: bool = False, out: bool = False) -> argparse.ArgumentParser:
    """A parser described by the first line of ``doc``, with ``--threads`` and ``--out`` where asked for."""
    made = argparse.ArgumentParser(description=(doc or "").splitlines()[0])
    if threads:
        made.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="default: all cores")
    if out:
        made.add_argument("--out", type=Path, default=RESULTS, help="folder of the results (default bench/results)")
    return made


def numbers(text: str) -> list[int]:
    """Numbers separated by commas."""
    return [int(number) for number in text.split(",") if number]


def some_of(choices: Iterable[str]) -> Callable[[str], list[str]]:
    """A type of option: words of ``choices`` separated by commas."""
    allowed = list(choices)

    def words(text: str) -> list[str]:
        found = [word for word in text.split(",") if word]
        if not found or not set(found) <= set(allowed):
            raise argparse.ArgumentTypeError(f"expected some of {','.join(allowed)}, got {text!r}")
        return found

    return words


def plain(options: argparse.Namespace) -> dict[str, object]:
    """The options as JSON holds them, without the folder of the results. Of absolute paths the name alone."""
    kept = {name: value for name, value in vars(options).items() if name not in ("out", "run", "worker")}
    return {name: _without_folder(value) for name, value in kept.items()}


def _without_folder(value: object) -> object:
    return Path(value).name if isinstance(value, str) and Path(value).is_absolute() else value

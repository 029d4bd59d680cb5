"""``fastnst weights``: list, fetch or show weights of the network."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fastnst import weights
from fastnst.cli.output import Results, say, say_json
from fastnst.cli.progress import ByteBar
from fastnst.cli.streams import LONGEST_LINE
from fastnst.errors import printable
from fastnst.weights.entries import Entry
from fastnst.weights.layout import CONVENTIONS, conv_shapes, span

_COLUMNS = ("NAME", "NETWORK", "SIZE", "WHERE", "LICENSE")


@dataclass(frozen=True)
class WeightsRequest:
    """The options of ``fastnst weights``. ``action`` is list, fetch or show."""

    action: str
    name: str
    arch: str | None
    quiet: bool
    json: bool

    @classmethod
    def from_namespace(cls, options: argparse.Namespace) -> WeightsRequest:
        name, arch = getattr(options, "name", ""), getattr(options, "arch", None)
        return cls(options.action, name, arch, options.quiet, options.json)


def main(options: argparse.Namespace) -> int:
    """Run the command and return the exit code."""
    request = WeightsRequest.from_namespace(options)
    {"list": list_catalog, "fetch": fetch, "show": show}[request.action](request)
    return 0


def list_catalog(request: WeightsRequest) -> None:
    """Print the weights known by name."""
    entries = [
        {
            "name": entry.name,
            "arch": entry.arch,
            "layers": span(entry.layers),
            "size_bytes": entry.size_bytes,
            "where": "bundled" if entry.bundled else "cached" if entry.cached else "to fetch",
            "license": entry.license,
            "note": entry.note,
        }
        for entry in weights.catalog()
    ]
    if request.json:
        say_json(entries)
        return
    rows = [(e["name"], e["arch"], _megabytes(e["size_bytes"]), e["where"], e["license"]) for e in entries]
    _say_table([_COLUMNS, *rows])


def _say_table(rows: Sequence[Sequence[object]]) -> None:
    """Print rows in columns of equal width, except the last."""
    widths = [max(len(str(row[i])) for row in rows) for i in range(len(rows[0]) - 1)]
    for row in rows:
        say("  ".join(str(cell).ljust(width) for cell, width in zip(row[:-1], widths, strict=True)) + f"  {row[-1]}")


def fetch(request: WeightsRequest) -> None:
    """Download weights and print their path."""
    results = Results(request.json)
    with ByteBar(request.name, request.quiet) as bar:
        path = weights.fetch(request.name, bar)
    results.add(path)
    results.finish()


def show(request: WeightsRequest) -> None:
    """Print what weights contain. An entry of the catalog that is not cached is described without a download."""
    entry = next((entry for entry in weights.catalog() if entry.name == request.name), None)
    if entry is not None and not entry.cached:
        facts, shapes = _describe_entry(entry)
    else:
        facts, shapes = _describe_loaded(request, entry)
    facts["deepest"] = max(shapes)
    if request.json:
        say_json({**facts, "convs": shapes})
        return
    for name, value in facts.items():
        say(f"{name:<10}  {printable(value, LONGEST_LINE)}")
    for name, shape in shapes.items():
        say(f"{printable(name):<10}  {' x '.join(map(str, shape))}")


def _describe_entry(entry: Entry) -> tuple[dict[str, str], Mapping[str, tuple[int, ...]]]:
    """The facts and the shapes of weights that are not downloaded."""
    shapes = {name: conv_shapes(entry.arch)[name] for name in entry.layers}
    scaling = CONVENTIONS[entry.convention]
    facts = {
        "name": entry.name,
        "arch": entry.arch,
        "file": f"to fetch: fastnst weights fetch {entry.name}",
        "license": entry.license,
        "source": entry.url,
    }
    return facts | _input_facts(entry, scaling.mean, scaling.scale), shapes


def _describe_loaded(
    request: WeightsRequest, entry: Entry | None
) -> tuple[dict[str, str], Mapping[str, tuple[int, ...]]]:
    """The facts and the shapes of weights in a file."""
    loaded = weights.load(request.name, arch=request.arch)
    facts = {
        "name": loaded.name,
        "arch": loaded.arch,
        "file": str(entry.path if entry else request.name),
        "license": loaded.license,
        "source": loaded.source,
    }
    shapes = {name: tuple(weight.shape) for name, (weight, _) in loaded.convs.items()}
    return facts | _input_facts(entry, loaded.mean, loaded.scale), shapes


def _input_facts(entry: Entry | None, mean: Sequence[float], scale: Sequence[float]) -> dict[str, str]:
    facts: dict[str, str] = {}
    if entry is not None and entry.note:
        facts["note"] = entry.note
    facts["input"] = f"(RGB 0..255 - {_numbers(mean)}) * {_numbers(scale)}"
    if entry is not None:
        facts["convention"] = entry.convention
    return facts


def _megabytes(size: Any) -> str:
    return f"{size / 1e6:.1f} MB" if isinstance(size, int) else "?"


def _numbers(values: Sequence[float]) -> str:
    return "[" + ", ".join(f"{value:.6g}" for value in values) + "]"

"""The table and the plot of pytest-benchmark's results.

    python -m bench.ops.ops_report [build/ops.json]

Copies the file to bench/results as ops.json, and writes ops.md and ops.png beside it. Without a file it writes the
table and the plot of the results that are there.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.common import results
from bench.common.contest import Spread, ratios
from bench.common.options import parser
from bench.common.results import Report, Section, Table
from bench.ops.contests import NAMES

Row = dict[str, Any]
KEYS = ("op", "mode", "channels", "side")


def rows(report: Mapping[str, Any]) -> list[Row]:
    """A row for each op, mode and size: seconds of every round by contender, and reasons of those without a time."""
    found: dict[tuple[Any, ...], Row] = {}
    for facts in (*(b["extra_info"] for b in report["benchmarks"]), *report["refused"]):
        key = tuple(facts[name] for name in KEYS)
        row = found.setdefault(key, dict(zip(KEYS, key, strict=True)) | {"seconds": {}, "refused": {}})
        if "refused" in facts:
            row["refused"][facts["contender"]] = facts["refused"]
    for b in report["benchmarks"]:
        info = b["extra_info"]
        found[tuple(info[name] for name in KEYS)]["seconds"][info["contender"]] = b["stats"]["data"]
    return list(found.values())


def ratio(row: Row, name: str) -> float | None:
    """The median over rounds of the time of ``name`` over that of fastnst."""
    theirs, ours = row["seconds"].get(name), row["seconds"].get("fastnst")
    return Spread.of(ratios(theirs, ours)).median if theirs and ours else None


def table(found: Sequence[Row]) -> Table:
    head = (
        "op",
        "mode",
        "C, side",
        "eager / fastnst",
        "compile / fastnst",
        "eager ms (min-max)",
        "compile ms",
        "fastnst ms",
    )
    lines = []
    for row in found:
        quotients = [f"{r:.2f}" if r else "" for r in (ratio(row, "eager"), ratio(row, "compile"))]
        cells = [_cell(row["seconds"].get(name), row["refused"].get(name, "")) for name in NAMES]
        lines.append((row["op"], row["mode"], f"{row['channels']}, {row['side']}", *quotients, *cells))
    return Table(head, lines, keys=3)


def tables(report: Report) -> list[Section]:
    return ["float32", table(rows(report))]


def _cell(seconds: Sequence[float] | None, refused: str) -> str:
    if not seconds:
        return f"refused: {refused}" if refused else ""
    return Spread.of(seconds).text(".2f", 1e3)


def plot(path: Path, found: Sequence[Row]) -> None:
    """Ratios to fastnst by size, a panel for each op and mode."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    names = list(dict.fromkeys(row["op"] for row in found))
    modes = list(dict.fromkeys(row["mode"] for row in found))
    size = (2.6 * len(names), 2.2 * len(modes))
    figure, axes = plt.subplots(len(modes), len(names), figsize=size, squeeze=False, layout="constrained")
    for i, mode in enumerate(modes):
        for j, op in enumerate(names):
            panel, here = axes[i, j], [row for row in found if (row["op"], row["mode"]) == (op, mode)]
            for name in NAMES[:2]:
                x = [k for k, row in enumerate(here) if ratio(row, name)]
                panel.plot(x, [ratio(here[k], name) for k in x], "o-", label=name, markersize=3, linewidth=1)
            panel.axhline(1, color="k", linestyle="--", linewidth=1)
            panel.set_xticks(range(len(here)), [f"{row['channels']},\n{row['side']}" for row in here], fontsize=6)
            panel.set_title(f"{op}, {mode}", fontsize=8)
            panel.set_ylim(bottom=0)
            panel.tick_params(axis="y", labelsize=6)
    axes[0, 0].set_ylabel("time over fastnst's", fontsize=7)
    axes[0, 0].legend(fontsize=6)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> None:
    options = parser(__doc__, out=True)
    options.add_argument(
        "source", type=Path, nargs="?", help="pytest-benchmark's file (default: bench/results/ops.json)"
    )
    given = options.parse_args()
    source: Path = given.source or given.out / "ops.json"
    if not source.exists():
        sys.exit(f"{source} does not exist: python -m pytest bench/ops --benchmark-json {source} makes it")
    report = results.read(source)
    path = results.write(given.out, "ops", report, tables) if given.source else source
    if not given.source:
        print(results.render(given.out, "ops", tables))
    plot(path.with_suffix(".png"), rows(report))


if __name__ == "__main__":
    main()

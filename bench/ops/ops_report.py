"""The table and the plot of what pytest-benchmark measured: bench/results/ops.json to ops.md and ops.png.

python bench/ops/ops_report.py
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from contests import NAMES

RESULTS = Path(__file__).resolve().parents[1] / "results"
sys.path.append(str(RESULTS.parent / "e2e"))

Row = dict[str, Any]


def rows(report: Mapping[str, Any]) -> list[Row]:
    """A row for each op, mode and size: seconds of every round by contender, and reasons of those without a time."""
    found: dict[tuple[Any, ...], Row] = {}
    for facts in (*(b["extra_info"] for b in report["benchmarks"]), *report["refused"]):
        key = tuple(facts[name] for name in ("op", "mode", "channels", "side"))
        blank = {"op": key[0], "mode": key[1], "channels": key[2], "side": key[3], "seconds": {}, "refused": {}}
        row = found.setdefault(key, blank)
        if "refused" in facts:
            row["refused"][facts["contender"]] = facts["refused"]
    for b in report["benchmarks"]:
        info = b["extra_info"]
        key = tuple(info[name] for name in ("op", "mode", "channels", "side"))
        found[key]["seconds"][info["contender"]] = b["stats"]["data"]
    return list(found.values())


def ratio(row: Row, name: str) -> float | None:
    """The median over rounds of the time of ``name`` over that of fastnst: both of one round were taken in turn."""
    theirs, ours = row["seconds"].get(name), row["seconds"].get("fastnst")
    return statistics.median(a / b for a, b in zip(theirs, ours, strict=True)) if theirs and ours else None


def table(found: Iterable[Row]) -> str:
    lines = [
        "| op | mode | C, side | eager / fastnst | compile / fastnst | eager ms (min-max) | compile ms | fastnst ms |",
        "|---" * 8 + "|",
    ]
    for row in found:
        ratios = [f"{r:.2f}" if r else "" for r in (ratio(row, "eager"), ratio(row, "compile"))]
        cells = [spread(row["seconds"].get(name), row["refused"].get(name, "")) for name in NAMES]
        where = f"{row['op']} | {row['mode']} | {row['channels']}, {row['side']}"
        lines.append(" | ".join([f"| {where}", *ratios, *cells]) + " |")
    return "\n".join(lines)


def spread(seconds: Sequence[float] | None, refused: str) -> str:
    if not seconds:
        return f"refused: {refused}" if refused else ""
    middle, low, high = (1e3 * s for s in (statistics.median(seconds), min(seconds), max(seconds)))
    return f"{middle:.2f} ({low:.2f}-{high:.2f})"


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
                places = [k for k, row in enumerate(here) if ratio(row, name)]
                panel.plot(places, [ratio(here[k], name) for k in places], "o-", label=name, markersize=3, linewidth=1)
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
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("source", type=Path, nargs="?", default=RESULTS / "ops.json")
    source: Path = parser.parse_args().source
    if not source.exists():
        sys.exit(f"{source} is not there: python -m pytest bench/ops --benchmark-json {source} makes it")
    from machine import headline

    report = json.loads(source.read_text())
    found = rows(report)
    text = f"{headline(report['machine'])}, float32\n\n{table(found)}\n"
    source.with_suffix(".md").write_text(text)
    plot(source.with_suffix(".png"), found)
    print(text)


if __name__ == "__main__":
    main()

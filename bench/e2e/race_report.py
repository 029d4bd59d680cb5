"""The rows of a race as tables and as a plot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.common.contest import Spread
from bench.common.results import Report, Section, Table

Row = Mapping[str, Any]
HEAD = ("side", "optimizer", "contender", "time ratio (min-max)", "s/step (min-max of rounds)", "memory ratio")
SIZES = ("peak MB", "steady MB", "final loss")


def tables(report: Report) -> list[Section]:
    """The race, its ratios by size where there are several, and how the losses of peers differ."""
    rows, differs = report["rows"], report["differs"]
    found: list[Section] = [table(rows)]
    if len({row["size"] for row in rows}) > 1:
        found.append(by_size(rows))
    if differs:
        found.append("\n".join(f"- {name}: {text}" for name, text in differs.items()))
    return found


def table(rows: Sequence[Row]) -> Table:
    lines = []
    for row in rows:
        ratio = Spread(row["time_ratio"], *row["time_ratio_spread"])
        seconds = Spread(row["seconds_per_step"], *row["seconds_spread"])
        sizes = (f"{row[f'{name}_resident_bytes'] / 2**20:.0f}" for name in ("peak", "steady"))
        key = (str(row["size"]), row["optimizer"], row["contender"])
        measured = (ratio.text(".2f"), seconds.text(), f"{row['memory_ratio']:.2f}", *sizes, f"{row['final_loss']:.4g}")
        lines.append((*key, *measured))
    return Table((*HEAD, *SIZES), lines, keys=3)


def by_size(rows: Sequence[Row]) -> Table:
    """Time ratios, a column for each size."""
    sizes = sorted({row["size"] for row in rows})
    ratios = {(row["optimizer"], row["contender"], row["size"]): f"{row['time_ratio']:.2f}" for row in rows}
    keys = dict.fromkeys((row["optimizer"], row["contender"]) for row in rows)
    lines = [(*key, *(ratios.get((*key, size), "") for size in sizes)) for key in keys]
    return Table(("optimizer", "contender", *(f"{size}^2" for size in sizes)), lines, keys=2)


def plot(path: Path, rows: Sequence[Row]) -> None:
    """Time ratios as bars, a panel for each size and optimizer."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    races = list(dict.fromkeys((row["size"], row["optimizer"]) for row in rows))
    names = list(dict.fromkeys(row["contender"] for row in rows))
    size = (3.4 * len(races) + 1.2, 0.35 * len(names) + 1.2)
    figure, axes = plt.subplots(1, len(races), figsize=size, sharey=True, squeeze=False, layout="constrained")
    for panel, (side, optimizer) in zip(axes[0], races, strict=True):
        here = {row["contender"]: row for row in rows if (row["size"], row["optimizer"]) == (side, optimizer)}
        for y, name in enumerate(names):
            if name not in here:
                continue
            row = here[name]
            panel.barh(y, row["time_ratio"], color="C1" if name.startswith("fastnst") else "C7")
            panel.text(row["time_ratio"], y, f" {row['seconds_per_step']:.3g} s", va="center", fontsize=7)
        panel.set_title(f"{side} x {side}, {optimizer}", fontsize=9)
        panel.set_xlabel("time of a step, as a ratio", fontsize=8)
        panel.margins(x=0.2)
        panel.tick_params(labelsize=7)
    axes[0, 0].set_yticks(range(len(names)), names)
    axes[0, 0].invert_yaxis()
    figure.savefig(path, dpi=110)
    plt.close(figure)

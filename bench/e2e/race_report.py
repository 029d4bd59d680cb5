"""The rows of a race as tables and as a plot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

Row = Mapping[str, Any]


def tables(rows: Sequence[Row], differs: Mapping[str, str]) -> list[str]:
    """The table of the race, that of its ratios by size where there are several, and what of a peer differs."""
    found = [table(rows)]
    if len({row["size"] for row in rows}) > 1:
        found.append(by_size(rows))
    if differs:
        found.append("\n".join(f"- {name}: {text}" for name, text in differs.items()))
    return found


def table(rows: Sequence[Row]) -> str:
    lines = [
        "| side | optimiser | contender | time ratio (min-max) | s/step (min-max of rounds) | memory ratio | peak MB "
        "| steady MB | final loss |",
        "|---" * 9 + "|",
    ]
    for row in rows:
        least, most = row["time_ratio_spread"]
        low, high = row["seconds_spread"]
        lines.append(
            f"| {row['size']} | {row['optimizer']} | {row['contender']} | {row['time_ratio']:.2f} "
            f"({least:.2f}-{most:.2f}) | {row['seconds_per_step']:.3g} ({low:.3g}-{high:.3g}) "
            f"| {row['memory_ratio']:.2f} | {row['peak_resident_bytes'] / 2**20:.0f} "
            f"| {row['steady_resident_bytes'] / 2**20:.0f} | {row['final_loss']:.4g} |"
        )
    return "\n".join(lines)


def by_size(rows: Sequence[Row]) -> str:
    """Time ratios, a column for each size."""
    sizes = sorted({row["size"] for row in rows})
    lines = ["| optimiser | contender | " + " | ".join(f"{size}^2" for size in sizes) + " |"]
    lines.append("|---" * (2 + len(sizes)) + "|")
    for optimizer, contender in dict.fromkeys((row["optimizer"], row["contender"]) for row in rows):
        ratios = {
            row["size"]: f"{row['time_ratio']:.2f}"
            for row in rows
            if (row["optimizer"], row["contender"]) == (optimizer, contender)
        }
        cells = [ratios.get(size, "") for size in sizes]
        lines.append(f"| {optimizer} | {contender} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def plot(path: Path, rows: Sequence[Row]) -> None:
    """Time ratios as bars, a panel for each size and optimiser."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    races = list(dict.fromkeys((row["size"], row["optimizer"]) for row in rows))
    names = list(dict.fromkeys(row["contender"] for row in rows))
    size = (3.4 * len(races) + 1.2, 0.35 * len(names) + 1.2)
    figure, axes = plt.subplots(1, len(races), figsize=size, sharey=True, squeeze=False, layout="constrained")
    for panel, (side, optimizer) in zip(axes[0], races, strict=True):
        here = {row["contender"]: row for row in rows if (row["size"], row["optimizer"]) == (side, optimizer)}
        for place, name in enumerate(names):
            if name not in here:
                continue
            row = here[name]
            panel.barh(place, row["time_ratio"], color="C1" if name.startswith("fastnst") else "C7")
            panel.text(row["time_ratio"], place, f" {row['seconds_per_step']:.3g} s", va="center", fontsize=7)
        panel.set_title(f"{side} x {side}, {optimizer}", fontsize=9)
        panel.set_xlabel("time of a step, as a ratio", fontsize=8)
        panel.margins(x=0.2)
        panel.tick_params(labelsize=7)
    axes[0, 0].set_yticks(range(len(names)), names)
    axes[0, 0].invert_yaxis()
    figure.savefig(path, dpi=110)
    plt.close(figure)

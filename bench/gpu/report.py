"""The results of a card as tables and as a plot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench.common.contest import Spread
from bench.common.results import Report, Section, Table
from bench.gpu.measure import Row
from bench.gpu.roofline import PRECISIONS, Card
from bench.gpu.whole_loop import LoopRow


def report(
    facts: dict[str, object],
    cards: tuple[Card, Card | None],
    rows: Sequence[Row],
    loops: Sequence[LoopRow],
    dropped: Sequence[str],
) -> Report:
    """What the JSON file has. ``cards`` are the measured and the published one."""
    measured, published = cards
    return {
        "machine": facts,
        "ceilings": asdict(measured),
        "published": asdict(published) if published else None,
        "ops": [row.to_dict() for row in rows],
        "loop": [row.to_dict() for row in loops],
        "dropped": list(dropped),
    }


def tables(found: Report) -> list[Section]:
    card = Card(**found["ceilings"])
    published = Card(**found["published"]) if found["published"] else None
    sections: list[Section] = [
        ceilings_table(card, published),
        loop_table(found["loop"]),
        ops_table(found["ops"], card),
    ]
    if found["dropped"]:
        sections.append(f"Left out, for lack of time: {', '.join(found['dropped'])}")
    return sections


def ceilings_table(measured: Card, published: Card | None) -> Table:
    names = ("bandwidth", "fp32", "tf32", "half", "bfloat16")
    cards = [("measured", measured), ("published", published)]
    rows = [
        (f"{kind}, T/s", *(f"{getattr(card, name) / 1e12:.2f}" for name in names))
        for kind, card in cards
        if card is not None
    ]
    return Table(("peak", *names), rows)


def _time(row: dict[str, Any], factor: float) -> str:
    if row["seconds"] is None:
        return f"refused: {row['refused']}"
    return Spread(**row["seconds"]).text(".1f", factor)


def ops_table(rows: Sequence[dict[str, Any]], measured: Card) -> Table:
    head = ("op", "layer", "side", "precision", "contender", "us (min-max)", "predicted us", "GB/s", "of copy")
    lines = []
    for row in rows:
        key = (row["op"], row["layer"], str(row["side"]), row["precision"], row["contender"])
        predicted = f"{1e6 * row['predicted']:.1f}" if row["predicted"] is not None else ""
        bandwidth, rate = row["bytes_per_second"], row["operations_per_second"]
        moved = (f"{bandwidth / 1e9:.0f}", f"{bandwidth / measured.bandwidth:.0%}") if bandwidth else ("", "")
        done = (f"{rate / 1e12:.1f}", f"{rate / measured.products(row['precision']):.0%}") if rate else ("", "")
        lines.append((*key, _time(row, 1e6), predicted, *moved, *done))
    return Table((*head, "TFLOP/s", "of peak"), lines, keys=5)


def loop_table(rows: Sequence[dict[str, Any]]) -> Table:
    lines = []
    for row in rows:
        error = f"{row['error']:.1e}" if row["error"] is not None else ""
        peak = f"{row['peak_bytes'] / 2**20:.0f}" if row["peak_bytes"] else ""
        lines.append((str(row["side"]), row["precision"], row["contender"], _time(row, 1e3), peak, error))
    return Table(("side", "precision", "loop", "ms per step (min-max)", "peak MB", "error"), lines, keys=3)


def plot(path: Path, card: str, rows: Sequence[Row]) -> bool:
    """Microseconds by layer, a panel for each op and precision, at its largest side; False without matplotlib."""
    try:
        import matplotlib
    except ImportError:
        return False
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    timed = [row for row in rows if row.seconds is not None]
    if not timed:
        return False
    ops = list(dict.fromkeys(row.op for row in timed))
    kinds = [precision for precision in PRECISIONS if any(row.precision == precision for row in timed)]
    size = (3.2 * len(ops), 2.8 * len(kinds))
    figure, axes = plt.subplots(len(kinds), len(ops), figsize=size, squeeze=False, layout="constrained")
    for i, precision in enumerate(kinds):
        for j, op in enumerate(ops):
            here = [row for row in timed if (row.op, row.precision) == (op, precision)]
            side = max((row.side for row in here), default=0)
            _panel(axes[i, j], [row for row in here if row.side == side])
            axes[i, j].set_title(f"{op}\n{precision}, {side}^2", fontsize=8)
    axes[0, 0].legend(fontsize=6)
    axes[0, 0].set_ylabel("us")
    figure.suptitle(card)
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return True


def _panel(axes: Any, rows: Sequence[Row]) -> None:
    for contender in dict.fromkeys(row.contender for row in rows):
        mine = [row for row in rows if row.contender == contender and row.seconds is not None]
        layers = [row.layer.removeprefix("relu") for row in mine]
        axes.plot(layers, [1e6 * row.seconds.median for row in mine], "o-", label=contender, markersize=3)
        if contender == "fastnst":
            axes.plot(layers, [1e6 * (row.predicted or 0) for row in mine], "k--", label="predicted", linewidth=1)
    axes.set_yscale("log")
    axes.tick_params(labelsize=6)

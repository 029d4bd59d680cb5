"""The results as a table, as JSON and as a plot."""

from __future__ import annotations

import json
import platform
import subprocess
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from measure import Row
from roofline import PRECISIONS, Card
from timing import Spread
from whole_loop import LoopRow

ROOT = Path(__file__).resolve().parents[2]


def machine(device: torch.device) -> dict[str, object]:
    """What the numbers were measured on."""
    facts: dict[str, object] = {
        "card": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or "cpu",
        "driver": _said("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "python": platform.python_version(),
        "commit": _said("git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"),
        "changed": bool(_said("git", "-C", str(ROOT), "status", "--porcelain", "--untracked-files=no")),
    }
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        facts |= {
            "capability": f"{properties.major}.{properties.minor}",
            "multiprocessors": properties.multi_processor_count,
            "memory": properties.total_memory,
        }
    return facts


def _said(*command: str) -> str | None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
    except (OSError, subprocess.SubprocessError):
        return None
    return next(iter(done.stdout.splitlines()), "")


def ceilings_table(measured: Card, published: Card | None) -> list[str]:
    names = ("bandwidth", "fp32", "tf32", "half", "bfloat16")
    lines = ["| ceiling | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for kind, card in (("measured", measured), ("published", published)):
        if card is not None:
            lines.append(f"| {kind}, T/s | " + " | ".join(f"{getattr(card, name) / 1e12:.2f}" for name in names) + " |")
    return lines


def _times(spread: Spread, factor: float) -> str:
    return f"{factor * spread.median:.1f} ({factor * spread.least:.1f}-{factor * spread.most:.1f})"


def ops_table(rows: Sequence[Row], measured: Card) -> list[str]:
    head = ("op", "layer", "side", "precision", "contender", "us (min-max)", "predicted us", "GB/s", "of copy")
    lines = ["| " + " | ".join((*head, "TFLOP/s", "of peak")) + " |", "|---" * 11 + "|"]
    for row in rows:
        place = f"| {row.op} | {row.layer} | {row.side} | {row.precision} | {row.contender} "
        predicted = f"{1e6 * row.predicted:.1f}" if row.predicted is not None else ""
        if row.seconds is None:
            lines.append(f"{place}| refused: {row.refused} | {predicted} | | | | |")
            continue
        bandwidth, rate = row.bytes_per_second or 0.0, row.operations_per_second
        of_peak = f"{rate / 1e12:.1f} | {rate / measured.products(row.precision):.0%}" if rate else " | "
        lines.append(
            f"{place}| {_times(row.seconds, 1e6)} | {predicted} "
            f"| {bandwidth / 1e9:.0f} | {bandwidth / measured.bandwidth:.0%} | {of_peak} |"
        )
    return lines


def loop_table(rows: Sequence[LoopRow]) -> list[str]:
    lines = ["| side | precision | loop | ms per step (min-max) | peak MB | error |", "|---" * 6 + "|"]
    for row in rows:
        error = f"{row.error:.1e}" if row.error is not None else ""
        time = _times(row.seconds, 1e3) if row.seconds else f"refused: {row.refused}"
        peak = f"{row.peak_bytes / 2**20:.0f}" if row.peak_bytes else ""
        lines.append(f"| {row.side} | {row.precision} | {row.contender} | {time} | {peak} | {error} |")
    return lines


def write_json(
    path: Path,
    facts: dict[str, object],
    cards: tuple[Card, Card | None],
    rows: Sequence[Row],
    loops: Sequence[LoopRow],
    dropped: Sequence[str],
) -> None:
    measured, published = cards
    report = {
        "machine": facts,
        "ceilings": asdict(measured),
        "published": asdict(published) if published else None,
        "ops": [row.to_dict() for row in rows],
        "loop": [row.to_dict() for row in loops],
        "dropped": list(dropped),
    }
    path.write_text(json.dumps(report, indent=1) + "\n")


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


def _panel(axes: object, rows: Sequence[Row]) -> None:
    for contender in dict.fromkeys(row.contender for row in rows):
        mine = [row for row in rows if row.contender == contender and row.seconds is not None]
        layers = [row.layer.removeprefix("relu") for row in mine]
        axes.plot(layers, [1e6 * row.seconds.median for row in mine], "o-", label=contender, markersize=3)
        if contender == "fastnst":
            axes.plot(layers, [1e6 * (row.predicted or 0) for row in mine], "k--", label="predicted", linewidth=1)
    axes.set_yscale("log")
    axes.tick_params(labelsize=6)

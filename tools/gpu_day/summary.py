"""The summary: at most 60 lines, what matters most last."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tools.gpu_day.programs import Outcome

MOST_LINES, WIDTH = 60, 118
MOST_STEPS = 8
# Other names for an op or a layout, as a file of predictions may have them.
ALIASES = {"layer_backward_": "style_loss backward", "nchw": "contiguous"}

Row = Mapping[str, Any]
Key = tuple[str, str, int, str, str]  # op, layer, side, precision, layout


def summary(facts: Row, done: Sequence[Outcome], found: Mapping[str, Any], predicted: Iterable[Row]) -> str:
    """Parts, then steps, then ops and layers; longer lists are cut and what was cut is counted."""
    steps = steps_table(found.get("bench", {}).get("loop", []))
    ops = ops_table(ours_and_others(found), model_of(predicted, str(facts.get("card"))), ceilings(found))
    tail = [*steps, *ops]
    head = [title(facts), *parts_table(done, MOST_LINES - 2 - len(tail))]
    return "\n".join(line[:WIDTH].rstrip() for line in [*head, *tail][:MOST_LINES])


def title(facts: Row) -> str:
    where = f"{facts['card']} (sm_{str(facts['arch']).replace('.', '')})" if facts["card"] else "no GPU"
    name = f"gpu_day: {where}, torch {facts['torch']}, Python {facts['python']}, commit {facts['commit']}"
    return f"{name}; REHEARSAL ON THE CPU: no number is of a GPU" if facts["rehearsal"] else name


def parts_table(done: Sequence[Outcome], room: int) -> list[str]:
    lines = [f"{one.part:<10} {one.state:<12} {one.seconds:4.0f} s  {one.note}" for one in done]
    details = [f"  {one.part}: {line}" for one in done for line in one.lines if one.part != "install" or "no" in line]
    left = max(1, room - len(lines))
    if len(details) > left:
        details = [*details[: left - 1], f"  and {len(details) - left + 1} more in day.json"]
    return [*lines, *details]


def median(row: Row) -> float | None:
    return row["seconds"]["median"] if row.get("seconds") else None


def number(value: float | None, factor: float = 1.0, form: str = ".1f") -> str:
    return "-" if value is None else format(factor * value, form)


def columns(rows: Sequence[Sequence[str]], names: int) -> list[str]:
    """Aligned: the first ``names`` columns to the left, numbers to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    pads = [("<" if i < names else ">") + str(width) for i, width in enumerate(widths)]
    return ["  ".join(format(cell, pad) for cell, pad in zip(row, pads, strict=True)) for row in rows]


def steps_table(loops: Sequence[Row]) -> list[str]:
    """Milliseconds of a step: eager, fused ops, the fused step as one graph, and how often eager takes the last."""
    by_key: dict[tuple[int, str], dict[str, float | None]] = {}
    for row in loops:
        by_key.setdefault((row["side"], row["precision"]), {})[row["contender"]] = median(row)
    if not by_key:
        return ["no times of steps"]
    rows: list[tuple[str, ...]] = [("step", "precision", "eager ms", "fused ms", "graph ms", "eager/best")]
    for (side, precision), times in list(by_key.items())[:MOST_STEPS]:
        eager, fused, graph = (times.get(name) for name in ("eager", "fused", "fused + graph"))
        best = min((t for t in (fused, graph) if t is not None), default=None)
        ratio = eager / best if eager and best else None
        cells = (number(time, 1e3, ".2f") for time in (eager, fused, graph))
        rows.append((f"{side}^2", precision, *cells, number(ratio, form=".2f")))
    return columns(rows, 2)


def ours_and_others(found: Mapping[str, Any]) -> dict[Key, dict[str, float]]:
    """Microseconds of fastnst and of cuBLAS, and the least work: of the micro-benchmark, else of the bench."""
    table: dict[Key, dict[str, float]] = {}
    names = {"fastnst": "ours", "default": "ours", "cublas": "cublas", "eager": "eager"}
    for row in found.get("bench", {}).get("ops", []):
        key = (row["op"], row["layer"], row["side"], row["precision"], "channels_last")
        if row["contender"] in names and (seconds := median(row)) is not None:
            table.setdefault(key, {})[names[row["contender"]]] = 1e6 * seconds
            if row["contender"] == "fastnst" and row.get("predicted") is not None:
                table[key]["roofline"] = 1e6 * row["predicted"]
    for row in found.get("micro", []):
        key = (row["op"], row["layer"], row["side"], row["precision"], row["layout"])
        if row.get("variant") in names and row.get("microseconds") is not None:
            cells = table.setdefault(key, {})
            cells[names[row["variant"]]] = row["microseconds"]
            cells |= {"bytes": row["bytes"], "operations": row["operations"]}
    return table


def ceilings(found: Mapping[str, Any]) -> dict[str, float]:
    """Bytes per microsecond of a copy, and operations per microsecond of a product by precision, as measured."""
    rates: dict[str, float] = {}
    for row in found.get("micro", []):
        time = row.get("microseconds")
        if row["op"] == "copy" and time:
            rates["copy"] = max(rates.get("copy", 0.0), row["bytes"] / time)
        if row["op"] == "product" and time:
            rates[row["precision"]] = row["operations"] / time
    # Float32 by tensor cores is three tf32 products.
    if "tf32" in rates:
        rates["float32"] = max(rates.get("float32", 0.0), rates["tf32"] / 3)
    return rates


def roofline(cells: Mapping[str, float], precision: str, rates: Mapping[str, float]) -> float | None:
    if "bytes" not in cells or "copy" not in rates:
        return cells.get("roofline")
    times = [cells["bytes"] / rates["copy"]]
    if precision in rates:
        times.append(cells["operations"] / rates[precision])
    return max(times)


def model_of(predicted: Iterable[Row], card: str) -> dict[Key, float]:
    """Predicted microseconds for the card; rows of other cards, and rows that lack something, are left out."""
    found: dict[Key, float] = {}
    for row in predicted:
        try:
            named = str(row.get("card", card))
            words = [word for word in re.split(r"[^a-z0-9]+", named.lower()) if word not in ("nvidia", "rtx")]
            if not all(word in card.lower() for word in words):
                continue
            op, layout = str(row["op"]), str(row.get("layout", "channels_last"))
            names = (ALIASES.get(op, op), str(row["layer"]), int(row["side"]), str(row["precision"]))
            key: Key = (*names, ALIASES.get(layout, layout))
            found[key] = float(row["microseconds"] if "microseconds" in row else 1e6 * row["seconds"])
        except (KeyError, TypeError, ValueError):
            continue
    return found


STYLE_OPS = ("style_loss", "style_loss backward")
SHOWN = ("bfloat16", "float32")


def ops_table(
    table: Mapping[Key, Mapping[str, float]], model: Mapping[Key, float], rates: Mapping[str, float]
) -> list[str]:
    """Microseconds by op and layer: ours, cuBLAS's product, roofline, model, and ours over the roofline.

    The style losses of the smallest picture have a row for each layer, and their sum; of larger pictures, the sum.
    Other ops have one row, of the layer with the most positions, in the first precision.
    """
    measured = {key: cells for key, cells in table.items() if "ours" in cells and key[2] > 0}
    sides = sorted({key[2] for key in measured})
    shown: list[tuple[tuple[str, ...], list[Key]]] = []
    for side in sides:
        for op in STYLE_OPS:
            for precision in SHOWN:
                keys = sorted(key for key in measured if (key[0], *key[2:]) == (op, side, precision, "channels_last"))
                if side == sides[0]:
                    shown += [((op, key[1], str(side), precision), [key]) for key in keys]
                if len(keys) > 1:
                    shown.append(((op, f"sum of {len(keys)}", str(side), precision), keys))
    for op in dict.fromkeys(key[0] for key in measured if key[0] not in STYLE_OPS):
        keys = sorted((key for key in measured if key[0] == op and key[2] == sides[0]), key=_plainness)
        shown += [((op, key[1], str(sides[0]), key[3]), [key]) for key in keys[:1]]
    rows: list[tuple[str, ...]] = [
        ("op", "layer", "side", "precision", "ours us", "cublas", "roofline", "model", "ratio")
    ]
    rows += [(*names, *_cells(keys, measured, model, rates)) for names, keys in shown]
    if len(rows) == 1:
        return ["no times of ops"]
    return [
        *columns(rows, 4),
        "cublas: its product alone; ratio: ours over the roofline; all rows in micro.json, bench.json",
    ]


def _plainness(key: Key) -> tuple[bool, bool, str]:
    return (key[4] != "channels_last", key[3] != SHOWN[0], key[1])


def _cells(
    keys: Sequence[Key],
    table: Mapping[Key, Mapping[str, float]],
    model: Mapping[Key, float],
    rates: Mapping[str, float],
) -> tuple[str, ...]:
    """The numbers of a row, summed over its keys; a sum that lacks one is not shown."""

    def total(values: Iterable[float | None]) -> float | None:
        found = list(values)
        return None if None in found else sum(value for value in found if value is not None)

    ours = total(table[key]["ours"] for key in keys)
    roof = total(roofline(table[key], key[3], rates) for key in keys)
    others = (total(table[key].get("cublas") for key in keys), roof, total(model.get(key) for key in keys))
    return (number(ours), *map(number, others), number(ours / roof if ours and roof else None))

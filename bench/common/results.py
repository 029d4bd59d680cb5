"""Files of results: JSON with every time measured, and Markdown tables of all machines side by side.

``NAME.json`` has the results of one machine. Results of a second machine go to ``NAME.MACHINE.json`` beside it, and
``NAME.md`` shows both. A file never mixes machines.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

from bench.common.machine import ROOT, Facts, headline, label, same, slug

RESULTS = ROOT / "bench" / "results"
Report = dict[str, Any]


@dataclass(frozen=True)
class Table:
    """Cells of text. The first ``keys`` columns name a row; the others are measured on one machine."""

    head: tuple[str, ...]
    rows: list[tuple[str, ...]]
    keys: int = 1

    def __str__(self) -> str:
        return "\n".join([_line(self.head), "|---" * len(self.head) + "|", *map(_line, self.rows)])


Section = Table | str
Tables = Callable[[Report], Sequence[Section]]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def side_by_side(labeled: Sequence[tuple[str, Table]]) -> Table:
    """Tables of several machines as one: rows with equal keys are joined, columns get the machine's label."""
    first = labeled[0][1]
    head = list(first.head[: first.keys])
    rows: dict[tuple[str, ...], list[tuple[str, ...]]] = {}
    for name, table in labeled:
        head += [f"{name}: {column}" for column in table.head[table.keys :]]
        for row in table.rows:
            rows.setdefault(row[: table.keys], [])
    for _, table in labeled:
        cells = {row[: table.keys]: row[table.keys :] for row in table.rows}
        blank = ("",) * (len(table.head) - table.keys)
        for key, joined in rows.items():
            joined.append(cells.get(key, blank))
    return Table(
        tuple(head), [(*key, *(c for cells in joined for c in cells)) for key, joined in rows.items()], first.keys
    )


def markdown(reports: Sequence[Report], tables: Tables) -> str:
    """The machines, then each section of ``tables``; sections of several machines are put side by side."""
    facts: list[Facts] = [report["machine"] for report in reports]
    if len(reports) == 1:
        return "\n\n".join([headline(facts[0]), *map(str, tables(reports[0]))]) + "\n"
    parts = ["\n".join(f"- {label(one)}: {headline(one)}" for one in facts)]
    for sections in zip_longest(*(tables(report) for report in reports)):
        present = [(label(one), section) for one, section in zip(facts, sections, strict=True) if section is not None]
        as_tables = [(name, section) for name, section in present if isinstance(section, Table)]
        texts = [(name, section) for name, section in present if isinstance(section, str)]
        if as_tables:
            parts.append(str(side_by_side(as_tables)))
        if len({text for _, text in texts}) == 1:
            parts.append(texts[0][1])
        else:
            parts += [f"{name}: {text}" for name, text in texts]
    return "\n\n".join(parts) + "\n"


def read(path: Path) -> Report:
    """A file of results. Raises ValueError where it does not say which machine it is of."""
    report: Report = json.loads(path.read_text())
    if not isinstance(report.get("machine"), dict) or "cpu" not in report["machine"]:
        raise ValueError(f"{path}: expected results with a machine, got {sorted(report)}")
    return report


def read_all(folder: Path, name: str) -> list[Report]:
    """The results called ``name`` of every machine, those in ``NAME.json`` first."""
    paths = [path for path in (folder / f"{name}.json", *sorted(folder.glob(f"{name}.*.json"))) if path.exists()]
    return [read(path) for path in paths]


def path_for(folder: Path, name: str, facts: Facts) -> Path:
    """Where results of a machine go: ``NAME.json`` unless that has another machine's."""
    path = folder / f"{name}.json"
    if path.exists() and not same(read(path)["machine"], facts):
        return folder / f"{name}.{slug(facts)}.json"
    return path


def save(path: Path, report: Report) -> None:
    """Write a file of results. Raises ValueError where the file has results of another machine."""
    if path.exists() and not same(read(path)["machine"], report["machine"]):
        raise ValueError(f"{path} has results of {label(read(path)['machine'])}, not of {label(report['machine'])}")
    path.write_text(json.dumps(report, indent=1) + "\n")


def write(folder: Path, name: str, report: Report, tables: Tables) -> Path:
    """Write the results as JSON and the tables of all machines as Markdown, and print the tables.

    Returns the path of the JSON file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = path_for(folder, name, report["machine"])
    save(path, report)
    print(render(folder, name, tables))
    return path


def render(folder: Path, name: str, tables: Tables) -> str:
    """Write ``NAME.md`` from the JSON files of all machines; returns its text."""
    text = markdown(read_all(folder, name), tables)
    (folder / f"{name}.md").write_text(text)
    return text

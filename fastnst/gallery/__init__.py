"""Directories in, directories out: every content of a folder in the styles of that folder.

A folder with pictures ``content_*`` and ``style_*`` becomes one folder per pair, ``gen_0``, ``gen_1``, ..., with
``content.jpg`` and ``style.jpg`` as they were used, the snapshots ``gen_50.jpg``, ``gen_100.jpg``, ... named by the
steps taken over all scales, the last of them the result, and ``pair.json``, which says what it was made from; and
``sheet.jpg``, which shows all pairs.

A pair's folder is filled under a hidden name beside its place and renamed when it is complete, so that ``gen_0`` is
there whole or not at all. A pair that is there, made from the same files with the same settings, is not made again; one
made otherwise is never replaced unless ``force`` says so. A pair keeps its number for good.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from fastnst.gallery import folders
from fastnst.gallery.folders import Made
from fastnst.gallery.making import Turn, Watch, Workshop
from fastnst.gallery.pairs import PAIRINGS, SUFFIXES, Pair, find, pair_up
from fastnst.settings import Settings

__all__ = ["PAIRINGS", "SUFFIXES", "Made", "Pair", "Report", "Turn", "find", "pair_up", "run"]


@dataclass
class Report:
    """What became of the pairs. ``failed`` says why, per pair; ``stopped`` is ``"interrupt"`` after a Ctrl-C."""

    made: list[Made] = field(default_factory=list)
    failed: dict[Pair, str] = field(default_factory=dict)
    sheet: Path | None = None
    stopped: str | None = None


def run(
    directory: str | os.PathLike[str],
    output: str | os.PathLike[str],
    settings: Settings | None = None,
    *,
    pairing: str = "product",
    force: bool = False,
    callback: Watch | None = None,
    finished: Callable[[Made], None] | None = None,
) -> Report:
    """Make the pairs of ``directory`` in ``output``, which is made if need be, and a contact sheet of them.

    Args:
        settings: default the preset ``tutorial``.
        pairing: ``"product"``, every content with every style; ``"order"``, the first with the first and so on in
            natural order (2 before 10); ``"shuffle"``, the same after shuffling both by ``settings.seed``. In the last
            two the shorter list starts over, so that each picture is used.
        force: make finished pairs again.
        callback: called with the pair's :class:`Turn` and its :class:`fastnst.optimize.Step` after each step; returning
            True ends this pair, whose result is then the picture so far.
        finished: called with each finished pair, also with those found finished.

    A picture that cannot be used is reported as a warning through the logger ``fastnst`` and skipped with its pairs.
    Ctrl-C ends the run; the pair under way leaves nothing, the sheet shows those that are finished.

    Raises ImageError for a folder without pairs and for a result that cannot be written, UsageError for arguments that
    make no sense and, without ``force``, for finished pairs that were made otherwise.
    """
    settings = settings or Settings.of("tutorial")
    directory, output = Path(directory), Path(output)
    named = pair_up(*find(directory), pairing, settings.seed)
    folders.check_output(output)
    there = folders.finished(output)
    pairs = folders.numbered(named, output, there)
    if not force:
        folders.refuse_changed(pairs, there, settings)
    report = Report()

    def done(made: Made) -> None:
        report.made.append(made)
        if finished is not None:
            finished(made)

    try:
        _make_all(pairs, {} if force else there, settings, report, callback, done)
    except KeyboardInterrupt:
        report.stopped = "interrupt"
        there = folders.finished(output)
        reported = {made.pair for made in report.made}
        for pair in pairs:
            if pair.key in there and pair not in reported:
                done(there[pair.key].of(pair))
    if report.made:
        from fastnst.gallery.contact import write_sheet

        report.sheet = write_sheet(output / "sheet.jpg", report.made, grid=pairing == "product")
    return report


def _make_all(
    pairs: list[Pair],
    there: Mapping[tuple[str, str], Made],
    settings: Settings,
    report: Report,
    callback: Watch | None,
    done: Callable[[Made], None],
) -> None:
    count = sum(pair.key not in there for pair in pairs)
    workshop = Workshop(settings) if count else None
    number = 0
    for pair in pairs:
        if workshop is None or pair.key in there:
            done(there[pair.key].of(pair))
            continue
        number += 1
        made = workshop.attempt(Turn(pair, number, count), callback)
        if isinstance(made, Made):
            done(made)
        else:
            report.failed[pair] = made

"""Directories in, directories out: every content of a folder in the styles of that folder.

A folder with pictures ``content_*`` and ``style_*`` becomes one folder per pair, ``gen_0``, ``gen_1``, ..., with
``content.jpg`` and ``style.jpg`` as they were used, the snapshots ``gen_50.jpg``, ``gen_100.jpg``, ... named by the
steps taken over all scales, the last of them the result, and ``pair.json``, which says what it was made from; and
``sheet.jpg``, which shows all pairs.

A pair's folder is filled under a hidden name beside its place and renamed when it is complete, so that ``gen_0`` is
there whole or not at all. A pair that is there, made from the same files with the same settings, is not made again; one
made otherwise is never replaced unless ``force`` says so. A pair keeps its number for good.

Ranks may share the pairs out: each makes every so manieth of those that are to be made.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from fastnst.gallery import folders
from fastnst.gallery.folders import Made
from fastnst.gallery.making import Turn, Watch, Workshop
from fastnst.gallery.pairs import PAIRINGS, SUFFIXES, Pair, find, pair_up
from fastnst.inputs import named as named_files
from fastnst.inputs import refuse_clashes
from fastnst.ranks import ALONE, Ranks
from fastnst.settings import Settings

SHEET = "sheet.jpg"

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
    world: Ranks = ALONE,
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
        world: the ranks that were called with the same arguments, on the same folders. The first waits for the others,
            reports all pairs and writes the sheet; the others report what they made. After a Ctrl-C no rank waits.

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
    if world.count > 1:
        with folders.writing(output):
            output.mkdir(parents=True, exist_ok=True)
    world.meet()  # all have looked before one writes, and so share out the same pairs
    kept = {} if force else there
    todo = [pair for pair in pairs if pair.key not in kept]
    pictures = {"content": [pair.content for pair in pairs], "style": [pair.style for pair in pairs]}
    made = [("the folder", pair.folder) for pair in todo]
    refuse_clashes([("the sheet", output / SHEET), *made], named_files(settings, **pictures))
    others = {pair for i, pair in enumerate(todo) if i % world.count != world.rank}
    report = Report()

    def done(made: Made) -> None:
        report.made.append(made)
        if finished is not None:
            finished(made)

    try:
        mine = [pair for pair in (pairs if world.first else todo) if pair not in others]
        _make_all(mine, kept, settings, report, callback, done)
        world.meet()
        if world.first and others:
            _collect(pairs, others, there, output, report, done)
    except KeyboardInterrupt:
        report.stopped = "interrupt"
        there = folders.finished(output)
        reported = {made.pair for made in report.made}
        for pair in pairs if world.first else ():
            if pair.key in there and pair not in reported:
                done(there[pair.key].of(pair))
    if report.made and world.first:
        from fastnst.gallery.contact import write_sheet

        report.sheet = write_sheet(output / SHEET, report.made, grid=pairing == "product")
    return report


def _collect(
    pairs: list[Pair],
    others: set[Pair],
    there: Mapping[tuple[str, str], Made],
    output: Path,
    report: Report,
    done: Callable[[Made], None],
) -> None:
    """Report what the other ranks have made, all in the order of the pairs."""
    now = folders.finished(output)
    for pair in pairs:
        if pair not in others:
            continue
        made, before = now.get(pair.key), there.get(pair.key)
        if made is None or (before is not None and before.record == made.record):  # one that was to be made again
            report.failed[pair] = "not made by the rank that it fell to, which says why"
        else:
            done(dataclasses.replace(made.of(pair), kept=False))
    places = {pair: i for i, pair in enumerate(pairs)}
    report.made.sort(key=lambda made: places[made.pair])


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

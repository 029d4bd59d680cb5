"""Make the pairs of a folder."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from fastnst.config.settings import Settings
from fastnst.distributed import SINGLE, Ranks
from fastnst.gallery import folders
from fastnst.gallery.contact_sheet import write_sheet
from fastnst.gallery.folders import PairResult
from fastnst.gallery.making import PairCallback, PairMaker, PairProgress
from fastnst.gallery.pairs import Pair, find, pair_up
from fastnst.run.clashes import named, refuse_clashes

SHEET = "sheet.jpg"

_Results = Mapping[tuple[str, str], PairResult]
"""Finished pairs by the names of content and style."""


@dataclass
class Report:
    """The outcome of :func:`run`.

    Attributes:
        made: the finished pairs, also those that were finished before.
        failed: for each failed pair the reason.
        sheet: the contact sheet; None if no pair is finished.
        stopped: ``"interrupt"`` after Ctrl-C, else None.

    Example:
        >>> report = Report(stopped="interrupt")
        >>> report.made, report.failed
        ([], {})
    """

    made: list[PairResult] = field(default_factory=list)
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
    callback: PairCallback | None = None,
    finished: Callable[[PairResult], None] | None = None,
    world: Ranks = SINGLE,
) -> Report:
    """Style the pictures ``content_*`` of ``directory`` in the styles ``style_*``, and write a contact sheet.

    Args:
        directory: a folder with pictures ``content_*`` and ``style_*``.
        output: the folder to write to, which is created.
        settings: settings of every pair; default: the preset ``tutorial``.
        pairing: ``"product"`` pairs every content with every style; ``"order"`` the first with the first and so on, in
            natural order (2 before 10); ``"shuffle"`` the same after shuffling both with ``settings.seed``. The last
            two repeat the shorter list, so that each picture is used.
        force: make finished pairs again.
        callback: called with the :class:`PairProgress` and the :class:`fastnst.Step` after each step. If it returns
            True, the pair ends with the image so far.
        finished: called with each finished pair, also with those that were finished before.
        world: the ranks, each of which calls this function with the same arguments. The first rank waits for the
            others, reports all pairs and writes the sheet; the others report the pairs that they made. After Ctrl-C
            no rank waits.

    A picture that cannot be used is skipped with its pairs, and a warning is logged. After Ctrl-C the unfinished pair
    is removed, and the sheet shows the finished ones.

    Raises:
        ImageError: a folder without pairs, or a result that cannot be written.
        UsageError: invalid arguments, or finished pairs with other files or settings, unless ``force``.

    Example:
        >>> import tempfile, torch
        >>> from pathlib import Path
        >>> from fastnst import Settings, gallery, images
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for name in ("content_1", "style_1"):
        ...         _ = images.save(f"{folder}/{name}.png", torch.rand(3, 64, 64))
        ...     settings = Settings.from_preset(size=64, steps=1, scales=1)
        ...     report = gallery.run(folder, Path(folder) / "styled", settings)
        >>> len(report.made), report.failed, report.sheet.name
        (1, {}, 'sheet.jpg')
    """
    settings = settings or Settings.from_preset("tutorial")
    output = Path(output)
    job = _Job(pair_up(*find(Path(directory)), pairing, settings.seed), output, settings, force, world)
    report = Report()
    _make_all(job, _Reporter(report, finished), callback, world)
    if report.made and world.first:
        report.sheet = write_sheet(output / SHEET, report.made, grid=pairing == "product")
    return report


class _Job:
    """Which pairs exist, and which of them this rank and the others make. Raises as :func:`run`."""

    def __init__(
        self, pictures: list[tuple[Path, Path]], output: Path, settings: Settings, force: bool, world: Ranks
    ) -> None:
        folders.check_output(output)
        self.output, self.settings = output, settings
        self.existing = folders.finished(output)
        self.pairs = folders.numbered(pictures, output, self.existing)
        if not force:
            folders.refuse_changed(self.pairs, self.existing, settings)
        if world.count > 1:
            with folders.writing(output):
                output.mkdir(parents=True, exist_ok=True)
        world.barrier()  # every rank has listed the folders before one writes, so all share the same pairs
        self.kept: _Results = {} if force else self.existing
        missing = [pair for pair in self.pairs if pair.key not in self.kept]
        read = {"content": [pair.content for pair in self.pairs], "style": [pair.style for pair in self.pairs]}
        written = [("the sheet", output / SHEET), *(("the folder", pair.folder) for pair in missing)]
        refuse_clashes(written, named(settings, **read))
        self.others = {pair for i, pair in enumerate(missing) if i % world.count != world.rank}
        """The pairs that other ranks make."""
        self.own = [pair for pair in (self.pairs if world.first else missing) if pair not in self.others]
        """The pairs that this rank makes and, on the first rank, those that are kept."""


class _Reporter:
    """Adds finished pairs to a report and calls the function ``finished`` of the caller."""

    def __init__(self, report: Report, finished: Callable[[PairResult], None] | None) -> None:
        self.report = report
        self._finished = finished

    def add(self, result: PairResult) -> None:
        self.report.made.append(result)
        if self._finished is not None:
            self._finished(result)


def _make_all(job: _Job, reporter: _Reporter, callback: PairCallback | None, world: Ranks) -> None:
    try:
        _make_own(job, reporter, callback)
        world.barrier()
        if world.first and job.others:
            _collect(job, reporter)
    except KeyboardInterrupt:
        reporter.report.stopped = "interrupt"
        if world.first:
            _report_rest(job, reporter)


def _make_own(job: _Job, reporter: _Reporter, callback: PairCallback | None) -> None:
    """Make this rank's pairs, in order with those that are kept."""
    count = sum(pair.key not in job.kept for pair in job.own)
    maker = PairMaker(job.settings) if count else None
    number = 0
    for pair in job.own:
        if maker is None or pair.key in job.kept:
            reporter.add(job.kept[pair.key].for_pair(pair))
            continue
        number += 1
        result = maker.attempt(PairProgress(pair, number, count), callback)
        if isinstance(result, PairResult):
            reporter.add(result)
        else:
            reporter.report.failed[pair] = result


def _collect(job: _Job, reporter: _Reporter) -> None:
    """Report what the other ranks have made, and sort the report by pairs."""
    now = folders.finished(job.output)
    for pair in job.pairs:
        if pair not in job.others:
            continue
        result, before = now.get(pair.key), job.existing.get(pair.key)
        # With force, an unchanged record is an old result.
        if result is None or (before is not None and before.record == result.record):
            reporter.report.failed[pair] = "another rank could not make it and reports the reason"
        else:
            reporter.add(dataclasses.replace(result.for_pair(pair), kept=False))
    order = {pair: i for i, pair in enumerate(job.pairs)}
    reporter.report.made.sort(key=lambda result: order[result.pair])


def _report_rest(job: _Job, reporter: _Reporter) -> None:
    """After an interrupt, report the finished pairs that are not in the report yet."""
    existing = folders.finished(job.output)
    reported = {result.pair for result in reporter.report.made}
    for pair in job.pairs:
        if pair.key in existing and pair not in reported:
            reporter.add(existing[pair.key].for_pair(pair))

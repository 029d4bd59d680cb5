"""``fastnst gallery``: style a folder of pictures."""

from __future__ import annotations

import argparse
import logging
from dataclasses import dataclass

from fastnst import distributed
from fastnst import gallery as galleries
from fastnst.cli.options import SettingsOptions, read_settings
from fastnst.cli.output import Results
from fastnst.cli.progress import GalleryBar
from fastnst.cli.runs import exit_code, fetch_weights
from fastnst.config.settings import Settings
from fastnst.config.toml import save_settings
from fastnst.errors import ImageError

log = logging.getLogger("fastnst")


@dataclass(frozen=True)
class GalleryRequest:
    """The options of ``fastnst gallery``."""

    directory: str
    output: str
    settings: Settings
    pairing: str
    save_settings: str | None
    force: bool
    quiet: bool
    json: bool

    @classmethod
    def from_namespace(cls, options: argparse.Namespace) -> GalleryRequest:
        """Read settings. Raises UsageError."""
        settings, _ = read_settings(SettingsOptions.from_namespace(options))
        same = ("directory", "output", "save_settings", "force", "quiet", "json")
        return cls(settings=settings, pairing=options.pairs, **{name: getattr(options, name) for name in same})


def main(options: argparse.Namespace) -> int:
    """Run the command and return the exit code."""
    return gallery(GalleryRequest.from_namespace(options))


def gallery(request: GalleryRequest) -> int:
    """Style a folder of pictures."""
    with distributed.from_torchrun(request.settings.device) as world:
        if world.first:
            if request.save_settings is not None:
                save_settings(request.save_settings, request.settings, force=request.force)
            fetch_weights(request.settings, request.quiet)
        world.barrier()
        results = Results(request.json)
        report = _run(request, results, world)
        if report.sheet is not None:
            results.add(report.sheet)
        if not world.first:
            return exit_code(report.stopped)
        return _finish(request, report, results)


def _run(request: GalleryRequest, results: Results, world: distributed.Ranks) -> galleries.Report:
    with GalleryBar(request.quiet or not world.first) as bar:
        return galleries.run(
            request.directory,
            request.output,
            request.settings,
            pairing=request.pairing,
            force=request.force,
            callback=lambda progress, step: bar.show_step(progress.pair.name, progress.number, progress.count, step),
            finished=lambda result: results.add(result.picture) if world.first else None,
            world=world,
        )


def _finish(request: GalleryRequest, report: galleries.Report, results: Results) -> int:
    results.finish(
        pairs=[{"folder": str(made.pair.folder), "kept": made.kept, **made.record} for made in report.made],
        failed=[
            {"content": pair.content.name, "style": pair.style.name, "error": error}
            for pair, error in report.failed.items()
        ],
        stopped=report.stopped,
    )
    if report.failed and not report.stopped:
        count = len(report.failed)
        if not report.made:
            raise ImageError(f"{request.directory}: none of its {count} pairs could be made")
        log.warning("%d of %d pairs could not be made", count, count + len(report.made))
    if report.stopped and not report.made:
        raise KeyboardInterrupt
    return exit_code(report.stopped)

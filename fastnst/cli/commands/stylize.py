"""``fastnst stylize``: style one picture."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from fastnst import distributed, images
from fastnst.cli.film_options import FilmOptions
from fastnst.cli.options import PictureFiles, SettingsOptions, read_settings, refuse_addresses
from fastnst.cli.output import Results, say, say_json
from fastnst.cli.progress import StepBar
from fastnst.cli.runs import exit_code, fetch_weights, result_facts
from fastnst.config.parsing import parse_number
from fastnst.config.provenance import Input, describe, find_inputs
from fastnst.config.settings import Settings
from fastnst.config.toml import save_settings
from fastnst.errors import ImageError, UsageError
from fastnst.images.loading import Source
from fastnst.optim.progress import Step
from fastnst.process import signals_held
from fastnst.run import checkpoint, planning
from fastnst.run.clashes import Named, named, refuse_clashes
from fastnst.run.result import Result
from fastnst.run.scene import Scene
from fastnst.run.stylizer import Stylizer

if TYPE_CHECKING:
    from fastnst.film import ProgressFilm


@dataclass(frozen=True)
class StylizeRequest:
    """The options of ``fastnst stylize``. ``settings_file`` is the file of ``--settings``."""

    pictures: PictureFiles
    settings: Settings
    like: str | None
    settings_file: str | None
    output: str | None
    save_settings: str | None
    checkpoint: str | None
    checkpoint_every: str | None
    film: FilmOptions
    resume: bool
    parents: bool
    force: bool
    plan: bool
    quiet: bool
    json: bool

    @classmethod
    def from_namespace(cls, options: argparse.Namespace) -> StylizeRequest:
        """Read settings and find the pictures. Raises UsageError."""
        given = SettingsOptions.from_namespace(options)
        pictures = PictureFiles.from_namespace(options)
        refuse_addresses(
            {**pictures.by_part(), **other_files(given.like, given.file), "weights": given.values.get("weights")}
        )
        settings, stored = read_settings(given)
        if given.like is not None and stored is not None:
            pictures = pictures.completed(given.like, stored)
        pictures.require()
        return cls(pictures, settings, given.like, given.file, **cls.shared(options))

    @staticmethod
    def shared(options: argparse.Namespace) -> dict[str, Any]:
        """The options that are taken as they are."""
        names = ("output", "save_settings", "checkpoint", "checkpoint_every", "resume", "parents", "force", "plan")
        found = {name: getattr(options, name) for name in (*names, "quiet", "json")}
        return {**found, "film": FilmOptions.from_namespace(options)}

    @property
    def content(self) -> Source:
        """The content picture."""
        assert self.pictures.content is not None  # see PictureFiles.require
        return self.pictures.content

    def load(self, world: distributed.Ranks) -> tuple[Stylizer, Scene]:
        """The network, and the pictures in their size in the run. A large photograph is freed on return."""
        pictures = self.pictures
        original = images.load(self.content, max_pixels=self.settings.max_pixels)
        stylizer = Stylizer(self.settings, world)
        masks = (pictures.masks, pictures.style_masks, pictures.content_mask)
        return stylizer, stylizer.load_scene(original, pictures.styles, *masks)

    def default_name(self) -> str:
        """The name of the output if none is given."""
        return "_".join(Path(path).stem for path in (self.pictures.content or "", *self.pictures.styles)) + ".png"

    def output_path(self) -> Path:
        """The file to write. Raises UsageError if the default name is taken, unless ``force``."""
        if self.output is not None:
            return Path(self.output)
        like = Path(self.like or "")
        output = Path(f"{like.stem}_again{like.suffix}" if self.like else self.default_name())
        if output.exists() and not self.force:
            raise UsageError(f"{output} exists already; name the output with -o, or replace it with --force")
        return output

    def files_read(self) -> list[Named]:
        """The files that the run reads."""
        return named(self.settings, **self.pictures.by_part(), **other_files(self.like, self.settings_file))


def other_files(like: str | None, settings_file: str | None) -> dict[str, str | None]:
    """The files of a run that are no pictures of it, by the words that errors name them with."""
    return {"picture of --like": like, "file of --settings": settings_file}


def main(options: argparse.Namespace) -> int:
    """Run the command and return the exit code."""
    return stylize(StylizeRequest.from_namespace(options))


def stylize(request: StylizeRequest) -> int:
    """Style one picture, or print the plan of the run."""
    if request.plan:
        return _plan(request)
    output = request.output_path()
    images.check_target(output, parents=request.parents)
    if request.checkpoint is None and request.checkpoint_every is not None:
        raise UsageError("--checkpoint-every: expected the file to write as well (--checkpoint FILE)")
    request.film.check()
    _refuse_clashes(request, output)
    if request.parents:
        output.parent.mkdir(parents=True, exist_ok=True)
    every = checkpoint.EVERY if request.checkpoint_every is None else parse_number(request.checkpoint_every, int)
    with distributed.from_torchrun(request.settings.device) as world:
        resume = request.resume or (request.checkpoint is not None and distributed.restarted())
        opened = checkpoint.open_checkpoint(
            request.checkpoint, every=every, resume=resume, force=request.force, writes=world.first
        )
        with opened as file:
            return _run(request, output, file, world)


def _plan(request: StylizeRequest) -> int:
    fetch_weights(request.settings, request.quiet)
    pictures = request.pictures
    plan = planning.plan(
        request.content,
        pictures.styles,
        masks=pictures.masks,
        style_masks=pictures.style_masks,
        content_mask=pictures.content_mask,
        settings=request.settings,
    )
    if request.json:
        say_json(plan.to_dict())
    else:
        say(str(plan))
    return 0


def _run(request: StylizeRequest, output: Path, file: checkpoint.Checkpoint | None, world: distributed.Ranks) -> int:
    settings, quiet = request.settings, request.quiet or not world.first
    if world.first:
        fetch_weights(settings, quiet)
    world.barrier()
    stylizer, scene = request.load(world)
    snapshots = settings.snapshot_every if world.first else 0
    inputs = find_inputs(settings, **scene.files()) if snapshots or world.count > 1 else {}
    world.check_same({"torch": torch.__version__, **describe(settings, inputs, output.parent)})
    if world.first and request.save_settings is not None:
        save_settings(request.save_settings, settings, force=request.force)
    results = Results(request.json)
    save_snapshot = _snapshot_callback(stylizer, scene, output, inputs, results)
    film = _film(request, stylizer, scene) if world.first and request.film.path is not None else None
    with StepBar(quiet) as bar, film or nullcontext():

        def callback(step: Step) -> None:
            bar(step)
            if film is not None:
                film(step)
            if snapshots and step.count % snapshots == 0:
                save_snapshot(step)

        result = stylizer.run(scene, callback=callback, checkpoint=file)
        if film is not None and any(result.trace):
            film.add(result.image)
    if film is not None and film.written:
        results.add(film.path)
    if not any(result.trace):  # interrupted before the first step: the start image is no result
        raise KeyboardInterrupt
    if world.first:
        _save(result, output, results)
    return exit_code(result.stopped, request.checkpoint)


def _snapshot_callback(
    stylizer: Stylizer, scene: Scene, output: Path, inputs: dict[str, Input], results: Results
) -> Callable[[Step], None]:
    def save_snapshot(step: Step) -> None:
        pixels = stylizer.finish(step.image, scene.content, scene.hole)
        facts = describe(stylizer.settings_with_strips(), inputs, output.parent)
        path = _snapshot_path(output, step.count)
        results.add(images.save(path, pixels, alpha=scene.content.alpha, settings=facts))

    return save_snapshot


def _film(request: StylizeRequest, stylizer: Stylizer, scene: Scene) -> ProgressFilm:
    inputs = find_inputs(stylizer.settings, **scene.files())
    plain = stylizer.replace(photoreal=0.0)  # the pass takes longer than a step
    return request.film.open(
        show=lambda image: plain.finish(image, scene.content, scene.hole),
        settings=describe(stylizer.settings_with_strips(), inputs, Path(request.film.path or "").parent),
        resume=request.resume,
    )


def _save(result: Result, output: Path, results: Results) -> None:
    with signals_held():
        results.add(result.save(output))
    results.finish(**result_facts(result))


def _snapshot_path(output: Path, count: int) -> Path:
    return output.with_name(f"{output.stem}_{count:04d}{output.suffix}")


def _refuse_clashes(request: StylizeRequest, output: Path) -> None:
    """Raise UsageError if a file to write is one that is read or another that is written.

    Without ``force``, also if a snapshot would replace a picture that fastnst did not make.
    """
    written: list[Named] = [("-o" if request.output else "the output", output)]
    if request.save_settings is not None:
        written.append(("--save-settings", request.save_settings))
    if request.checkpoint is not None:
        written += checkpoint.files(request.checkpoint)
    if request.film.path is not None:
        written.append(("--film", request.film.path))
    read = request.files_read()
    snapshots = _taken_snapshots(request.settings, output, [path for _, path in written])
    refuse_clashes([*written, *(("the snapshot", path) for path in snapshots)], read)
    for path in snapshots:
        if path.exists() and not request.force and not _made_by_fastnst(path):
            raise UsageError(
                f"{path} exists already, and fastnst did not make it; replace it by a snapshot with --force, "
                "or name another output"
            )


def _taken_snapshots(settings: Settings, output: Path, others: Sequence[Any]) -> list[Path]:
    """The snapshots of a run whose names are taken by existing files or by others that the run writes."""
    if not settings.snapshot_every:
        return []
    name = re.compile(rf"{re.escape(output.stem)}_([0-9]{{4,18}}){re.escape(output.suffix)}", re.IGNORECASE)
    taken = [path.name for path in output.parent.iterdir()] if output.parent.is_dir() else []
    taken += [Path(path).name for path in others]
    counts = {int(found[1]) for found in map(name.fullmatch, taken) if found is not None}
    every = settings.snapshot_every
    return [_snapshot_path(output, count) for count in sorted(counts) if count and count % every == 0]


def _made_by_fastnst(path: Path) -> bool:
    try:
        return images.read_settings(path) is not None
    except ImageError:
        return False

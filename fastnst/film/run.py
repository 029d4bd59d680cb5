"""``stylize_film``: style the frames of a film so that they fit together."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from fastnst import images
from fastnst.config.film import FilmSettings
from fastnst.config.provenance import Input, describe, find_inputs
from fastnst.config.ranges import AFTER_THE_RUN
from fastnst.config.settings import Settings, picture_settings
from fastnst.digests import digest, sha256
from fastnst.distributed import SINGLE, Ranks
from fastnst.errors import FastnstError, UsageError
from fastnst.film.extracting import Frames, extract
from fastnst.film.flow import DisFlow, FlowEstimator, RaftFlow
from fastnst.film.making import FilmCallback, FilmProgress, ShotMaker, finished, make_photoreal
from fastnst.film.reading import is_film, open_film
from fastnst.film.request import FilmReport, FilmRequest, check_request
from fastnst.film.shots import Shot, read_shots, shots_of
from fastnst.film.writing import FilmWriter, check_target
from fastnst.images import Picture
from fastnst.optim.progress import Step
from fastnst.run.clashes import named, refuse_clashes
from fastnst.run.scene import part_names
from fastnst.run.stylizer import Stylizer

log = logging.getLogger("fastnst")


def stylize_film(
    request: FilmRequest,
    settings: Settings | None = None,
    film_settings: FilmSettings | None = None,
    *,
    callback: FilmCallback | None = None,
    world: Ranks = SINGLE,
) -> FilmReport:
    """Style a film.

    The frames made so far are in the folder ``OUTPUT.frames`` until the film is finished: a film that was ended at any
    moment continues there when the function is called again, with the same bits. Ranks share a film by shots.

    Args:
        request: the film, the styles and the output.
        settings: of each frame; default: the preset ``default``.
        film_settings: how frames depend on each other.
        callback: called with a :class:`FilmProgress` and a :class:`fastnst.Step` after each step. If it returns True,
            the frame ends with the image so far.
        world: the ranks, each of which calls this function with the same arguments.

    Raises:
        UsageError: invalid arguments, or frames of another film in the folder.
        ImageError: a film or picture that cannot be read, or a file that cannot be written.
        KeyboardInterrupt: after Ctrl-C; the frames made so far remain.

    Example::

        from fastnst.film import FilmRequest, stylize_film
        stylize_film(FilmRequest("clip.mp4", ["painting.jpg"], "styled.mp4"))
    """
    job = _Job(request, settings or Settings.from_preset(), film_settings or FilmSettings(), world)
    made = job.make(callback)
    world.barrier()
    if world.first:
        job.write()
    return FilmReport(Path(request.output), len(job.frames.times), job.frames.shots, made)


class _Job:
    def __init__(self, request: FilmRequest, settings: Settings, film_settings: FilmSettings, world: Ranks) -> None:
        self.request, self.settings, self.film_settings, self.world = request, settings, film_settings, world
        check_target(request.output, codec=request.codec, quality=request.quality)
        check_request(request)
        masks = [*request.masks, *request.style_masks]
        read = {"film": request.film, "style": request.styles, "mask": masks, "shots": request.shots}
        written = [("the output", Path(request.output)), ("the folder", request.store.folder)]
        refuse_clashes(written, named(settings, content_mask=request.content_mask, **read))
        self.store = request.store
        tables = None if request.shots is None else read_shots(request.shots)
        self.of_shots = [name for table in tables or () for part in ("style", "mask") for name in table.get(part, ())]
        self._check_pictures()
        self.stylizer = Stylizer(settings)
        self._check_shots(tables or [])
        self.frames = self._frames(tables)
        self.flow: FlowEstimator | None = None
        self.done = 0

    def make(self, callback: FilmCallback | None) -> int:
        """Make the missing frames of this rank's shots; return their number."""
        own, passes = shared(self.frames.shots, self.world), self.film_settings.passes
        count = sum(map(len, own)) * passes
        made = self.done = 0
        for shot in own:
            missing = [which for which in range(1, passes + 1) if self._missing(shot, which)]
            self.done += len(shot) * (passes - len(missing))
            maker = self._maker(shot) if missing else None
            for which in missing:
                assert maker is not None
                before = self._missing(shot, which)
                for number in maker.make(shot, which, self._report(callback, which, count)):
                    self.done += 1
                    if which == passes:
                        make_photoreal(self.store, number, passes, self._settings(shot))
                made += before
            for number in range(shot.first, shot.last):  # those that were there, for another strength
                make_photoreal(self.store, number, passes, self._settings(shot))
        return made

    def write(self) -> None:
        """Write the film, and remove the folder of frames."""
        request, frames = self.request, self.frames
        facts = describe(self.settings, self._inputs(), Path(request.output).parent)
        sound = request.film if frames.info.has_audio and request.frames is None else None
        with FilmWriter(
            request.output,
            frames.info,
            quality=request.quality,
            codec=request.codec,
            audio_from=sound,
            settings=facts,
        ) as writer:
            for shot in frames.shots:
                settings = self._settings(shot)
                for number in range(shot.first, shot.last):
                    picture = finished(self.store, number, self.film_settings.passes, settings)
                    time, duration = frames.times[number]
                    writer.add(picture.pixels, alpha=picture.alpha, time=time, duration=duration)
        if not request.keep_frames:
            self.store.remove()

    def _settings(self, shot: Shot) -> Settings:
        return self.settings.replace(**shot.settings)

    def _check_pictures(self) -> None:
        """Open every film and read every picture once, so that a broken one is known before the work begins."""
        request, limit = self.request, self.settings.max_pixels
        for source in (*request.styles, *request.masks, *request.style_masks, request.content_mask, *self.of_shots):
            if is_film(source):
                open_film(source, max_pixels=limit)
            elif source is not None:
                images.load(source, max_pixels=limit)
        film = open_film(request.film, max_pixels=limit, broken=request.broken)
        check_target(request.output, codec=request.codec, quality=request.quality, alpha=film.info.has_alpha)

    def _check_shots(self, tables: list[dict[str, Any]]) -> None:
        """Raise UsageError for settings of a shot that cannot be met or change the size of its frames."""
        for number, table in enumerate(tables, 1):
            where = f"{self.request.shots}: shot {number}"
            if sizes := {"size", "crop"} & set(table["settings"]):
                raise UsageError(f"{where}: {min(sizes)}: all frames have one size; give it for the whole film")
            try:
                self.stylizer.replace(**table["settings"])
            except FastnstError as error:
                raise UsageError(f"{where}: {error}") from None

    def _missing(self, shot: Shot, which: int) -> int:
        """The number of frames of a pass that are not made yet."""
        return sum(not self.store.has(f"pass_{which}", number) for number in range(shot.first, shot.last))

    def _frames(self, tables: list[dict[str, Any]] | None) -> Frames:
        """The frames of the film in the store, extracted by the first rank if they are not there yet."""
        request = self.request
        identity = self._identity()
        if self.world.first and "times" not in self.store.begin(identity, force=request.force):
            found = self._extract(tables)
            self.store.write_record(identity, **found.to_dict())
            log.info("%d frames in %d shots", len(found.times), len(found.shots))
        self.world.barrier()
        return Frames.from_dict(self.store.record(), Path(request.film))

    def _extract(self, tables: list[dict[str, Any]] | None) -> Frames:
        """Take the frames out of the film. A film that cannot be read leaves no folder."""
        request = self.request
        try:
            found = extract(
                request.film,
                self.stylizer,
                self.store,
                masks=request.masks,
                frames=request.frames,
                broken=request.broken,
                find_cuts=tables is None and self.film_settings.shots == "auto",
            )
            if tables is None:
                return found
            shots = shots_of(tables, len(found.times), os.fspath(request.shots or ""))
            return dataclasses.replace(found, shots=tuple(shots))
        except FastnstError:
            self.store.remove()
            raise

    def _identity(self) -> dict[str, Any]:
        """What the frames depend on, as plain values."""
        request = self.request
        inputs = {part: _digest(source) for part, source in self._sources().items()}
        inputs |= {f"of a shot: {name}": _digest(name) for name in self.of_shots}
        shots = None if request.shots is None else sha256(Path(request.shots))
        settings = {**picture_settings(self.settings.to_dict()), **self.film_settings.to_dict()}
        settings = {name: value for name, value in settings.items() if name not in AFTER_THE_RUN}
        facts = {**inputs, **settings, "range": request.frames, "broken": request.broken, "shots_file": shots}
        plain: dict[str, Any] = json.loads(json.dumps(facts))
        return plain

    def _sources(self) -> dict[str, Any]:
        """What the film is made from, by part."""
        request = self.request
        parts: dict[str, Any] = {"content": request.film, "content_mask": request.content_mask}
        for kind, given in (("style", request.styles), ("mask", request.masks), ("style_mask", request.style_masks)):
            parts |= zip(part_names(kind, len(given)), given, strict=True)
        return {part: source for part, source in parts.items() if source is not None}

    def _inputs(self) -> dict[str, Input]:
        """The files that the film is made from."""
        files = {part: Path(one) for part, one in self._sources().items() if isinstance(one, (str, os.PathLike))}
        return find_inputs(self.settings, **files)

    def _maker(self, shot: Shot) -> ShotMaker:
        """The maker of a shot with its styles, masks and settings."""
        request, store = self.request, self.store
        stylizer = self.stylizer.replace(**shot.settings) if shot.settings else self.stylizer
        masks: list[Any] = list(shot.mask or request.masks)
        moving = [] if shot.mask else [i for i, mask in enumerate(masks) if mask is not None and is_film(mask)]
        whole = Picture(torch.zeros(1, 3, *self.frames.whole))
        for i, mask in enumerate(masks):
            if i in moving:
                masks[i] = store.read(f"mask_{i + 1}", shot.first)
            else:
                masks[i] = stylizer.loader.mask("mask", mask, whole, stylizer.loader.content)
        counts = stylizer.loader.mask("content mask", request.content_mask, whole, stylizer.loader.content)
        styles, style_masks = (list(shot.style), []) if shot.style else (list(request.styles), request.style_masks)
        first = store.read("content", shot.first)
        scene = stylizer.load_scene(first, styles, masks, style_masks, counts)
        self.flow = self.flow or request.flow or _estimator(self.film_settings, stylizer)
        return ShotMaker(stylizer, scene, self.film_settings, self.flow, store, moving)

    def _report(
        self, callback: FilmCallback | None, which: int, count: int
    ) -> Callable[[int, Step], bool | None] | None:
        if callback is None:
            return None
        passes = self.film_settings.passes

        def report(number: int, step: Step) -> bool | None:
            return callback(FilmProgress(number, which, passes, self.done, count), step)

        return report


def shared(shots: Sequence[Shot], world: Ranks) -> list[Shot]:
    """The shots that this rank makes: the longest first, each to the rank that has the fewest frames."""
    work = [0] * world.count
    own = []
    for shot in sorted(shots, key=len, reverse=True):
        rank = work.index(min(work))
        work[rank] += len(shot)
        if rank == world.rank:
            own.append(shot)
    return sorted(own, key=lambda shot: shot.first)


def _digest(source: Any) -> str:
    """The SHA-256 of a file, of the files in a folder, or of the pixels of a picture in memory."""
    if not isinstance(source, (str, os.PathLike)):
        picture = images.load(source)
        return digest([picture.pixels, *([] if picture.alpha is None else [picture.alpha])])
    path = Path(source)
    files = sorted(one for one in path.iterdir() if one.is_file()) if path.is_dir() else []
    return digest([], " ".join(f"{one.name} {sha256(one)}" for one in files)) if path.is_dir() else sha256(path)


def _estimator(settings: FilmSettings, stylizer: Stylizer) -> FlowEstimator:
    if settings.flow == "raft":
        assert settings.flow_weights is not None
        return RaftFlow(settings.flow_weights, stylizer.network.device)
    return DisFlow()

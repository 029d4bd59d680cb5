"""``fastnst video``: style a film."""

from __future__ import annotations

import argparse
import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastnst import distributed
from fastnst.cli.options import SettingsOptions, read_settings, refuse_addresses
from fastnst.cli.output import Results
from fastnst.cli.progress import FilmBar
from fastnst.cli.runs import fetch_weights
from fastnst.config.film import RANGES, SHOTS, FilmSettings
from fastnst.config.parsing import parse_number
from fastnst.config.settings import Settings
from fastnst.config.toml import SUFFIX, save_settings
from fastnst.errors import UsageError
from fastnst.film.request import FilmRequest
from fastnst.film.run import stylize_film


@dataclass(frozen=True)
class VideoRequest:
    """The options of ``fastnst video``."""

    film: FilmRequest
    settings: Settings
    film_settings: FilmSettings
    save_settings: str | None
    quiet: bool
    json: bool

    @classmethod
    def from_namespace(cls, options: argparse.Namespace) -> VideoRequest:
        """Read settings. Raises UsageError."""
        missing = [name.upper() for name in ("film", "style") if not getattr(options, name)]
        if missing:
            raise UsageError(f"the following arguments are required: {', '.join(missing)} (see fastnst video --help)")
        given = SettingsOptions.from_namespace(options)
        files = {"content": options.film, **{f"style {i}": path for i, path in enumerate(options.style, 1)}}
        files |= {f"mask {i}": path for i, path in enumerate((*options.mask, *options.style_mask), 1)}
        refuse_addresses({**files, "file of --settings": given.file, "weights": given.values.get("weights")})
        settings, _ = read_settings(given)
        film_settings, shots = _film_settings(options)
        quality = None if options.quality is None else parse_number(options.quality, int)
        same = {name: getattr(options, name) for name in ("broken", "codec", "keep_frames", "force", "content_mask")}
        film = FilmRequest(
            options.film,
            tuple(options.style),
            _output(options),
            masks=tuple(options.mask),
            style_masks=tuple(options.style_mask),
            shots=shots,
            frames=None if options.frames is None else _frames(options.frames),
            quality=quality,
            **same,
        )
        return cls(film, settings, film_settings, options.save_settings, options.quiet, options.json)


def main(options: argparse.Namespace) -> int:
    """Run the command and return the exit code."""
    return video(VideoRequest.from_namespace(options))


def video(request: VideoRequest) -> int:
    """Style a film."""
    with distributed.from_torchrun(request.settings.device) as world:
        if world.first:
            if request.save_settings is not None:
                save_settings(request.save_settings, request.settings, force=request.film.force)
            fetch_weights(request.settings, request.quiet)
        world.barrier()
        results = Results(request.json)
        with FilmBar(request.quiet or not world.first) as bar:
            try:
                report = stylize_film(
                    request.film, request.settings, request.film_settings, callback=bar.show_step, world=world
                )
            except KeyboardInterrupt:
                folder = request.film.store.folder
                kept = f"the frames so far are in {folder}; the same command continues" if folder.is_dir() else ""
                raise KeyboardInterrupt(kept) from None
        if world.first:
            results.add(report.path)
            shots = [[shot.first, shot.last] for shot in report.shots]
            results.finish(frames=report.frames, made=report.made, shots=shots, settings=request.settings.to_dict())
    return 0


def _film_settings(options: argparse.Namespace) -> tuple[FilmSettings, str | None]:
    """The settings of films, and the file of ``--shots``."""
    changes: dict[str, Any] = {}
    for field in dataclasses.fields(FilmSettings):
        text = getattr(options, f"film_{field.name}")
        if text is None:
            continue
        try:
            changes[field.name] = _value(field.name, text)
        except UsageError as error:
            raise UsageError(f"--{field.name.replace('_', '-')}: {error}") from None
    shots = changes.get("shots")
    file = None
    if shots is not None and shots not in SHOTS and Path(shots).suffix.lower() == SUFFIX:
        file = changes.pop("shots")
    return FilmSettings(**changes), file


def _value(name: str, text: str) -> Any:
    if name not in RANGES:
        return text
    kind = int if RANGES[name].whole else float
    if name == "lookback":
        return tuple(parse_number(part, int) for part in text.split(","))
    return parse_number(text, kind)


def _frames(text: str) -> tuple[int, int]:
    first, colon, last = text.partition(":")
    if not colon:
        raise UsageError(f"--frames: expected A:B, such as 0:50, got {text!r}")
    return parse_number(first, int), parse_number(last, int)


def _output(options: argparse.Namespace) -> str:
    """The film to write. Raises UsageError if the default name is taken, unless ``--force``."""
    if options.output is not None:
        return str(options.output)
    output = Path("_".join(Path(path).stem for path in (options.film, *options.style)) + ".mp4")
    if output.exists() and not options.force:
        raise UsageError(f"{output} exists already; name the output with -o, or replace it with --force")
    return str(output)

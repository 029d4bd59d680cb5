"""What the commands do: each takes the parsed options and returns an exit code."""

from __future__ import annotations

import argparse
import dataclasses
import json
import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from fastnst import checkpoint, images, planning, ranks, settings_file, transfer, vgg, weights
from fastnst import demo as demonstration
from fastnst import gallery as galleries
from fastnst import info as machine
from fastnst.errors import ImageError, UsageError, nearest, printable
from fastnst.inputs import Named, describe, find_inputs, locate, named, refuse_clashes
from fastnst.interrupts import uninterrupted
from fastnst.optimize import Step
from fastnst.progress import LONGEST, ByteBar, GalleryBar, Results, StepBar, say, say_json
from fastnst.scene import listed, parts
from fastnst.settings import STARTS, Settings, is_pattern, parse, parse_layers, parse_number
from fastnst.weights.layout import CONVENTIONS, conv_shapes, span

log = logging.getLogger("fastnst")


def stylize(options: argparse.Namespace) -> int:
    """Style one picture."""
    _refuse_addresses(options)
    settings = _settings(options)
    _require_pictures(options)
    if options.plan:
        return _plan(options, settings)
    output = _output(options)
    images.check_target(output, parents=options.parents)
    if options.checkpoint is None and options.checkpoint_every is not None:
        raise UsageError("--checkpoint-every: expected the file to write as well (--checkpoint FILE)")
    _refuse_clashes(options, settings, output)
    if options.parents:
        output.parent.mkdir(parents=True, exist_ok=True)
    every = checkpoint.EVERY if options.checkpoint_every is None else parse_number(options.checkpoint_every, int)
    with ranks.of_torchrun(settings.device) as world:
        options.quiet = options.quiet or not world.first
        resume = options.resume or (options.checkpoint is not None and ranks.restarted())
        kept = checkpoint.keeping(
            options.checkpoint, every=every, resume=resume, force=options.force, writes=world.first
        )
        with kept as file:
            return _stylize(options, settings, output, file, world)


def _plan(options: argparse.Namespace, settings: Settings) -> int:
    """Say what the run would take."""
    _fetch_weights(settings, options.quiet)
    masks: dict[str, Any] = {"masks": options.mask, "style_masks": options.style_mask}
    found = planning.plan(options.content, options.style, **masks, content_mask=options.content_mask, settings=settings)
    if options.json:
        say_json(found.to_dict())
    else:
        say(str(found))
    return 0


def _stylize(
    options: argparse.Namespace,
    settings: Settings,
    output: Path,
    kept: checkpoint.Checkpoint | None,
    world: ranks.Ranks,
) -> int:
    if world.first:
        _fetch_weights(settings, options.quiet)
    world.meet()
    original = images.load(options.content, max_pixels=settings.max_pixels)
    results = Results(options.json)
    stylizer = transfer.Stylizer(settings, world)
    scene = stylizer.load_scene(original, options.style, options.mask, options.style_mask, options.content_mask)
    content = scene.content
    del original  # a large photograph would stay in memory all the time
    snapshots = settings.snapshot_every if world.first else 0
    files = find_inputs(settings, **scene.files()) if snapshots or world.count > 1 else {}
    world.agree({"torch": torch.__version__, **describe(settings, files, output.parent)})
    if world.first:
        _save_settings(options, settings)
    with StepBar(options.quiet) as bar:

        def callback(step: Step) -> None:
            bar(step)
            if snapshots and step.count % snapshots == 0:
                pixels = stylizer.finish(step.image, content)
                path = _snapshot(output, step.count)
                facts = describe(stylizer.as_run(), files, output.parent)
                results.add(images.save(path, pixels, alpha=content.alpha, settings=facts))

        result = stylizer.run(scene, callback=callback, checkpoint=kept)
    if not any(result.trace):  # stopped before the first step: the start picture is no result
        raise KeyboardInterrupt
    if world.first:
        with uninterrupted():
            results.add(result.save(output))
        results.finish(**_facts(result))
    return _ending(result.stopped, options.checkpoint)


def gallery(options: argparse.Namespace) -> int:
    """Style a folder of pictures."""
    settings = _settings(options)
    with ranks.of_torchrun(settings.device) as world:
        return _gallery(options, settings, world)


def _gallery(options: argparse.Namespace, settings: Settings, world: ranks.Ranks) -> int:
    if world.first:
        _save_settings(options, settings)
        _fetch_weights(settings, options.quiet)
    world.meet()
    results = Results(options.json)
    with GalleryBar(options.quiet or not world.first) as bar:
        report = galleries.run(
            options.directory,
            options.output,
            settings,
            pairing=options.pairs,
            force=options.force,
            callback=lambda turn, step: bar.show_step(turn.pair.name, turn.number, turn.count, step),
            finished=lambda made: results.add(made.picture) if world.first else None,
            world=world,
        )
    if report.sheet is not None:
        results.add(report.sheet)
    if not world.first:
        return _ending(report.stopped)
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
            raise ImageError(f"{options.directory}: none of its {count} pairs could be made")
        log.warning("%d of %d pairs could not be made", count, count + len(report.made))
    if report.stopped and not report.made:
        raise KeyboardInterrupt
    return _ending(report.stopped)


def demo(options: argparse.Namespace) -> int:
    """Style the pictures that come with the package."""
    given = {name: parse(name, getattr(options, name)) for name in ("size", "steps", "device")}
    settings = Settings.of(**given)
    results = Results(options.json)
    with StepBar(options.quiet) as bar:
        result = demonstration.run(options.output, settings, callback=bar, finished=results.add)
    results.finish(**_facts(result))
    return _ending(result.stopped)


def info(options: argparse.Namespace) -> int:
    """What was built and what serves this machine."""
    facts = machine.collect()
    if options.json:
        say_json(facts)
    else:
        say(machine.table(facts))
    return 0


def settings_show(options: argparse.Namespace) -> int:
    """The settings that a file holds, and for a picture what it was made from."""
    stored = settings_file.read(Path(options.file))
    if options.json:
        say_json({"settings": stored.settings.to_dict(), "files": stored.files})
        return 0
    toml = settings_file.to_toml(stored.settings).rstrip()
    for part, file in stored.files.items():
        name = json.dumps(file["name"], ensure_ascii=False)
        say(f"# {part}: {printable(name, None)}, sha256 {file['sha256']}")
    say(toml)
    return 0


def weights_list(options: argparse.Namespace) -> int:
    """The catalogue as a table."""
    entries = [
        {
            "name": entry.name,
            "arch": entry.arch,
            "layers": span(entry.layers),
            "size_bytes": entry.size_bytes,
            "where": "bundled" if entry.bundled else "cached" if entry.cached else "to fetch",
            "license": entry.license,
            "note": entry.note,
        }
        for entry in weights.catalogue()
    ]
    if options.json:
        say_json(entries)
        return 0
    head = ("NAME", "NETWORK", "SIZE", "WHERE", "LICENCE")
    rows = [(e["name"], e["arch"], _megabytes(e["size_bytes"]), e["where"], e["license"]) for e in entries]
    widths = [max(len(str(row[i])) for row in (head, *rows)) for i in range(len(head) - 1)]
    for row in (head, *rows):
        say("  ".join(str(cell).ljust(width) for cell, width in zip(row[:-1], widths, strict=True)) + f"  {row[-1]}")
    return 0


def weights_fetch(options: argparse.Namespace) -> int:
    """Download a set of weights."""
    results = Results(options.json)
    with ByteBar(options.name, options.quiet) as bar:
        path = weights.fetch(options.name, bar)
    results.add(path)
    results.finish()
    return 0


def weights_show(options: argparse.Namespace) -> int:
    """What a set of weights or a file holds; an entry that is not here is described, not downloaded."""
    entry = next((entry for entry in weights.catalogue() if entry.name == options.name), None)
    if entry is not None and not entry.cached:
        shapes: dict[str, tuple[int, ...]] = {name: conv_shapes(entry.arch)[name] for name in entry.layers}
        scaling = CONVENTIONS[entry.convention]
        facts = {"name": entry.name, "arch": entry.arch, "file": f"to fetch: fastnst weights fetch {entry.name}"}
        facts |= {"license": entry.license, "source": entry.url}
        mean, scale = scaling.mean, scaling.scale
    else:
        loaded = weights.load(options.name, arch=options.arch)
        shapes = {name: tuple(weight.shape) for name, (weight, _) in loaded.convs.items()}
        facts = {"name": loaded.name, "arch": loaded.arch, "file": str(entry.path if entry else options.name)}
        facts |= {"license": loaded.license, "source": loaded.source}
        mean, scale = loaded.mean, loaded.scale
    if entry is not None and entry.note:
        facts["note"] = entry.note
    facts["input"] = f"(RGB 0..255 - {_numbers(mean)}) * {_numbers(scale)}"
    if entry is not None:
        facts["convention"] = entry.convention
    facts["deepest"] = max(shapes)
    if options.json:
        say_json({**facts, "convs": shapes})
        return 0
    for name, value in facts.items():
        say(f"{name:<10}  {printable(value, LONGEST)}")
    for name, shape in shapes.items():
        say(f"{printable(name):<10}  {' x '.join(map(str, shape))}")
    return 0


def _settings(options: argparse.Namespace) -> Settings:
    """The settings that the options make of the preset, the file of --settings or the picture of --like.

    From the latter come ``options.content`` and ``options.style`` as well, where they were not given.
    """
    fields = {field.name for field in dataclasses.fields(Settings)} - {"preset"}
    given = {name: value for name, value in vars(options).items() if name in fields}
    layers: dict[str, str] = {name: given.pop(name) for name in ("content_layers", "style_layers") if name in given}
    changes = {name: parse(name, value) if isinstance(value, str) else value for name, value in given.items()}
    start = changes.get("init")
    if start is not None and start not in STARTS and not Path(start).exists():
        raise UsageError(
            f"--init: {start!r} is no file{nearest(start, STARTS)} (expected {', '.join(STARTS)} or a picture)"
        )
    base = _base(options)
    return base.but(**changes, **_layers(layers, changes.get("weights", base.weights), base.arch))


def _layers(given: Mapping[str, str], weights_name: str | None, arch: str) -> dict[str, Any]:
    """Layers as they were given, patterns among them for the network that they will be those of."""
    if any(map(is_pattern, given.values())) and weights_name is not None:
        entry = next((entry for entry in weights.catalogue() if entry.name == weights_name), None)
        arch = weights.load(weights_name, default_arch=arch).arch if entry is None else entry.arch
    found = {}
    for name, text in given.items():
        try:
            found[name] = parse_layers(text, arch)
        except UsageError as error:
            raise UsageError(f"--{name.replace('_', '-')}: {error}") from None
    return found


def _base(options: argparse.Namespace) -> Settings:
    """The settings that options change: a preset's or a file's."""
    preset: str = options.preset or options.usual_preset
    like: str | None = getattr(options, "like", None)
    if like is not None and options.settings is not None:
        raise UsageError(f"--like {like} and --settings {options.settings}: give one of the two")
    if like is not None and Path(like).suffix.lower() == settings_file.SUFFIX:
        raise UsageError(f"--like {like}: expected a picture that fastnst made; for this file take --settings")
    path = like or options.settings
    if path is None:
        return Settings.of(preset)
    stored = settings_file.read(Path(path), preset)
    if options.preset is not None and stored.settings.preset != options.preset:
        raise UsageError(f"--preset {options.preset}: {path} has the preset {stored.settings.preset}; leave one out")
    if like is not None:
        _find_pictures(options, stored)
    if Path(path).suffix.lower() == settings_file.SUFFIX:
        return stored.settings
    return stored.settings.but(max_pixels=None)  # a picture, perhaps from elsewhere, does not raise the limit


def _find_pictures(options: argparse.Namespace, stored: settings_file.Stored) -> None:
    """Complete CONTENT, STYLE and, where neither was given, masks by what the picture of --like was made from."""
    own = not options.content and not options.style
    if not options.content:
        (options.content,) = _recorded(options, stored, "content")
    if not options.style:
        options.style = _recorded(options, stored, "style")
    if own and not (options.mask or options.style_mask or options.content_mask):
        options.mask, options.style_mask = (_recorded(options, stored, part) for part in ("mask", "style_mask"))
        options.content_mask = next(iter(_recorded(options, stored, "content_mask")), None)


def _recorded(options: argparse.Namespace, stored: settings_file.Stored, part: str) -> list[str]:
    """The files of one kind that the picture of --like was made from; UsageError where one is not there."""
    names = parts(part, max(listed(part, stored.files), part in ("content", "style")))
    found = locate({name: stored.files[name] for name in names if name in stored.files}, Path(options.like))
    for name in names:
        if name not in found:
            file = stored.files.get(name)
            told = f"{file['name']}, which is neither beside it nor here" if file else "not a file, or is not recorded"
            raise UsageError(f"--like {options.like}: its {name} was {told}; name both: CONTENT STYLE")
    return [str(found[name]) for name in names]


def _require_pictures(options: argparse.Namespace) -> None:
    """Raise UsageError where CONTENT or STYLE is missing."""
    missing = [part.upper() for part in ("content", "style") if not getattr(options, part)]
    if missing:
        greedy = [f"--{name.replace('_', '-')}" for name in ("mask", "style_mask") if len(getattr(options, name)) > 1]
        told = f"; {' and '.join(greedy)} took all names after it: name CONTENT and STYLE before it" if greedy else ""
        raise UsageError(
            f"the following arguments are required: {', '.join(missing)}{told} (see fastnst stylize --help)"
        )


def _refuse_addresses(options: argparse.Namespace) -> None:
    for what, path in named(Settings(), **_read(options), weights=getattr(options, "weights", None)):
        if re.match("[A-Za-z][A-Za-z0-9+.-]+://", str(path)):
            raise UsageError(f"{path}: expected a file for {what}, got an address; download it first")


def _save_settings(options: argparse.Namespace, settings: Settings) -> None:
    if options.save_settings is not None:
        settings_file.write_toml(Path(options.save_settings), settings, force=options.force)


def _output(options: argparse.Namespace) -> Path:
    """Where `stylize` writes: over what was not named with -o only if forced."""
    if options.output is not None:
        return Path(options.output)
    like = Path(options.like or "")
    names = "_".join(Path(path).stem for path in (options.content, *options.style))
    output = Path(f"{like.stem}_again{like.suffix}" if options.like else f"{names}.png")
    if output.exists() and not options.force:
        raise UsageError(f"{output} is there already; name the output with -o, or replace it with --force")
    return output


def _snapshot(output: Path, count: int) -> Path:
    """The picture after ``count`` steps."""
    return output.with_name(f"{output.stem}_{count:04d}{output.suffix}")


def _read(options: argparse.Namespace) -> dict[str, Any]:
    """What the options name that is read, by what it is to the run."""
    return {
        "content": options.content,
        "style": options.style,
        "mask": options.mask,
        "style mask": options.style_mask,
        "content mask": options.content_mask,
        "picture of --like": options.like,
        "file of --settings": options.settings,
    }


def _refuse_clashes(options: argparse.Namespace, settings: Settings, output: Path) -> None:
    """Raise UsageError where the run would write over a file that it reads or another that it writes, or, without
    --force, a snapshot over a picture that fastnst did not make."""
    written: list[Named] = [("-o" if options.output else "the output", output)]
    if options.save_settings is not None:
        written.append(("--save-settings", options.save_settings))
    if options.checkpoint is not None:
        written += checkpoint.files(options.checkpoint)
    read = named(settings, **_read(options))
    snapshots = _snapshots(settings, output, [path for _, path in written])
    refuse_clashes([*written, *(("the snapshot", path) for path in snapshots)], read)
    for path in snapshots:
        if path.exists() and not options.force and not _is_ours(path):
            raise UsageError(
                f"{path} is there already, and fastnst did not make it; replace it by a snapshot with --force, "
                "or name another output"
            )


def _snapshots(settings: Settings, output: Path, others: list[Any]) -> list[Path]:
    """The snapshots of a run whose names are taken: by files that are there, or by others that it writes."""
    if not settings.snapshot_every:
        return []
    name = re.compile(rf"{re.escape(output.stem)}_([0-9]{{4,18}}){re.escape(output.suffix)}", re.IGNORECASE)
    there = [path.name for path in output.parent.iterdir()] if output.parent.is_dir() else []
    there += [Path(path).name for path in others]
    counts = {int(found[1]) for found in map(name.fullmatch, there) if found is not None}
    return [_snapshot(output, count) for count in sorted(counts) if count and count % settings.snapshot_every == 0]


def _is_ours(path: Path) -> bool:
    try:
        return images.read_settings(path) is not None
    except ImageError:
        return False


def _fetch_weights(settings: Settings, quiet: bool) -> None:
    """Download the weights that the settings name, if they are not there yet, with a bar."""
    entry = next((entry for entry in weights.catalogue() if entry.name == settings.weights), None)
    if entry is None or entry.cached:
        return
    vgg.chain_to(entry.arch, settings.layer_names())  # a mistyped layer shows before half a gigabyte has come
    with ByteBar(entry.name, quiet) as bar:
        weights.fetch(entry.name, bar)


def _facts(result: transfer.Result) -> dict[str, Any]:
    """What `--json` says of a run."""
    return {
        "size": [result.image.shape[3], result.image.shape[2]],
        "steps": sum(map(len, result.trace)),
        "losses": dataclasses.asdict(next(scale[-1] for scale in reversed(result.trace) if scale)),
        "seconds": result.seconds,
        "peak_memory": machine.peak_memory(),
        "stopped": result.stopped,
        "settings": result.settings.to_dict(),
    }


def _ending(stopped: str | None, kept: str | None = None) -> int:
    if stopped == "interrupt":
        rest = f"; --resume goes on from {kept}" if kept is not None else ""
        raise KeyboardInterrupt(f"what there is has been saved{rest}")
    return 0


def _megabytes(size: object) -> str:
    return f"{size / 1e6:.1f} MB" if isinstance(size, int) else "?"


def _numbers(values: tuple[float, ...]) -> str:
    return "[" + ", ".join(f"{value:.6g}" for value in values) + "]"

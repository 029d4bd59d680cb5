"""What the commands do: each takes the parsed options and returns an exit code."""

from __future__ import annotations

import argparse
import dataclasses
import json
import logging
from pathlib import Path
from typing import Any

from fastnst import demo as demonstration
from fastnst import gallery as galleries
from fastnst import images, transfer, vgg, weights
from fastnst import info as machine
from fastnst.errors import ImageError, UsageError, nearest
from fastnst.interrupts import uninterrupted
from fastnst.optimize import Step
from fastnst.progress import ByteBar, GalleryBar, Results, StepBar, say
from fastnst.settings import STARTS, Settings, parse_layers
from fastnst.weights.layout import CONVENTIONS, conv_shapes, span

log = logging.getLogger("fastnst")


def stylize(options: argparse.Namespace) -> int:
    """Style one picture."""
    settings = _settings(options)
    output = _output(options)
    images.check_target(output)
    _fetch_weights(settings, options.quiet)
    content = images.load(options.content)
    results = Results(options.json)
    stylizer = transfer.Stylizer(settings)
    content = stylizer.load(content)
    style = stylizer.load_style(options.style, content)
    start = stylizer.load_start(content)
    with StepBar(options.quiet) as bar:

        def callback(step: Step) -> None:
            bar(step)
            if settings.snapshot_every and step.count % settings.snapshot_every == 0:
                pixels = images.resize(step.image, *content.pixels.shape[-2:])
                path = output.with_name(f"{output.stem}_{step.count:04d}{output.suffix}")
                results.add(images.save(path, pixels, alpha=content.alpha, settings=settings.to_dict()))

        result = stylizer.run(content, style, start=start, callback=callback)
    if not any(result.trace):  # stopped before the first step: the start picture is no result
        raise KeyboardInterrupt
    with uninterrupted():
        results.add(result.save(output))
    results.finish(**_facts(result))
    return _ending(result.stopped)


def gallery(options: argparse.Namespace) -> int:
    """Style a folder of pictures."""
    settings = _settings(options)
    _fetch_weights(settings, options.quiet)
    results = Results(options.json)
    with GalleryBar(options.quiet) as bar:
        report = galleries.run(
            options.directory,
            options.output,
            settings,
            pairing=options.pairs,
            force=options.force,
            callback=lambda turn, step: bar.show_step(turn.pair.name, turn.number, turn.count, step),
            finished=lambda made: results.add(made.picture),
        )
    if report.sheet is not None:
        results.add(report.sheet)
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
    settings = Settings.of(size=options.size, steps=options.steps, device=options.device)
    results = Results(options.json)
    with StepBar(options.quiet) as bar:
        result = demonstration.run(options.output, settings, callback=bar, finished=results.add)
    results.finish(**_facts(result))
    return _ending(result.stopped)


def info(options: argparse.Namespace) -> int:
    """What was built and what serves this machine."""
    facts = machine.collect()
    say(json.dumps(facts) if options.json else machine.table(facts))
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
        say(json.dumps(entries))
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
        say(json.dumps({**facts, "convs": shapes}))
        return 0
    for name, value in facts.items():
        say(f"{name:<10}  {value}")
    for name, shape in shapes.items():
        say(f"{name:<10}  {' x '.join(map(str, shape))}")
    return 0


def _settings(options: argparse.Namespace) -> Settings:
    """The settings that the options make of the preset."""
    fields = {field.name for field in dataclasses.fields(Settings)}
    changes = {name: value for name, value in vars(options).items() if name in fields and name != "preset"}
    for name in ("content_layers", "style_layers"):
        if changes[name] is not None:
            try:
                changes[name] = parse_layers(changes[name])
            except UsageError as error:
                raise UsageError(f"--{name.replace('_', '-')}: {error}") from None
    start = changes["init"]
    if start is not None and start not in STARTS and not Path(start).exists():
        raise UsageError(
            f"--init: {start!r} is no file{nearest(start, STARTS)} (expected {', '.join(STARTS)} or a picture)"
        )
    return Settings.of(options.preset, **changes)


def _output(options: argparse.Namespace) -> Path:
    """Where `stylize` writes: never over a picture it reads, over what was not named with -o only if forced."""
    content, style = Path(options.content), Path(options.style)
    if options.output is None:
        output = Path(f"{content.stem}_{style.stem}.png")
        if output.exists() and not options.force:
            raise UsageError(f"{output} is there already; name the output with -o, or replace it with --force")
    else:
        output = Path(options.output)
    for source in (content, style, Path(options.init or "")):
        if output.is_file() and source.is_file() and output.samefile(source):
            raise UsageError(f"-o {output}: is the input {source}; name another file")
    return output


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


def _ending(stopped: str | None) -> int:
    if stopped == "interrupt":
        raise KeyboardInterrupt("what there is has been saved")
    return 0


def _megabytes(size: object) -> str:
    return f"{size / 1e6:.1f} MB" if isinstance(size, int) else "?"


def _numbers(values: tuple[float, ...]) -> str:
    return "[" + ", ".join(f"{value:.6g}" for value in values) + "]"

"""What the commands that style pictures share."""

from __future__ import annotations

import dataclasses
from typing import Any

from fastnst import weights
from fastnst.cli import info
from fastnst.cli.progress import ByteBar
from fastnst.config.settings import Settings
from fastnst.network import vgg
from fastnst.run.encoder_setup import check_encoder
from fastnst.run.result import Result


def fetch_weights(settings: Settings, quiet: bool) -> None:
    """Download the weights that the settings name, with a progress bar, unless they are there.

    Raises UsageError for a network that cannot have them.
    """
    check_encoder(settings)
    entry = next((entry for entry in weights.catalog() if entry.name == settings.weights), None)
    if entry is None or entry.cached:
        return
    vgg.chain_to(entry.arch, settings.layer_names())  # report a mistyped layer before half a gigabyte is downloaded
    with ByteBar(entry.name, quiet) as bar:
        weights.fetch(entry.name, bar)


def result_facts(result: Result) -> dict[str, Any]:
    """What ``--json`` reports of a run."""
    return {
        "size": [result.image.shape[3], result.image.shape[2]],
        "steps": sum(map(len, result.trace)),
        "losses": dataclasses.asdict(next(scale[-1] for scale in reversed(result.trace) if scale)),
        "seconds": result.seconds,
        "peak_memory": info.peak_memory(),
        "stopped": result.stopped,
        "settings": result.settings.to_dict(),
    }


def exit_code(stopped: str | None, checkpoint: str | None = None) -> int:
    """0 for a run that ended by itself. Raises KeyboardInterrupt for one that a signal ended."""
    if stopped == "interrupt":
        more = f"; --resume continues from {checkpoint}" if checkpoint is not None else ""
        raise KeyboardInterrupt(f"the result so far has been saved{more}")
    return 0

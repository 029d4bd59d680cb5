"""One contender of race.py: fastnst's own loop on prepared pictures, with settings given as name=value."""

from __future__ import annotations

import sys
from pathlib import Path

import progress

from fastnst import images
from fastnst.optimize import Step
from fastnst.settings import Settings
from fastnst.transfer import stylize

folder, optimizer, steps, out, *given = sys.argv[1:]


def report(step: Step) -> None:
    progress.step(step.step, step.losses.total)


settings = Settings.of(
    "johnson",
    optimizer=optimizer,
    steps=int(steps),
    init="content",
    size=images.load(Path(folder, "content.png")).pixels.shape[-1],
    **dict(pair.split("=", 1) for pair in given),
)
result = stylize(Path(folder, "content.png"), Path(folder, "style.png"), settings=settings, callback=report)
images.save(out, result.image)
progress.finish()

"""A contender of race.py: fastnst's own loop on prepared pictures, with settings given as name=value."""

from __future__ import annotations

import sys
from pathlib import Path

from bench.e2e import progress
from fastnst import images
from fastnst.config.settings import Settings
from fastnst.optim.progress import Step
from fastnst.run.stylizer import stylize

folder, optimizer, steps, out, *given = sys.argv[1:]


def report(step: Step) -> None:
    progress.step(step.step, step.losses.total)


settings = Settings.from_preset(
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

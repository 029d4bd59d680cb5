"""One contender of race.py: fastnst's own loop on prepared pictures; prints what neural-style prints."""

import resource
import sys
from pathlib import Path

from fastnst import images
from fastnst.optimize import Step
from fastnst.settings import Settings
from fastnst.transfer import stylize

folder, optimizer, precision, steps, out = sys.argv[1:]


def report(step: Step) -> None:
    print(f"Iteration {step.step} / {step.steps}\n  Total loss: {step.losses.total}", flush=True)


settings = Settings.of(
    "johnson",
    optimizer=optimizer,
    precision=precision,
    steps=int(steps),
    init="content",
    size=images.load(Path(folder, "content.png")).pixels.shape[-1],
)
result = stylize(Path(folder, "content.png"), Path(folder, "style.png"), settings=settings, callback=report)
images.save(out, result.image)
print("PEAK", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)

"""Before a run: its sizes, the memory and the time it will take on this machine, and what to change if it does not fit.

Memory is counted (:mod:`fastnst.memory`). Time comes from a probe: a few steps of the same run on small pictures. How
the time of a step grows from there was fitted by bench/e2e/plan_fit.py, seconds = a * (pixels + p), with p by
convolution and precision; the probe says what a is here.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from tqdm import tqdm

from fastnst import images, memory
from fastnst.errors import OutOfMemoryError
from fastnst.optimize import Step
from fastnst.scales import full_size, shrinks, shrunk
from fastnst.settings import Settings
from fastnst.transfer import Stylizer
from fastnst.vgg import Layer, check_size

PIXELS: Mapping[str, float] = memory.FITTED["pixels"]
PROBE_SIDE = 192  # of a square with as many pixels as the probe's image
PROBE_STEPS = 8
NOT_COUNTED = 2  # first steps, which build plans and buffers
MEASURING = 2.0  # in steps: what measuring a scale's targets and the check of its last image take beside its steps
STRIPS = 1.5  # times the work of a picture looked at whole: bench/e2e/tiles.py
MARGIN = 0.15  # of the time, either way, beside the spread of the probe's steps


@dataclass(frozen=True)
class Scale:
    """A scale of a run: its size, its steps, and the seconds that one is expected to take."""

    width: int
    height: int
    steps: int
    seconds_per_step: float
    rows: int | None = None  # of a strip, where the picture is not looked at whole


@dataclass(frozen=True)
class Plan:
    """What a run is expected to take.

    ``bytes`` is the peak of the whole process, ``available`` what the device can give it, None where nobody says.
    ``seconds`` are least, expected and most, from loaded pictures to the result. ``remedies`` are command-line options
    each of which would make a run fit that does not.
    """

    scales: tuple[Scale, ...]
    device: str
    precision: str
    convolution: str
    bytes: int
    available: int | None
    seconds: tuple[float, float, float]
    remedies: tuple[str, ...]

    @property
    def fits(self) -> bool:
        return self.available is None or self.bytes <= self.available

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {**dataclasses.asdict(self), "fits": self.fits}

    def __str__(self) -> str:
        """Lines for a person."""
        lines = [
            f"scale {i}  {scale.width}x{scale.height}, {scale.steps} steps of {scale.seconds_per_step:.2g} s"
            + (f", strips of {scale.rows} rows" if scale.rows else "")
            for i, scale in enumerate(self.scales, 1)
        ]
        free = "what is free is not known" if self.available is None else f"{memory.gigabytes(self.available)} is free"
        verdict = "" if self.fits else f": does not fit; {' or '.join(self.remedies) or 'a smaller --size'} would"
        least, expected, most = map(tqdm.format_interval, self.seconds)
        return "\n".join(
            [
                *lines,
                f"memory   {memory.gigabytes(self.bytes)}, {free}{verdict}",
                f"time     {expected} ({least} to {most})",
                f"on       {self.device}, {self.precision}, {self.convolution} convolutions",
            ]
        )


def plan(
    content: Any,
    style: Any,
    *,
    masks: Sequence[Any] = (),
    style_masks: Sequence[Any] = (),
    content_mask: Any = None,
    settings: Settings | None = None,
    **changes: Any,
) -> Plan:
    """Estimate what :func:`fastnst.stylize` with the same arguments will take, without running it.

    Time is measured: this takes as long as eight steps at 192 x 192. Raises as stylize does, except that a run too
    large for the machine is a plan whose ``fits`` is False.
    """
    settings = Settings.of(**changes) if settings is None else settings.but(**changes)
    picture = images.load(content, max_pixels=settings.max_pixels)
    height, width = picture.pixels.shape[-2:]
    height, width = full_size(height, width, settings)
    longest, shortest = max(height, width), min(height, width)
    side = min(longest, round(PROBE_SIDE * math.sqrt(longest / shortest)))
    shape = {"size": side} if settings.crop is None else {"crop": side}
    # The style's size is of no account for a step's time.
    changes = {**shape, "scales": 1, "steps": PROBE_STEPS, "style_scale": 1.0, "tiles": "off", "memory": None}
    trial = settings.at(1).but(**changes)
    stylizer = Stylizer(trial)
    chain, dtype, convolution = stylizer.network.chain, stylizer.dtype, stylizer.chosen.convolution
    check_size(chain, height, width)
    chosen = settings.but(convolution=convolution)
    have = memory.budget(settings, stylizer.device)
    sizes = [shrunk(height, width, shrink) for shrink in shrinks(height, width, settings)]
    strips = [_rows(chain, size, dtype, chosen.at(i), stylizer.device) for i, size in enumerate(sizes, 1)]
    chosen = chosen.at(len(sizes))  # the largest scale needs most
    if strips[-1] is None:
        need = memory.needed(chain, height, width, dtype, chosen)
    else:
        need = memory.strip_needed(chain, strips[-1], height, width, dtype, chosen)
    fits = have is None or need <= have
    pixels, taken = _probe(stylizer, picture, style, masks, style_masks, content_mask)
    precision = str(dtype).removeprefix("torch.")
    rest = PIXELS.get(f"{convolution} {precision}", PIXELS[f"{convolution} float32"])
    a = [seconds / (pixels + rest) for seconds in (min(taken), statistics.median(taken), max(taken))]
    steps = [settings.steps_at(i) for i in range(1, len(sizes) + 1)]
    pixels_of = [(h * w + rest) * (STRIPS if rows else 1) for (h, w), rows in zip(sizes, strips, strict=True)]
    work = sum(pixels * (count + MEASURING) for pixels, count in zip(pixels_of, steps, strict=True))
    return Plan(
        scales=tuple(
            Scale(w, h, count, a[1] * pixels, rows)
            for (h, w), count, pixels, rows in zip(sizes, steps, pixels_of, strips, strict=True)
        ),
        device=str(stylizer.device),
        precision=precision,
        convolution=convolution,
        bytes=need,
        available=have,
        seconds=(work * a[0] * (1 - MARGIN), work * a[1], work * a[2] * (1 + MARGIN)),
        remedies=() if fits or have is None else tuple(memory.remedies(chain, height, width, dtype, chosen, have)),
    )


def _rows(
    chain: Sequence[Layer], size: tuple[int, int], dtype: torch.dtype, settings: Settings, device: torch.device
) -> int | None:
    """The rows of a strip; where nothing fits, of the lowest, or None where strips are not allowed."""
    try:
        return memory.choose_rows(chain, *size, dtype, settings, device)
    except OutOfMemoryError:
        return None if settings.tiles == "off" else memory.LEAST_ROWS


def _probe(stylizer: Stylizer, content: Any, style: Any, *masks: Any) -> tuple[int, list[float]]:
    """Pixels of the probe's image and seconds of each step that counts; where it ends early, of those there are."""
    ends = [0.0]

    def watch(step: Step) -> None:
        ends.append(step.seconds)

    result = stylizer.run(stylizer.load_scene(content, style, *masks), callback=watch)
    seconds = [after - before for before, after in pairwise(ends)]
    return result.image[0, 0].numel(), seconds[NOT_COUNTED:] or seconds

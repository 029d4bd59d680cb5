"""Plans of runs: the memory and time that they will take on this machine, and what to change if they do not fit.

Memory follows :mod:`fastnst.run.memory_model`. Time is measured by a probe: a few steps of the same run on small
pictures. A step takes ``a * (pixels + p)`` seconds, with p fitted by bench/e2e/plan_fit.py for each convolution and
precision; the probe gives a.
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

from fastnst import images
from fastnst.config.settings import Settings
from fastnst.errors import OutOfMemoryError
from fastnst.images.loading import Source
from fastnst.optim.progress import Step
from fastnst.run import memory_limits, memory_model
from fastnst.run.memory_model import Workload
from fastnst.run.scales import check_tile, full_size, scale_sizes
from fastnst.run.scene import Scene
from fastnst.run.stylizer import Stylizer

PIXELS: Mapping[str, float] = memory_model.FITTED["pixels"]
PROBE_SIDE = 192  # the probe's image has as many pixels as a square of this side
PROBE_STEPS = 8
NOT_COUNTED = 2  # first steps, which allocate buffers
MEASURING = 2.0  # cost, in steps, of measuring the targets of a scale and of evaluating its last image
STRIPS = 1.5  # cost of a step with strips, relative to one of the whole image: bench/e2e/tiles.py
MARGIN = 0.15  # uncertainty of the time, in addition to the spread of the probe's steps


@dataclass(frozen=True)
class Scale:
    """A scale of a planned run. ``rows`` are those of a strip, or its columns where the picture is wider than high;
    None if the image is evaluated whole."""

    width: int
    height: int
    steps: int
    seconds_per_step: float
    rows: int | None = None


@dataclass(frozen=True)
class Plan:
    """The expected memory and time of a run. ``print(plan)`` shows it.

    Attributes:
        scales: size, steps and seconds per step of each scale.
        device, precision, convolution: where and how the run would be computed.
        bytes: peak memory of the process.
        available: memory that the device has available for the process; None if unknown.
        seconds: least, expected and most seconds, from loaded pictures to the result.
        remedies: command-line options, each of which makes a run fit that does not.

    Example:
        >>> import torch, fastnst
        >>> found = fastnst.plan(torch.rand(3, 64, 64), torch.rand(3, 64, 64), size=64, scales=1)
        >>> sorted(found.to_dict())[:3]
        ['available', 'bytes', 'convolution']
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
        """Whether the run fits into memory."""
        return self.available is None or self.bytes <= self.available

    def to_dict(self) -> dict[str, Any]:
        """The plan as plain values, for JSON."""
        return {**dataclasses.asdict(self), "fits": self.fits}

    def __str__(self) -> str:
        lines = [
            f"scale {i}  {scale.width}x{scale.height}, {scale.steps} steps of {scale.seconds_per_step:.2g} s"
            + (f", strips of {scale.rows} {'columns' if scale.width > scale.height else 'rows'}" if scale.rows else "")
            for i, scale in enumerate(self.scales, 1)
        ]
        free = "free memory unknown" if self.available is None else f"{memory_limits.gigabytes(self.available)} is free"
        verdict = "" if self.fits else f": does not fit; {' or '.join(self.remedies) or 'a smaller --size'} would"
        least, expected, most = map(tqdm.format_interval, self.seconds)
        return "\n".join(
            [
                *lines,
                f"memory   {memory_limits.gigabytes(self.bytes)}, {free}{verdict}",
                f"time     {expected} ({least} to {most})",
                f"on       {self.device}, {self.precision}, {self.convolution} convolutions",
            ]
        )


def plan(
    content: Source,
    style: Source | Sequence[Source],
    *,
    masks: Sequence[Source | None] = (),
    style_masks: Sequence[Source | None] = (),
    content_mask: Source | None = None,
    settings: Settings | None = None,
    **changes: Any,
) -> Plan:
    """Estimate memory and time of :func:`fastnst.stylize` with the same arguments, without running it.

    Time is measured, which takes as long as eight steps at 192 x 192.

    Raises the errors of :func:`fastnst.stylize`, except that a run that is too large for the machine gives a plan whose
    ``fits`` is False.

    Example:
        >>> import torch, fastnst
        >>> found = fastnst.plan(torch.rand(3, 64, 64), torch.rand(3, 64, 64), size=64, scales=1)
        >>> found.fits, found.scales[0].width
        (True, 64)
    """
    settings = Settings.from_preset(**changes) if settings is None else settings.replace(**changes)
    return Planner().plan(content, style, settings, masks=masks, style_masks=style_masks, content_mask=content_mask)


class Planner:
    """Plans that share their trials: one that needs the same trial as a plan before measures nothing.

    Args:
        kept: number of trials that are kept.

    Example:
        >>> import torch, fastnst
        >>> planner, picture = fastnst.run.planning.Planner(), torch.rand(3, 64, 64)
        >>> plans = [planner.plan(picture, picture, fastnst.Settings(size=64, scales=1, seed=seed)) for seed in (1, 2)]
        >>> plans[0].seconds == plans[1].seconds
        True
    """

    def __init__(self, kept: int = 16) -> None:
        self._kept = kept
        self._trials: dict[object, tuple[int, list[float]]] = {}

    def plan(
        self,
        content: Source,
        style: Source | Sequence[Source],
        settings: Settings,
        *,
        masks: Sequence[Source | None] = (),
        style_masks: Sequence[Source | None] = (),
        content_mask: Source | None = None,
        measure: bool = True,
    ) -> Plan:
        """As :func:`plan`. Without ``measure``, times are NaN unless the trial was made before."""
        picture = images.load(content, max_pixels=settings.max_pixels)
        height, width = full_size(*picture.size, settings)
        stylizer = Stylizer(_probe_settings(settings, height, width))
        stylizer.setup.sizing.check_size(height, width)
        check_tile(height, width, settings)
        scene = stylizer.load_scene(picture, style, masks, style_masks, content_mask)
        key = (stylizer.settings.replace(seed=0), scene.content.size, len(scene.styles), scene.masked)
        trial = self._trials.pop(key, None)
        if trial is None and measure:
            trial = _probe(stylizer, scene)
        if trial is not None:
            self._trials[key] = trial
            for old in list(self._trials)[: -self._kept]:
                del self._trials[old]
        pixels, seconds = trial or (1, [math.nan])
        return _estimate(settings, stylizer, (height, width), pixels, seconds)


def _probe_settings(settings: Settings, height: int, width: int) -> Settings:
    """The settings of the probe of a run at this size."""
    longest, shortest = max(height, width), min(height, width)
    side = min(longest, round(PROBE_SIDE * math.sqrt(longest / shortest)))
    size = {"size": side} if settings.crop is None else {"crop": side}
    # The size of the style does not matter for the time of a step, nor whether the picture continues.
    changes = {**size, "scales": 1, "steps": PROBE_STEPS, "style_scale": 1.0, "tiles": "off", "memory": None}
    return settings.at(1).replace(**changes, tileable="none")


def _probe(stylizer: Stylizer, scene: Scene) -> tuple[int, list[float]]:
    """The pixels of the probe's image and the seconds of each measured step, fewer if the run ends early."""
    ends = [0.0]

    def record(step: Step) -> None:
        ends.append(step.seconds)

    result = stylizer.run(scene, callback=record)
    seconds = [after - before for before, after in pairwise(ends)]
    return result.image[0, 0].numel(), seconds[NOT_COUNTED:] or seconds


def _estimate(
    settings: Settings, stylizer: Stylizer, size: tuple[int, int], probe_pixels: int, probe_seconds: Sequence[float]
) -> Plan:
    network, convolution = stylizer.network, stylizer.setup.chosen.convolution
    settings = settings.replace(convolution=convolution)
    sizes = scale_sizes(*size, settings)
    works = [stylizer.setup.sizing.workload(*one, settings.at(scale)) for scale, one in enumerate(sizes, 1)]
    strips = [_rows(work, network.device) for work in works]
    last = works[-1]  # the largest scale needs most memory
    need = last.bytes() if strips[-1] is None else last.strip_bytes(strips[-1])
    have = memory_limits.budget(settings, network.device)
    fits = have is None or need <= have
    precision = str(network.dtype).removeprefix("torch.")
    offset = PIXELS.get(f"{convolution} {precision}", PIXELS[f"{convolution} float32"])
    rates = [seconds / (probe_pixels + offset) for seconds in _least_median_most(probe_seconds)]
    steps = [settings.steps_at(i) for i in range(1, len(sizes) + 1)]
    costs = [(h * w + offset) * (STRIPS if rows else 1) for (h, w), rows in zip(sizes, strips, strict=True)]
    total = sum(cost * (count + MEASURING) for cost, count in zip(costs, steps, strict=True))
    return Plan(
        scales=tuple(
            Scale(w, h, count, rates[1] * cost, rows)
            for (h, w), count, cost, rows in zip(sizes, steps, costs, strips, strict=True)
        ),
        device=str(network.device),
        precision=precision,
        convolution=convolution,
        bytes=need,
        available=have,
        seconds=(total * rates[0] * (1 - MARGIN), total * rates[1], total * rates[2] * (1 + MARGIN)),
        remedies=() if fits or have is None else tuple(memory_limits.remedies(last, have)),
    )


def _least_median_most(seconds: Sequence[float]) -> tuple[float, float, float]:
    return min(seconds), statistics.median(seconds), max(seconds)


def _rows(work: Workload, device: torch.device) -> int | None:
    """The rows of a strip; if nothing fits, the least rows, or None if strips are off."""
    try:
        return memory_limits.choose_rows(work, device)
    except OutOfMemoryError:
        return None if work.settings.tiles == "off" else memory_limits.LEAST_ROWS

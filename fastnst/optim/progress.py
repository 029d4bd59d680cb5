"""The argument of callbacks, and the clock of a run."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

from torch import Tensor

from fastnst.objective.protocol import Losses
from fastnst.optim.averaging import Average


@dataclass(frozen=True)
class Step:
    """The state of a run after one step, passed to the callback.

    Attributes:
        scale: number of the current scale, from 1.
        scales: number of scales of the run.
        step: number of the step within the scale, from 1.
        steps: number of steps of this scale.
        losses: the losses of the image before the step.
        seconds: seconds since the start of the run.
        remaining: estimate of the seconds left for the whole run.
        memory: bytes held by the process; on an accelerator, the most that its allocator has held, if it tells.
        retries: how often the step was shortened before it was accepted.
        steps_before: number of steps of the scales before this one.
        size: height and width of the picture that the run makes.

    Example:
        >>> import torch, fastnst
        >>> def watch(step):
        ...     print(f"{step.step}/{step.steps}", tuple(step.image.shape))
        >>> photo, painting = torch.rand(3, 64, 64), torch.rand(3, 64, 64)
        >>> _ = fastnst.stylize(photo, painting, size=64, steps=2, scales=1, callback=watch)
        1/2 (1, 3, 64, 64)
        2/2 (1, 3, 64, 64)
    """

    scale: int
    scales: int
    step: int
    steps: int
    losses: Losses
    seconds: float
    remaining: float
    memory: int
    retries: int
    steps_before: int
    size: tuple[int, int]
    _image: Tensor | None = field(repr=False)
    _average: Average | None = field(repr=False)
    _view: Callable[[Tensor], Tensor] | None = field(default=None, repr=False)  # from what is optimized to the image

    @cached_property
    def image(self) -> Tensor:
        """A copy of the image after the step, ``[1, 3, H, W]`` in 0..1, float32, on the CPU; the moving average with
        ``settings.average``. The first access must happen inside the callback."""
        if self._image is None or self._average is None:
            raise RuntimeError("Step.image: the run has moved on; read it inside the callback")
        image = self._average.with_image(self._image)
        return to_picture(image if self._view is None else self._view(image))

    @property
    def count(self) -> int:
        """Number of steps taken so far, over all scales."""
        return self.steps_before + self.step

    @property
    def last(self) -> bool:
        """Whether this is the last step of the run."""
        return (self.scale, self.step) == (self.scales, self.steps)

    def release(self) -> None:
        """Drop the references to the tensors of the run. The loop calls this when the callback returns."""
        object.__setattr__(self, "_image", None)
        object.__setattr__(self, "_average", None)
        object.__setattr__(self, "_view", None)


Callback = Callable[[Step], "bool | None"]
"""Called after each step; returning True stops the run, which then returns the image so far."""


@dataclass
class Clock:
    """Progress of a whole run in units of work (pixels times steps), to estimate the time left."""

    total: float
    done: float = 0.0
    start: float = field(default_factory=time.perf_counter)

    @property
    def seconds(self) -> float:
        """Seconds since the start."""
        return time.perf_counter() - self.start

    def advance(self, work: float) -> tuple[float, float]:
        """Add ``work`` to the work done; return the seconds since the start and an estimate of the seconds left."""
        self.done += work
        seconds = self.seconds
        return seconds, seconds * max(self.total - self.done, 0.0) / self.done


def to_picture(image: Tensor) -> Tensor:
    """Convert pixels in 0..255, as they are optimized, to a picture in 0..1, float32, on the CPU."""
    return (image.detach().float().cpu() / 255).clamp_(0, 1)

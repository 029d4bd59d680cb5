"""The result of a run: the styled picture, and what it was made from."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from fastnst import images
from fastnst.config.provenance import Input, describe
from fastnst.config.settings import Settings
from fastnst.images import Picture
from fastnst.images.saving import has_depths
from fastnst.images.scaling import resize_wrapped
from fastnst.objective.protocol import Losses
from fastnst.run import colors, photoreal
from fastnst.run.hole import Hole

SHOWN_SIDE = 1024


@dataclass(frozen=True)
class Result:
    """A styled picture. In a notebook it shows itself.

    Attributes:
        image: ``[1, 3, H, W]`` in 0..1, float32, on the CPU.
        alpha: ``[1, 1, H, W]`` in 0..1, the transparency of the content; None if it had none.
        settings: the settings of the run, with the strips that were used.
        trace: the losses of each step, one tuple per scale.
        seconds: duration of the run.
        stopped: None, or why the run ended early: ``"callback"``, ``"interrupt"``, or ``"stalled"`` if no step reduced
            the loss any more.
        inputs: the files that the picture was made from: ``content``, ``style``, and settings that name a file.
        bits: bits per channel to write in formats with a choice; None: the format's default.

    Example:
        >>> import tempfile, torch, fastnst
        >>> result = fastnst.stylize(torch.rand(3, 64, 64), torch.rand(3, 64, 64), size=64, steps=2, scales=1)
        >>> len(result.trace[0]), result.stopped
        (2, None)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     result.save(f"{folder}/out.png").name
        'out.png'
    """

    image: Tensor
    alpha: Tensor | None
    settings: Settings
    trace: tuple[tuple[Losses, ...], ...]
    seconds: float
    stopped: str | None
    inputs: Mapping[str, Input] = field(default_factory=dict)
    bits: int | None = None

    def save(self, path: str | PathLike[str], *, with_settings: bool = True, parents: bool = False) -> Path:
        """Write the picture in the format of the suffix.

        Args:
            path: the file.
            with_settings: store the settings and the names and digests of the input files in the picture.
            parents: create missing folders.

        Returns:
            The path.

        Raises:
            UsageError: an unknown suffix. ImageError: the file cannot be written.
        """
        facts = describe(self.settings, self.inputs, Path(path).parent) if with_settings else None
        bits = self.bits if has_depths(path) else None
        return images.save(path, self.image, alpha=self.alpha, settings=facts, bits=bits, parents=parents)

    def _repr_png_(self) -> bytes:
        """The picture as PNG, at most ``SHOWN_SIDE`` pixels on the longer side: how a notebook shows it."""
        planes = self.image if self.alpha is None else torch.cat((self.image, self.alpha), 1)
        height, width = planes.shape[-2:]
        if max(height, width) > SHOWN_SIDE:
            planes = images.resize(planes, *images.fit(height, width, SHOWN_SIDE))
        levels = (planes[0].clamp(0, 1) * 255).round().byte().permute(1, 2, 0).contiguous()
        file = io.BytesIO()
        Image.fromarray(levels.numpy()).save(file, "PNG")
        return file.getvalue()


def finish(image: Tensor, content: Picture, settings: Settings, hole: Hole | None = None) -> Tensor:
    """The picture to show for an image ``[1, 3, h, w]`` in 0..1 of any scale: at the content's size and, with
    ``photoreal`` and ``keep_color``, with the content's edges and colors; of a hole the whole picture."""
    resized = resize_wrapped(image, *content.size, settings.wraps)
    if hole is not None:
        return hole.paste(resized)
    if settings.photoreal:
        resized = photoreal.smooth(resized, content.pixels, settings.photoreal)
    # Colors come last, so that they are those of the content exactly.
    return colors.restore(resized, content.pixels, settings.keep_color)

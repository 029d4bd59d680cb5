"""The result of a run: the styled picture, and what it was made from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import IO, Any, overload

import numpy as np
import PIL.Image
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastnst import images
from fastnst.config.provenance import Input, describe
from fastnst.config.settings import Settings
from fastnst.images import Picture
from fastnst.images.scaling import resize_wrapped
from fastnst.images.targets import has_depths
from fastnst.objective.protocol import Losses
from fastnst.run import colors, photoreal, showing
from fastnst.run.hole import Hole


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

    @overload
    def save(
        self,
        path: str | PathLike[str],
        *,
        format: str | None = ...,
        with_settings: bool = ...,
        parents: bool = ...,
    ) -> Path: ...
    @overload
    def save(self, path: IO[bytes], *, format: str | None = ..., with_settings: bool = ...) -> None: ...
    def save(
        self,
        path: str | PathLike[str] | IO[bytes],
        *,
        format: str | None = None,
        with_settings: bool = True,
        parents: bool = False,
    ) -> Path | None:
        """Write the picture in the format of the suffix.

        Args:
            path: the file, or a file object that is open for writing bytes, such as ``io.BytesIO()``.
            format: the format instead of the suffix, such as ``"PNG"`` or ``"TIFF"``: see :func:`fastnst.images.save`.
                A file object without a name needs it.
            with_settings: store the settings and the names and digests of the input files in the picture.
            parents: create missing folders.

        Returns:
            The path; None for a file object.

        Raises:
            UsageError: an unknown format. ImageError: the file cannot be written.
        """
        bits = self.bits if has_depths(path, format) else None
        keywords: dict[str, Any] = {"alpha": self.alpha, "bits": bits, "format": format}
        if isinstance(path, (str, PathLike)):
            facts = describe(self.settings, self.inputs, Path(path).parent) if with_settings else None
            return images.save(path, self.image, settings=facts, parents=parents, **keywords)
        facts = describe(self.settings, self.inputs, None) if with_settings else None
        images.save(path, self.image, settings=facts, **keywords)
        return None

    def to_pil(self) -> PIL.Image.Image:
        """The picture as a Pillow image of 8 bits, mode RGB, or RGBA if it has alpha.

        The values are ``floor(255 x + 1/2)``, as in a file of 8 bits.
        """
        return showing.to_pil(self.image, self.alpha)

    def to_numpy(self) -> NDArray[np.float32]:
        """A copy of the picture as an array ``[H, W, 3]``, or ``[H, W, 4]`` if it has alpha: float32 in 0..1."""
        planes = self.image if self.alpha is None else torch.cat((self.image, self.alpha), 1)
        return np.array(planes[0].permute(1, 2, 0).numpy(), np.float32, order="C")

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, Any]:
        """How a notebook shows the result: the picture, at most ``SHOWN_SIDE`` pixels on the longer side, with what
        it was made from as its description, and a caption."""
        planes = self.image if self.alpha is None else torch.cat((self.image, self.alpha), 1)
        small = showing.reduced(planes, showing.SHOWN_SIDE, exact=True)
        kind, data = showing.encode(showing.to_pil(small))
        size = small.shape[-2], small.shape[-1]
        caption = self._caption()
        figure = showing.figure(showing.img(kind, data, self._alt(), size), caption)
        return {"text/html": figure, kind: data, "text/plain": f"<fastnst.Result: {caption}>"}

    def _caption(self) -> str:
        height, width = self.image.shape[-2:]
        losses = [losses for scale in self.trace for losses in scale]
        parts = [f"{width} \u00d7 {height} pixels", f"{len(losses)} step{'s' * (len(losses) != 1)}"]
        parts.append(showing.duration(self.seconds))
        if losses:
            parts.append(f"loss {losses[-1].total:.4g}")
        if self.stopped is not None:
            parts.append(f"stopped: {self.stopped}")
        return ", ".join(parts)

    def _alt(self) -> str:
        """A description of the picture by the names of its files, without their folders."""
        names = {part: used.path.name for part, used in self.inputs.items()}
        styles = [name for part, name in names.items() if part == "style" or part.removeprefix("style_").isdigit()]
        content = names.get("content", "A picture")
        return f"{content} in the style of {', '.join(styles) if styles else 'another picture'}"


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

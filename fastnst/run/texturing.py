"""``texture``: a picture of any size with the texture of one or several style pictures, without a content picture."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from typing import Any

import torch

from fastnst.config.checks import check_number
from fastnst.config.ranges import SIDE, SIZE
from fastnst.config.settings import Settings
from fastnst.errors import UsageError, shown
from fastnst.images import Picture
from fastnst.images.loading import Source
from fastnst.optim.progress import Callback
from fastnst.run.checkpoint import EVERY
from fastnst.run.result import Result
from fastnst.run.stylizer import stylize

PRESET = "texture"
"""The preset of textures."""
DEFAULT_SIZE = (512, 512)
"""Width and height of a texture, if no other is given."""


def texture(
    style: Source | Sequence[Source],
    *,
    size: tuple[int, int] | int | str = DEFAULT_SIZE,
    masks: Sequence[Source | None] = (),
    style_masks: Sequence[Source | None] = (),
    settings: Settings | None = None,
    callback: Callback | None = None,
    checkpoint: str | PathLike[str] | None = None,
    checkpoint_every: int = EVERY,
    resume: bool = False,
    force: bool = False,
    **changes: Any,
) -> Result:
    """Synthesize a picture with the texture of ``style``.

    The image minimizes ``style_weight * style + tv_weight * total variation`` from noise. With the preset ``texture``,
    the style loss is that of Gatys, Ecker and Bethge, "Texture synthesis using convolutional neural networks", 2015:
    ``sum_l w_l sum (G - A)^2 / (4 C^2)`` with Gram matrices ``G = F F^T / N`` at relu1_1 and pool1 to pool4.

    Args:
        style: a path, a file object, a Pillow image, an array or a tensor (see :func:`fastnst.images.load`), or a list
            of several, weighted by the setting ``style_weights``. Each is used at its own size, times ``style_scale``.
        size: width and height of the result in pixels, ``"1024x512"``, or the side of a square.
        masks: one per style, of the result's proportions: white where the style goes; see :func:`fastnst.stylize`.
        style_masks: one per style, of that style's size: which part of it is used.
        settings: the settings to start from; default ``Settings.from_preset("texture")``. See :func:`for_textures`.
        callback: as for :func:`fastnst.stylize`.
        checkpoint: as for :func:`fastnst.stylize`, as are ``checkpoint_every``, ``resume`` and ``force``.
        checkpoint_every: steps between two saves.
        resume: continue from ``checkpoint`` if the file exists.
        force: overwrite a checkpoint that is not or cannot be resumed.
        changes: any field of :class:`fastnst.Settings`, such as ``seed=1``.

    Returns:
        A :class:`fastnst.Result`; ``result.image`` is ``[1, 3, H, W]`` in 0..1.

    Raises:
        UsageError: settings or arguments that are not valid, or a size below what the deepest layer needs.
        ImageError, WeightsError, OutOfMemoryError, CheckpointError: as :func:`fastnst.stylize`.

    Example:
        >>> import torch, fastnst
        >>> result = fastnst.texture(torch.rand(3, 64, 64), size=(96, 64), steps=2, scales=1)
        >>> result.image.shape
        torch.Size([1, 3, 64, 96])
    """
    settings = (
        Settings.from_preset(**{"preset": PRESET, **changes}) if settings is None else settings.replace(**changes)
    )
    sides = parse_size(size)
    return stylize(
        blank(sides),
        style,
        masks=masks,
        style_masks=style_masks,
        settings=for_textures(settings, sides),
        callback=callback,
        checkpoint=checkpoint,
        checkpoint_every=checkpoint_every,
        resume=resume,
        force=force,
    )


def for_textures(settings: Settings, size: tuple[int, int]) -> Settings:
    """The settings for a texture of a width and height, a run without a content picture.

    The content loss is left out, noise replaces ``init = "content"``, and ``size`` and ``crop`` are unset, since the
    size is an argument. Raises UsageError for settings that need the colors or edges of a content picture, and for
    sides in ``scales`` of which the last is not the longer one of ``size``.

    Example:
        >>> from fastnst import Settings
        >>> for_textures(Settings.from_preset("gatys"), (512, 256)).content_weight
        0.0
    """
    for name in ("keep_color", "match_color"):
        if getattr(settings, name) != "none":
            raise UsageError(f"{name} {getattr(settings, name)!r}: a texture has no content picture with colors to use")
    if settings.photoreal:
        raise UsageError(
            f"photoreal {settings.photoreal:g}: a texture has no content picture whose edges it could have"
        )
    start = "noise" if settings.init == "content" else settings.init
    longest = max(size) if isinstance(settings.scales, tuple) else None
    return settings.replace(size=longest, crop=None, content_weight=0.0, content_layers=(), init=start)


def blank(size: tuple[int, int]) -> Picture:
    """A gray picture of a width and height, in place of a content picture.

    Example:
        >>> blank((96, 64)).size
        (64, 96)
    """
    width, height = size
    return Picture(torch.full((1, 1, 1, 1), 0.5).expand(1, 3, height, width))


def parse_size(size: object) -> tuple[int, int]:
    """Width and height from a pair, from text such as ``"1024x512"`` or ``"512"``, or from the side of a square.

    Raises UsageError for anything else, and for a side that is out of range.

    Example:
        >>> parse_size("1024x512"), parse_size(256)
        ((1024, 512), (256, 256))
    """
    if isinstance(size, str):
        square = size.isascii() and size.isdigit() and len(size) < 9
        if not square and not SIZE.fullmatch(size):
            raise UsageError(f"size: expected width and height like 1024x512, or one side, got {shown(size)}")
        size = tuple(map(int, size.split("x")))
    sides = tuple(size) if isinstance(size, (tuple, list)) else (size,)
    if len(sides) not in (1, 2):
        raise UsageError(f"size: expected width and height like 1024x512, or one side, got {shown(size)}")
    width, height = (check_number("size", side, SIDE) for side in (sides[0], sides[-1]))
    return width, height

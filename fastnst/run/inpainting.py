"""``inpaint``: fill a hole of a picture with the texture of the rest, or of another picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from os import PathLike
from typing import Any

import torch
from torch import Tensor

from fastnst.config.settings import Settings
from fastnst.errors import UsageError
from fastnst.images import Picture
from fastnst.images.loading import Source
from fastnst.network.encoder import ModuleEncoder
from fastnst.network.registered import RegisteredEncoder
from fastnst.network.vgg import VGG
from fastnst.optim.progress import Callback
from fastnst.run.checkpoint import EVERY, files, open_checkpoint
from fastnst.run.clashes import named, refuse_clashes
from fastnst.run.hole import Hole, bits_of, dilated, smooth_fill
from fastnst.run.result import Result
from fastnst.run.scene import Scene, StylePicture, listed, mask_values
from fastnst.run.stylizer import Stylizer
from fastnst.strips.wrapped import margin_rows

PRESET = "inpaint"
"""The preset of inpainting."""
REGIONS = 2
"""Parts of a window whose statistics are compared: the hole, and its border."""
NEAR = 24
"""Width in pixels of the part around a hole that its texture is taken from, at least."""


def inpaint(
    picture: Source,
    mask: Source,
    style: Source | Sequence[Source] = (),
    *,
    style_masks: Sequence[Source | None] = (),
    settings: Settings | None = None,
    callback: Callback | None = None,
    checkpoint: str | PathLike[str] | None = None,
    checkpoint_every: int = EVERY,
    resume: bool = False,
    force: bool = False,
    **changes: Any,
) -> Result:
    """Fill a hole of ``picture`` with the texture of what surrounds it, or of ``style``.

    The loss is that of :func:`fastnst.texture` without pool4, once at the positions of the hole and those that touch
    it, and once at its border; the target is measured around the hole. The optimized image is ``known + m (x - known)``
    with the mask ``m``, so that pixels outside the hole are the known ones at every step and scale. Only a window
    around the hole is computed.

    Args:
        picture: a path, a file object, a Pillow image, an array or a tensor (see :func:`fastnst.images.load`).
        mask: of the picture's proportions: white where it is filled, black where it is kept, gray where the filling is
            mixed with what is there, linearly; transparent is black.
        style: pictures that the texture is taken from, at their own size; none: the picture around the hole, up to a
            quarter of its longer side away and at least 24 pixels.
        style_masks: one per style, or one for the picture: which part the texture is taken from, instead.
        settings: the settings to start from; default ``Settings.from_preset("inpaint")``.
        callback: as for :func:`fastnst.stylize`; ``Step.image`` is the window around the hole.
        checkpoint: as for :func:`fastnst.stylize`, as are ``checkpoint_every``, ``resume`` and ``force``.
        checkpoint_every: steps between two saves.
        resume: continue from ``checkpoint`` if the file exists.
        force: overwrite a checkpoint that is not or cannot be resumed.
        changes: any field of :class:`fastnst.Settings`.

    Returns:
        A :class:`fastnst.Result` of the picture's size. Pixels where the mask is black have the picture's values
        exactly; :meth:`Result.save` writes the bits per channel that hold them.

    Raises:
        UsageError: settings or arguments that are not valid, a mask that is black everywhere, or nowhere.
        ImageError, WeightsError, OutOfMemoryError, CheckpointError: as :func:`fastnst.stylize`.

    Example:
        >>> import torch, fastnst
        >>> picture, mask = torch.rand(3, 64, 64), torch.zeros(1, 64, 64)
        >>> mask[:, 20:30, 20:40] = 1
        >>> result = fastnst.inpaint(picture, mask, steps=2, scales=1)
        >>> bool((result.image[0] == picture)[:, mask[0] == 0].all())
        True
    """
    if settings is None:
        settings = Settings.from_preset(**{"preset": PRESET, **changes})
    else:
        settings = settings.replace(**changes)
    if checkpoint is not None:
        sources = {"picture": picture, "mask": mask, "style": style, "style mask": style_masks}
        refuse_clashes(files(checkpoint), named(settings, **sources))
    with open_checkpoint(checkpoint, every=checkpoint_every, resume=resume, force=force) as opened:
        stylizer = Stylizer(for_inpainting(settings))
        scene = inpaint_scene(stylizer, picture, mask, listed(style), style_masks)
        return stylizer.run(scene, callback=callback, checkpoint=opened)


def for_inpainting(settings: Settings) -> Settings:
    """The settings for inpainting: without content loss, at the picture's size.

    Raises UsageError for settings that change what is outside the hole, and for sides in ``scales``.
    """
    if settings.keep_color != "none":
        raise UsageError(f"keep_color {settings.keep_color!r}: inpainting has no colors to keep inside the hole")
    if settings.photoreal:
        raise UsageError(f"photoreal {settings.photoreal:g}: inpainting has no edges to restore inside the hole")
    if settings.tileable != "none":
        raise UsageError(f"tileable {settings.tileable!r}: inpainting keeps the picture outside the hole as it is")
    if isinstance(settings.scales, tuple):
        raise UsageError("scales: expected their number for inpainting, whose size is that of the picture")
    return settings.replace(size=None, crop=None, content_weight=0.0, content_layers=())


def inpaint_scene(
    stylizer: Stylizer,
    picture: Source,
    mask: Source,
    styles: Sequence[Source] = (),
    style_masks: Sequence[Source | None] = (),
) -> Scene:
    """The scene of a window around the hole: arguments and errors as for :func:`inpaint`."""
    loader = stylizer.loader
    whole = loader.read(picture)
    hole = loader.mask("inpainting mask", mask, whole, lambda x: x, "what is filled")
    assert hole is not None
    weight = mask_values(hole)
    assert weight is not None
    if bool((weight > 0).all()):
        title = f"inpainting mask {hole.path}" if hole.path else "inpainting mask"
        raise UsageError(f"{title}: has no black pixel; leave black what is kept")
    known = replace(whole, pixels=smooth_fill(whole.pixels, weight > 0.5))
    top, bottom, left, right = _window(weight, _margin(stylizer.network, whole.size) + stylizer.settings.stride)
    rows, columns = slice(top, bottom), slice(left, right)
    window = Picture(known.pixels[:, :, rows, columns].contiguous(), path=whole.path)
    part = replace(hole, pixels=weight[:, :, rows, columns].contiguous())
    regions = _regions(part.pixels, stylizer.settings.stride)
    if len(style_masks) not in ((0, max(len(styles), 1))):
        raise UsageError(f"{len(style_masks)} style masks for {max(len(styles), 1)} pictures; give one for each")
    stylizer.check(*window.size)
    found = []
    for i, source in enumerate(styles or [known]):
        style = loader.read(source)
        given = loader.mask("style mask", style_masks[i], style, lambda x: x) if style_masks else None
        outside = None if styles else _around(weight) if given is None else (weight == 0).to(weight)
        source, part_of_it = loader.style(style, window), _both(given, outside)
        found += [StylePicture(source, region, part_of_it) for region in regions]
    start, hole_of = loader.start(window), Hole(known, top, left, part, bits_of(whole.pixels))
    return Scene(window, tuple(found), start=start, hole=hole_of, regions=REGIONS)


def _margin(network: VGG | ModuleEncoder, size: tuple[int, int]) -> int:
    """The pixels around a hole that features of it depend on; for a module of the user's the whole picture."""
    if isinstance(network, RegisteredEncoder):
        return network.reach
    return max(size) if isinstance(network, ModuleEncoder) else margin_rows(network.chain)


def _regions(weight: Tensor, reach: int) -> list[Picture]:
    """The parts of the window whose statistics are compared: the hole with what touches it, and its border.

    The border is compared by itself, since a seam is a small part of the statistics of the whole hole.
    """
    wide, narrow = dilated(weight, reach), 1 - dilated(1 - weight, reach)
    return [Picture(wide), Picture(wide - narrow)]


def _around(weight: Tensor) -> Tensor:
    """1 outside the hole up to a quarter of its longer side away, at least ``NEAR`` pixels; else 0."""
    rows, columns = (int((weight > 0).any(axis).sum()) for axis in (3, 2))
    near = dilated((weight > 0).to(weight), max(max(rows, columns) // 4, NEAR))
    return near * (weight == 0)


def _both(mask: Picture | None, weight: Tensor | None) -> Picture | None:
    """A mask times a weight ``[1, 1, H, W]``, either of which may be None."""
    values = mask_values(mask)
    if values is None or weight is None:
        return mask if weight is None else Picture(weight)
    product = values * weight
    if not bool((product > 0).any()):
        raise UsageError("style mask: is black everywhere outside the hole; paint white what the texture is taken from")
    return Picture(product, path=None if mask is None else mask.path)


def _window(weight: Tensor, margin: int) -> tuple[int, int, int, int]:
    """The first and last rows and columns, exclusive, of the part around the hole that features of it depend on."""
    found = []
    for axis in (3, 2):
        inside = torch.nonzero((weight > 0).any(axis).flatten()).flatten()
        size = weight.shape[5 - axis]
        found += [max(int(inside[0]) - margin, 0), min(int(inside[-1]) + 1 + margin, size)]
    top, bottom, left, right = found
    return top, bottom, left, right

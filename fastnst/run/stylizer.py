"""``stylize`` and ``Stylizer``: from pictures and settings to a styled picture."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from os import PathLike
from typing import Any

import torch
from torch import Tensor

from fastnst.config.settings import Settings
from fastnst.distributed import SINGLE, Ranks
from fastnst.images import Picture
from fastnst.images.loading import Source
from fastnst.network.encoder import ModuleEncoder
from fastnst.network.vgg import VGG
from fastnst.optim.progress import Callback
from fastnst.run.checkpoint import EVERY, Checkpoint, files, open_checkpoint
from fastnst.run.clashes import named, refuse_clashes
from fastnst.run.hole import Hole
from fastnst.run.result import Result, finish
from fastnst.run.scene import Scene, SceneLoader
from fastnst.run.scene_run import SceneRun
from fastnst.run.setup import Setup, set_up


class Stylizer:
    """A network and settings, ready for any number of pictures. Style targets are kept for the next run.

    Args:
        settings: the settings of the runs.
        ranks: the processes that make each picture together: see :mod:`fastnst.distributed`.
        network: a module of yours instead of the network, device and precision that the settings name. Pictures are
            then made whole, by one process, without an estimate of the memory.

    Raises:
        UsageError: settings that cannot be met on this machine.
        WeightsError: weights that cannot be read or lack a layer.

    Example:
        >>> import fastnst
        >>> stylizer = fastnst.Stylizer(fastnst.Settings.from_preset(size=64, steps=2, scales=1))
        >>> scene = stylizer.load_scene(torch.rand(3, 64, 64), torch.rand(3, 64, 64))
        >>> stylizer.run(scene).image.shape
        torch.Size([1, 3, 64, 64])
    """

    @torch.inference_mode(False)
    def __init__(self, settings: Settings, ranks: Ranks = SINGLE, *, network: ModuleEncoder | None = None) -> None:
        self._begin(set_up(settings, ranks, network))

    def _begin(self, setup: Setup) -> None:
        self.settings, self.setup = setup.settings, setup
        self.loader = SceneLoader(setup.settings, setup.sizing)

    @torch.inference_mode(False)
    def replace(self, **changes: Any) -> Stylizer:
        """A stylizer with other settings, which shares the network and the style targets where they serve both.

        Raises as :class:`Stylizer` and :meth:`fastnst.Settings.replace`.
        """
        other = copy.copy(self)
        other._begin(self.setup.with_settings(self.settings.replace(**changes)))
        return other

    @property
    def network(self) -> VGG | ModuleEncoder:
        """The network."""
        return self.setup.network

    def check(self, height: int, width: int) -> None:
        """Raise UsageError if the network is too deep for this size, OutOfMemoryError if memory is too small."""
        self.setup.sizing.check(height, width)

    @torch.inference_mode(False)
    def load_scene(
        self,
        content: Source,
        style: Source | Sequence[Source],
        masks: Sequence[Source | None] = (),
        style_masks: Sequence[Source | None] = (),
        content_mask: Source | None = None,
    ) -> Scene:
        """Load the pictures of a run at the sizes they are used in: arguments and errors as for :func:`stylize`."""
        return self.loader.scene(content, style, masks, style_masks, content_mask)

    @torch.inference_mode(False)  # inside it, losses that autograd differentiates would have no gradient
    def run(self, scene: Scene, *, callback: Callback | None = None, checkpoint: Checkpoint | None = None) -> Result:
        """Style the content of a scene.

        Args:
            scene: the pictures, from :meth:`load_scene`.
            callback: called with a :class:`fastnst.Step` after each step; returning True stops the run.
            checkpoint: resumed from and written to; the caller enters and leaves it.
        """
        return SceneRun(self.setup, scene, callback, checkpoint).run()

    def finish(self, image: Tensor, content: Picture, hole: Hole | None = None) -> Tensor:
        """The picture to show for an image of any scale, such as ``Step.image``.

        Returns ``[1, 3, H, W]`` in 0..1 at the content's size and, with ``photoreal`` and ``keep_color``, with the
        content's edges and colors; with the ``hole`` of a scene, the whole picture.
        """
        return finish(image, content, self.settings, hole)

    def settings_with_strips(self) -> Settings:
        """The settings with ``tiles`` as chosen by memory so far: they give the same pixels again."""
        return self.setup.sizing.with_strips(self.settings)


def stylize(
    content: Source,
    style: Source | Sequence[Source],
    *,
    masks: Sequence[Source | None] = (),
    style_masks: Sequence[Source | None] = (),
    content_mask: Source | None = None,
    settings: Settings | None = None,
    callback: Callback | None = None,
    checkpoint: str | PathLike[str] | None = None,
    checkpoint_every: int = EVERY,
    resume: bool = False,
    force: bool = False,
    **changes: Any,
) -> Result:
    """Render the picture ``content`` in the style of the picture ``style``.

    The image minimizes ``content_weight * content + style_weight * style + tv_weight * total variation`` (Gatys, Ecker
    and Bethge, "A neural algorithm of artistic style", 2015).

    Args:
        content: a path, a file object, a Pillow image, an array or a tensor (see :func:`fastnst.images.load`).
        style: the same, or a list of several, weighted by the setting ``style_weights``.
        masks: one per style, of the content's size: white where the style goes, black where it does not, gray for
            partly; None for everywhere. Without masks the styles are blended.
        style_masks: one per style, of that style's size: which part of it is used.
        content_mask: of the content's size: how much the content counts, from black for not at all to white.
        settings: the settings to start from; default ``Settings.from_preset()``.
        callback: called with a :class:`fastnst.Step` after each step; returning True stops the run.
        checkpoint: a file in which the state of the run is saved every ``checkpoint_every`` steps, at the end of each
            scale, and when the run is stopped.
        checkpoint_every: steps between two saves, at least 1.
        resume: continue from ``checkpoint`` if the file exists; the result equals that of an uninterrupted run.
        force: overwrite a checkpoint that is not or cannot be resumed.
        changes: any field of :class:`fastnst.Settings`, such as ``size=512``, ``preset="gatys"`` or
            ``style_weight=2e3``.

    Returns:
        A :class:`fastnst.Result`; ``result.image`` is ``[1, 3, H, W]`` in 0..1, ``result.save("out.png")`` writes it.

    Raises:
        UsageError: settings or arguments that are not valid.
        ImageError: a picture that cannot be read.
        WeightsError: weights that cannot be read.
        OutOfMemoryError: a size that does not fit into memory; the message names one that does.
        CheckpointError: a checkpoint that is in use, damaged, or of other pictures or settings.

    Example:
        >>> import torch, fastnst
        >>> photo, painting = torch.rand(3, 64, 64), torch.rand(3, 64, 64)
        >>> result = fastnst.stylize(photo, painting, size=64, steps=2, scales=1)
        >>> result.image.shape
        torch.Size([1, 3, 64, 64])
    """
    settings = Settings.from_preset(**changes) if settings is None else settings.replace(**changes)
    if checkpoint is not None:
        masked = {"mask": masks, "style mask": style_masks, "content mask": content_mask}
        refuse_clashes(files(checkpoint), named(settings, content=content, style=style, **masked))
    with open_checkpoint(checkpoint, every=checkpoint_every, resume=resume, force=force) as opened:
        stylizer = Stylizer(settings)
        scene = stylizer.load_scene(content, style, masks, style_masks, content_mask)
        return stylizer.run(scene, callback=callback, checkpoint=opened)

"""From pictures and settings to a styled picture: scales, targets, start image, loop."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fastnst import adam, colours, heap, images, memory, ops, vgg, weights
from fastnst.checkpoint import EVERY, Checkpoint, Identity, Saved, files, keeping
from fastnst.choices import choose_convolution, choose_device, choose_precision
from fastnst.cuts import lag
from fastnst.digests import digest
from fastnst.errors import UsageError, WeightsError
from fastnst.feature_scale import warn_of_scale
from fastnst.graph import Capturer, choose_backend
from fastnst.images import Picture
from fastnst.inputs import Input, describe, find_inputs, named, refuse_clashes
from fastnst.objective import Losses, Objective, Region, StyleTargets, blend, style_targets
from fastnst.optimize import Callback, Clock, Place, Run, StartError, optimize, to_picture
from fastnst.ranks import ALONE, Ranks
from fastnst.scales import full_size, shrinks, shrunk, style_at, style_side
from fastnst.scene import Painting, Scene, read, values
from fastnst.settings import STARTS, Settings
from fastnst.targets import TargetCache
from fastnst.tiled import TiledObjective, tiled_targets

log = logging.getLogger("fastnst")


@dataclass(frozen=True)
class Result:
    """A styled picture: ``image [1, 3, H, W]`` in 0..1, the content's ``alpha`` if it had one, the losses of each step
    at each scale, and ``stopped``: None, ``"callback"``, ``"interrupt"`` or ``"stalled"`` (no step helped any more)."""

    image: Tensor
    alpha: Tensor | None
    settings: Settings
    trace: tuple[tuple[Losses, ...], ...]
    seconds: float
    stopped: str | None
    inputs: Mapping[str, Input] = field(default_factory=dict)
    """The files it was made from, by part: ``content``, ``style``, and settings that name one."""

    def save(self, path: str | PathLike[str], *, with_settings: bool = True, parents: bool = False) -> Path:
        """Write the picture in the format of the suffix. It carries its settings and the names and digests of its
        inputs (see :mod:`fastnst.inputs`) unless ``with_settings`` is False. ``parents`` makes folders that are
        missing."""
        facts = describe(self.settings, self.inputs, Path(path).parent) if with_settings else None
        return images.save(path, self.image, alpha=self.alpha, settings=facts, parents=parents)


class Stylizer:
    """A network and settings ready for any number of pictures; style targets are computed once per style and size.

    Args:
        settings: checked for what this machine can do.
        ranks: the processes that make each picture together, see :mod:`fastnst.ranks`.

    Raises UsageError and WeightsError for settings that cannot be met.
    """

    @torch.inference_mode(False)
    def __init__(self, settings: Settings, ranks: Ranks = ALONE) -> None:
        self.settings, self.ranks = settings, ranks
        self.device = choose_device(settings.device)
        self.capturer = Capturer(choose_backend(settings.graph, self.device))
        heap.return_unused()
        self.dtype = choose_precision(settings.precision, self.device)
        self.image_dtype = torch.float64 if self.dtype == torch.float64 else torch.float32
        winograd = choose_convolution(settings.convolution, self.device, self.dtype)
        self.chosen = settings.but(convolution="winograd" if winograd else "direct")
        # The rows of strips by width and height, where memory chose them: kept, since other rows round otherwise.
        self._strips = dict(settings.tiles) if isinstance(settings.tiles, tuple) else {}
        names = settings.layer_names()
        if settings.weights is None and settings.arch == "vgg16":
            _check_bundled_serves(names)
            log.warning("no VGG-16 weights given: using the same layers of the bundled VGG-19 (--weights takes others)")
        loaded = weights.load(settings.weights, default_arch=settings.arch)
        self.weights_name = loaded.name
        self.network = vgg.VGG(
            loaded,
            names,
            pooling=settings.pooling,
            padding=settings.padding,
            device=self.device,
            dtype=self.dtype,
            winograd=winograd,
        )
        warn_of_scale(self.network, settings)
        self._targets = TargetCache()

    def check(self, height: int, width: int) -> None:
        """Raise UsageError where the network is too deep for this size, OutOfMemoryError where memory is too small."""
        vgg.check_size(self.network.chain, height, width)
        self.rows_of_strip(height, width, len(shrinks(height, width, self.settings)))

    def rows_of_strip(self, height: int, width: int, scale: int) -> int | None:
        """The rows of a strip at this size in scale ``scale``, from 1; None for the picture whole."""
        settings, chain = self.chosen.at(scale), self.network.chain
        if not self._by_memory:
            return memory.choose_rows(chain, height, width, self.dtype, settings, self.device)
        size = f"{width}x{height}"
        rows = self._strips.get(size)
        if rows is not None and memory.fits(chain, rows, height, width, self.dtype, settings, self.device):
            return rows
        asked = "on" if settings.tiles == "on" or self._shared(height) else "auto"
        found = memory.choose_rows(chain, height, width, self.dtype, settings.but(tiles=asked), self.device)
        if rows is not None and found is not None:
            told = "%s: strips of %d rows do not fit any more: now of %d, so pixels may differ by rounding"
            log.warning(told, size, rows, found)
        if found is not None:
            self._strips[size] = found
        return found

    def as_run(self) -> Settings:
        """The settings with ``tiles`` as memory chose them: what gives the same pixels again."""
        if not (self._by_memory and self._strips):
            return self.settings
        return self.settings.but(tiles=tuple(self._strips.items()))

    @property
    def _by_memory(self) -> bool:
        """Whether the rows of strips depend on the memory that is free."""
        return self.settings.tiles != "off" and not isinstance(self.settings.tiles, int)

    def _shared(self, height: int) -> bool:
        """Whether the ranks share a picture of this height out."""
        return self.ranks.shares(height, lag(self.network, self.network.chain))

    def load(self, source: Any) -> Picture:
        """A content picture at the settings' size or crop. Raises as ``check`` does, before it is enlarged."""
        picture = images.load(source, max_pixels=self.settings.max_pixels)
        height, width = picture.pixels.shape[-2:]
        try:
            self.check(*full_size(height, width, self.settings))
        except UsageError as error:
            raise UsageError(f"{picture.path}: {error}" if picture.path else str(error)) from None
        return images.load(picture, size=self.settings.size, crop=self.settings.crop)

    def load_style(self, source: Any, content: Picture) -> Picture:
        """A style picture at the settings' style size, or style scale and fit, relative to the content.

        Raises OutOfMemoryError for one that is too large, before it is made.
        """
        picture = images.load(source, max_pixels=self.settings.max_pixels)
        side, crop = style_side(_size(picture), _size(content), self.settings), self.settings.crop is not None
        size = (side, side) if crop else images.fit(*_size(picture), side)
        memory.check_style(*size, self.settings, self.device)
        return images.load(picture, crop=side) if crop else images.load(picture, size=side)

    def load_start(self, content: Picture) -> Picture | None:
        """The picture that ``settings.init`` names, at the content's size; None where it names none."""
        if self.settings.init in STARTS:
            return None
        start = images.load(self.settings.init, max_pixels=self.settings.max_pixels)
        return dataclasses.replace(start, pixels=images.resize(start.pixels, *content.pixels.shape[-2:]))

    def scales(self, content: Picture) -> tuple[tuple[int, int], ...]:
        """Height and width of each scale, coarse to fine: see :mod:`fastnst.scales`."""
        height, width = content.pixels.shape[-2:]
        return tuple(shrunk(height, width, shrink) for shrink in shrinks(height, width, self.settings))

    @torch.inference_mode(False)
    def load_scene(
        self,
        content: Any,
        style: Any,
        masks: Sequence[Any] = (),
        style_masks: Sequence[Any] = (),
        content_mask: Any = None,
    ) -> Scene:
        """All pictures of a run at the sizes they are used in. Raises as :func:`fastnst.scene.read` and ``check``."""
        return read(
            content,
            style,
            fit=self.load,
            fit_style=self.load_style,
            load_start=self.load_start,
            masks=masks,
            style_masks=style_masks,
            content_mask=content_mask,
            max_pixels=self.settings.max_pixels,
        )

    @torch.inference_mode(False)  # inside it, losses that autograd differentiates would have no gradient
    def run(self, scene: Scene, *, callback: Callback | None = None, checkpoint: Checkpoint | None = None) -> Result:
        """Style the content of a scene.

        ``checkpoint`` is entered by the caller; the run begins where it says, and is kept there.
        """
        settings, content, start = self.settings, scene.content, scene.start
        inputs = find_inputs(settings, **scene.files())
        shares = scene.shares(settings.style_weights)
        scales = self.scales(content)
        self.check(*scales[-1])
        ops.follow_matmul_precision()
        saved = Saved()
        if checkpoint is not None:
            pictures = {part: picture.pixels for part, picture in scene.pictures().items()}
            saved = checkpoint.begin(Identity(settings, pictures, self.weights_name, self._weights_digest()))
            if self._by_memory:
                self._strips |= saved.strips
        original = content
        content = colours.content_for(content, settings)
        if start is not None:
            start = colours.content_for(start, settings)
        scene = scene.coloured(content, lambda style: colours.style_for(style, original, settings))
        clock = _clock(scales, settings, saved)
        trace = [tuple(losses) for losses in saved.before]
        place = saved.place
        image: Tensor | None = None
        run: Run | None = None
        if saved.finished:
            image = place.memory["image"]
            run = Run(image, place.trace, saved.stopped)
            trace.append(tuple(place.trace))
        sizes = zip(scales, shrinks(*scales[-1], settings), strict=True)
        for i, ((height, width), shrink) in enumerate(sizes):
            if saved.finished or i + 1 < saved.scale:
                continue
            try:
                objective = self._objective(scene, content, shares, shrink, (height, width), i + 1)
                if run is not None:
                    place = Place(memory=adam.resized(run.carried, height, width))
                if "image" in place.memory:
                    image = place.memory["image"].to(self.device)
                elif image is None:
                    image = self._start(content, scene.paintings[0].picture, start, height, width)
                else:
                    image = self._pixels(to_picture(image), height, width)
                if run is not None:
                    run = dataclasses.replace(run, image=image, carried={})  # those of the last scale are not held
                self.ranks.same(image)
                heap.return_unused()  # what reading weights and measuring the targets took
                run = optimize(
                    objective,
                    image,
                    settings,
                    callback=callback,
                    clock=clock,
                    scale=i + 1,
                    scales=len(scales),
                    capturer=self.capturer,
                    place=place,
                    keeper=None if checkpoint is None else checkpoint.keeper(i + 1, trace, clock, self._strips),
                    overwrite=True,
                )
            except KeyboardInterrupt:
                if run is None:  # nothing there yet to keep
                    raise
                run = dataclasses.replace(run, stopped="interrupt")
                break
            except StartError as error:
                if run is None:
                    raise
                log.warning("scale %d: %s; the result is that of the scale before, enlarged", i + 1, error)
                image = self._pixels(to_picture(run.image), *scales[-1])
                run = Run(image, [], "stalled")
                trace += [()] * (len(scales) - len(trace))
                break
            except (RuntimeError, MemoryError) as error:
                if not memory.is_out_of_memory(error):
                    raise
                size, rows = (height, width), self.rows_of_strip(height, width, i + 1)
                chain, chosen = self.network.chain, self.chosen.at(i + 1)
                raise memory.failed(chain, *size, self.dtype, chosen, self.device, rows) from error
            del objective  # its maps are not held while the next size is measured
            image = run.image
            trace.append(tuple(run.trace))
            if run.stopped in ("callback", "interrupt"):
                break
        assert image is not None
        assert run is not None
        if checkpoint is not None and not saved.finished and run.stopped not in ("callback", "interrupt"):
            last = Place(run.trace, {"image": image})
            ended = Saved(len(scales), trace[:-1], last, clock.seconds, True, run.stopped, self._strips)
            checkpoint.save(ended)
        seconds = clock.seconds
        picture = self.finish(to_picture(image), original)
        return Result(picture, content.alpha, self.as_run(), tuple(trace), seconds, run.stopped, inputs)

    def finish(self, image: Tensor, content: Picture) -> Tensor:
        """What is shown of an image of any scale, such as ``Step.image``: ``[1, 3, H, W]`` in 0..1, at the content's
        size and, where ``keep_colour`` asks for it, in the content's colours."""
        return colours.keep(images.resize(image, *content.pixels.shape[-2:]), content.pixels, self.settings.keep_colour)

    def _weights_digest(self) -> str:
        """Of what the network uses of its weights, rounded as the coarsest precision does: the same on any device."""
        network = self.network
        convs = [x.bfloat16() for pair in network.convs.values() for x in pair]
        return digest([*convs, network.mean.float(), network.scale.float()], " ".join(network.convs))

    def _pixels(self, picture: Tensor, height: int, width: int) -> Tensor:
        """A picture in 0..1 as pixels in 0..255 of a given size, in the image's precision, on the device."""
        if picture.shape[-2:] != (height, width):
            picture = images.resize(picture, height, width)
        return (picture.to(self.image_dtype) * 255).to(self.device)

    def _objective(
        self, scene: Scene, content: Picture, shares: Sequence[float], shrink: float, size: tuple[int, int], scale: int
    ) -> Objective | TiledObjective:
        """What is asked of an image of ``size``, whole or a strip at a time."""
        regions, mask = self._regions(scene, shares, shrink, size, scale), values(scene.content_mask, size)
        pixels, rows = self._pixels(content.pixels, *size), self.rows_of_strip(*size, scale)
        if rows is None:
            return Objective(self.network, pixels, regions, self.settings, content_mask=mask)
        ranks = self.ranks if self._shared(size[0]) else ALONE
        return TiledObjective(self.network, pixels, regions, self.settings, rows, mask, ranks)

    def _regions(
        self, scene: Scene, shares: Sequence[float], shrink: float, size: tuple[int, int], scale: int
    ) -> tuple[Region, ...]:
        """What is asked of an image of ``size``: one style between all of them, or each in its mask."""
        sizes = [style_at(_size(one.picture), size, shrink, self.settings) for one in scene.paintings]
        targets = [self._style_targets(*one, scale) for one in zip(scene.paintings, sizes, strict=True)]
        if not scene.masked:
            return (Region(blend(targets, shares, self.settings)),)
        masks = [values(painting.mask, size) for painting in scene.paintings]
        return tuple(Region(*one) for one in zip(targets, masks, shares, strict=True))

    def _style_targets(self, painting: Painting, size: tuple[int, int], scale: int) -> StyleTargets:
        """What is kept of a style picture at a height and width."""
        path = painting.picture.path
        try:
            vgg.check_size(self.network.chain, *size)
        except UsageError as error:
            raise UsageError(f"{path or 'style picture'}: {error}") from None
        rows = None if self.settings.tiles == "off" else self.rows_of_strip(*size, scale)

        def make() -> StyleTargets:
            pixels, mask = self._pixels(painting.picture.pixels, *size), values(painting.source, size)
            if rows is None:
                return style_targets(self.network, pixels, self.settings, mask)
            return tiled_targets(self.network, pixels, self.settings, rows, mask)

        return self._targets.get((painting.fingerprint, size, rows), make)

    def _start(self, content: Picture, style: Picture, start: Picture | None, height: int, width: int) -> Tensor:
        """The first image: the content, the style stretched to its size, a picture of the user's, or noise."""
        settings = self.settings
        if start is not None:
            return self._pixels(start.pixels, height, width)
        if settings.init == "content":
            return self._pixels(content.pixels, height, width)
        if settings.init == "style":
            return self._pixels(style.pixels, height, width)
        # Drawn on the CPU, so that a seed gives the same noise on every device.
        generator = torch.Generator("cpu").manual_seed(settings.seed)
        noise = torch.randn(1, 3, height, width, generator=generator, dtype=torch.float32, device="cpu")
        return (self.network.mean + (noise * settings.noise).to(self.device)).to(self.image_dtype)


def stylize(
    content: Any,
    style: Any,
    *,
    masks: Sequence[Any] = (),
    style_masks: Sequence[Any] = (),
    content_mask: Any = None,
    settings: Settings | None = None,
    callback: Callback | None = None,
    checkpoint: str | PathLike[str] | None = None,
    checkpoint_every: int = EVERY,
    resume: bool = False,
    force: bool = False,
    **changes: Any,
) -> Result:
    """Paint the picture ``content`` in the style of the picture ``style``.

    Args:
        content: a path, a Pillow image, a NumPy array or a tensor (see :func:`fastnst.images.load`).
        style: the same, or a list of several; ``style_weights=(2, 1)`` weighs them.
        masks: one for each style, of the content's size: white where that style goes, black where it does not, grey in
            between; None among them for everywhere. None at all: all styles go everywhere, blended.
        style_masks: one for each style, of that style's size: which part of it counts.
        content_mask: of the content's size: how much the content counts, from black for not at all to white.
        settings: a record to start from; default ``Settings.of(preset)``.
        callback: called after each step with a :class:`fastnst.optimize.Step`; returning True stops the run.
        checkpoint: a file to keep the run in, written every ``checkpoint_every`` steps, at the end of each scale, and
            where the run is stopped. It stays when the run is finished.
        resume: go on from that file, if it is there; the result is the one of a run that was never broken off.
        force: begin anew over a file that is not to be resumed, or cannot be.
        changes: any field of :class:`fastnst.settings.Settings`, such as ``size=512``, ``preset="gatys"``,
            ``steps=300``, ``style_weight=2e3``; ``size=None`` keeps the content's own size.

    Returns:
        A :class:`Result`; ``result.image`` is ``[1, 3, H, W]`` in 0..1, ``result.save("out.png")`` writes it.

    Raises:
        FastnstError and its kinds: UsageError for settings that make no sense, ImageError, WeightsError,
        OutOfMemoryError with a size that would fit, CheckpointError for a checkpoint that another run uses, that is
        damaged, or that is of other pictures or settings.
    """
    settings = Settings.of(**changes) if settings is None else settings.but(**changes)
    if checkpoint is not None:
        masked = {"mask": masks, "style mask": style_masks, "content mask": content_mask}
        refuse_clashes(files(checkpoint), named(settings, content=content, style=style, **masked))
    with keeping(checkpoint, every=checkpoint_every, resume=resume, force=force) as kept:
        stylizer = Stylizer(settings)
        scene = stylizer.load_scene(content, style, masks, style_masks, content_mask)
        return stylizer.run(scene, callback=callback, checkpoint=kept)


def _size(picture: Picture) -> tuple[int, int]:
    """Height and width."""
    return picture.pixels.shape[-2], picture.pixels.shape[-1]


def _check_bundled_serves(names: Sequence[str]) -> None:
    """Raise WeightsError where the bundled VGG-19 cannot stand in for VGG-16: the two part after conv3_3."""
    chain = vgg.chain_to("vgg16", names)
    if chain != vgg.chain_to("vgg19", names):
        raise WeightsError(
            f"layer {chain[-1].name} of VGG-16 has no equal in the bundled VGG-19: give VGG-16 weights "
            "(--weights vgg16-torchvision or a file), or layers up to relu3_3"
        )


def _clock(scales: Sequence[tuple[int, int]], settings: Settings, saved: Saved) -> Clock:
    """The clock of a whole run that stands at ``saved``."""
    work = [float(3 * height * width) for height, width in scales]
    steps = [settings.steps_at(i + 1) for i in range(len(scales))]
    taken = [*steps[: saved.scale - 1], len(saved.place.trace)]
    total, done = (sum(w * count for w, count in zip(work, counts, strict=False)) for counts in (steps, taken))
    return Clock(total, done, time.perf_counter() - saved.seconds)

"""From pictures and settings to a styled picture: scales, targets, start image, loop."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fastnst import heap, images, memory, ops, vgg, weights
from fastnst.errors import UsageError, WeightsError
from fastnst.graph import Capturer, choose_backend
from fastnst.images import Picture
from fastnst.objective import Losses, Objective, StyleTargets, style_targets
from fastnst.optimize import Callback, Clock, Run, optimize, to_picture
from fastnst.settings import STARTS, Settings

log = logging.getLogger("fastnst")

# Below this a scale has too few positions at the deep layers to say anything about a style.
SMALLEST_SCALE = 64


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

    def save(self, path: str | PathLike[str]) -> Path:
        """Write the picture, with its settings inside, in the format of the suffix."""
        return images.save(path, self.image, alpha=self.alpha, settings=self.settings.to_dict())


def choose_device(name: str) -> torch.device:
    """``"auto"`` is a GPU if there is one with kernels of ours; raises UsageError for a device that is not here."""
    no_kernels = ops.build_info()["no_cuda_because"]
    if name == "auto":
        if torch.cuda.is_available() and no_kernels is None:
            return torch.device("cuda")
        if torch.cuda.is_available():
            log.warning("there is a GPU, but no CUDA kernels: %s. %s", no_kernels, ops.CUDA_REMEDY)
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError, ImportError) as error:
        reason = str(error).splitlines()[0].split(". ")[0].rstrip(".")
        raise UsageError(f"device {name!r} cannot be used ({reason}); try --device cpu") from None
    if device.type == "cuda" and no_kernels is not None:
        raise UsageError(f"device {name!r} cannot be used: no CUDA kernels: {no_kernels}. {ops.CUDA_REMEDY}")
    return device


def choose_precision(name: str, device: torch.device) -> torch.dtype:
    """The dtype of features. ``"auto"`` is bfloat16 where the hardware multiplies it natively, else float32."""
    if name != "auto":
        return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float64": torch.float64}[name]
    if device.type == "cuda":
        native = torch.cuda.get_device_capability(device) >= (8, 0)
    else:
        probe = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
        native = device.type == "cpu" and probe is not None and bool(probe())
    return torch.bfloat16 if native else torch.float32


def choose_convolution(name: str, device: torch.device, dtype: torch.dtype) -> bool:
    """Whether convolutions are by Winograd's algorithm, our own.

    ``"auto"``: on CPUs whose vector registers the op is built for, where it was measured to be faster
    (docs/experiments/winograd.md), but not in float64, which asks for exactness, nor in bfloat16 on CPUs with matrix
    units for that. Raises UsageError where ``"winograd"`` asks for it on another device.
    """
    if name == "winograd" and device.type != "cpu":
        raise UsageError(
            f"convolution 'winograd': it runs on the CPU alone, not on {str(device)!r}; use auto or direct"
        )
    if name != "auto":
        return name == "winograd"
    if device.type != "cpu" or dtype == torch.float64:
        return False
    probe = getattr(torch.cpu, "_is_amx_tile_supported", None)
    tiles = dtype == torch.bfloat16 and probe is not None and bool(probe())
    return not tiles and ops.kernels()["conv3x3"] != "portable"


class Stylizer:
    """A network and settings ready for any number of pictures; style targets are computed once per style and size.

    Raises UsageError and WeightsError for settings that cannot be met.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.device = choose_device(settings.device)
        self.capturer = Capturer(choose_backend(settings.graph, self.device))
        heap.return_unused()
        self.dtype = choose_precision(settings.precision, self.device)
        self.image_dtype = torch.float64 if self.dtype == torch.float64 else torch.float32
        winograd = choose_convolution(settings.convolution, self.device, self.dtype)
        self.chosen = settings.but(convolution="winograd" if winograd else "direct")
        names = settings.layer_names()
        if settings.weights is None and settings.arch == "vgg16":
            _check_bundled_serves(names)
            log.warning("no VGG-16 weights given: using the same layers of the bundled VGG-19 (--weights takes others)")
        loaded = weights.load(settings.weights, default_arch=settings.arch)
        self.network = vgg.VGG(
            loaded,
            names,
            pooling=settings.pooling,
            padding=settings.padding,
            device=self.device,
            dtype=self.dtype,
            winograd=winograd,
        )
        self._targets: dict[tuple[int, int, int], tuple[Tensor, StyleTargets]] = {}

    def check(self, height: int, width: int) -> None:
        """Raise UsageError where the network is too deep for this size, OutOfMemoryError where memory is too small."""
        vgg.check_size(self.network.chain, height, width)
        memory.check_fits(self.network.chain, height, width, self.dtype, self.chosen, self.device)

    def load(self, source: Any) -> Picture:
        """A content picture at the settings' size or crop. Raises as ``check`` does, before it is enlarged."""
        size, crop = self.settings.size, self.settings.crop
        picture = images.load(source)
        height, width = picture.pixels.shape[-2:]
        if crop is not None:
            height = width = crop
        elif size is not None:
            height, width = images.fit(height, width, size)
        try:
            self.check(height, width)
        except UsageError as error:
            raise UsageError(f"{picture.path}: {error}" if picture.path else str(error)) from None
        return images.load(picture, size=size, crop=crop)

    def load_style(self, source: Any, content: Picture) -> Picture:
        """A style picture at the settings' style scale, relative to the content's longest side."""
        side = max(1, round(max(content.pixels.shape[-2:]) * self.settings.style_scale))
        if self.settings.crop is not None:
            return images.load(source, crop=side)
        return images.load(source, size=side)

    def load_start(self, content: Picture) -> Picture | None:
        """The picture that ``settings.init`` names, at the content's size; None where it names none."""
        if self.settings.init in STARTS:
            return None
        start = images.load(self.settings.init)
        return dataclasses.replace(start, pixels=images.resize(start.pixels, *content.pixels.shape[-2:]))

    def scales(self, content: Picture) -> tuple[tuple[int, int], ...]:
        """Height and width of each scale, coarse to fine; coarse ones that would be tiny are left out."""
        height, width = content.pixels.shape[-2:]
        sizes = [(height, width)]
        for _ in range(1, self.settings.scales):
            side = max(height, width) // 2 ** len(sizes)
            if side < SMALLEST_SCALE or min(images.fit(height, width, side)) < SMALLEST_SCALE:
                break
            sizes.append(images.fit(height, width, side))
        return tuple(reversed(sizes))

    def run(
        self, content: Picture, style: Picture, *, start: Picture | None = None, callback: Callback | None = None
    ) -> Result:
        """Style ``content``; both pictures at the size they are to be used in."""
        settings = self.settings
        scales = self.scales(content)
        final = scales[-1]
        self.check(*final)
        ops.follow_matmul_precision()
        clock = Clock(total=float(sum(3 * h * w for h, w in scales) * settings.steps))
        trace: list[tuple[Losses, ...]] = []
        image: Tensor | None = None
        run: Run | None = None
        for i, (height, width) in enumerate(scales):
            try:
                targets = self._style_targets(style, len(scales) - 1 - i)
                objective = Objective(self.network, self._pixels(content.pixels, height, width), targets, settings)
                if image is None:
                    image = self._start(content, style, start, height, width)
                else:
                    image = self._pixels(to_picture(image), height, width)
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
                )
            except KeyboardInterrupt:
                if run is None:  # nothing there yet to keep
                    raise
                run = dataclasses.replace(run, stopped="interrupt")
                break
            except (RuntimeError, MemoryError) as error:
                if not memory.is_out_of_memory(error):
                    raise
                raise memory.failed(self.network.chain, height, width, self.dtype, self.chosen, self.device) from error
            image = run.image
            trace.append(tuple(run.trace))
            if run.stopped in ("callback", "interrupt"):
                break
        assert image is not None
        assert run is not None
        picture = to_picture(image)
        if picture.shape[-2:] != final:
            picture = images.resize(picture, *final)
        seconds, _ = clock.advance(1e-9)
        return Result(picture, content.alpha, settings, tuple(trace), seconds, run.stopped)

    def _pixels(self, picture: Tensor, height: int, width: int) -> Tensor:
        """A picture in 0..1 as pixels in 0..255 of a given size, in the image's precision, on the device."""
        if picture.shape[-2:] != (height, width):
            picture = images.resize(picture, height, width)
        return (picture.to(self.image_dtype) * 255).to(self.device)

    def _style_targets(self, style: Picture, halvings: int) -> StyleTargets:
        height, width = style.pixels.shape[-2:]
        if halvings:
            height, width = images.fit(height, width, max(height, width) // 2**halvings)
        key = (id(style.pixels), height, width)
        if key not in self._targets:
            try:
                vgg.check_size(self.network.chain, height, width)
            except UsageError as error:
                raise UsageError(f"{style.path or 'style picture'}: {error}") from None
            pixels = self._pixels(style.pixels, height, width)
            self._targets[key] = (style.pixels, style_targets(self.network, pixels, self.settings))
        return self._targets[key][1]

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
        generator = torch.Generator().manual_seed(settings.seed)
        noise = torch.randn(1, 3, height, width, generator=generator) * settings.noise
        return (self.network.mean + noise.to(self.device)).to(self.image_dtype)


def stylize(
    content: Any,
    style: Any,
    *,
    settings: Settings | None = None,
    callback: Callback | None = None,
    **changes: Any,
) -> Result:
    """Paint the picture ``content`` in the style of the picture ``style``.

    Args:
        content, style: a path, a Pillow image, a NumPy array or a tensor (see :func:`fastnst.images.load`).
        settings: a record to start from; default ``Settings.of(preset)``.
        callback: called after each step with a :class:`fastnst.optimize.Step`; returning True stops the run.
        changes: any field of :class:`fastnst.settings.Settings`, such as ``size=512``, ``preset="gatys"``,
            ``steps=300``, ``style_weight=2e3``.

    Returns:
        A :class:`Result`; ``result.image`` is ``[1, 3, H, W]`` in 0..1, ``result.save("out.png")`` writes it.

    Raises:
        FastnstError and its kinds: UsageError for settings that make no sense, ImageError, WeightsError,
        OutOfMemoryError with a size that would fit.
    """
    if settings is None:
        settings = Settings.of(**changes)
    elif changes:
        settings = settings.but(**changes)
    stylizer = Stylizer(settings)
    picture = stylizer.load(content)
    start = stylizer.load_start(picture)
    return stylizer.run(picture, stylizer.load_style(style, picture), start=start, callback=callback)


def _check_bundled_serves(names: Sequence[str]) -> None:
    """Raise WeightsError where the bundled VGG-19 cannot stand in for VGG-16: the two part after conv3_3."""
    chain = vgg.chain_to("vgg16", names)
    if chain != vgg.chain_to("vgg19", names):
        raise WeightsError(
            f"layer {chain[-1].name} of VGG-16 has no equal in the bundled VGG-19: give VGG-16 weights "
            "(--weights vgg16-torchvision or a file), or layers up to relu3_3"
        )

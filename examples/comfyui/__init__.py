"""A node for ComfyUI: an image in the style of another, by fastnst.

Copy or link this folder into ``custom_nodes`` of ComfyUI, and install fastnst into ComfyUI's Python: see README.md.
"""

from __future__ import annotations

import math
import time
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

import fastnst
from fastnst.config import CHOICES, PRESETS, RANGES, Settings

try:  # absent in tests, and where the node is used without ComfyUI
    from comfy import model_management
    from comfy.utils import ProgressBar
except ImportError:
    model_management = ProgressBar = None

# The settings that have a widget. Help, default and range of each come from fastnst.
WIDGETS = (
    *("size", "steps", "scales", "content_weight", "style_weight", "tv_weight", "style_scale", "style_fit"),
    *("keep_color", "match_color", "init", "optimizer", "learning_rate", "tileable", "seed"),
)
STARTS = ("content", "noise", "style")
PREVIEW_SIDE = 512
PREVIEW_SHARE = 0.02  # of the time of a run, at most
DEFAULTS = Settings.from_preset()
WITH_CONTENT = [name for name, changes in PRESETS.items() if changes.get("content_layers", True)]
"""The presets but those of textures, which have no content."""


def widget(name: str) -> tuple[Any, dict[str, Any]]:
    """The widget of a setting, in the form of ``INPUT_TYPES``."""
    field, default = Settings.__dataclass_fields__[name], getattr(DEFAULTS, name)
    unit = f", in {field.metadata['unit']}" if field.metadata["unit"] else ""
    options: dict[str, Any] = {"default": default, "tooltip": field.metadata["help"].replace("`", "") + unit}
    if name == "init" or name in CHOICES:
        return list(STARTS if name == "init" else CHOICES[name]), options
    limits = RANGES[name]
    if not limits.whole:
        step = 10.0 ** (math.floor(math.log10(default)) - 1)
        return "FLOAT", {**options, "min": float(limits.least), "max": float(limits.most), "step": step, "round": False}
    return "INT", {**options, "min": int(limits.least), "max": int(limits.most)}


class StyleTransfer:
    """Renders each image of a batch in the style of one image or of several."""

    CATEGORY = "image/style transfer"
    DESCRIPTION = "Neural style transfer by optimization (Gatys, Ecker and Bethge 2015), with fastnst."
    FUNCTION = "stylize"
    RETURN_TYPES = ("IMAGE",)
    OUTPUT_TOOLTIPS = ("The styled images, as many as content has.",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, dict[str, Any]]:
        preset = {"default": "default", "tooltip": "where settings come from whose widgets have their default"}
        return {
            "required": {
                "content": ("IMAGE", {"tooltip": "photographs; each is styled by itself"}),
                "style": ("IMAGE", {"tooltip": "a painting, or a batch of several, which are blended"}),
                "preset": (WITH_CONTENT, preset),
                **{name: widget(name) for name in WIDGETS},
            },
            "optional": {
                "mask": ("MASK", {"tooltip": "white where the style goes: one, or one for each content"}),
                "content_mask": ("MASK", {"tooltip": "how much the content counts: one, or one for each content"}),
                "style_mask": ("MASK", {"tooltip": "which part of the style is used: one, or one for each style"}),
            },
        }

    def __init__(self) -> None:
        self._stylizer: fastnst.Stylizer | None = None

    def stylize(
        self,
        content: Tensor,
        style: Tensor,
        preset: str,
        mask: Tensor | None = None,
        content_mask: Tensor | None = None,
        style_mask: Tensor | None = None,
        **widgets: Any,
    ) -> tuple[Tensor]:
        """Images are floats ``[B, H, W, C]`` in 0..1, masks ``[B, H, W]`` of any size, as everywhere in ComfyUI."""
        changes = {name: value for name, value in widgets.items() if value != getattr(DEFAULTS, name)}
        stylizer = self._prepare(Settings.from_preset(preset, device=_device(), **changes))
        contents, styles = _pictures(content), _pictures(style)
        style_masks = [] if style_mask is None else _masks("style_mask", style_mask, styles)
        goes = [None] * len(contents) if mask is None else _masks("mask", mask, contents)
        counts = [None] * len(contents) if content_mask is None else _masks("content_mask", content_mask, contents)
        progress, made = _Progress(len(contents)), []
        for picture, where, weight in zip(contents, goes, counts, strict=True):
            _stop_if_interrupted()
            scene = stylizer.load_scene(
                picture,
                styles,
                masks=[] if where is None else [where] * len(styles),
                style_masks=style_masks,
                content_mask=weight,
            )
            made.append(stylizer.run(scene, callback=progress.show).image)
            progress.done += 1
        return (torch.cat(made).permute(0, 2, 3, 1).contiguous(),)

    def _prepare(self, settings: Settings) -> fastnst.Stylizer:
        """The stylizer of the last run, if its settings are the same: ComfyUI keeps nodes from run to run."""
        if self._stylizer is None or self._stylizer.settings != settings:
            self._stylizer = fastnst.Stylizer(settings)
        return self._stylizer


class _Progress:
    """A callback that moves ComfyUI's progress bar, shows previews, and ends the run when it is cancelled."""

    def __init__(self, count: int) -> None:
        self.done, self._count = 0, count
        self._bar = None if ProgressBar is None else ProgressBar(1000 * count)
        self._next = time.perf_counter() + 1

    def show(self, step: fastnst.Step) -> None:
        _stop_if_interrupted()
        if self._bar is None:
            return
        before, preview = time.perf_counter(), None
        if before >= self._next:
            preview = ("JPEG", _to_pil(step.image), PREVIEW_SIDE)
            cost = time.perf_counter() - before
            self._next = before + max(1.0, cost / PREVIEW_SHARE)
        part = step.seconds / (step.seconds + step.remaining or 1.0)
        self._bar.update_absolute(round(1000 * (self.done + part)), 1000 * self._count, preview)


def _stop_if_interrupted() -> None:
    if model_management is not None:
        model_management.throw_exception_if_processing_interrupted()


def _device() -> str:
    return "auto" if model_management is None else str(model_management.get_torch_device())


def _pictures(batch: Tensor) -> list[Tensor]:
    """The images of a batch, ``[3, H, W]`` each; nodes may have left values a little outside of 0..1."""
    return [image[..., :3].permute(2, 0, 1).clamp(0, 1) for image in batch]


def _masks(name: str, masks: Tensor, pictures: list[Tensor]) -> list[Tensor]:
    """One mask for each picture, ``[1, H, W]`` of its size."""
    masks = masks.reshape(-1, 1, *masks.shape[-2:]).clamp(0, 1)
    if len(masks) not in (1, len(pictures)):
        raise ValueError(f"{name}: {len(masks)} masks for {len(pictures)} images; expected one, or one for each")
    each = masks.expand(len(pictures), -1, -1, -1)
    return [
        mask
        if mask.shape[1:] == picture.shape[1:]
        else F.interpolate(mask[None], picture.shape[1:], mode="bilinear")[0]
        for mask, picture in zip(each, pictures, strict=True)
    ]


def _to_pil(image: Tensor) -> Image.Image:
    return Image.fromarray((image[0].permute(1, 2, 0) * 255 + 0.5).byte().numpy())


NODE_CLASS_MAPPINGS = {"FastnstStyleTransfer": StyleTransfer}
NODE_DISPLAY_NAME_MAPPINGS = {"FastnstStyleTransfer": "Style Transfer (fastnst)"}

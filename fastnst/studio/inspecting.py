"""What the studio computes of pictures and settings: in a process of its own, which untrusted files may end."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from PIL import ImageCms

from fastnst import images
from fastnst.config.description import LAYERS, as_text, settings_from_text
from fastnst.config.encoders import encoders
from fastnst.config.layer_names import BLOCKS
from fastnst.config.ranges import STARTS
from fastnst.config.settings import Settings
from fastnst.config.toml import convert
from fastnst.errors import FastnstError, UsageError
from fastnst.gallery.pairs import SUFFIXES
from fastnst.images.formats import decoder_errors, identify, open_file
from fastnst.losses import CONTENT_FORMS, STYLE_FORMS
from fastnst.losses.style import style_losses
from fastnst.losses.style.registry import CONTENT_BUILT_IN
from fastnst.network.vgg import PADDINGS, POOLINGS
from fastnst.run.planning import Planner
from fastnst.studio.store import SHOWN_SIDE
from fastnst.weights import catalog

_ORIENTATION = 274
_PROFILES = ("srgb", "s rgb", "iec61966")
_ANY_SIZE = 2**40  # pixels: the file has been decoded within the limit
_NOT_TAKEN = ("weights", "max_pixels", "snapshot_every")
_planner = Planner()


def inspect_picture(path: str, preview: str, max_pixels: int | None) -> dict[str, Any]:
    """Decode a picture as a run would, write its preview, and return what there is to know of it."""
    file = Path(path)
    picture = images.load(file, max_pixels=max_pixels)
    height, width = picture.size
    shown = images.load(picture, size=min(SHOWN_SIDE, max(height, width)))
    images.save(preview, shown.pixels, alpha=shown.alpha)
    kind, notes = _notes(file)
    if picture.alpha is not None:
        notes.append("has transparency")
    facts = {"width": width, "height": height, "format": kind, "notes": notes, "has_alpha": picture.alpha is not None}
    return {**facts, "settings": stored_settings(file)}


def _notes(file: Path) -> tuple[str, list[str]]:
    """The format of a file, and what reading it changes."""
    with open_file(file) as stream, decoder_errors(file):
        image, notes = identify(stream, file, _ANY_SIZE), []
        if image.getexif().get(_ORIENTATION, 1) not in (0, 1):
            notes.append("turned as its EXIF data say")
        if (frames := getattr(image, "n_frames", 1)) > 1:
            notes.append(f"the first of {frames} frames")
        if image.mode.startswith("I;16") or image.mode == "I":
            notes.append("16 bits per channel")
        if image.mode in ("CMYK", "YCbCr", "LAB"):
            notes.append(f"converted from {image.mode} to sRGB")
        elif "icc_profile" in image.info and not _is_srgb(image.info["icc_profile"]):
            notes.append("converted from its color profile to sRGB")
        return image.format or "", notes


def _is_srgb(profile: bytes) -> bool:
    try:
        text = ImageCms.getProfileDescription(ImageCms.ImageCmsProfile(io.BytesIO(profile)))
    except (ImageCms.PyCMSError, OSError, TypeError):
        return True
    return any(name in text.lower() for name in _PROFILES)


def stored_settings(file: Path) -> dict[str, str] | None:
    """The settings of a picture that fastnst made, as text; those that name files are left out."""
    try:
        stored = images.read_settings(file)
        if stored is None:
            return None
        # Files that a picture names are not looked for: it comes from anyone.
        known = convert(file, {name: value for name, value in stored.items() if name in Settings.__dataclass_fields__})
        known = {name: value for name, value in known.items() if name not in _NOT_TAKEN}
        if known.get("init") not in STARTS:
            known.pop("init", None)
        preset = str(known.pop("preset", "default"))
        settings = Settings.from_preset(preset).replace(**known)
    except FastnstError:
        return None
    texts = {name: as_text(name, getattr(settings, name)) for name in known}
    plain = {name: as_text(name, getattr(Settings(), name)) for name in known}
    return {"preset": preset, **{name: text for name, text in texts.items() if text != plain[name]}}


def make_plan(run: Mapping[str, Any], measure: bool) -> dict[str, Any]:
    """The plan of a run, as the API returns it."""
    settings = settings_from_text(run["settings"])
    parts = {name: run[name] for name in ("masks", "style_masks", "content_mask")}
    try:
        plan = _planner.plan(run["content"], run["styles"], settings, **parts, measure=measure)
    except UsageError as error:
        raise _naming_the_setting(error, settings) from None
    seconds = plan.seconds[1]
    warnings = [] if plan.fits else ["does not fit into memory; " + (" or ".join(plan.remedies) or "make it smaller")]
    if math.isnan(seconds):
        warnings.append("the time is measured when no run is going on")
    last = plan.scales[-1]
    return {
        "seconds": None if math.isnan(seconds) else seconds,
        "memory": plan.bytes,
        "free": plan.available,
        "fits": plan.fits,
        "size": (last.width, last.height),
        "scales": [(scale.width, scale.height) for scale in plan.scales],
        "text": "" if math.isnan(seconds) else str(plan),
        "warnings": warnings,
    }


def _naming_the_setting(error: UsageError, settings: Settings) -> UsageError:
    """The error of a layer that the network does not have, with the setting that names it in front."""
    text = str(error)
    named = [name for name in LAYERS if any(f"'{layer}'" in text for layer, _ in getattr(settings, name))]
    return UsageError(f"{named[0]}: {text}") if text.startswith("unknown layer") and named else error


class Names(NamedTuple):
    """What the server asks of modules that import torch: the values of settings, all of them or known ones, and the
    suffixes of pictures that are read."""

    closed: dict[str, tuple[str, ...]]
    known: dict[str, tuple[str, ...]]
    suffixes: tuple[str, ...]


def names() -> Names:
    """See :class:`Names`."""
    closed = {
        "pooling": tuple(POOLINGS),
        "padding": tuple(PADDINGS),
        "content_form": tuple(CONTENT_FORMS),
        "style_form": tuple(STYLE_FORMS),
    }
    known = {
        "arch": (*BLOCKS, *encoders()),
        "style_loss": style_losses(),
        "content_loss": ("features", *CONTENT_BUILT_IN),
        "weights": ("none", *(entry.name for entry in catalog())),
    }
    return Names(closed, known, tuple(SUFFIXES))

"""What the studio computes of pictures and settings: in a process of its own, which untrusted files may end."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import ImageCms

from fastnst import images
from fastnst.config.description import LAYERS, as_text, settings_from_text
from fastnst.config.settings import Settings
from fastnst.errors import FastnstError, UsageError
from fastnst.images.formats import decoder_errors, identify, open_file
from fastnst.run.planning import Planner

PREVIEW_SIDE = 1024
_ORIENTATION = 274
_PROFILES = ("srgb", "s rgb", "iec61966")
_ANY_SIZE = 2**40  # pixels: the file has been decoded within the limit
_planner = Planner()


def inspect_picture(path: str, preview: str, max_pixels: int | None) -> dict[str, Any]:
    """Decode a picture as a run would, write its preview, and return what there is to know of it."""
    file = Path(path)
    picture = images.load(file, max_pixels=max_pixels)
    height, width = picture.size
    shown = images.load(picture, size=min(PREVIEW_SIDE, max(height, width)))
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
        known = {name: value for name, value in stored.items() if name in Settings.__dataclass_fields__}
        known.pop("weights", None)
        if known.get("init") not in ("content", "noise", "style"):
            known.pop("init", None)
        base = Settings.from_preset(str(known.pop("preset", "default")))
        settings = base.replace(**{name: _tuples(value) for name, value in known.items()})
    except (FastnstError, TypeError):
        return None
    plain = Settings()
    texts = {
        name: as_text(name, getattr(settings, name)) for name in known if name not in ("max_pixels", "snapshot_every")
    }
    return {
        "preset": settings.preset,
        **{name: text for name, text in texts.items() if text != as_text(name, getattr(plain, name))},
    }


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


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


def setting_names() -> tuple[dict[str, tuple[str, ...]], dict[str, tuple[str, ...]]]:
    """The values of settings that are named where torch is needed: all of them, and known ones."""
    from fastnst.config.encoders import encoders
    from fastnst.losses import CONTENT_FORMS, STYLE_FORMS
    from fastnst.losses.style.registry import BUILT_IN, CONTENT_BUILT_IN
    from fastnst.network.vgg import PADDINGS, POOLINGS
    from fastnst.weights import catalog

    closed = {
        "pooling": tuple(POOLINGS),
        "padding": tuple(PADDINGS),
        "content_form": tuple(CONTENT_FORMS),
        "style_form": tuple(STYLE_FORMS),
    }
    known = {
        "arch": ("vgg19", "vgg16", *encoders()),
        "style_loss": tuple(BUILT_IN),
        "content_loss": ("features", *CONTENT_BUILT_IN),
        "weights": ("none", *(entry.name for entry in catalog())),
    }
    return closed, known

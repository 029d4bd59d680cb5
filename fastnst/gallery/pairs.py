"""Which content goes with which style, in an order that stays."""

from __future__ import annotations

import logging
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fastnst.errors import ImageError, UsageError, nearest
from fastnst.images import raw

log = logging.getLogger("fastnst")

PAIRINGS = ("product", "order", "shuffle")
SUFFIXES = (
    *(
        ".jpg",
        ".jpeg",
        ".png",
        ".webp",
        ".tif",
        ".tiff",
        ".bmp",
        ".gif",
        ".avif",
        ".jp2",
        ".jpx",
        ".heic",
        ".heif",
        ".psd",
    ),
    *(".ppm", ".pgm", ".pnm", ".jfif", ".jpe"),
    *raw.SUFFIXES,
)
"""The names of pictures; one that turns out not to be read is reported when its turn comes."""
_UNREAD = (
    *(".ai", ".dds", ".eps", ".exr", ".hdr", ".ico", ".jxl", ".jxr", ".kra", ".pcx", ".pdf"),
    *(".psb", ".qoi", ".svg", ".tga", ".wmf", ".xcf"),
)
"""Names of pictures too, of kinds that are not read."""


@dataclass(frozen=True)
class Pair:
    """One content with one style, and the folder their pictures go to."""

    content: Path
    style: Path
    folder: Path

    @property
    def key(self) -> tuple[str, str]:
        """What tells a pair from the others, wherever its files lie."""
        return self.content.name, self.style.name

    @property
    def name(self) -> str:
        return f"{self.content.stem} + {self.style.stem}"


def find(directory: Path) -> tuple[list[Path], list[Path]]:
    """The pictures ``content_*`` and ``style_*`` of a folder in natural order; ImageError where there are none."""
    try:
        named = [path for path in directory.iterdir() if path.name.lower().startswith(("content_", "style_"))]
        names = sorted((path for path in named if path.suffix.lower() in SUFFIXES), key=natural)
        left = sorted(path.name for path in named if path.suffix.lower() in _UNREAD and path.is_file())
    except FileNotFoundError:
        raise ImageError(f"{directory}: no such folder; expected one with content_* and style_* pictures") from None
    except NotADirectoryError:
        raise ImageError(f"{directory}: is not a folder; expected one with content_* and style_* pictures") from None
    except OSError as error:
        raise ImageError(f"{directory}: cannot be read ({error.strerror})") from error
    if left:
        told = ", ".join(left[:5]) + (f" and {len(left) - 5} more" if len(left) > 5 else "")
        log.warning("%s: passed over, as of no kind that is read: %s", directory, told)
    contents = [path for path in names if path.name.lower().startswith("content_")]
    styles = [path for path in names if path.name.lower().startswith("style_")]
    for kind, found in (("content", contents), ("style", styles)):
        if not found:
            raise ImageError(f"{directory}: holds no picture named {kind}_* (.jpg, .png and so on)")
    return contents, styles


def pair_up(contents: Sequence[Path], styles: Sequence[Path], pairing: str, seed: int) -> list[tuple[Path, Path]]:
    """The pairs in the order they are made; see :func:`fastnst.gallery.run`."""
    if pairing not in PAIRINGS:
        raise UsageError(f"unknown pairing {pairing!r}{nearest(pairing, PAIRINGS)} (known: {', '.join(PAIRINGS)})")
    if pairing == "product":
        return [(content, style) for content in contents for style in styles]
    if pairing == "shuffle":
        # random() gives the same numbers for a seed in every version of Python; shuffle() does not promise that.
        draw = random.Random(seed).random
        contents, styles = sorted(contents, key=lambda _: draw()), sorted(styles, key=lambda _: draw())
    count = max(len(contents), len(styles))
    return [(contents[i % len(contents)], styles[i % len(styles)]) for i in range(count)]


def natural(path: Path) -> tuple[list[str | int], str]:
    """A key that sorts content_2 before content_10."""
    parts = re.split(r"([0-9]+)", path.name.lower())
    return [int(part) if i % 2 else part for i, part in enumerate(parts)], path.name

"""Find the pictures of a folder and pair contents with styles, in a reproducible order."""

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
# fmt: off
SUFFIXES = (
    ".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp", ".gif", ".avif", ".jp2", ".jpx", ".heic", ".heif",
    ".psd", ".ppm", ".pgm", ".pnm", ".jfif", ".jpe", *raw.SUFFIXES,
)
"""Suffixes of pictures. A picture that cannot be read is reported when its pair is made."""
_UNSUPPORTED = (
    ".ai", ".dds", ".eps", ".exr", ".hdr", ".ico", ".jxl", ".jxr", ".kra", ".pcx", ".pdf", ".psb", ".qoi", ".svg",
    ".tga", ".wmf", ".xcf",
)
"""Suffixes of pictures in formats that are not supported, which are skipped with a warning."""
# fmt: on


@dataclass(frozen=True)
class Pair:
    """A content, a style, and the folder of their result.

    Example:
        >>> pair = Pair(Path("content_1.jpg"), Path("style_2.jpg"), Path("styled/gen_0"))
        >>> pair.name, pair.key
        ('content_1 + style_2', ('content_1.jpg', 'style_2.jpg'))
    """

    content: Path
    style: Path
    folder: Path

    @property
    def key(self) -> tuple[str, str]:
        """The names of content and style, which identify a pair independently of folders."""
        return self.content.name, self.style.name

    @property
    def name(self) -> str:
        """The pair in messages."""
        return f"{self.content.stem} + {self.style.stem}"


def find(directory: Path) -> tuple[list[Path], list[Path]]:
    """The pictures ``content_*`` and ``style_*`` of a folder in natural order. Raises ImageError if there are none.

    Example:
        >>> import tempfile, torch
        >>> from fastnst import images
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for name in ("content_1", "content_2", "style_1"):
        ...         _ = images.save(f"{folder}/{name}.png", torch.rand(3, 32, 32))
        ...     contents, styles = find(Path(folder))
        >>> [path.name for path in contents], [path.name for path in styles]
        (['content_1.png', 'content_2.png'], ['style_1.png'])
    """
    try:
        named = [path for path in directory.iterdir() if path.name.lower().startswith(("content_", "style_"))]
        names = sorted((path for path in named if path.suffix.lower() in SUFFIXES), key=natural)
        unsupported = sorted(path.name for path in named if path.suffix.lower() in _UNSUPPORTED and path.is_file())
    except FileNotFoundError:
        raise ImageError(f"{directory}: no such folder; expected one with content_* and style_* pictures") from None
    except NotADirectoryError:
        raise ImageError(f"{directory}: is not a folder; expected one with content_* and style_* pictures") from None
    except OSError as error:
        raise ImageError(f"{directory}: cannot be read ({error.strerror})") from error
    if unsupported:
        listed = ", ".join(unsupported[:5]) + (f" and {len(unsupported) - 5} more" if len(unsupported) > 5 else "")
        log.warning("%s: skipped pictures of unsupported formats: %s", directory, listed)
    contents = [path for path in names if path.name.lower().startswith("content_")]
    styles = [path for path in names if path.name.lower().startswith("style_")]
    for kind, found in (("content", contents), ("style", styles)):
        if not found:
            raise ImageError(f"{directory}: contains no picture named {kind}_* (.jpg, .png and so on)")
    return contents, styles


def pair_up(contents: Sequence[Path], styles: Sequence[Path], pairing: str, seed: int) -> list[tuple[Path, Path]]:
    """The pairs in the order in which they are made; for ``pairing`` see :func:`fastnst.gallery.run`.

    Example:
        >>> contents, styles = [Path("content_1.png"), Path("content_2.png")], [Path("style_1.png")]
        >>> [content.name for content, _ in pair_up(contents, styles, "product", seed=0)]
        ['content_1.png', 'content_2.png']
    """
    if pairing not in PAIRINGS:
        raise UsageError(f"unknown pairing {pairing!r}{nearest(pairing, PAIRINGS)} (known: {', '.join(PAIRINGS)})")
    if pairing == "product":
        return [(content, style) for content in contents for style in styles]
    if pairing == "shuffle":
        # random() gives the same numbers for a seed in every version of Python; shuffle() does not guarantee it.
        draw = random.Random(seed).random
        contents, styles = sorted(contents, key=lambda _: draw()), sorted(styles, key=lambda _: draw())
    count = max(len(contents), len(styles))
    return [(contents[i % len(contents)], styles[i % len(styles)]) for i in range(count)]


def natural(path: Path) -> tuple[list[str | int], str]:
    """A sort key that places content_2 before content_10."""
    parts = re.split(r"([0-9]+)", path.name.lower())
    return [int(part) if i % 2 else part for i, part in enumerate(parts)], path.name

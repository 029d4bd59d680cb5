"""The contact sheet of a gallery: one picture of all pairs."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from fastnst import images
from fastnst.errors import ImageError
from fastnst.gallery.folders import PairResult

log = logging.getLogger("fastnst")

MAX_HEIGHT, MIN_HEIGHT = 320, 40
"""Height of a cell in pixels."""
MIN_LABEL_HEIGHT = 96
"""Height of the smallest cell that has a label, in pixels."""
MAX_ASPECT = 3
"""Width of a cell relative to its height; a wider picture is cropped to its center."""
PIXELS = 24e6
"""Pixels of a sheet, about: viewers open pictures of this size without delay."""
MAX_GRID = 40
"""Rows and columns of a grid, at most."""


def write_sheet(path: Path, made: Sequence[PairResult], *, grid: bool) -> Path:
    """Write the sheet of finished pairs and return its path.

    With ``grid``, rows are contents and columns are styles; otherwise each pair shows its content, style and result.
    """
    contents = list(dict.fromkeys(one.pair.content for one in made))
    styles = list(dict.fromkeys(one.pair.style for one in made))
    if grid and len(styles) > 1 and max(len(contents), len(styles)) <= MAX_GRID:
        cells, columns = _grid(made, contents, styles), len(styles) + 1
    else:
        cells = [cell for one in made for cell in _row(one)]
        columns = 3 * max(1, round(math.sqrt(len(made) / 3)))
    height = int(min(MAX_HEIGHT, max(MIN_HEIGHT, math.sqrt(PIXELS / len(cells)))))
    labels = [label for _, label in cells] if height >= MIN_LABEL_HEIGHT else None
    pictures = [_read(file, height) for file, _ in cells]
    return images.save(path, images.sheet(pictures, columns=columns, height=height, gap=height // 24, labels=labels))


_Cell = tuple["Path | None", str]


def _row(one: PairResult) -> list[_Cell]:
    folder = one.pair.folder
    return [
        (folder / "content.jpg", one.pair.content.stem),
        (folder / "style.jpg", one.pair.style.stem),
        (one.picture, folder.name),
    ]


def _grid(made: Sequence[PairResult], contents: Sequence[Path], styles: Sequence[Path]) -> list[_Cell]:
    results = {(one.pair.content, one.pair.style): one for one in made}
    style_of = {one.pair.style: one for one in made}
    content_of = {one.pair.content: one for one in made}
    cells: list[_Cell] = [(None, "")]
    cells += [(style_of[style].pair.folder / "style.jpg", style.stem) for style in styles]
    for content in contents:
        cells.append((content_of[content].pair.folder / "content.jpg", content.stem))
        for style in styles:
            one = results.get((content, style))
            cells.append((None, "") if one is None else (one.picture, one.pair.folder.name))
    return cells


def _read(file: Path | None, height: int) -> Tensor:
    """A picture at the height of a cell; a white square if there is none."""
    if file is not None:
        try:
            pixels = images.load(file).pixels
            spare = max(0, pixels.shape[3] - MAX_ASPECT * pixels.shape[2])
            pixels = pixels[..., spare // 2 : pixels.shape[3] - (spare - spare // 2)]
            return images.resize(pixels, height, max(1, round(pixels.shape[3] * height / pixels.shape[2])))
        except ImageError as error:
            log.warning("%s; omitted from the sheet", error)
    return torch.ones(1, 3, height, height)

"""The demo: the photograph of the package in the style of its painting, offline."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from torch import Tensor

from fastnst import images
from fastnst.config.settings import Settings
from fastnst.errors import FastnstError
from fastnst.files import ASSETS, replacing
from fastnst.objective import Losses
from fastnst.optim.progress import Callback
from fastnst.process import signals_held
from fastnst.run.clashes import named, refuse_clashes
from fastnst.run.result import Result
from fastnst.run.scene import Scene, StylePicture
from fastnst.run.stylizer import Stylizer

log = logging.getLogger("fastnst")

PHOTO, PAINTING = ASSETS / "demo_photo.jpg", ASSETS / "demo_painting.jpg"


def run(
    folder: str | os.PathLike[str],
    settings: Settings,
    *,
    callback: Callback | None = None,
    finished: Callable[[Path], None] = lambda path: None,
) -> Result:
    """Write ``styled.png``, ``sheet.png`` (before, style, after) and ``loss.png`` to ``folder``, which is created.

    Args:
        folder: where to write.
        settings: settings of the run.
        callback: called after each step.
        finished: called with each path that is written.

    Without matplotlib there is no ``loss.png``, and a warning says so. After Ctrl-C the result so far is written;
    before the first step, KeyboardInterrupt is raised.
    """
    folder = Path(folder)
    for picture in (PHOTO, PAINTING):
        if not picture.is_file():
            raise FastnstError(f"{picture}: the picture of the demo is missing; reinstall fastnst")
    _refuse_clashes(folder, settings)
    stylizer = Stylizer(settings)
    content = stylizer.loader.content(PHOTO)
    style = stylizer.loader.style(PAINTING, content)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise FastnstError(f"{folder}: is a file; expected a folder to write to") from None
    images.check_target(folder / "styled.png")
    result = stylizer.run(Scene(content, (StylePicture(style),)), callback=callback)
    if not any(result.trace):
        raise KeyboardInterrupt
    with signals_held():
        _save(folder, result, [content.pixels, style.pixels], finished)
    return result


def _refuse_clashes(folder: Path, settings: Settings) -> None:
    written = [
        ("the result", folder / "styled.png"),
        ("the sheet", folder / "sheet.png"),
        ("the plot", folder / "loss.png"),
    ]
    refuse_clashes(written, named(settings, photograph=PHOTO, painting=PAINTING))


def _save(folder: Path, result: Result, before: list[Tensor], finished: Callable[[Path], None]) -> None:
    finished(result.save(folder / "styled.png"))
    sheet = images.sheet([*before, result.image], labels=["before", "style", "after"])
    finished(images.save(folder / "sheet.png", sheet))
    try:
        finished(plot_losses(folder / "loss.png", result.trace))
    except ImportError:
        log.warning('no loss.png: the plot needs matplotlib (pip install "fastnst[plot]")')


def plot_losses(path: Path, trace: Sequence[Sequence[Losses]]) -> Path:
    """Plot the total, content and style loss of each step over all scales. Raises ImportError without matplotlib."""
    from matplotlib.figure import Figure

    steps = [losses for scale in trace for losses in scale]
    numbers = range(1, len(steps) + 1)
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.add_subplot()
    axes.plot(numbers, [losses.total for losses in steps], label="total", color="0.75", linewidth=5)
    axes.plot(numbers, [sum(losses.style.values()) for losses in steps], label="style")
    axes.plot(numbers, [sum(losses.content.values()) for losses in steps], label="content")
    # The content loss of the content itself is 0, which a logarithmic axis cannot show.
    axes.set_yscale("log", nonpositive="mask")
    begin = 0
    for number, scale in enumerate(trace, 1):
        if number > 1:
            axes.axvline(begin + 0.5, color="gray", linewidth=0.8, linestyle="--")
        if len(trace) > 1:
            middle = begin + 0.5 + len(scale) / 2
            axes.text(middle, 0.98, f"scale {number}", transform=axes.get_xaxis_transform(), ha="center", va="top")
        begin += len(scale)
    axes.set(xlabel="step", ylabel="weighted loss")
    axes.legend()
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=120)
    return path

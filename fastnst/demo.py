"""``fastnst demo``: the shipped photograph in the style of the shipped painting, offline."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from fastnst import images
from fastnst.errors import FastnstError
from fastnst.files import replacing
from fastnst.inputs import named, refuse_clashes
from fastnst.interrupts import uninterrupted
from fastnst.objective import Losses
from fastnst.optimize import Callback
from fastnst.scene import Painting, Scene
from fastnst.settings import Settings
from fastnst.transfer import Result, Stylizer

log = logging.getLogger("fastnst")

ASSETS = Path(__file__).with_name("assets")
PHOTO, PAINTING = ASSETS / "demo_photo.jpg", ASSETS / "demo_painting.jpg"


def run(
    folder: str | os.PathLike[str],
    settings: Settings,
    *,
    callback: Callback | None = None,
    finished: Callable[[Path], None] = lambda path: None,
) -> Result:
    """Write ``styled.png``, ``sheet.png`` (before, style, after) and ``loss.png`` into ``folder``, made if need be.

    ``finished`` is called with each path as it is written. Without matplotlib there is no ``loss.png``, which a
    warning says. Raises KeyboardInterrupt for a Ctrl-C before the first step; after it, what there is is written.
    """
    folder = Path(folder)
    for picture in (PHOTO, PAINTING):
        if not picture.is_file():
            raise FastnstError(f"{picture}: the demo's picture is missing; install fastnst again")
    written = [
        ("the result", folder / "styled.png"),
        ("the sheet", folder / "sheet.png"),
        ("the plot", folder / "loss.png"),
    ]
    refuse_clashes(written, named(settings, photograph=PHOTO, painting=PAINTING))
    stylizer = Stylizer(settings)
    content = stylizer.load(PHOTO)
    style = stylizer.load_style(PAINTING, content)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise FastnstError(f"{folder}: is a file; expected a folder to write to") from None
    images.check_target(folder / "styled.png")
    result = stylizer.run(Scene(content, (Painting(style),)), callback=callback)
    if not any(result.trace):
        raise KeyboardInterrupt
    with uninterrupted():
        finished(result.save(folder / "styled.png"))
        sheet = images.sheet([content.pixels, style.pixels, result.image], labels=["before", "style", "after"])
        finished(images.save(folder / "sheet.png", sheet))
        try:
            finished(plot_losses(folder / "loss.png", result.trace))
        except ImportError:
            log.warning('no loss.png: the plot needs matplotlib (pip install "fastnst[plot]")')
    return result


def plot_losses(path: Path, trace: Sequence[Sequence[Losses]]) -> Path:
    """Plot the total, content and style losses of each step, one scale after the other. Raises ImportError without
    matplotlib."""
    from matplotlib.figure import Figure

    steps = [losses for scale in trace for losses in scale]
    numbers = range(1, len(steps) + 1)
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.add_subplot()
    axes.plot(numbers, [losses.total for losses in steps], label="total", color="0.75", linewidth=5)
    axes.plot(numbers, [sum(losses.style.values()) for losses in steps], label="style")
    axes.plot(numbers, [sum(losses.content.values()) for losses in steps], label="content")
    # The content loss of the content itself is 0, which a logarithm has no place for.
    axes.set_yscale("log", nonpositive="mask")
    begin = 0
    for number, scale in enumerate(trace, 1):
        if number > 1:
            axes.axvline(begin + 0.5, color="grey", linewidth=0.8, linestyle="--")
        if len(trace) > 1:
            middle = begin + 0.5 + len(scale) / 2
            axes.text(middle, 0.98, f"scale {number}", transform=axes.get_xaxis_transform(), ha="center", va="top")
        begin += len(scale)
    axes.set(xlabel="step", ylabel="weighted loss")
    axes.legend()
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=120)
    return path

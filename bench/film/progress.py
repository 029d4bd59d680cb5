"""The time of a run with and without a film of its progress: ``python -m bench.film.progress``.

Runs alternate, so that a machine that slows down slows both. Every step is filmed, which is more than anyone wants.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import fastnst
from fastnst.files import ASSETS
from fastnst.film import ProgressFilm


def seconds(size: int, steps: int, film: Path | None, every: int) -> tuple[float, float]:
    """Seconds of a run's steps and of finishing its film: on the clock, and of CPU time."""
    stylizer = fastnst.Stylizer(fastnst.Settings.from_preset(size=size, steps=steps, scales=2))
    scene = stylizer.load_scene(ASSETS / "demo_photo.jpg", ASSETS / "demo_painting.jpg")
    start, used = time.perf_counter(), time.process_time()
    if film is None:
        stylizer.run(scene)
    else:
        with ProgressFilm(film, every=every) as callback:
            stylizer.run(scene, callback=callback)
    return time.perf_counter() - start, time.process_time() - used


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--steps", type=int, default=15)
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--suffixes", default=".mp4,.gif,.webp")
    options = parser.parse_args()
    kinds = [None, *options.suffixes.split(",")]
    found: dict[str | None, list[tuple[float, float]]] = {kind: [] for kind in kinds}
    with tempfile.TemporaryDirectory() as folder:
        seconds(options.size, 2, None, 1)
        for _ in range(options.repeats):
            for kind in kinds:
                path = None if kind is None else Path(folder) / f"progress{kind}"
                found[kind].append(seconds(options.size, options.steps, path, options.every))
    plain = [statistics.median(column) for column in zip(*found[None], strict=True)]
    frames = 2 * options.steps // options.every
    for kind, times in found.items():
        clock, used = [statistics.median(column) for column in zip(*times, strict=True)]
        each = 1000 * (used - plain[1]) / frames
        print(
            f"{kind or 'no film':8} {clock:6.2f} s  {2 * options.steps / clock:6.2f} steps/s"
            f"  {clock / plain[0] - 1:+6.1%}"
            f"  CPU {used:6.2f} s  {used / plain[1] - 1:+6.1%}  {each:5.1f} ms a frame"
        )


if __name__ == "__main__":
    main()

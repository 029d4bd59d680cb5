"""The time of a run with the live pictures of the studio, and without: ``python -m bench.e2e.live``.

The time of the CPU counts that of all threads.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import fastnst
from bench.common.contest import in_turn, ratios
from bench.common.machine import headline, machine
from bench.common.options import numbers, parser
from bench.common.pictures import PAINTING, PHOTO
from fastnst.studio.worker import Reporter


class Silent:
    """The listener of a reporter; counts its pictures."""

    command: str | None = None

    def __init__(self) -> None:
        self.pictures = 0

    def tell(self, event: str, **facts: Any) -> None:
        self.pictures += event == "frame"


def seconds(size: int, steps: int, folder: Path | None) -> tuple[float, float, int]:
    """Seconds of a run on the clock and of the CPU, and the number of its live pictures."""
    stylizer = fastnst.Stylizer(fastnst.Settings.from_preset(size=size, steps=steps, scales=1))
    scene = stylizer.load_scene(PHOTO, PAINTING)
    listener = Silent()
    callback = None if folder is None else Reporter(listener, folder, stylizer, scene)
    start, used = time.perf_counter(), time.process_time()
    stylizer.run(scene, callback=callback)
    return time.perf_counter() - start, time.process_time() - used, listener.pictures


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--sizes", type=numbers, default=[128, 256, 512], help="longest sides")
    arguments.add_argument("--seconds", type=float, default=12.0, help="of a run, about")
    arguments.add_argument("--rounds", type=int, default=5)
    options = arguments.parse_args()
    print(headline(machine()))
    with tempfile.TemporaryDirectory() as folder:
        for size in options.sizes:
            steps = max(4, round(options.seconds / (seconds(size, 6, None)[0] / 6)))
            contenders = {
                "plain": partial(seconds, size, steps, None),
                "live": partial(seconds, size, steps, Path(folder)),
            }
            found = in_turn(contenders, options.rounds, f"{size} px")
            clock, used = (
                _ratio([run[i] for run in found["live"]], [run[i] for run in found["plain"]]) for i in (0, 1)
            )
            pictures = statistics.median(run[2] / run[0] for run in found["live"])
            print(f"{size:5} px, {steps} steps: clock {clock}, CPU {used}, {pictures:.2f} pictures a second")


def _ratio(live: list[float], plain: list[float]) -> str:
    found = ratios(live, plain)
    return f"{statistics.median(found) - 1:+.1%} ({min(found) - 1:+.1%} to {max(found) - 1:+.1%})"


if __name__ == "__main__":
    main()

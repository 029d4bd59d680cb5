"""The time of a run with the live pictures of the studio, and without: ``python -m bench.e2e.live``.

Runs alternate, so that a machine that slows down slows both. The time of the CPU counts that of all threads.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import fastnst
from bench.common.machine import headline, machine
from fastnst.files import ASSETS
from fastnst.studio.worker import Reporter


class Silent:
    """The server of a reporter that nobody listens to; counts its pictures."""

    command = None

    def __init__(self) -> None:
        self.pictures = 0

    def tell(self, event: str, **facts: Any) -> None:
        self.pictures += event == "frame"


def seconds(size: int, steps: int, folder: Path | None) -> tuple[float, float, int]:
    """Seconds of a run on the clock and of the CPU, and the number of its live pictures."""
    stylizer = fastnst.Stylizer(fastnst.Settings.from_preset(size=size, steps=steps, scales=1))
    scene = stylizer.load_scene(ASSETS / "demo_photo.jpg", ASSETS / "demo_painting.jpg")
    server = Silent()
    callback = None if folder is None else Reporter(server, folder, stylizer, scene)  # type: ignore[arg-type]
    start, used = time.perf_counter(), time.process_time()
    stylizer.run(scene, callback=callback)
    return time.perf_counter() - start, time.process_time() - used, server.pictures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", default="128,256,512")
    parser.add_argument("--seconds", type=float, default=12.0, help="of a run, about")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    print(headline(machine()))
    with tempfile.TemporaryDirectory() as folder:
        for size in map(int, options.sizes.split(",")):
            probe = seconds(size, 6, None)[0] / 6
            steps = max(4, round(options.seconds / probe))
            found = [(seconds(size, steps, None), seconds(size, steps, Path(folder))) for _ in range(options.repeats)]
            ratios = [[live[i] / plain[i] for plain, live in found] for i in (0, 1)]
            clock, used = (f"{statistics.median(r) - 1:+.1%} ({min(r) - 1:+.1%} to {max(r) - 1:+.1%})" for r in ratios)
            pictures = statistics.median(live[2] / live[0] for _, live in found)
            print(f"{size:5} px, {steps} steps: clock {clock}, CPU {used}, {pictures:.2f} pictures a second")


if __name__ == "__main__":
    main()

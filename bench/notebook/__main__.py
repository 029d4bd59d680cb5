"""What ``fastnst.watch`` costs: runs with it and without it, in turn, in the kernel of a notebook.

    python -m bench.notebook --size 512 --steps 50 --rounds 3

The time of a run is the CPU time of all threads of the kernel, which converts the pictures and sends them. Prints the
medians, and the median of the ratios of neighbors. Other programs on a machine change the time of a run by more than
the callback does, so that it also prints the CPU time of all threads while the callback runs, as a share of the run's.
The kernel needs ipykernel, and this script nbclient.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Sequence
from typing import Any

CELL = """
import json, time
from importlib.resources import files

import fastnst

assets = files("fastnst") / "assets"
pictures = [fastnst.images.load(str(assets / f"demo_{{name}}.jpg")) for name in ("photo", "painting")]
stylizer = fastnst.Stylizer(fastnst.Settings.from_preset(device="cpu", size={size}, steps={steps}, scales={scales}))
scene = stylizer.load_scene(*pictures)


def measure(watching):
    wall, cpu, within, shown = time.perf_counter(), time.process_time(), 0.0, fastnst.watch() if watching else None

    def callback(step):
        nonlocal within
        before = time.process_time()
        shown(step)
        within += time.process_time() - before

    stylizer.run(scene, callback=callback if watching else None)
    time.sleep(0.2)  # the thread that sends has finished
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall - 0.2
    return {{"cpu": cpu, "wall": wall, "within": within / cpu}}


measure(False)
found = [{{"without": measure(False), "with": measure(True)}} for _ in range({rounds})]
print("found", json.dumps(found))
"""


def run(size: int, steps: int, scales: int, rounds: int) -> tuple[list[dict[str, dict[str, float]]], int]:
    """The times of each round, and the number of displays that the kernel sent."""
    import nbformat
    from nbclient import NotebookClient

    cell = nbformat.v4.new_code_cell(CELL.format(size=size, steps=steps, scales=scales, rounds=rounds))
    client = _counting(NotebookClient)(nbformat.v4.new_notebook(cells=[cell]), timeout=None, kernel_name="python3")
    client.execute()
    text = "".join(output.get("text", "") for output in cell.outputs if output.output_type == "stream")
    line = next(line for line in text.splitlines() if line.startswith("found "))
    return json.loads(line.removeprefix("found ")), client.updates


def _counting(base: Any) -> Any:
    class Counting(base):
        """Counts the displays and their updates."""

        updates = 0

        def process_message(self, message: dict[str, Any], *arguments: Any) -> Any:
            self.updates += message["msg_type"] in ("display_data", "update_display_data")
            return super().process_message(message, *arguments)

    return Counting


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in (("size", 512), ("steps", 50), ("scales", 2), ("rounds", 3)):
        parser.add_argument(f"--{name}", type=int, default=value)
    options = parser.parse_args(words)
    started = time.perf_counter()
    found, updates = run(options.size, options.steps, options.scales, options.rounds)
    for kind in ("cpu", "wall"):
        medians = {name: statistics.median(round_[name][kind] for round_ in found) for name in ("without", "with")}
        ratio = statistics.median(round_["with"][kind] / round_["without"][kind] for round_ in found)
        print(f"{kind:4}  without {medians['without']:.2f} s  with {medians['with']:.2f} s  ratio {ratio:.4f}")
    within = max(round_["with"]["within"] for round_ in found)
    print(f"callback: {100 * within:.2f} % of the CPU time at most")
    print(f"{updates / options.rounds:.1f} displays a run; {time.perf_counter() - started:.0f} s in total")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

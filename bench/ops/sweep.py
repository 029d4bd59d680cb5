"""Style loss and gradient over a range of shapes: is eager PyTorch faster at any of them, or smaller?

    python -m bench.ops.sweep [--channels 3 64 512] [--dtype float32] [--seconds 0.3]
    python -m bench.ops.sweep --memory

The first form times the work of layer_losses.py over a grid of channels and positions in both layouts, eager and fused
in turn, and prints the median ratio eager / fused of each shape. It exits with 1 where eager is faster by more than
noise, in three quarters of the rounds.

The second form measures peak extra memory at the five style layers of a 512 x 512 picture: each contender runs once in
a process of its own, and counts how far the resident memory rises above its level before the run (Linux only).
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Iterable

import torch

from bench.common import contest
from bench.common.contest import Clock, rounds_within
from bench.common.machine import headline, machine
from bench.common.memory import growth as memory_growth
from bench.common.options import parser
from bench.common.results import Table
from bench.common.worker import run_module
from bench.ops.contests import LAYERS
from bench.ops.layer_losses import FUNCTIONS, LAYOUTS, Arguments, contenders, eager

CHANNELS = (3, 4, 7, 16, 33, 64, 100, 128, 200, 256, 384, 512, 768, 1024)
SIDES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
LARGEST = 2**27  # values in x: 512 MB of float32
BOUNDS = {torch.float32: 1e-4, torch.bfloat16: 1e-2}
ROUNDS = 7, 2000  # least and most


def arguments(channels: int, side: int, layout: str, dtype: torch.dtype) -> Arguments:
    x = torch.randn(1, channels, side, side).relu_().to(dtype).to(memory_format=LAYOUTS[layout])
    target = torch.rand(channels, channels)
    return x, target + target.mT, torch.zeros_like(x), 1 / side**2


def check(given: Arguments, bound: float) -> None:
    """Exit where the two results differ: the exact one would take longer than the timing."""
    x, target, above, scale = given
    _, fused = contenders(given)
    _, refused = contest.check(fused, (eager(x, target, above.clone(), scale).double(),), bound)
    if refused:
        sys.exit(f"{tuple(x.shape)}: the results differ: {refused}")


def race(given: Arguments, seconds: float) -> list[float]:
    """The ratio eager / fused of each round. The gradient accumulates from round to round."""
    clock, both = Clock(), contenders(given)
    clock.seconds(both, 1)
    return contest.ratios(*clock.seconds(both, rounds_within(seconds, *ROUNDS)))


def sweep(channels: Iterable[int], dtype: torch.dtype, seconds: float) -> list[str]:
    """Print the table; return the shapes at which eager is faster."""
    slower, worst = [], (float("inf"), "")
    race(arguments(64, 64, "contiguous", dtype), 0.5)  # warms threads and caches up
    print("| C | layout | " + " | ".join(f"N = {side}^2" for side in SIDES) + " |")
    print("|---|---|" + "---|" * len(SIDES))
    for count in channels:
        for layout in LAYOUTS:
            print(f"| {count} | {layout} |", end="")
            for side in SIDES:
                if count * side**2 > LARGEST:
                    print(" - |", end="")
                    continue
                given = arguments(count, side, layout, dtype)
                check(given, BOUNDS[dtype])
                ratios = race(given, seconds)
                ratio, upper = statistics.median(ratios), statistics.quantiles(ratios, n=4)[2]
                shape = f"C = {count}, N = {side}^2, {layout}: {ratio:.2f}"
                worst = min(worst, (ratio, shape))
                if upper < 1:
                    slower.append(shape)
                print(f" {ratio:.2f} |", end="", flush=True)
            print()
    print(f"\nworst: {worst[1]}")
    return slower


def growth(contender: str, channels: int, side: int, layout: str, dtype: torch.dtype) -> int:
    """By how many bytes one run raises the peak of the resident memory; for a fresh process."""
    run = FUNCTIONS[contender]
    run(*arguments(8, 64, layout, dtype))  # starts threads, loads code
    given = arguments(channels, side, layout, dtype)
    return memory_growth(lambda: run(*given))


def memory(dtype: torch.dtype) -> Table:
    rows = []
    for channels, side in LAYERS:
        for layout in LAYOUTS:
            shape = {"channels": channels, "side": side, "layout": layout, "dtype": str(dtype).removeprefix("torch.")}
            eager_mb, fused_mb = (
                run_module("bench.ops.sweep", {"contender": name, **shape}, torch.get_num_threads()) / 1e6
                for name in FUNCTIONS
            )
            own = channels * side**2 * dtype.itemsize / 1e6
            sizes = (f"{own:.1f}", f"{eager_mb:.1f}", f"{fused_mb:.1f}", f"{fused_mb / eager_mb:.3f}")
            rows.append((f"{channels}, {side}", layout, *sizes))
    return Table(("C, side", "layout", "x MB", "eager MB", "fused MB", "ratio"), rows)


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--channels", type=int, nargs="+", default=CHANNELS)
    options.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    options.add_argument("--seconds", type=float, default=0.3, help="time for each shape (default 0.3)")
    options.add_argument("--memory", action="store_true", help="measure memory instead of time")
    options.add_argument("--run", type=json.loads, help=argparse.SUPPRESS)
    given = options.parse_args()
    torch.manual_seed(0)
    if given.run:
        print(growth(**{**given.run, "dtype": getattr(torch, given.run["dtype"])}))
        return
    dtype = getattr(torch, given.dtype)
    print(f"{headline(machine())}, {given.dtype}\n")
    if given.memory:
        print(memory(dtype))
        return
    slower = sweep(given.channels, dtype, given.seconds)
    if slower:
        sys.exit("eager is faster at\n  " + "\n  ".join(slower))


if __name__ == "__main__":
    main()

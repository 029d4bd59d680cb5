"""Style loss and gradient over the whole range of shapes: is there any at which eager PyTorch is faster, or as small?

    python bench/ops/sweep.py [--channels 3 64 512] [--dtype float32] [--seconds 0.3]
    python bench/ops/sweep.py --memory

The first form times what a loop does at a tapped layer, as tapped_layers.py does, over a grid of channels and positions
in both layouts, eager and fused in turn, and prints the median ratio eager / fused of each shape. It exits with 1 where
eager is faster by more than noise: where three quarters of the rounds say so.

The second form measures peak extra memory at the five style layers of a 512 x 512 picture: each contender runs once in
a process of its own, and what counts is how far the resident memory rises above what it was before (Linux only).
"""

from __future__ import annotations

import argparse
import ctypes
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import torch
from tapped_layers import LAYERS, eager, fused, timed
from torch import Tensor

from fastnst import ops

CHANNELS = (3, 4, 7, 16, 33, 64, 100, 128, 200, 256, 384, 512, 768, 1024)
SIDES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
LARGEST = 2**27  # values in x: 512 MB of float32
LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
CONTENDERS = {"eager": eager, "fused": fused}
ROUNDS = 7, 2000  # at least and at most

Arguments = tuple[Tensor, Tensor, Tensor, float]


def arguments(channels: int, side: int, layout: str, dtype: torch.dtype) -> Arguments:
    x = torch.randn(1, channels, side, side).relu_().to(dtype).to(memory_format=LAYOUTS[layout])
    target = torch.rand(channels, channels)
    return x, target + target.mT, torch.zeros_like(x), 1 / side**2


def check(given: Arguments, bound: float) -> None:
    x, target, above, scale = given
    expected = eager(*given).double()
    error = ((fused(x, target, above.clone(), scale).double() - expected).norm() / expected.norm()).item()
    if not error < bound:
        sys.exit(f"{tuple(x.shape)}: the results differ by {error:.1e}")


def race(given: Arguments, seconds: float) -> list[float]:
    """The ratio eager / fused of each round. The gradient piles up in ``above``, round after round."""
    timed(eager, *given), timed(fused, *given)
    ratios: list[float] = []
    end = time.perf_counter() + seconds
    while len(ratios) < ROUNDS[0] or (time.perf_counter() < end and len(ratios) < ROUNDS[1]):
        ratios.append(timed(eager, *given) / timed(fused, *given))
    return ratios


def sweep(channels: Iterable[int], dtype: torch.dtype, seconds: float) -> list[str]:
    """Prints the table; returns the shapes at which eager is faster."""
    slower, worst = [], (float("inf"), "")
    race(arguments(64, 64, "contiguous", dtype), 0.5)  # threads and caches are warm from here on
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
                check(given, 1e-4 if dtype == torch.float32 else 1e-2)
                ratios = race(given, seconds)
                ratio, upper = statistics.median(ratios), statistics.quantiles(ratios, n=4)[2]
                what = f"C = {count}, N = {side}^2, {layout}: {ratio:.2f}"
                worst = min(worst, (ratio, what))
                if upper < 1:
                    slower.append(what)
                print(f" {ratio:.2f} |", end="", flush=True)
            print()
    print(f"\nworst: {worst[1]}")
    return slower


def status(field: str) -> int:
    """A figure of /proc/self/status, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return 1024 * int(line.split()[1])
    sys.exit(f"/proc/self/status has no {field}")


def growth(contender: str, channels: int, side: int, layout: str, dtype: torch.dtype) -> int:
    """By how many bytes one run raises the resident memory at its highest; for a fresh process."""
    run = CONTENDERS[contender]
    run(*arguments(8, 64, layout, dtype))  # starts threads, loads code
    given = arguments(channels, side, layout, dtype)
    ctypes.CDLL(None).malloc_trim(0)  # what was freed so far is not to be had for nothing
    Path("/proc/self/clear_refs").write_text("5")  # the highest is now what is resident now
    before = status("VmRSS")
    run(*given)
    return status("VmHWM") - before


def memory(dtype: torch.dtype) -> None:
    print("| C, side | layout | x MB | eager MB | fused MB | ratio |\n|---|---|---|---|---|---|")
    for channels, side in LAYERS:
        for layout in LAYOUTS:
            megabytes = {}
            for contender in CONTENDERS:
                of = [contender, str(channels), str(side), layout]
                command = [sys.executable, __file__, "--dtype", str(dtype).removeprefix("torch."), "--growth", *of]
                done = subprocess.run(command, capture_output=True, text=True, check=True)
                megabytes[contender] = int(done.stdout) / 1e6
            own = channels * side**2 * dtype.itemsize / 1e6
            eager_mb, fused_mb = megabytes["eager"], megabytes["fused"]
            row = (f"{channels}, {side}", layout, f"{own:.1f}", f"{eager_mb:.1f}", f"{fused_mb:.1f}")
            print(f"| {' | '.join(row)} | {fused_mb / eager_mb:.3f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--channels", type=int, nargs="+", default=CHANNELS)
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--seconds", type=float, default=0.3, help="time for each shape")
    parser.add_argument("--memory", action="store_true", help="measure memory instead of time")
    parser.add_argument("--growth", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    dtype = getattr(torch, options.dtype)
    torch.manual_seed(0)
    if options.growth:
        contender, channels, side, layout = options.growth
        print(growth(contender, int(channels), int(side), layout, dtype))
        return
    kernels = ops.kernels()["style_loss"]
    print(f"{torch.get_num_threads()} threads, {options.dtype}, {kernels} kernels, torch {torch.__version__}\n")
    if options.memory:
        memory(dtype)
        return
    slower = sweep(options.channels, dtype, options.seconds)
    if slower:
        sys.exit("eager is faster at\n  " + "\n  ".join(slower))


if __name__ == "__main__":
    main()

"""Count the instructions of ops on aarch64: the NEON kernels, the portable ones, and PyTorch's.

    python -m tools.aarch64.count [--emulator qemu-aarch64]

Needs a QEMU that takes plugins, as the package qemu-user has and qemu-user-static does not. One thread. A
program with 50 calls more executes 50 times the instructions of one more. An emulator has no caches and no pipeline: a
count is no time.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys

from tools.aarch64.build import build
from tools.aarch64.machine import FOLDER, ROOT, prepare, python

MORE = 50  # calls; the start is 5e9 instructions, and varies by 1e6
CALLS = {
    "gram of 64 channels": "ops.gram(x)",
    "conv3x3 of 64 channels": "ops.conv3x3(x, weight, bias)",
}
PYTORCH = {
    "gram of 64 channels": "torch.mm(flat, flat.t())",
    "conv3x3 of 64 channels": "torch.nn.functional.conv2d(x, weight, bias, padding=1)",
}
PROGRAM = """
import torch
from fastnst import ops
torch.set_num_threads(1)
torch.manual_seed(0)
x = torch.randn(1, 64, 64, 64).contiguous(memory_format=torch.channels_last)
flat, weight, bias = x.reshape(64, -1), torch.randn(64, 64, 3, 3), torch.randn(64)
for _ in range({count}): {call}
"""


def instructions(emulator: str, table: str, call: str) -> int:
    """The instructions of one call."""
    counts = []
    for count in (1, 1 + MORE):
        command = [*python(emulator, "-plugin", str(FOLDER / "count.so"), "-E", "PYTHONHASHSEED=0"), "-c"]
        environment = {**os.environ, "FASTNST_CPU": table}
        program = PROGRAM.format(call=call, count=count)
        done = subprocess.run(
            [*command, program], cwd=FOLDER, env=environment, capture_output=True, text=True, check=False
        )
        found = re.search(r"^instructions (\d+)$", done.stderr, re.MULTILINE)
        if done.returncode or not found:
            sys.exit(f"tools.aarch64.count: {emulator} failed: {done.stderr.strip()[-500:]}")
        counts.append(int(found[1]))
    return (counts[1] - counts[0]) // MORE


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--emulator", default="qemu-aarch64", help="a QEMU that takes plugins (default: qemu-aarch64)")
    options = parser.parse_args()
    prepare()
    build()
    plugin = ["cc", "-shared", "-fPIC", "-O1", "-o", FOLDER / "count.so", ROOT / "tools" / "aarch64" / "count.c"]
    subprocess.run(plugin, check=True)
    print("| 64 x 64 positions, float32 | millions of instructions: NEON | portable | PyTorch | NEON / portable |")
    print("|---|---|---|---|---|")
    for name, call in CALLS.items():
        neon, portable, pytorch = (
            instructions(options.emulator, table, code)
            for table, code in (("neon", call), ("portable", call), ("neon", PYTORCH[name]))
        )
        row = [f"{count / 1e6:.1f}" for count in (neon, portable, pytorch)]
        print(f"| {name} | {' | '.join(row)} | {neon / portable:.2f} |", flush=True)


if __name__ == "__main__":
    main()

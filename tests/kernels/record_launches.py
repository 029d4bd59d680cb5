"""The launches of every op on the style layers, as the host code makes them: nothing runs, nothing is allocated.

    python tests/kernels/record_launches.py FILE [--sides 512,1024,2048] [--multiprocessors 132]

Builds the emulator, whose launches are recorded instead of run, and writes a JSON list with an entry per op, side,
layer, precision, layout and number of multiprocessors: its launches in order, each with kernel, grid, threads and bytes
of dynamic shared memory, the sizes of its buffers and the plan. Read by tools/kernel_model.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from emulated import Array, Device, strides_of
from gram_launches import backward, gram

LAYERS = {"relu1_1": (64, 1), "relu2_1": (128, 2), "relu3_1": (256, 4), "relu4_1": (512, 8), "relu5_1": (512, 16)}
PRECISIONS = {"float32": "float32", "tf32": "float32", "half": "float16", "bfloat16": "bfloat16"}
LAYOUTS = ("channels_last", "nchw")


class Unread(Array):
    """A buffer whose content is never asked for."""

    def numpy(self) -> np.ndarray:
        return np.zeros(self.shape[:1])


class Recorder(Device):
    """A device whose buffers take no memory."""

    def _make(self, name: str, shape: Any, dtype: str, kind: str, **how: Any) -> Array:
        made = super()._make(name, shape, dtype, kind, **{**how, "sparse": True})
        return Unread(made.buffer, dtype)

    def _filled(self, name: str, array: Any, dtype: str, kind: str, layout: Any, strides: Any, offset: int) -> Array:
        shape = np.shape(array)
        strides = strides or strides_of(shape, layout or "nchw")[0]
        return self._make(name, shape, dtype, kind, strides=strides, offset=offset)


def shaped(*shape: int) -> np.ndarray:
    """An array without memory."""
    return np.broadcast_to(np.float32(0), shape)


def record(module: Any, call: Callable[[Recorder], Any]) -> dict[str, Any]:
    """What ``call`` launches on the device it is given, and the number of values of each buffer."""
    launches: list[dict[str, Any]] = []

    def launched(kernel: str, grid: tuple[int, int, int], threads: int, shared: int, parameters: list[bytes]) -> None:
        launches.append({"kernel": kernel, "grid": grid, "threads": threads, "shared": shared})

    module.redirect(launched)
    try:
        held = call(Recorder(module)).buffers
    finally:
        module.redirect(None)
    sizes = {name: int(np.prod(array.shape, dtype=np.int64)) for name, array in held.items()}
    return {"launches": launches, "buffers": sizes}


def accepted(function: Any, **how: int) -> dict[str, int]:
    """The arguments that a binding has."""
    return {name: value for name, value in how.items() if name in (function.__doc__ or "")}


def record_style(module: Any, entry: dict[str, Any]) -> list[dict[str, Any]]:
    """The ops of a style layer."""
    dtype, layout = PRECISIONS[entry["precision"]], entry["layout"]
    x, square = shaped(1, entry["channels"], entry["positions"]), shaped(1, entry["channels"], entry["channels"])
    how = {"layout": layout, "plain": entry["precision"] == "tf32"}
    forward = accepted(module.gram, multiprocessors=entry["multiprocessors"])
    back = accepted(module.backward, multiprocessors=entry["multiprocessors"])
    plan = module.gram_plan(Recorder(module).input("x", x, dtype, layout=layout).buffer, **forward)
    calls: dict[str, Callable[[Recorder], Any]] = {
        "style_loss": lambda d: gram(d, x, dtype, target=square, **how, **forward),
        "layer_backward_": lambda d: backward(d, x, square, dtype, above=x, relu=True, **how, **back),
        "gram_backward": lambda d: backward(d, x, square, dtype, symmetrize=True, **how, **back),
    }
    numbers = {name: value for name, value in plan.items() if isinstance(value, int)}
    return [
        {"op": op, **entry, **record(module, call), "plan": numbers if op == "style_loss" else {}}
        for op, call in calls.items()
    ]


def record_all(module: Any, sides: list[int], multiprocessors: list[int]) -> list[dict[str, Any]]:
    """Entries of all layers, precisions and layouts."""
    entries = []
    for count, side, precision, layout in itertools.product(multiprocessors, sides, PRECISIONS, LAYOUTS):
        for layer, (channels, scale) in LAYERS.items():
            entry = {"side": side, "layer": layer, "precision": precision, "layout": layout}
            entry |= {"channels": channels, "positions": (side // scale) ** 2, "multiprocessors": count}
            entries += record_style(module, entry)
    return entries


def main() -> None:
    from emulator_build import load_emulator

    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--sides", default="512,1024,2048")
    parser.add_argument("--multiprocessors", default="132")
    options = parser.parse_args()
    numbers = [[int(n) for n in text.split(",")] for text in (options.sides, options.multiprocessors)]
    entries = record_all(load_emulator(), *numbers)
    options.file.parent.mkdir(parents=True, exist_ok=True)
    options.file.write_text("[\n" + ",\n".join(json.dumps(entry) for entry in entries) + "\n]\n")
    print(f"{len(entries)} ops in {options.file}", file=sys.stderr)


if __name__ == "__main__":
    main()

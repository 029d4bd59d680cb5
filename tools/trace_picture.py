"""Trace the way of one picture through the modules of ``fastnst``, from ``stylize`` to the saved file.

    python -m tools.trace_picture

Runs a small transfer under a profile hook. A function handles the picture if it receives it, or an object that holds
it, as an argument; what it returns from it is the picture as well. The trace lists the modules in the order in which
they are entered. A module that hands the picture on to another room (a folder of ``fastnst``), or reads or writes it,
is a stop of the way; modules that only compute something for a stop are listed with it.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

import numpy as np
import torch
from PIL import Image

import fastnst

SIDE = 64
ENDS = ("fastnst.images.loading", "fastnst.images.saving")


@dataclass
class Visit:
    """A stay in a module: its name, the module that called it, and what it called with the picture."""

    module: str
    depth: int
    calls: list[Visit] = field(default_factory=list)


class Tracer:
    """A profile hook that follows a picture."""

    def __init__(self, source: object) -> None:
        self._known: dict[int, object] = {id(source): source}  # kept alive, so that an id stays that of the object
        self._memory: set[int] = set()  # of its tensors: views are other objects
        self._stack: list[Visit | None] = []
        self.root = Visit("caller", 0)

    def __call__(self, frame: FrameType, event: str, value: object) -> None:
        module = frame.f_globals.get("__name__", "")
        if event not in ("call", "return") or not module.startswith("fastnst."):
            return
        if event == "call":
            self._enter(frame, module)
        elif self._stack:
            self._leave(value)

    def _enter(self, frame: FrameType, module: str) -> None:
        code = frame.f_code
        names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
        handles = any(self._holds(frame.f_locals[name]) for name in names if name in frame.f_locals)
        if not handles or code.co_filename.startswith("<") or code.co_name.startswith("<") or _is_property(frame):
            self._stack.append(None)
            return
        above = next((visit for visit in reversed(self._stack) if visit is not None), self.root)
        if above.module == module:
            self._stack.append(above)
            return
        visit = Visit(module, above.depth + 1)
        above.calls.append(visit)
        self._stack.append(visit)

    def _leave(self, value: object) -> None:
        visit = self._stack.pop()
        if visit is not None and self._is_picture(value):
            self._known[id(value)] = value
            if isinstance(value, torch.Tensor):
                self._memory.add(value.data_ptr())

    def _holds(self, value: object, depth: int = 2) -> bool:
        if id(value) in self._known or (isinstance(value, torch.Tensor) and value.data_ptr() in self._memory):
            return True
        if depth and type(value).__module__.startswith("fastnst."):
            return any(self._holds(inner, depth - 1) for inner in getattr(value, "__dict__", {}).values())
        return False

    def _is_picture(self, value: object) -> bool:
        if isinstance(value, torch.Tensor):
            return value.dim() == 4 and value.shape[:2] == (1, 3) and min(value.shape[2:]) >= SIDE
        return isinstance(value, (fastnst.Result, fastnst.images.Picture)) or self._holds(value)


def _is_property(frame: FrameType) -> bool:
    """Whether a frame reads an attribute."""
    owner = type(frame.f_locals.get("self"))
    return isinstance(getattr(owner, frame.f_code.co_name, None), property)


def trace() -> Visit:
    """Style a small picture and save it, and return the visits."""
    with tempfile.TemporaryDirectory() as folder:
        photo, painting = (Path(folder) / name for name in ("photo.png", "painting.png"))
        for path, seed in ((photo, 0), (painting, 1)):
            values = np.random.default_rng(seed).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
            Image.fromarray(values).save(path)
        settings = {"size": SIDE, "scales": 1, "steps": 2, "device": "cpu"}
        fastnst.stylize(photo, painting, **settings)  # imports and caches
        tracer = Tracer(photo)
        sys.setprofile(tracer)
        try:
            fastnst.stylize(photo, painting, **settings).save(Path(folder) / "out.png")
        finally:
            sys.setprofile(None)
    return tracer.root


def merged(visit: Visit) -> Visit:
    """The visit with repeated calls of a module from one place as one: the steps of a loop, for example."""
    found: dict[str, Visit] = {}
    for inner in visit.calls:
        if inner.module in found:
            found[inner.module].calls.extend(inner.calls)
        else:
            found[inner.module] = Visit(inner.module, inner.depth, list(inner.calls))
    return Visit(visit.module, visit.depth, [merged(inner) for inner in found.values()])


def room(module: str) -> str:
    return module.split(".")[1]


def is_stop(visit: Visit) -> bool:
    """Whether the picture goes from here to another room, other than to ops and files; or is read or written here."""
    if visit.module in ENDS:
        return True
    return any(
        room(inner.module) not in ("ops", "spill", room(visit.module)) or is_stop(inner) for inner in visit.calls
    )


def stops(visit: Visit) -> list[str]:
    """The modules of the way, in the order in which the picture first enters them."""
    found = dict.fromkeys([visit.module] if visit.depth and is_stop(visit) else [])
    for inner in visit.calls:
        found |= dict.fromkeys(stops(inner))
    return list(found)


def lines(visit: Visit) -> Iterator[str]:
    """The visits as an indented list, with computations beside the stop that calls them."""
    for inner in visit.calls:
        if not is_stop(inner):
            continue
        side = sorted({module for call in inner.calls if not is_stop(call) for module in modules(call)})
        name = inner.module.removeprefix("fastnst.")
        beside = f"  (calls {', '.join(module.removeprefix('fastnst.') for module in side)})" if side else ""
        yield "  " * (inner.depth - 1) + name + beside
        yield from lines(inner)


def modules(visit: Visit) -> set[str]:
    """The modules of a visit and of all below it."""
    return {visit.module}.union(*map(modules, visit.calls))


def main() -> None:
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    way = merged(trace())
    print("\n".join(lines(way)))
    print(f"\n{len(stops(way))} modules on the way")


if __name__ == "__main__":
    main()

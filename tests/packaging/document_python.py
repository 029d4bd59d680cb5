"""Run the Python blocks of pages, one page after another, in a process that imports torch once.

Each line of stdin is a JSON object: the page's name, the folder to run in, and its blocks as pairs of first line and
text. Each line of stdout answers one of them: what each block printed, or the traceback of the one that failed.
Sizes and numbers of steps are made small. Nothing else of the examples changes.
"""

from __future__ import annotations

import contextlib
import functools
import io
import json
import os
import sys
import traceback
from typing import Any

SMALL = 200
"""Longest side of settings that are left as they are: those of the probe of ``plan``."""


def small(changes: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a run, for a picture of 64 pixels and two steps at each scale."""
    few = {**changes, "size": 64}
    if "settings" in changes:
        few["settings"] = changes["settings"].replace(size=64, steps=2)
        return {name: value for name, value in few.items() if name != "size"}
    few["steps"] = tuple(2 for _ in changes["steps"]) if isinstance(changes.get("steps"), tuple) else 2
    if isinstance(changes.get("scales"), tuple):
        few["scales"] = tuple(64 - 8 * later for later in range(len(changes["scales"])))[::-1]
    return few


def make_small() -> None:
    """Change the functions that run something, so that they run something small."""
    import fastnst
    from fastnst import gallery
    from fastnst.run import planning, stylizer

    for module, name in ((stylizer, "stylize"), (planning, "plan")):
        whole = getattr(module, name)
        setattr(module, name, functools.wraps(whole)(lambda *given, f=whole, **changes: f(*given, **small(changes))))
        for package in (sys.modules["fastnst.run"], fastnst):
            if name in vars(package):
                setattr(package, name, getattr(module, name))
    create, run = stylizer.Stylizer.__init__, gallery.run

    def created(self: Any, settings: Any, *rest: Any, **more: Any) -> None:
        tiny = settings if (settings.size or SMALL + 1) <= SMALL else settings.replace(size=64, steps=2)
        create(self, tiny, *rest, **more)

    stylizer.Stylizer.__init__ = created  # type: ignore[method-assign]
    gallery.run = lambda here, out, settings, **more: run(here, out, settings.replace(size=64, steps=2), **more)


def run_page(name: str, blocks: list[tuple[int, str]]) -> dict[str, Any]:
    space: dict[str, Any] = {"__name__": "page"}
    printed = []
    for line, text in blocks:
        said = io.StringIO()
        try:
            with contextlib.redirect_stdout(said):
                exec(compile("\n" * line + text, name, "exec"), space)
        except Exception:
            return {"error": traceback.format_exc()}
        printed.append(said.getvalue())
    return {"printed": printed}


def main() -> None:
    make_small()
    for request in sys.stdin:
        page = json.loads(request)
        os.chdir(page["folder"])
        print(json.dumps(run_page(page["name"], page["blocks"])), flush=True)


if __name__ == "__main__":
    main()

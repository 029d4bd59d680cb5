"""Run the Python blocks of a page, as JSON on stdin, in one fresh process; print, as JSON, what each has printed.

Sizes and numbers of steps are made small. Nothing else of the examples changes.
"""

from __future__ import annotations

import contextlib
import functools
import io
import json
import sys
from typing import Any


def small(changes: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a run, for a picture of 64 pixels and two steps at each scale."""
    few = {**changes, "size": 64}
    if "settings" in changes:
        few["settings"] = changes["settings"].but(steps=2)
        return {name: value for name, value in few.items() if name != "size"}
    few["steps"] = tuple(2 for _ in changes["steps"]) if isinstance(changes.get("steps"), tuple) else 2
    if isinstance(changes.get("scales"), tuple):
        few["scales"] = tuple(64 - 8 * later for later in range(len(changes["scales"])))[::-1]
    return few


def main() -> None:
    import fastnst
    from fastnst import planning, transfer

    for module, name in ((transfer, "stylize"), (planning, "plan")):
        whole = getattr(module, name)
        setattr(module, name, functools.wraps(whole)(lambda *given, f=whole, **changes: f(*given, **small(changes))))
    assert fastnst.stylize is transfer.stylize
    space: dict[str, Any] = {"__name__": "page"}
    printed = []
    for line, text in json.load(sys.stdin):
        said = io.StringIO()
        with contextlib.redirect_stdout(said):
            exec(compile("\n" * line + text, sys.argv[1], "exec"), space)
        printed.append(said.getvalue())
    print(json.dumps(printed))


if __name__ == "__main__":
    main()

"""Print, as JSON, the ``--help`` of each script named on the command line, all in one process: torch is read once."""

from __future__ import annotations

import contextlib
import io
import json
import runpy
import sys
from pathlib import Path


def helped(script: str) -> str:
    said = io.StringIO()
    path, modules = list(sys.path), set(sys.modules)
    sys.argv = [script, "--help"]
    sys.path.insert(0, str(Path(script).resolve().parent))
    try:
        with contextlib.redirect_stdout(said), contextlib.suppress(SystemExit):
            runpy.run_path(script, run_name="__main__")
    finally:
        sys.path[:] = path
        for name in set(sys.modules) - modules:
            file = getattr(sys.modules[name], "__file__", None) or ""
            if f"{Path('bench').resolve()}/" in file or f"{Path('tools').resolve()}/" in file:
                del sys.modules[name]  # folders have modules of one name
    return said.getvalue()


print(json.dumps({script: helped(script) for script in sys.argv[1:]}))

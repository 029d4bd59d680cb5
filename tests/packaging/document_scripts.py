"""Print, as JSON, the ``--help`` of each module named on the command line, in one process, which imports torch once."""

from __future__ import annotations

import contextlib
import io
import json
import runpy
import sys


def help_of(module: str) -> str:
    printed = io.StringIO()
    sys.argv = [module, "--help"]
    with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
        runpy.run_module(module, run_name="__main__")
    return printed.getvalue()


print(json.dumps({module: help_of(module) for module in sys.argv[1:]}))

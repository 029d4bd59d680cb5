"""Starting the process of a run, and recording what it tells."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from itertools import accumulate
from pathlib import Path
from typing import Any

from fastnst.errors import UsageError
from fastnst.studio.job import Job, Trace
from fastnst.studio.store import Visitor, write_json

_CODE = (
    "import sys; from pathlib import Path; from fastnst.studio.worker import main; sys.exit(main(Path(sys.argv[1])))"
)
_LOG = "log.txt"


def launch(visitor: Visitor, folder: Path, job: Job) -> subprocess.Popen[str]:
    """Start the process of a run in ``folder``. Raises UsageError if a picture is gone."""
    settings = job.next_process()
    if "init" in job.overrides:
        settings["init"] = str(folder / job.overrides["init"])
    for old in folder.glob("run_*.checkpoint*"):
        if not old.name.startswith(job.checkpoint):
            old.unlink(missing_ok=True)
    run = {
        "content": _file(visitor, job.content),
        "styles": [_file(visitor, one) for one in job.styles],
        "masks": [None if one is None else _file(visitor, one) for one in job.masks],
        "style_masks": [None if one is None else _file(visitor, one) for one in job.style_masks],
        "content_mask": None if job.content_mask is None else _file(visitor, job.content_mask),
        "settings": settings,
        "checkpoint": job.checkpoint,
    }
    write_json(folder / "run.json", run)
    # -c would put the current folder on the path, where a file may have the name of a module.
    environment = {**os.environ, "OMP_WAIT_POLICY": "passive", "PYTHONSAFEPATH": "1"}
    with (folder / _LOG).open("w", encoding="utf-8") as log:
        return subprocess.Popen(
            [sys.executable, "-c", _CODE, str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            encoding="utf-8",
            env=environment,
            start_new_session=True,  # Ctrl-C in the terminal of the studio does not reach it: the studio tells it
        )


def _file(visitor: Visitor, identifier: str) -> str:
    path = visitor.picture_file(identifier)
    if path is None:
        raise UsageError("a picture of the run has been deleted; start a new run with other pictures")
    return str(path)


def record(job: Job, trace: Trace, event: Mapping[str, Any]) -> None:
    """Put what a process tells into the record of its run."""
    kind = event.get("event")
    if kind == "begin":
        job.sides = job.sides or list(event["sides"])
        job.size = job.size or tuple(event["size"])
        job.scales, job.steps = len(job.sides), job.first_step + sum(event["steps"])
        begun = list(accumulate(event["steps"][:-1], initial=job.first_step))
        began_before = job.first_scale + bool(job.first_in_scale)
        job.scale_starts = job.scale_starts[:began_before] + begun[bool(job.first_in_scale) :]
    elif kind == "steps":
        first = job.first_step + event["first"]
        trace.put(first, event["losses"])
        job.step, job.losses = first + len(event["losses"]) - 1, trace.last()
        job.scale = job.first_scale + event["scale"]
        job.seconds = job.seconds_before + event["seconds"]
        job.remaining, job.memory = event["remaining"], event["memory"]
    elif kind == "frame":
        job.frame = job.first_step + event["number"]

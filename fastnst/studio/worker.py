"""The process of one run: reads ``run.json`` in a folder, tells the server of each step, and obeys it.

Events are lines of JSON on stdout: ``begin``, ``steps``, ``frame``, and at last ``end`` or ``error``. Commands are
lines on stdin: ``pause`` saves a checkpoint and the picture and ends, ``keep`` ends with the picture as result. The end
of stdin, as when the server has been killed, is ``pause``.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

import torch

from fastnst import images, limits
from fastnst.config.description import settings_from_text
from fastnst.errors import CheckpointError, FastnstError, ImageError, printable
from fastnst.optim.progress import Step
from fastnst.process import limit_kept_memory
from fastnst.run.checkpoint import Checkpoint
from fastnst.run.pacing import Budget
from fastnst.run.result import Result, finish
from fastnst.run.scales import scale_sizes
from fastnst.run.scene import Scene
from fastnst.run.showing import reduced
from fastnst.run.stylizer import Stylizer
from fastnst.studio.job import LIVE, RESULTS, THUMBNAIL
from fastnst.studio.store import SHOWN_SIDE

THUMBNAIL_SIDE = 256
STEP_SECONDS = 0.2
BUSY_SECONDS = 3600.0  # in which the process of a killed server may still be in its last step


class Server:
    """The two ends of the connection to the server."""

    def __init__(self) -> None:
        # What libraries print goes to stderr.
        self._events = os.fdopen(os.dup(1), "w", encoding="utf-8")
        os.dup2(2, 1)
        self.command: str | None = None
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        for line in sys.stdin:
            self.command = line.strip() or self.command
        self.command = self.command or "pause"

    def tell(self, event: str, **facts: Any) -> None:
        """Send an event. Nothing happens if the server is gone."""
        try:
            print(json.dumps({"event": event, **facts}), file=self._events, flush=True)
        except OSError:
            self.command = self.command or "pause"


class Listener(Protocol):
    """What a callback tells, and obeys."""

    command: str | None

    def tell(self, event: str, **facts: Any) -> None: ...


class Reporter:
    """The callback of a run."""

    def __init__(self, server: Listener, folder: Path, stylizer: Stylizer, scene: Scene) -> None:
        self.server, self.folder = server, folder
        self.settings = stylizer.settings.replace(photoreal=0.0)  # takes seconds, and is for the result
        self.small = images.load(scene.content, size=min(SHOWN_SIDE, max(scene.content.size)))
        self.ended: dict[str, Any] | None = None
        self._losses: list[tuple[float, float, float, float]] = []
        self._told = 0.0
        self._budget = Budget(time.monotonic(), self.small.pixels[0, 0].numel())

    def __call__(self, step: Step) -> bool:
        losses = step.losses
        content, style = sum(losses.content.values()), sum(losses.style.values())
        self._losses.append((content, style, losses.tv, losses.total))
        now = time.monotonic()
        command = self.server.command
        if command or step.last or now - self._told >= STEP_SECONDS:
            self._tell(step)
            self._told = now
        if command or step.last or self._budget.due(now, step.scale):
            self._show(step)
            self._budget.add(now, time.monotonic(), step.scale)
        if command == "pause":
            self.ended = {"scale": step.scale, "step": step.step, "start": self._keep(step)}
        return command is not None

    def _tell(self, step: Step) -> None:
        first = step.count - len(self._losses) + 1
        self.server.tell(
            "steps",
            first=first,
            losses=self._losses,
            scale=step.scale,
            seconds=step.seconds,
            remaining=step.remaining,
            memory=step.memory,
        )
        self._losses.clear()

    def _show(self, step: Step) -> None:
        picture = finish(step.image, self.small, self.settings)
        with suppress(ImageError):  # a full disk does not end a run
            images.save(self.folder / LIVE, picture, alpha=self.small.alpha, quality=88)
            self.server.tell("frame", number=step.count)

    def _keep(self, step: Step) -> str | None:
        """The file of the picture as it is optimized; None on a full disk, where the checkpoint alone can continue."""
        with suppress(ImageError):
            return images.save(self.folder / f"start_{step.count}.tif", step.image, bits=16).name
        return None


def main(folder: Path) -> int:
    """Run what ``run.json`` in ``folder`` says."""
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    server = Server()
    try:
        limit_kept_memory()
        torch.set_num_threads(min(torch.get_num_threads(), limits.cpus()))
        server.tell("end", **_run(server, folder, json.loads((folder / "run.json").read_text(encoding="utf-8"))))
    except FastnstError as error:
        server.tell("error", message=printable(str(error), 1000))
    except MemoryError:
        server.tell("error", message="out of memory; use a smaller size")
    except Exception as error:
        traceback.print_exc()
        server.tell("error", message=printable(f"{type(error).__name__}: {error}", 1000))
    return 0


def _run(server: Server, folder: Path, run: dict[str, Any]) -> dict[str, Any]:
    settings = settings_from_text(run["settings"])
    with _checkpoint(server, folder / run["checkpoint"]) as checkpoint:
        stylizer = Stylizer(settings)
        parts = (run["content"], run["styles"], run["masks"], run["style_masks"], run["content_mask"])
        scene = stylizer.load_scene(*parts)
        height, width = scene.content.size
        sizes = scale_sizes(height, width, settings)
        steps = [settings.steps_at(scale) for scale in range(1, len(sizes) + 1)]
        server.tell("begin", sides=[max(size) for size in sizes], steps=steps, size=[width, height])
        reporter = Reporter(server, folder, stylizer, scene)
        result = stylizer.run(scene, callback=reporter, checkpoint=checkpoint)
    if reporter.ended is not None:
        return {"how": "paused", "place": reporter.ended}
    _save(result, folder)
    return {"how": "kept" if result.stopped == "callback" else "done", "stopped": result.stopped}


@contextmanager
def _checkpoint(server: Server, path: Path) -> Iterator[Checkpoint]:
    """The checkpoint of the run, as soon as no other process uses it."""
    until = time.monotonic() + BUSY_SECONDS
    while True:
        opened = Checkpoint(path, resume=True)
        try:
            opened.__enter__()
        except CheckpointError:
            if time.monotonic() > until or server.command:
                raise
            time.sleep(0.5)
            continue
        try:
            yield opened
        finally:
            opened.__exit__()
        return


def _save(result: Result, folder: Path) -> None:
    images.save(folder / THUMBNAIL, reduced(result.image, THUMBNAIL_SIDE, exact=True))
    for name in RESULTS.values():
        result.save(folder / name)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))

"""In a real kernel: what a notebook stores, and what is left when the kernel is interrupted."""

from __future__ import annotations

import asyncio
import base64
import io
import os
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

ipykernel = pytest.importorskip("ipykernel", reason="needs ipykernel: pip install 'fastnst[test]'")
manager = pytest.importorskip("jupyter_client.manager", reason="needs jupyter_client: pip install 'fastnst[test]'")

ROOT = Path(__file__).resolve().parents[2]
SETUP = """
import sys, torch, fastnst
sys.path.insert(0, {tests!r})
from support.pictures import samples, tiny

torch.set_num_threads(1)
from fastnst.run.pacing import Budget
Budget.due = lambda *_: True
"""


class Kernel:
    """A kernel, and what cells display: outputs as a notebook keeps them, where an update replaces what it updates."""

    def __init__(self, folder: Path) -> None:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (ROOT, *filter(None, sys.path))))}
        self.manager, self.client = manager.start_new_kernel(startup_timeout=60, cwd=str(folder), env=environment)

    def run(self, code: str, interrupt_after: int = 0) -> tuple[list[dict[str, Any]], int]:
        """Run a cell; return its outputs, and how many messages displayed something.

        With ``interrupt_after``, the kernel is interrupted after that many displays, as by the button of a notebook.
        """
        sent = self.client.execute(code)
        outputs: list[dict[str, Any]] = []
        names: dict[str, dict[str, Any]] = {}
        count, until = 0, time.monotonic() + 60
        while time.monotonic() < until:
            message = self.client.get_iopub_msg(timeout=60)
            if message["parent_header"].get("msg_id") != sent:
                continue
            kind, content = message["msg_type"], message["content"]
            if kind == "status" and content["execution_state"] == "idle":
                return outputs, count
            if kind in ("display_data", "update_display_data"):
                count += 1
                name = content["transient"]["display_id"]
                if kind == "display_data":
                    names[name] = {}
                    outputs.append(names[name])
                names[name].clear()
                names[name].update(content)
                if count == interrupt_after:
                    self.manager.interrupt_kernel()
            elif kind in ("execute_result", "stream", "error"):
                outputs.append(content)
        raise AssertionError("the cell did not end")


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kernel]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("IPYTHONDIR", str(tmp_path_factory.mktemp("ipython")))
        patch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path_factory.mktemp("runtime")))
        started = Kernel(tmp_path_factory.mktemp("kernel"))
        try:
            assert started.run(SETUP.format(tests=str(ROOT / "tests")))[0] == []
            yield started
        finally:
            started.client.stop_channels()
            started.manager.shutdown_kernel(now=True)
            asyncio.set_event_loop(None)


def test_a_cell_shows_the_run_and_its_result(kernel: Kernel) -> None:
    code = "fastnst.stylize(samples(), samples(seed=2), settings=tiny(), callback=fastnst.watch())"
    (live, result), count = kernel.run(code)
    assert count == 3
    assert set(live["data"]) == {"text/html", "text/plain"}
    assert live["data"]["text/plain"].startswith("step 3/3, loss ")
    assert "data:image/svg+xml;base64," in live["data"]["text/html"]
    assert set(result["data"]) == {"text/html", "image/jpeg", "text/plain"}
    shown = Image.open(io.BytesIO(base64.b64decode(result["data"]["image/jpeg"])))
    assert (shown.format, shown.size) == ("JPEG", (64, 48))
    assert re.search(r"64 \u00d7 48 pixels, 3 steps, .* s, loss ", result["data"]["text/html"])


def test_an_interrupted_kernel_keeps_the_result_so_far(kernel: Kernel) -> None:
    code = "result = fastnst.stylize(samples(), samples(seed=2), settings=tiny(steps=100000), callback=fastnst.watch())"
    (live,), count = kernel.run(code, interrupt_after=4)
    assert count >= 4
    assert live["data"]["text/plain"].startswith("step ")
    assert "left" not in live["data"]["text/plain"]
    (printed,), _ = kernel.run("print(result.stopped, len(result.trace[0]) >= 3, result.image.shape)")
    assert printed["text"] == "interrupt True torch.Size([1, 3, 48, 64])\n"


def test_an_error_of_fastnst_is_the_last_line_of_the_cell(kernel: Kernel) -> None:
    (error,), _ = kernel.run("fastnst.stylize(samples(), samples(seed=2), size=1, callback=fastnst.watch())")
    assert error["ename"] == "UsageError"

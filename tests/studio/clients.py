"""A studio in this process, and what tests ask it."""

from __future__ import annotations

import io
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
from fastapi.testclient import TestClient
from PIL import Image

from fastnst.studio import create_app

ORIGIN = "http://127.0.0.1:7860"
# The fewest steps: 64 pixels, one scale, shallow layers.
SETTINGS = {
    "size": "64",
    "scales": "1",
    "steps": "4",
    "content_layers": "relu2_1:1",
    "style_layers": "relu1_1:1,relu2_1:1",
}


def picture(seed: int = 0, width: int = 64, height: int = 48, **save: Any) -> bytes:
    """A smooth picture as a PNG file, or as another by the arguments of Pillow."""
    noise = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC).save(file, **{"format": "PNG", **save})
    return file.getvalue()


class Asking(httpx2.Client):
    """What tests ask a studio."""

    def add(self, data: bytes | None = None, name: str = "photo.png", kind: str = "picture", **more: Any) -> str:
        """Upload a picture and return its identifier."""
        files = {"file": (name, picture() if data is None else data)}
        answer = self.post("/api/pictures", files=files, data={"kind": kind}, **more)
        assert answer.status_code == 201, answer.text
        found: str = answer.json()["id"]
        return found

    def run_of(self, **settings: str) -> dict[str, Any]:
        """A request for a run of two new pictures."""
        pictures = {"content": self.add(picture(1)), "styles": [self.add(picture(2), "painting.png")]}
        return {**pictures, "settings": {**SETTINGS, **settings}}

    def start(self, **settings: str) -> str:
        """Queue a run and return its identifier."""
        answer = self.post("/api/jobs", json=self.run_of(**settings))
        assert answer.status_code == 201, answer.text
        found: str = answer.json()["id"]
        return found

    def job(self, identifier: str) -> dict[str, Any]:
        found: dict[str, Any] = self.get(f"/api/jobs/{identifier}").json()
        return found

    def wait(self, identifier: str, until: str | Callable[[dict[str, Any]], bool], seconds: float = 120) -> Any:
        """The run when it is in a state, or what is asked of it holds."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            job = self.job(identifier)
            if job["state"] == until if isinstance(until, str) else until(job):
                return job
            assert job["state"] != "failed" or until == "failed", job["error"]
            time.sleep(0.02)
        raise AssertionError(f"waited {seconds} s: {job}")

    def pixels(self, identifier: str, format: str = "png") -> np.ndarray[Any, Any]:
        """The pixels of a result."""
        answer = self.get(f"/api/jobs/{identifier}/result", params={"format": format})
        assert answer.status_code == 200, answer.text
        return np.asarray(Image.open(io.BytesIO(answer.content)))


class Studio(TestClient, Asking):
    """A studio in this process, asked by its owner."""

    def __init__(self, folder: Path, **options: Any) -> None:
        super().__init__(create_app(folder, **options), base_url=ORIGIN, raise_server_exceptions=False)
        self.keys = self.app.state.access.keys  # type: ignore[attr-defined]
        self.headers["authorization"] = f"Bearer {self.keys.owner()}"

    def as_visitor(self, key: str) -> Mapping[str, str]:
        return {"authorization": f"Bearer {key}"}


class Remote(Asking):
    """A studio in a process of its own, asked by its owner."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        self.process, self.link = process, process.stdout.readline().split()[1]
        self.place, _, key = self.link.partition("/?key=")
        super().__init__(base_url=self.place, headers={"authorization": f"Bearer {key}"}, timeout=60)


@contextmanager
def served(folder: Path) -> Iterator[Remote]:
    """The command `fastnst studio`, ended by SIGTERM if it is still there."""
    command = [sys.executable, "-m", "fastnst", "studio", "--folder", str(folder), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process, Remote(process) as remote:
        try:
            yield remote
        finally:
            process.terminate()

"""``fastnst weights fetch``, and weights that a run fetches: against a server on this machine, never the network."""

from __future__ import annotations

import hashlib
import http.server
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.picture_files import FAST

from fastnst.weights import entries

Run = Callable[..., tuple[int, str, str]]


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "1000")
        self.end_headers()
        self.wfile.write(bytes(self.server.sent))  # type: ignore[attr-defined]

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[entries.Entry]:
    """A catalog of one entry of 1000 bytes, of which a server on this machine sends ``request.param``."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.sent = request.param  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        entry = replace(
            entries.find("vgg19-torchvision"),
            name="test",
            filename="test.pth",
            url=f"http://127.0.0.1:{server.server_port}/test.pth",
            sha256=hashlib.sha256(bytes(1000)).hexdigest(),
        )
        monkeypatch.setattr(entries, "ENTRIES", (*entries.ENTRIES, entry))
        yield entry
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("served", [1000], indirect=True)
def test_a_download_shows_progress_and_prints_where_it_is(run: Run, served: entries.Entry) -> None:
    code, out, err = run("weights", "fetch", "test")
    assert (code, out) == (0, f"{served.path}\n")
    assert "test  0.0 of 0.0 MB" in err
    assert served.path.stat().st_size == 1000
    assert run("weights", "fetch", "test", "--quiet") == (0, f"{served.path}\n", "")


@pytest.mark.parametrize("command", ["fetch", "stylize"])
@pytest.mark.parametrize("served", [400], indirect=True)
def test_a_download_that_breaks_off(
    run: Run, here: Path, content: Path, style: Path, served: entries.Entry, command: str
) -> None:
    arguments: tuple[object, ...] = ("weights", "fetch", "test")
    if command == "stylize":
        arguments = ("stylize", content, style, "-o", "out.png", *FAST, "--weights", "test")
    code, out, err = run(*arguments, "--quiet")
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert "run again to continue" in err
    assert not served.path.exists()
    assert list(here.iterdir()) == []


@pytest.mark.parametrize("served", [1000], indirect=True)
def test_a_download_with_a_wrong_hash(run: Run, served: entries.Entry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entries, "ENTRIES", (replace(served, sha256="0" * 64),))
    code, out, err = run("weights", "fetch", "test", "--quiet")
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert "wrong SHA-256" in err
    assert list(served.path.parent.iterdir()) == []


@pytest.mark.parametrize("served", [1000], indirect=True)
def test_a_mistyped_layer_shows_before_the_download(
    run: Run, content: Path, style: Path, served: entries.Entry
) -> None:
    options = ("--weights", "test", "--style-layers", "relu9_1", "--size", "48")
    code, out, err = run("stylize", content, style, "-o", "out.png", *options)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "relu9_1" in err
    assert not served.path.parent.exists()

"""``serve``: the studio on a port of this machine."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import webbrowser
from collections.abc import Callable
from os import PathLike
from pathlib import Path

from filelock import FileLock, Timeout

from fastnst.errors import UsageError
from fastnst.studio.guard import LOCAL

_MISSING = "the studio needs FastAPI and uvicorn; install them with pip install 'fastnst[studio]'"


def serve(
    folder: str | PathLike[str] = "studio",
    *,
    host: str = "127.0.0.1",
    port: int = 7860,
    token: str | None = None,
    parallel: int = 1,
    max_pixels: int | None = None,
    demo: bool = False,
    open_browser: bool = False,
    say: Callable[[str], None] = print,
) -> None:
    """Serve the studio until Ctrl-C or SIGTERM. Runs that are going on then continue at the next start.

    Args:
        folder, host, port, token, parallel, max_pixels: see :func:`fastnst.studio.create_app`. Port 0 chooses a free
            one. A host that other machines reach needs a token of at least 16 characters.
        demo: the link opens the page with the pictures that come with fastnst.
        open_browser: open the page in the browser of this machine.
        say: prints the lines for the user.

    Raises:
        UsageError: the extra ``studio`` is missing, a host without a token, a port or a folder that is in use.

    Example::

        fastnst.studio.serve("studio", port=0, open_browser=True)
    """
    try:
        import uvicorn

        from fastnst.studio.app import create_app
    except ImportError as error:
        raise UsageError(f"{_MISSING} ({error})") from error
    if host not in LOCAL and (token is None or len(token) < 16):
        raise UsageError(f"--host {host}: other machines can reach it; expected a --token of at least 16 characters")
    root = Path(folder)
    try:
        root.mkdir(parents=True, exist_ok=True)
        lock = FileLock(root / "lock", timeout=0)
        lock.acquire()
    except Timeout:
        raise UsageError(f"{root}: another studio is using this folder; give it a folder of its own") from None
    except OSError as error:
        raise UsageError(f"{root}: cannot be written ({error.strerror})") from error
    with lock, contextlib.closing(_listen(host, port)) as listening:
        port = listening.getsockname()[1]
        app = create_app(root, host=host, port=port, token=token, parallel=parallel, max_pixels=max_pixels)
        access = app.state.access
        link = access.link(access.keys.owner()) + ("#demo" if demo else "")
        say(f"studio: {link}")
        if token is not None:
            say(f"others: {access.invitation()}")
        say(f"pictures and runs are kept in {root}; Ctrl-C ends the studio, and runs continue at the next start")
        if open_browser and _has_screen():
            webbrowser.open(link)
        config = uvicorn.Config(app, log_level="warning", server_header=False, timeout_graceful_shutdown=5)
        uvicorn.Server(config).run(sockets=[listening])


def _has_screen() -> bool:
    """Whether a browser would open in a window: one in the terminal would take it."""
    return sys.platform in ("darwin", "win32") or any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))


def _listen(host: str, port: int) -> socket.socket:
    """A socket that listens. Raises UsageError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
    except (OSError, OverflowError) as error:
        listening.close()
        raise UsageError(
            f"--port {port}: cannot be used on {host} ({getattr(error, 'strerror', None) or error}); expected another, "
            "or 0 for one that is free"
        ) from error
    return listening

"""The studio: a local page and an HTTP API that queue runs, show them as they grow, and keep their results.

:func:`serve` is what ``fastnst studio`` calls; :func:`create_app` gives the ASGI application to a server of yours. Both
need the extra ``studio``. The server imports no torch: pictures are decoded, plans made and runs computed in processes
of their own, which may end without ending the server.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastnst.studio.app import create_app
    from fastnst.studio.serving import serve

__all__ = ["create_app", "serve"]
_FROM = {"create_app": "app", "serve": "serving"}


def __getattr__(name: str) -> Any:
    if name in _FROM:
        return getattr(importlib.import_module(f"fastnst.studio.{_FROM[name]}"), name)
    raise AttributeError(f"module 'fastnst.studio' has no attribute {name!r}")

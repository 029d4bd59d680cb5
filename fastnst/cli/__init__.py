"""The command ``fastnst``."""

from __future__ import annotations

from fastnst.cli.main import main

__all__ = ["main"]

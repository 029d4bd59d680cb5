"""Runs in a notebook: a callback that shows the picture and the loss while a run is going on."""

from __future__ import annotations

from fastnst.notebook.watching import watch

__all__ = ["watch"]

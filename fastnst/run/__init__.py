"""From pictures and settings to a styled picture."""

from __future__ import annotations

from fastnst.run.inpainting import inpaint
from fastnst.run.planning import Plan, plan
from fastnst.run.result import Result
from fastnst.run.stylizer import Stylizer, stylize
from fastnst.run.texturing import texture

__all__ = ["Plan", "Result", "Stylizer", "inpaint", "plan", "stylize", "texture"]

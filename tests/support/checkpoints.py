"""Short runs that can be interrupted and resumed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from fastnst.config.settings import Settings
from fastnst.optim.progress import Step
from fastnst.run import checkpoint_file
from fastnst.run.stylizer import Result, stylize
from support.pictures import samples, tiny

STEPS = 4  # at each of two scales


def settings_of(optimizer: str, **changes: Any) -> Settings:
    return tiny(optimizer=optimizer, **{"size": 48, "scales": (32, 48), "steps": STEPS, "history": 3, **changes})


def styled(settings: Settings, **more: Any) -> Result:
    return stylize(samples(), samples(seed=2), settings=settings, **more)


def stopping(at: int, error: BaseException | None = None) -> Callable[[Step], bool | None]:
    """A callback that stops a run after ``at`` steps over all scales, or raises ``error`` there."""

    def callback(step: Step) -> bool | None:
        if step.count == at and error is not None:
            raise error
        return step.count == at

    return callback


def same(one: Result, other: Result) -> bool:
    return torch.equal(one.image, other.image) and one.trace == other.trace and one.stopped == other.stopped


def header(file: Path) -> dict[str, Any]:
    """The header of a checkpoint: everything but its tensors."""
    with safe_open(file, framework="pt") as opened:
        found: dict[str, Any] = json.loads(opened.metadata()["run"])
    return found


def seconds(file: Path) -> float:
    """How long a run had taken when its checkpoint was written."""
    return float(header(file)["seconds"])


def forge(file: Path, change: Callable[[dict[str, Any], dict[str, Any]], Any]) -> None:
    """Change a checkpoint's header and tensors in place and write the matching digest.

    ``change`` may return a text that replaces the header.
    """
    facts, tensors = header(file), {name: x.clone() for name, x in load_file(file).items()}
    text = change(facts, tensors)
    text = text if isinstance(text, str) else json.dumps(facts)
    digest = checkpoint_file._digest_all(text, tensors)
    save_file(tensors, file, {"fastnst checkpoint": str(checkpoint_file.FORMAT), "run": text, "sha256": digest})

"""Short runs that can be broken off and gone on with."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from loop_pictures import samples, tiny
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from fastnst import checkpoint
from fastnst.optimize import Step
from fastnst.settings import Settings
from fastnst.transfer import Result, stylize

STEPS = 4  # at each of two scales


def settings_of(optimizer: str, **changes: Any) -> Settings:
    return tiny(optimizer=optimizer, **{"size": 48, "scales": (32, 48), "steps": STEPS, "history": 3, **changes})


def styled(settings: Settings, **more: Any) -> Result:
    return stylize(samples(), samples(seed=2), settings=settings, **more)


def stopping(at: int, error: BaseException | None = None) -> Callable[[Step], bool | None]:
    """Stops a run after ``at`` steps over all scales, or raises ``error`` there."""

    def callback(step: Step) -> bool | None:
        if step.count == at and error is not None:
            raise error
        return step.count == at

    return callback


def same(one: Result, other: Result) -> bool:
    return torch.equal(one.image, other.image) and one.trace == other.trace and one.stopped == other.stopped


def header(file: Path) -> dict[str, Any]:
    """What a checkpoint says beside its tensors."""
    with safe_open(file, framework="pt") as opened:
        found: dict[str, Any] = json.loads(opened.metadata()["run"])
    return found


def seconds(file: Path) -> float:
    """How long a run had taken when it was kept."""
    return float(header(file)["seconds"])


def forge(file: Path, change: Callable[[dict[str, Any], dict[str, Any]], Any]) -> None:
    """Change a checkpoint's header and tensors, in place, and write the digest that goes with them.

    ``change`` may return a text to stand for the header.
    """
    facts, tensors = header(file), {name: x.clone() for name, x in load_file(file).items()}
    text = change(facts, tensors)
    text = text if isinstance(text, str) else json.dumps(facts)
    digest = checkpoint._digest_all(text, tensors)
    save_file(tensors, file, {"fastnst checkpoint": str(checkpoint.FORMAT), "run": text, "sha256": digest})

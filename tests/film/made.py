"""Films of known motion in a folder, the fewest steps that style them, and what was made of them."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from torch import Tensor

from bench.film.films import FILMS
from fastnst import Settings
from fastnst.config.film import FilmSettings
from fastnst.film import FilmInfo, FilmRequest, FilmWriter, open_film

SETTINGS = Settings.from_preset(
    size=64,
    steps=3,
    scales=1,
    content_layers=(("relu2_1", 1.0),),
    style_layers=(("relu1_1", 1.0), ("relu2_1", 1.0)),
)
FILM = FilmSettings(next_steps=2)
COUNT = 3  # frames of each shot


def shot(name: str, count: int = COUNT) -> list[Tensor]:
    return FILMS[name](count, 48, 64).frames


def write(path: Path, frames: list[Tensor], **info: Any) -> Path:
    height, width = frames[0].shape[-2:]
    codec = "ffv1" if path.suffix == ".mkv" else None
    with FilmWriter(path, FilmInfo(width, height, Fraction(12), **info), codec=codec) as writer:
        for i, frame in enumerate(frames):
            alpha = frame[:, :1] * 0 + 0.5 if info.get("has_alpha") else None
            writer.add(frame, alpha, time=Fraction(i, 12), duration=Fraction(1, 12))
    return path


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a film of two shots, two styles and masks, which is the current one."""
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "clip.mkv", [*shot("square"), *shot("pan")])
    for name, seed in (("style", 0), ("other", 1)):
        levels = np.random.default_rng(seed).integers(0, 255, (12, 16, 3), np.uint8)
        Image.fromarray(levels).resize((64, 48)).save(tmp_path / f"{name}.png")
    left = np.zeros((48, 64), np.uint8)
    left[:, :32] = 255
    Image.fromarray(left).save(tmp_path / "left.png")
    Image.fromarray(255 - left).save(tmp_path / "right.png")
    return tmp_path


def request(**changes: Any) -> FilmRequest:
    values = {"film": "clip.mkv", "styles": ("style.png",), "output": "out.mkv", "codec": "ffv1", "keep_frames": True}
    return FilmRequest(**{**values, **changes})


def frames(path: str | Path) -> list[Tensor]:
    with open_film(path) as film:
        return [frame.picture.pixels for frame in film]


def stored(folder: str, which: int = 1) -> list[bytes]:
    return [path.read_bytes() for path in sorted(Path(folder, f"pass_{which}").glob("*.png"))]

"""Pictures, and options under which styling one takes a moment."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

LAYERS = ("--content-layers", "relu2_1", "--style-layers", "relu1_1,relu2_1")
FAST = ("--size", "48", "--steps", "2", "--scales", "1", *LAYERS)


def save_picture(path: Path, height: int, width: int, seed: int = 0, channels: int = 3) -> Path:
    """Smooth blobs of color; with 4 channels the left half is transparent."""
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 5, 3), np.uint8)
    image = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    if channels == 4:
        alpha = np.full((height, width), 255, np.uint8)
        alpha[:, : width // 2] = 0
        image.putalpha(Image.fromarray(alpha))
    image.save(path)
    return path


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1"}


def python(*arguments: object, **options: object) -> subprocess.CompletedProcess[str]:
    """Run this Python with ``arguments`` and wait for it."""
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, env=environment(), text=True, timeout=120, **options)  # type: ignore[call-overload, no-any-return]

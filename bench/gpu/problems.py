"""Sizes, precisions, and the tensors of one layer of one picture."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from bench.gpu.roofline import LAYERS

DTYPES = {
    "float32": torch.float32,
    "tf32": torch.float32,
    "half": torch.float16,
    "bfloat16": torch.bfloat16,
}

# Bounds on relative errors. Float32 leaves room for the order in which a library adds millions of terms, tf32 has 10
# bits, half types are rounded once and their products added in float32.
BOUNDS = {"float32": 1e-5, "tf32": 2e-3, "half": 2e-3, "bfloat16": 1e-2}


@dataclass(frozen=True)
class Problem:
    """The features ``[1, channels, height, height]`` of one layer, in one precision, on one device.

    ``layer`` is ``"image"`` for ops on pictures.
    """

    layer: str
    side: int  # of the picture
    precision: str
    layout: torch.memory_format
    device: torch.device

    @property
    def channels(self) -> int:
        return 3 if self.layer == "image" else LAYERS[self.layer][0]

    @property
    def height(self) -> int:
        return self.side if self.layer == "image" else self.side // LAYERS[self.layer][1]

    @property
    def positions(self) -> int:
        return self.height**2

    @property
    def scale(self) -> float:
        return 1 / self.positions

    def __str__(self) -> str:
        return f"{self.layer} {self.side}^2 {self.precision}"

    def noise(self, seed: int, height: int | None = None) -> Tensor:
        height = height or self.height
        generator = torch.Generator(self.device).manual_seed(seed)
        shape = (1, self.channels, height, height)
        x = torch.randn(shape, generator=generator, device=self.device, dtype=torch.float32)
        return x.to(DTYPES[self.precision], memory_format=self.layout)

    def features(self, seed: int) -> Tensor:
        """Noise after a ReLU."""
        return self.noise(seed).relu_()

    def bias(self) -> Tensor:
        generator = torch.Generator(self.device).manual_seed(9)
        values = torch.randn(self.channels, generator=generator, device=self.device)
        return values.to(DTYPES[self.precision])

    def gram(self) -> Tensor:
        """A Gram matrix of other features, float32 ``[1, C, C]``."""
        generator = torch.Generator(self.device).manual_seed(8)
        f = torch.randn(self.channels, 4 * self.channels, generator=generator, device=self.device).relu_()
        return (f @ f.T)[None] / self.channels


@contextmanager
def matmul_precision(precision: str) -> Iterator[None]:
    """Compute float32 products and convolutions by TF32 if ``precision`` is tf32, exactly otherwise."""
    before, convolutions = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    torch.backends.cudnn.allow_tf32 = precision == "tf32"
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
        torch.backends.cudnn.allow_tf32 = convolutions

"""A layer of a network as data."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Layer:
    """One layer.

    Attributes:
        name: as ``conv1_1``, ``relu1_1`` or ``pool1``.
        kind: ``"conv"``, ``"relu"`` or ``"pool"``.
        channels: of its output.
        stride: pixels of the image from one position of its output to the next.
    """

    name: str
    kind: str
    channels: int
    stride: int

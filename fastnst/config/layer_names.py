"""Names of VGG's layers, as in Gatys et al.: ``conv1_1``, ``relu1_1``, ..., ``pool1``, ..., ``relu5_1``."""

from __future__ import annotations

BLOCKS = {"vgg16": (2, 2, 3, 3, 3), "vgg19": (2, 2, 4, 4, 4)}
"""Number of convolutions in each block."""
CHANNELS = (64, 128, 256, 512, 512)
"""Output channels of the convolutions in each block."""


def layer_stride(name: str) -> int:
    """The pixels from one position of a layer to the next."""
    return int(2 ** (int(name[4]) - (not name.startswith("pool"))))


def layer_names(arch: str) -> tuple[str, ...]:
    """Every layer of ``"vgg16"`` or ``"vgg19"`` in order; an empty tuple for another network."""
    names: list[str] = []
    for block, count in enumerate(BLOCKS.get(arch, ()), start=1):
        for i in range(1, count + 1):
            names += [f"conv{block}_{i}", f"relu{block}_{i}"]
        names.append(f"pool{block}")
    return tuple(names)

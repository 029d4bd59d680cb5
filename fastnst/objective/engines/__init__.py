"""The forward and backward pass over a network with losses at its layers.

Each engine gives the values of the losses and the gradient of the image. VGG is a chain, so the backward pass is
written out here and not recorded by autograd. Nothing waits for the device or copies a number to it, so that a CUDA
graph can capture an evaluation.

- :class:`PlainEngine` uses PyTorch's convolutions, biases and ReLUs, on any device.
- :class:`FusedEngine` uses PyTorch's convolutions and fastnst's ops for biases and ReLUs, for CUDA.
- :class:`WinogradEngine` uses fastnst's convolutions, which apply what lies between them, for the CPU.
- :class:`ModuleEngine` uses autograd, for encoders by name and modules of the user's.
"""

from __future__ import annotations

from fastnst import ops
from fastnst.network.encoder import Encoder, ModuleEncoder
from fastnst.objective.engines.fused import FusedEngine
from fastnst.objective.engines.module import ModuleEngine
from fastnst.objective.engines.plain import Activations, PlainEngine
from fastnst.objective.engines.winograd import WinogradEngine

__all__ = ["Activations", "FusedEngine", "ModuleEngine", "PlainEngine", "WinogradEngine", "choose_engine"]


def choose_engine(network: Encoder) -> type[PlainEngine]:
    """The engine for a network: by its convolutions, else the fused one where the device has kernels for its ops."""
    if isinstance(network, ModuleEncoder):
        return ModuleEngine
    if network.winograd:
        return WinogradEngine
    return FusedEngine if ops.kernels(network.device.type)["bias_relu_"] == "cuda" else PlainEngine

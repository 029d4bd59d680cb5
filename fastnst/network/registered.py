"""An encoder of the registry as the network of an objective."""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import cached_property

import torch
from torch import Tensor, nn

from fastnst.config.encoder_entry import EncoderEntry
from fastnst.errors import FastnstError, UsageError
from fastnst.network.encoder import ModuleEncoder
from fastnst.network.layer import Layer
from fastnst.weights.installed import installed_file

MEMORY_SIDE = 256  # of the picture that shows what autograd keeps


class RegisteredEncoder(ModuleEncoder):
    """The network that an :class:`EncoderEntry` describes.

    As :class:`ModuleEncoder`, with receptive fields and an estimate of the memory.

    Args:
        entry: the network as data.
        names: the layers that are used.
        device, dtype: of the network.

    Raises:
        UsageError: an unknown layer, or a module that does not have the layers of the entry.
        WeightsError: the package of the weights is not installed, or holds another file.

    Example::

        network = RegisteredEncoder(find_encoder("efficientnet_lite0"), ["stem", "block4"])
        network.features(255 * torch.rand(1, 3, 64, 64), ["block4"])["block4"].shape  # [1, 40, 8, 8]
    """

    def __init__(
        self,
        entry: EncoderEntry,
        names: Iterable[str],
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        names = list(names)
        for name in names:
            entry.check_layer(name)
        self.entry = entry
        self.fields = {name: entry.fields[name] for name in names}
        module = _module(entry).to(device=device, dtype=dtype).requires_grad_(False)
        self.probe_side = max([self.probe_side, *(field.least for field in self.fields.values())])
        super().__init__(
            module,
            names,
            mean=entry.mean,
            deviation=entry.deviation,
            order=entry.order,
            device=device,
            dtype=dtype,
        )
        self.arch = entry.name
        self._compare_with_fields()
        self.chain = tuple(
            Layer(layer.name, "module", layer.channels, self.fields[layer.name].stride) for layer in self.chain
        )

    def _compare_with_fields(self) -> None:
        """Raise UsageError for a layer whose size is not that of its receptive field."""
        side = self.probe_side
        for name, (_, height, _) in self._shapes((side, side)).items():
            if height != self.fields[name].positions(side):
                raise UsageError(
                    f"encoder {self.entry.name}: layer {name!r} has {height} positions for {side} pixels, where its "
                    f"receptive field says {self.fields[name].positions(side)}"
                )

    def map_size(self, layer: Layer, size: tuple[int, int]) -> tuple[int, int]:
        """Height and width of a layer's output for pictures of a height and width, by its receptive field.

        Raises UsageError for a picture that is too small for one position.
        """
        field = self.fields[layer.name]
        if min(size) < field.least:
            raise UsageError(
                f"image of {size[1]}x{size[0]} pixels is too small for layer {layer.name}: it needs at least "
                f"{field.least} on the shorter side (raise --size or choose shallower layers)"
            )
        return field.positions(size[0]), field.positions(size[1])

    @property
    def reach(self) -> int:
        """The most pixels that a position of a layer reads on one side beyond its own."""
        return max(field.reach for field in self.fields.values())

    @cached_property
    def kept_values(self) -> float:
        """The values per pixel that exist at once in an evaluation, counted at a small size: those that autograd keeps,
        and each layer and its gradient."""
        area = MEMORY_SIDE**2
        kept = self.kept_bytes((MEMORY_SIDE, MEMORY_SIDE)) / self.dtype.itemsize
        maps = sum(layer.channels * math.prod(self.map_size(layer, (MEMORY_SIDE, MEMORY_SIDE))) for layer in self.chain)
        return (kept + 2 * maps) / area

    @property
    def parameter_bytes(self) -> int:
        """The bytes of the parameters and buffers."""
        return sum(x.nbytes for x in self.module.state_dict().values())

    def kept_bytes(self, size: tuple[int, int]) -> int:
        """The bytes that autograd keeps of a forward pass of a picture, parameters left out. The pass is made."""
        own = {x.untyped_storage().data_ptr() for x in self.module.state_dict().values()}
        kept: dict[int, int] = {}

        def pack(x: Tensor) -> Tensor:
            storage = x.untyped_storage()
            if storage.data_ptr() not in own:
                kept[storage.data_ptr()] = storage.nbytes()
            return x

        with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
            image = torch.zeros(1, 3, *size, dtype=self.mean.dtype, device=self.device, requires_grad=True)
            features = self.features(image, self.names)
        del features  # the graph holds what was counted until here, so that no address was used twice
        return sum(kept.values())


def _module(entry: EncoderEntry) -> nn.Module:
    """The module of an entry, in evaluation mode."""
    path = None if entry.weights is None else installed_file(entry.weights, entry.name)
    try:
        module = entry.build_with(path)
    except FastnstError:
        raise
    except Exception as error:  # whatever the function does
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UsageError(f"encoder {entry.name}: cannot be built: {reason}") from error
    if not isinstance(module, nn.Module):
        raise UsageError(f"encoder {entry.name}: expected its build to return a torch.nn.Module, got {module!r:.60}")
    return module.eval()

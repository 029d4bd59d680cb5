"""Networks that an objective can use: what it asks of them, and a module of the user's as one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from fastnst.config.encoder_entry import ORDERS
from fastnst.errors import UsageError, nearest
from fastnst.network.layer import Layer


class Encoder(Protocol):
    """What an objective asks of a network. :class:`fastnst.VGG` and :class:`ModuleEncoder` are ones."""

    chain: tuple[Layer, ...]
    device: torch.device
    dtype: torch.dtype
    winograd: bool
    pooling: str
    scale: Tensor

    def map_size(self, layer: Layer, size: tuple[int, int]) -> tuple[int, int]:
        """Height and width of a layer's output for pictures of a height and width."""
        ...

    def features(self, image: Tensor, names: Iterable[str] | None = None) -> dict[str, Tensor]:
        """The outputs of the named layers for pixels ``[1, 3, H, W]``, RGB, 0..255."""
        ...

    def iter_features(self, image: Tensor, names: Iterable[str]) -> Iterator[tuple[str, Tensor]]:
        """As :meth:`features`, one layer at a time."""
        ...


class ModuleEncoder:
    """A module of yours as the network of an objective; its named submodules are the layers.

    The outputs of the submodules are the features, which autograd differentiates. The parameters are not changed and
    get no gradient. Nothing is known of the module but its outputs, so that pictures are evaluated whole: without
    strips, ranks and an estimate of the memory.

    Args:
        module: takes ``[1, 3, H, W]``; in evaluation mode.
        names: the submodules that are layers, as ``module.named_modules()`` names them. Each is called once, and
            returns ``[1, C, h, w]``.
        mean, deviation: of the pixels 0..255, RGB, that are subtracted and divided by before the module; by default
            those of torchvision's networks.
        order: of the module's input channels, ``"RGB"`` or ``"BGR"``.
        device, dtype: of the picture that the module gets, and of its parameters.

    Raises:
        UsageError: an unknown submodule, one that is not called exactly once or does not return a feature map, or a
            module in training mode.

    Example:
        >>> import torch, fastnst
        >>> from fastnst.network import ModuleEncoder
        >>> module = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 5, stride=2, padding=2), torch.nn.GELU()).eval()
        >>> network = ModuleEncoder(module, ["1"])
        >>> content, style = (255 * torch.rand(1, 3, 32, 32) for _ in range(2))
        >>> settings = fastnst.Settings(content_layers=(("1", 1.0),), style_layers=(("1", 1.0),))
        >>> targets = fastnst.objective.style_targets(network, style, settings)
        >>> losses, gradient = fastnst.Objective(network, content, targets, settings).value_and_grad(content)
        >>> gradient.shape
        torch.Size([1, 3, 32, 32])
    """

    winograd, wraps_rows, pooling, arch = False, False, "", "module"
    probe_side = 128  # of the picture that shows channels and strides

    def __init__(
        self,
        module: nn.Module,
        names: Iterable[str],
        *,
        mean: tuple[float, float, float] = (123.675, 116.28, 103.53),
        deviation: tuple[float, float, float] = (58.395, 57.12, 57.375),
        order: str = "RGB",
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.module, self.device, self.dtype = module, torch.device(device), dtype
        known = dict(module.named_modules())
        wanted = list(dict.fromkeys(names))
        for name in wanted:
            if not name or name not in known:
                raise UsageError(f"{type(module).__name__} has no submodule {name!r}{nearest(name, known)}")
        if not wanted:
            raise UsageError("expected the name of a submodule at least")
        if module.training:
            raise UsageError(f"{type(module).__name__} is in training mode, in which it changes: call .eval() first")
        if order not in ORDERS:
            raise UsageError(f"order {order!r}: expected {' or '.join(ORDERS)}")
        self._modules, self._reversed = {name: known[name] for name in wanted}, order == "BGR"
        exact = torch.float64 if dtype == torch.float64 else torch.float32
        self.mean = torch.tensor(mean, dtype=exact, device=self.device).reshape(1, 3, 1, 1)
        self.scale = 1 / torch.tensor(deviation, dtype=exact, device=self.device).reshape(1, 3, 1, 1)
        self._sizes: dict[tuple[int, int], Mapping[str, tuple[int, ...]]] = {}
        side = self.probe_side
        shapes = self._shapes((side, side))
        self.chain = tuple(
            Layer(name, "module", channels, max(side // height, 1)) for name, (channels, height, _) in shapes.items()
        )

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the layers."""
        return tuple(self._modules)

    def map_size(self, layer: Layer, size: tuple[int, int]) -> tuple[int, int]:
        """Height and width of a layer's output for pictures of a height and width, which is tried once."""
        _, height, width = self._shapes(size)[layer.name]
        return height, width

    def features(self, image: Tensor, names: Iterable[str] | None = None) -> dict[str, Tensor]:
        """The outputs of the named layers for pixels ``[1, 3, H, W]``, RGB, 0..255, in the order of their calls;
        differentiable by autograd.

        Without ``names``, that of the last layer. Raises UsageError for a name that is not a layer of this encoder.
        """
        wanted = {self.chain[-1].name} if names is None else set(names)
        unknown = wanted - self._modules.keys()
        if unknown:
            raise UsageError(f"layer {min(unknown)!r} is not among the layers this network was built for")
        return self._called(image, wanted)

    def iter_features(self, image: Tensor, names: Iterable[str]) -> Iterator[tuple[str, Tensor]]:
        """As :meth:`features`, one layer at a time."""
        yield from self.features(image, names).items()

    def _shapes(self, size: tuple[int, int]) -> Mapping[str, tuple[int, ...]]:
        """Channels, height and width of each layer for pictures of this size."""
        if size not in self._sizes:
            with torch.no_grad():
                found = self._called(torch.zeros(1, 3, *size, dtype=self.mean.dtype, device=self.device), None)
            self._sizes[size] = {name: tuple(x.shape[1:]) for name, x in found.items()}
        return self._sizes[size]

    def _called(self, image: Tensor, wanted: set[str] | None) -> dict[str, Tensor]:
        """The outputs of the wanted layers, in the order of their calls; the module stops after the last of them. With
        None, those of all layers, and the module runs to its end."""
        found: dict[str, Tensor] = {}

        def keep(name: str) -> Any:
            def hook(_module: nn.Module, _given: Any, output: Any) -> None:
                title = f"submodule {name!r} of {type(self.module).__name__}"
                if name in found:
                    raise UsageError(f"{title} is called more than once: name one that is called once")
                if not isinstance(output, Tensor) or output.dim() != 4 or output.shape[0] != 1 or not output.numel():
                    shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
                    raise UsageError(f"{title}: expected features of shape (1, C, h, w), got {shape}")
                # A module after it may change its output in place, as ReLUs do.
                found[name] = output.clone()
                if wanted is not None and found.keys() == wanted:
                    raise _Complete

            return hook

        handles = [
            module.register_forward_hook(keep(name))
            for name, module in self._modules.items()
            if wanted is None or name in wanted
        ]
        x = ((image - self.mean.to(image.dtype)) * self.scale.to(image.dtype)).to(self.dtype)
        try:
            self.module(x.flip(1) if self._reversed else x)
        except _Complete:
            return found
        except RuntimeError as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            height, width = image.shape[-2:]
            name = type(self.module).__name__
            raise UsageError(f"{name} does not take an image of {width}x{height} pixels: {reason}") from error
        finally:
            for handle in handles:
                handle.remove()
        missing = (self._modules.keys() if wanted is None else wanted) - found.keys()
        if missing:
            raise UsageError(f"submodule {min(missing)!r} of {type(self.module).__name__} is not called")
        return found


class _Complete(Exception):
    """All wanted layers are there, so that the rest of the module is not needed."""

"""What the runs of a :class:`fastnst.Stylizer` share: the network on its device, sizes, and style targets."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from fastnst import images, process, weights
from fastnst.config.layer_names import BLOCKS
from fastnst.config.resolve import choose_convolution, choose_device, choose_history_dtype, choose_precision
from fastnst.config.settings import Settings
from fastnst.digests import digest
from fastnst.distributed import SINGLE, Ranks
from fastnst.errors import UsageError, WeightsError
from fastnst.images.scaling import resize_wrapped
from fastnst.network.encoder import ModuleEncoder
from fastnst.network.feature_scale import warn_of_scale
from fastnst.network.registered import RegisteredEncoder
from fastnst.network.vgg import VGG, chain_to
from fastnst.objective.joint import check_joint
from fastnst.ops import reference
from fastnst.optim.cuda_graph import StepCapture, choose_backend
from fastnst.run.encoder_setup import check_encoder, load_encoder
from fastnst.run.sizing import Sizing
from fastnst.run.target_cache import TargetCache
from fastnst.spill import release_pages

log = logging.getLogger("fastnst")

_OF_THE_NETWORK = ("arch", "weights", "pooling", "padding", "tileable", "device", "precision", "convolution", "graph")


@dataclass(frozen=True)
class Setup:
    """What settings become on this machine.

    Attributes:
        settings: the settings as given.
        chosen: the settings with ``convolution`` and ``history_dtype`` resolved.
        network: the network on its device.
        weights_name: the name of its weights.
        ranks: the processes that share each run.
        sizing: sizes and strips.
        capture: captures steps as CUDA graphs.
        targets: style targets of earlier runs.
    """

    settings: Settings
    chosen: Settings
    network: VGG | ModuleEncoder
    weights_name: str
    ranks: Ranks
    sizing: Sizing
    capture: StepCapture
    targets: TargetCache

    @property
    def image_dtype(self) -> torch.dtype:
        """The dtype of images under optimization: float32, or float64 with that precision."""
        return torch.float64 if self.network.dtype == torch.float64 else torch.float32

    def with_settings(self, settings: Settings) -> Setup:
        """The setup for other settings: with the same network, ranks and style targets if it serves them, else new."""
        same = all(getattr(settings, name) == getattr(self.settings, name) for name in _OF_THE_NETWORK)
        if not same or not {layer.name for layer in self.network.chain} >= set(settings.layer_names()):
            return set_up(settings, self.ranks)
        if isinstance(self.network, RegisteredEncoder):
            return _set_up_encoder(settings, self.network, self.ranks)
        if isinstance(self.network, ModuleEncoder):
            return _set_up_module(settings, self.network)
        chosen = _chosen(settings, self.network, convolution=self.chosen.convolution)
        return replace(self, settings=settings, chosen=chosen, sizing=Sizing(self.network, chosen, self.ranks))

    def pixels(self, picture: Tensor, height: int, width: int) -> Tensor:
        """A picture in 0..1 as pixels in 0..255 of a given size, in the image's dtype, on the device."""
        if picture.shape[-2:] != (height, width):
            pixels = images.resize(picture, height, width).to(self.image_dtype).mul_(255)
        else:
            pixels = picture.to(self.image_dtype) * 255
        release_pages()
        return pixels.to(self.network.device)

    def result_pixels(self, picture: Tensor, height: int, width: int) -> Tensor:
        """As :meth:`pixels`, for a picture that continues at its opposite side as the result does."""
        return self.pixels(resize_wrapped(picture, height, width, self.settings.wraps), height, width)

    def weights_digest(self) -> str:
        """The SHA-256 of the weights in use, rounded to bfloat16 so that it is the same on every device."""
        network = self.network
        if isinstance(network, ModuleEncoder):
            state = network.module.state_dict()
            return digest([*state.values(), network.mean, network.scale], " ".join((*state, *network.names)))
        convs = [x.bfloat16() for pair in network.convs.values() for x in pair]
        return digest([*convs, network.mean.float(), network.scale.float()], " ".join(network.convs))


def set_up(settings: Settings, ranks: Ranks = SINGLE, module: ModuleEncoder | None = None) -> Setup:
    """Load the network that the settings name, onto the device that they name, or use a given one where it is.

    Raises UsageError and WeightsError for settings that cannot be met on this machine, FastnstError in a forked process
    whose threads hang.
    """
    process.check_threads_after_fork()
    check_joint(settings)
    if module is not None:
        return _set_up_module(settings, module)
    if settings.arch not in BLOCKS:
        return _set_up_encoder(settings, load_encoder(settings), ranks)
    device = choose_device(settings.device)
    capture = StepCapture(choose_backend(settings.graph, device))
    process.release_memory()
    dtype = choose_precision(settings.precision, device, settings.convolution)
    winograd = choose_convolution(settings.convolution, device, dtype)
    network, name = _load_network(settings, device, dtype, winograd)
    chosen = _chosen(settings, network, convolution="winograd" if winograd else "direct")
    warn_of_scale(network, settings)
    sizing = Sizing(network, chosen, ranks)
    return Setup(settings, chosen, network, name, ranks, sizing, capture, TargetCache())


def _chosen(settings: Settings, network: VGG | ModuleEncoder, **changes: str) -> Settings:
    history_dtype = choose_history_dtype(settings.history_dtype, network.device, network.dtype)
    return settings.replace(history_dtype=history_dtype, **changes)


def _set_up_module(settings: Settings, network: ModuleEncoder) -> Setup:
    """Use a module of the user's. Raises UsageError for a layer that it does not have, and for strips."""
    missing = [name for name in settings.layer_names() if name not in network.names]
    if missing:
        raise UsageError(f"layer {missing[0]!r} is not among the layers this network was built for")
    if settings.tiles == "on" or isinstance(settings.tiles, int):
        raise UsageError("a module has no strips, since its receptive fields are not known; use tiles 'auto' or 'off'")
    if settings.tileable != "none":
        raise UsageError(f"tileable {settings.tileable!r}: a module pads its inputs itself; use a network by name")
    chosen = _chosen(settings, network, convolution="direct", tiles="off")
    capture, name = StepCapture(None), f"module {type(network.module).__name__}"
    return Setup(settings, chosen, network, name, SINGLE, Sizing(network, chosen), capture, TargetCache())


def _set_up_encoder(settings: Settings, network: RegisteredEncoder, ranks: Ranks) -> Setup:
    """Use an encoder of the registry. Each rank computes the whole picture."""
    check_encoder(settings)
    process.release_memory()
    chosen = _chosen(settings, network, convolution="direct", tiles="off")
    sizing, name = Sizing(network, chosen, ranks), network.entry.name
    return Setup(settings, chosen, network, name, ranks, sizing, StepCapture(None), TargetCache())


def _load_network(settings: Settings, device: torch.device, dtype: torch.dtype, winograd: bool) -> tuple[VGG, str]:
    names = settings.layer_names()
    if settings.weights is None and settings.arch == "vgg16":
        _check_bundled_serves(names)
        log.warning("no VGG-16 weights given: using the same layers of the bundled VGG-19 (--weights takes others)")
    loaded = weights.load(settings.weights, default_arch=settings.arch)
    rows, columns = ("circular" if wraps else settings.padding for wraps in settings.wraps)
    network = VGG(
        loaded,
        names,
        pooling=settings.pooling,
        padding=reference.joined(rows, columns),
        device=device,
        dtype=dtype,
        winograd=winograd,
    )
    return network, loaded.name


def _check_bundled_serves(names: Sequence[str]) -> None:
    """Raise WeightsError if the bundled VGG-19 cannot replace VGG-16: the networks differ after conv3_3."""
    chain = chain_to("vgg16", names)
    if chain != chain_to("vgg19", names):
        raise WeightsError(
            f"layer {chain[-1].name} of VGG-16 has no equal in the bundled VGG-19: give VGG-16 weights "
            "(--weights vgg16-torchvision or a file), or layers up to relu3_3"
        )

"""The sizes of a run on this machine: each scale, and the rows of strips that fit into memory."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from fastnst.config.settings import Settings
from fastnst.distributed import SINGLE, Ranks
from fastnst.network.encoder import ModuleEncoder
from fastnst.network.registered import RegisteredEncoder
from fastnst.network.vgg import VGG, check_size, smallest_side
from fastnst.objective.joint import is_joint
from fastnst.objective.views import Mirror
from fastnst.run import memory_limits
from fastnst.run.memory_model import Kept, Workload
from fastnst.run.scales import check_tile, shrinks
from fastnst.strips.layout import receptive_offset

log = logging.getLogger("fastnst")


class Sizing:
    """Checks sizes against network and memory, and chooses the rows of strips.

    Rows that memory chose are recorded by width and height and used again, since other rows round differently.

    Args:
        network: gives the layers, the dtype and the device.
        settings: the settings of the run, with ``convolution`` resolved.
        ranks: the processes that share the run.
    """

    def __init__(self, network: VGG | ModuleEncoder, settings: Settings, ranks: Ranks = SINGLE) -> None:
        if is_joint(settings) or isinstance(network, ModuleEncoder):
            settings = settings.replace(tiles="off")
        self.network, self.settings, self.ranks = network, settings, ranks
        self.recorded: dict[str, int] = dict(settings.tiles) if isinstance(settings.tiles, tuple) else {}

    def check(self, height: int, width: int) -> None:
        """Raise UsageError if the network is too deep for this size, OutOfMemoryError if memory is too small."""
        self.check_size(height, width)
        check_tile(height, width, self.settings)
        self.rows(height, width, len(shrinks(height, width, self.settings)))

    def check_size(self, height: int, width: int) -> None:
        """Raise UsageError if the network is too deep for this size."""
        check_size(self.network.chain, height, width)
        if isinstance(self.network, RegisteredEncoder):
            for layer in self.network.chain:
                self.network.map_size(layer, (height, width))

    def rows(self, height: int, width: int, scale: int) -> int | None:
        """The rows of a strip at this size in scale ``scale``, from 1; None if the image is evaluated whole."""
        if is_unknown(self.network):  # no memory is known
            return None
        settings, size = self.settings.at(scale), f"{width}x{height}"
        if not self.by_memory:
            return memory_limits.choose_rows(self.workload(height, width, settings), self.network.device)
        recorded = self.recorded.get(size)
        if recorded is not None and self._fits(recorded, height, width, settings):
            return recorded
        tiles = "on" if settings.tiles == "on" or self.ranks_for(height, width) is not SINGLE else "auto"
        work = self.workload(height, width, settings.replace(tiles=tiles))
        found = memory_limits.choose_rows(work, self.network.device)
        if recorded is not None and found is not None:
            message = "%s: strips of %d rows do not fit any more; using %d rows, so pixels may differ by rounding"
            log.warning(message, size, recorded, found)
        if found is not None:
            self.recorded[size] = found
        return found

    def record(self, strips: Mapping[str, int]) -> None:
        """Use the rows of strips that a checkpoint recorded."""
        if self.by_memory:
            self.recorded |= strips

    def with_strips(self, settings: Settings) -> Settings:
        """The settings with the recorded strips as ``tiles``: they give the same pixels again."""
        if not (self.by_memory and self.recorded):
            return settings
        return settings.replace(tiles=tuple(self.recorded.items()))

    @property
    def by_memory(self) -> bool:
        """Whether the rows of strips depend on the free memory."""
        return self.settings.tiles != "off" and not isinstance(self.settings.tiles, int)

    def ranks_for(self, height: int, width: int) -> Ranks:
        """The ranks that share an image of this size: all, or this one alone if sharing does not pay or a loss needs
        the whole picture."""
        if is_joint(self.settings) or isinstance(self.network, ModuleEncoder):
            return SINGLE
        offset = receptive_offset(self.network, self.network.chain, min(height, width))
        return self.ranks if self.ranks.splits(max(height, width), offset) else SINGLE

    def out_of_memory(self, size: tuple[int, int], scale: int) -> memory_limits.OutOfMemoryError:
        """The error for a run at this size in which an allocation failed."""
        if is_unknown(self.network):
            width, height = size[::-1]
            reason = f"out of memory at {width}x{height}: an allocation failed; use a smaller size"
            return memory_limits.OutOfMemoryError(reason)
        rows = self.rows(*size, scale)
        return memory_limits.failed(self.workload(*size, self.settings.at(scale)), self.network.device, rows)

    def _fits(self, rows: int, height: int, width: int, settings: Settings) -> bool:
        return memory_limits.fits(self.workload(height, width, settings), rows, self.network.device)

    def workload(self, height: int, width: int, settings: Settings) -> Workload:
        """A scale of this size, as the memory model sees it; ``settings`` are those of the scale."""
        extended = view_of_edges((height, width), settings, self.network).extended
        mirrored, network = extended != (height, width), self.network
        kept = None
        if isinstance(network, RegisteredEncoder):
            kept = Kept(network.kept_values, network.parameter_bytes)
        return Workload(network.chain, *extended, network.dtype, settings, mirrored, kept)


def view_of_edges(size: tuple[int, int], settings: Settings, network: VGG | ModuleEncoder) -> Mirror:
    """How an image of this height and width is continued so that pools leave out none of it: see setting ``edges``.

    It is not continued with losses of several layers, which compare positions, nor for a module of the user's."""
    if settings.edges != "mirror" or is_joint(settings) or is_unknown(network):
        return Mirror(size, 1)
    return Mirror(size, smallest_side(network.chain))


def is_unknown(network: VGG | ModuleEncoder) -> bool:
    """Whether the network is a module of the user's, of whose receptive fields and memory nothing is known."""
    return isinstance(network, ModuleEncoder) and not isinstance(network, RegisteredEncoder)

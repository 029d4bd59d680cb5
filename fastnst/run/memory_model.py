"""The memory that a run needs, counted from its layers and fitted to measured runs."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from fastnst.config.resolve import history_dtype
from fastnst.config.settings import Settings
from fastnst.files import ASSETS
from fastnst.network.fusion import FusionPlan
from fastnst.network.layer import Layer
from fastnst.objective.joint import is_joint, joint_bytes
from fastnst.run.photoreal import pass_bytes
from fastnst.spill import IN_MEMORY

# Workspace of the Winograd convolution, at most: shared by the threads, and of one thread. See csrc/cpu/conv3x3.cpp.
SHARED, WORKSPACE = 16 * 2**20, 3 * 2**20
# Images besides the history of L-BFGS: content, style, start, image, last good image, gradient, temporaries.
IMAGES = {"adam": 10, "adam_pyramid": 14, "lbfgs": 13}
# With strips: image, gradient, moments or temporaries of L-BFGS. The others are in files: see fastnst.spill.
STRIP_IMAGES = {"adam": 4, "adam_pyramid": 9, "lbfgs": 9}
CARRIED = 7  # rows of a layer that are kept in addition to its strip
# Fitted to runs by bench/e2e/plan_fit.py, which writes the file.
FITTED = json.loads((ASSETS / "plan.json").read_text())
MODEL: Mapping[str, float] = FITTED["memory"]


@dataclass(frozen=True)
class MemoryTerms:
    """The terms of the memory model in bytes: ``maps`` and ``images`` have a fitted factor, ``exact`` has none.

    ``direct`` is 1 for PyTorch's convolutions, which have an overhead of their own, and 0 for Winograd.
    """

    maps: int
    images: int
    exact: int
    direct: int

    def bytes(self, model: Mapping[str, float]) -> int:
        """The peak of the process: that of the run or, at small sizes, that of reading the weights."""
        held = model["base"] + model["direct"] * self.direct + self.exact
        held += model["maps"] * self.maps + model["images"] * self.images
        return int(max(held, model["loading"]))


@dataclass(frozen=True)
class Kept:
    """What an evaluation by autograd holds: values per pixel at once, and the bytes of the parameters."""

    values: float
    parameters: int


@dataclass(frozen=True)
class Workload:
    """One scale of a run, as the memory model sees it.

    Masks, further styles and their statistics are small and not counted.

    Attributes:
        chain: the layers of the network.
        height, width: of the image.
        dtype: of the features.
        mirrored: whether the image is continued by mirrored rows or columns: it and its gradient exist in both sizes.
        settings: of the scale; ``convolution`` is resolved, ``"auto"`` counts as ``"direct"``, which needs more.
        kept: of a network that autograd differentiates, which has no strips.
    """

    chain: Sequence[Layer]
    height: int
    width: int
    dtype: torch.dtype
    settings: Settings
    mirrored: bool = False
    kept: Kept | None = None

    def replace(self, **changes: object) -> Workload:
        """This workload with other settings."""
        return dataclasses.replace(self, settings=self.settings.replace(**changes))

    def bytes(self) -> int:
        """The peak of the process in bytes if images are evaluated whole."""
        return self.terms().bytes(MODEL)

    def strip_bytes(self, rows: int) -> int:
        """The peak of the process in bytes with strips of ``rows``."""
        return self.strip_terms(rows).bytes(MODEL)

    def terms(self) -> MemoryTerms:
        """The terms if images are evaluated whole."""
        settings, itemsize = self.settings, self.dtype.itemsize
        winograd = settings.convolution == "winograd"
        channels = [3, *(layer.channels for layer in self.chain)]
        convs = [(c, layer) for c, layer in zip(channels, self.chain, strict=False) if layer.kind == "conv"]
        exact = sum(9 * c * layer.channels * itemsize for c, layer in convs)
        exact += pass_bytes(self.height, self.width, settings.photoreal)  # while snapshots are made, beside the rest
        exact += 0 if self.kept is None else self.kept.parameters
        if winograd:
            exact += SHARED + WORKSPACE * torch.get_num_threads()
        if settings.optimizer == "lbfgs":
            pairs = min(_most(settings.history), _most(settings.steps))
            stored = history_dtype(settings.history_dtype, self._wide)
            exact += pairs * 2 * 3 * self.height * self.width * stored.itemsize
        images = IMAGES[settings.optimizer] + (settings.average > 0) + 2 * self.mirrored
        if is_joint(settings):
            images += 2  # the image that a scale starts from, and the content
            exact += joint_bytes(settings, self.chain, (self.height, self.width), self._style, itemsize)
        maps = self._maps(itemsize)
        return MemoryTerms(maps, images * self._image, exact, int(not winograd))

    def strip_terms(self, rows: int) -> MemoryTerms:
        """The terms with strips of ``rows``: see :class:`fastnst.strips.objective.StripObjective`."""
        settings, whole = self.settings, self.terms()
        # Before the first step the style is there, and a copy of it in the units of the network.
        images = max(STRIP_IMAGES[settings.optimizer] + (settings.average > 0) + 2 * self.mirrored, 2 * self._style)
        exact = whole.exact + int(images * self._image) + 2 * IN_MEMORY
        maps = _strip_maps(self.chain, rows, self.shorter, self.dtype.itemsize)
        return dataclasses.replace(whole, maps=maps, images=0, exact=exact)

    @property
    def whole_only(self) -> bool:
        """Whether strips are not possible: a loss sees several layers, or autograd differentiates the network."""
        return is_joint(self.settings) or self.kept is not None

    def _maps(self, itemsize: int) -> int:
        """Bytes of the maps that exist at once if images are evaluated whole."""
        if self.kept is None:
            return _most_maps(self.chain, self.height, self.width, itemsize, self.settings)
        content = dict(self.settings.content_layers)
        targets = sum(layer.channels / layer.stride**2 for layer in self.chain if layer.name in content)
        return int((self.kept.values + targets) * self.height * self.width * itemsize)

    @property
    def longer(self) -> int:
        """The longer side of the image, along which strips lie."""
        return max(self.height, self.width)

    @property
    def shorter(self) -> int:
        """The shorter side of the image, which is the length of a strip's rows."""
        return min(self.height, self.width)

    @property
    def _style(self) -> float:
        """The positions of the style relative to those of the image."""
        settings = self.settings
        return (settings.style_scale if settings.style_size is None else settings.style_size / self.longer) ** 2

    @property
    def _wide(self) -> torch.dtype:
        """The dtype of an image."""
        return torch.float64 if self.dtype == torch.float64 else torch.float32

    @property
    def _image(self) -> int:
        """Bytes of an image."""
        return 3 * self.height * self.width * self._wide.itemsize


def _most(counts: int | tuple[int, ...]) -> int:
    return max(counts) if isinstance(counts, tuple) else counts


def _strip_maps(chain: Sequence[Layer], rows: int, width: int, itemsize: int) -> int:
    """Bytes of a strip's maps: the input of every convolution, and three maps of the largest layer for the backward."""
    sizes = [layer.channels * (rows // layer.stride + CARRIED) * (width // layer.stride) * itemsize for layer in chain]
    return sum(size for size, layer in zip(sizes, chain, strict=True) if layer.kind == "relu") + 3 * max(sizes)


def _most_maps(chain: Sequence[Layer], height: int, width: int, itemsize: int, settings: Settings) -> int:
    """Bytes of the maps that exist at once, at most: those that the forward pass keeps, the gradients above and below
    one layer in the backward pass, and the content targets. See :mod:`fastnst.objective.engines`."""
    observed, winograd = frozenset(settings.layer_names()), settings.convolution == "winograd"
    plan = FusionPlan(
        tuple(chain),
        observed,
        settings.pooling,
        winograd,
        whole_gradients=settings.normalize_gradients or is_joint(settings),
        wraps_rows=settings.wraps[0] or settings.padding == "circular",
    )

    def size(layer: Layer, itemsize: int = itemsize) -> int:
        return layer.channels * (height // layer.stride) * (width // layer.stride) * itemsize

    recomputes_first = plan.recomputes_first()
    kept = most = 0
    below = 3 * height * width * itemsize
    for i, layer in enumerate(chain):
        out = size(layer)
        if plan.releases_relu(i + 1):
            kept += size(chain[i + 1], 1)
        elif (layer.name in observed or layer.kind == "relu") and not (recomputes_first and i == 1):
            kept += out
        if layer.kind == "conv":
            above = size(chain[i + 2]) if plan.fuses_pool(i) else out
            # The first map and its gradient are computed in thirds.
            sides = above + (2 * below // 3 if recomputes_first and i == 2 else below)
            most = max(most, kept + (0 if recomputes_first and i == 0 else sides))
        elif layer.kind == "pool" and plan.is_window(i):
            most = max(most, kept + out + below)
        below = out
    return most + sum(size(layer) for layer in chain if layer.name in dict(settings.content_layers))

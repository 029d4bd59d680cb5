"""A network over a picture in strips of rows: memory for one strip instead of whole feature maps.

A 3 x 3 window reads one row beyond the row that it computes. Independent strips would need margins as wide as the
receptive field, and would compute them repeatedly: for a network to relu5_1, 80 rows for features and 160 for gradients
on each side. Here no pass computes a feature twice. In each strip a layer ends one row before its input does, so that
deeper layers lag behind, and the last rows of the input are carried over to the next strip.

- The forward pass goes from the first strip to the last. At each boundary it saves the carried-over rows to a
  :class:`fastnst.spill.SpillBuffer`, in memory or on disk.
- The backward pass goes from the last strip to the first. It recomputes the features of a strip from the saved rows,
  and carries gradients the other way: those of carried-over rows are added in the strip that computed these rows.

An evaluation thus costs two forward passes and one backward pass.

Ranks that share a picture take a band of rows each, and recompute nothing either. At every layer a band begins where
its first row of the image allows, each layer a little below its input, and ends where the next band begins. What lies
between is computed by the band above, from a few halo rows of each layer. The next band sends these rows up during the
forward pass, and their gradients are sent down during the backward pass. See :mod:`fastnst.strips.halo`.

fastnst's convolutions compute tiles of rows. Strips begin where tiles do, so that every feature has the same bits as
without strips. With another rounding some would change their sign, and with it the mask of a ReLU.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from fastnst import process
from fastnst.distributed import SINGLE, Ranks
from fastnst.network.fusion import FusionPlan
from fastnst.network.layer import Layer
from fastnst.network.vgg import VGG
from fastnst.spill import SpillBuffer
from fastnst.strips.halo import Halo
from fastnst.strips.layout import StripLayout, receptive_offset
from fastnst.strips.steps import StripActivations, StripSteps

OnFeatures = Callable[[str, slice, Tensor], None]
"""Called with a layer's name, some of its rows, and their features ``[1, C, rows, W]``, valid during the call."""

AddGradients = Callable[[str, slice, Tensor, Tensor, bool], None]
"""Called with a layer's name, some of its rows, the gradient from the layers above, to be changed in place, the
features, and whether to apply the ReLU's mask."""


class StripSweep:
    """Forward and backward passes of a network over an image in strips, up to the deepest layer of a chain.

    Args:
        network: of at least ``chain``.
        chain: the layers up to the deepest observed one.
        observed: the names of the layers to pass to the callbacks.
        size: height and width of the image.
        rows: of the image in a strip; the last strip may have fewer.
        ranks: the processes that share the picture; each takes a band.

    Attributes:
        bands: of each rank, the first row of the image and the first row below.
        band: that of this rank.
    """

    def __init__(
        self,
        network: VGG,
        chain: tuple[Layer, ...],
        observed: Collection[str],
        size: tuple[int, int],
        rows: int,
        ranks: Ranks = SINGLE,
    ) -> None:
        self.network, self.chain, self.ranks = network, chain, ranks
        self.bands = ranks.bands(size[0], receptive_offset(network, chain, size[1]))
        self.band = self.bands[ranks.rank]
        self._width = size[1]
        self._plan = FusionPlan(chain, frozenset(observed), network.pooling, network.winograd)
        self._layout = StripLayout(self._plan, size, rows, self.band)
        self._steps = StripSteps(network, self._layout)
        self._spill = SpillBuffer()
        self._carried: list[dict[str, SpillBuffer.Slot]] = []  # by strip, the rows carried over into it
        self._halo_below: dict[int, SpillBuffer.Slot] = {}  # as received from the band below

    @property
    def count(self) -> int:
        """The number of strips."""
        return self._layout.count

    @torch.no_grad()
    def forward(self, image: Tensor, on_features: OnFeatures, *, keep: bool = True) -> None:
        """Pass the features of each observed layer to ``on_features``, strip by strip.

        Of several ranks each passes its own rows. A layer of which its band has none is passed once, without rows.

        Args:
            image: pixels ``[1, 3, H, W]``, RGB, 0..255; all of it, also on several ranks.
            on_features: called for each observed layer and strip.
            keep: whether to save the carried-over rows that :meth:`backward` needs.
        """
        self._spill.clear()
        self._carried, self._halo_below = [], {}
        carried: dict[str, Tensor] = {}
        halo, wait = self._empty_halo(self._layout.halo_above) if self._layout.halo_above else None, None
        for k in range(self.count):
            if keep:
                self._carried.append({name: self._spill.put(x) for name, x in carried.items()})
            with self._steps.arena.evaluation(("forward", self._layout.shapes(k))):
                carried = self._forward_strip(image, k, carried, on_features=on_features, halo_above=halo)
            if halo is not None and halo.is_complete(self._layout.ends[k + 1]):
                wait, halo = self.ranks.send(halo.flat, self.ranks.rank - 1), None
            process.release_memory()  # the C library would keep freed maps but reuse few of them
        if not keep:
            self._steps.arena.release()
        if wait is not None:
            wait()

    @torch.no_grad()
    def backward(self, image: Tensor, add_gradients: AddGradients, gradient: Tensor) -> None:
        """Add the gradient of the band's rows of the image to ``gradient``, after :meth:`forward` of the same image.

        Args:
            image: as in :meth:`forward`.
            add_gradients: called for each observed layer and strip, and for ReLUs that need their mask applied.
            gradient: of the image's shape.
        """
        layout = self._layout
        carried_gradients: dict[int, Tensor] = {}
        scale = self.network.scale.to(gradient.dtype)
        below, above, wait = self._empty_halo(layout.halo_below) if layout.halo_below else None, None, None
        for k in range(self.count - 1, -1, -1):
            if above is None and layout.overlaps_halo_above(k):
                above = self._empty_halo(layout.halo_above)
                self.ranks.receive(above.flat, self.ranks.rank - 1)
            activations = StripActivations()
            carried = {name: self._spill.get(slot) for name, slot in self._carried[k].items()}
            with self._steps.arena.evaluation(("backward", layout.shapes(k))):
                self._forward_strip(image, k, carried, activations=activations)
                found, carried_gradients = self._backward_strip(
                    k, activations, carried_gradients, add_gradients, above, below
                )
                gradient[:, :, layout.ends[k][0] : layout.ends[k + 1][0]] += found.to(gradient.dtype) * scale
                del found
            if below is not None and k == layout.first_reading_below:
                wait, below = self.ranks.send(below.flat, self.ranks.rank + 1), None
            del activations
            process.release_memory()
        self._steps.arena.release()
        if wait is not None:
            wait()

    def _forward_strip(
        self,
        image: Tensor,
        k: int,
        carried: Mapping[str, Tensor],
        *,
        on_features: OnFeatures | None = None,
        activations: StripActivations | None = None,
        halo_above: Halo | None = None,
    ) -> dict[str, Tensor]:
        """The layers of strip ``k``, from the rows carried over into it; returns the rows carried over into the next.

        Features are kept in ``activations``, and the rows that the band above reads are copied to ``halo_above``.
        """
        layout, plan, steps = self._layout, self._plan, self._steps
        start, stop = layout.ends[k], layout.ends[k + 1]
        following: dict[str, Tensor] = {}
        first = min(layout.input_start(k, 0), start[0])
        x = self.network.prepare(image[:, :, first : stop[0]].to(self.network.device))
        for i, layer in enumerate(self.chain):
            if plan.is_window(i):
                if halo_above is not None:
                    halo_above.copy_from(i, start[i], x[:, :, x.shape[2] - (stop[i] - start[i]) :])
                x = x[:, :, max(layout.input_start(k, i) - start[i], 0) :]  # at the top of a band some rows are unused
                if i > 0 and k + 1 < self.count and layout.input_start(k + 1, i) < stop[i]:
                    following[layer.name] = x[:, :, layout.input_start(k + 1, i) - stop[i] :].clone()
                if layout.reads_below(k, i):
                    x = torch.cat((x, self._halo_rows_below(k, i)), 2)
            if layer.kind == "conv":
                x = steps.convolve(k, i, x, carried, activations)
            elif layer.kind == "relu" and not plan.fuses_relu(i - 1):
                x = steps.prepend_carried(carried, i, F.relu(x[:, :, start[i] - stop[i] :]))
            elif layer.kind == "pool" and plan.is_window(i):
                x = steps.prepend_carried(carried, i, steps.pool(k, i, x, activations))
            own = x[:, :, x.shape[2] - (stop[i + 1] - start[i + 1]) :]
            observed, deepest = layer.name in plan.observed, i + 1 == len(self.chain)
            if on_features is not None and observed and (own.shape[2] or layout.lacks_layer(k, i)):
                on_features(layer.name, slice(start[i + 1], stop[i + 1]), own)
            if activations is not None and (observed or plan.masks_itself(i) or deepest):
                activations.outputs[layer.name] = own
        return following

    def _halo_rows_below(self, k: int, i: int) -> Tensor:
        """The rows of the band below that layer ``i`` reads in strip ``k``; received when first needed."""
        layout = self._layout
        if not self._halo_below:
            halo = self._empty_halo(layout.halo_below)
            self.ranks.receive(halo.flat, self.ranks.rank + 1)
            self._halo_below = {layer: self._spill.put(x) for layer, x in halo.maps.items()}
        end = layout.ends[-1][i]
        rows = slice(max(layout.input_start(k, i) - end, 0), layout.input_end(i, layout.ends[k + 1][i + 1]) - end)
        return self._spill.get(self._halo_below[i])[:, :, rows]

    def _backward_strip(
        self,
        k: int,
        activations: StripActivations,
        carried: Mapping[int, Tensor],
        add_gradients: AddGradients,
        above: Halo | None,
        below: Halo | None,
    ) -> tuple[Tensor, dict[int, Tensor]]:
        """The gradient of the strip's own rows of the network's input, and the gradients of earlier strips' rows.

        ``carried`` has the gradients that later strips found for the last rows of this strip and of earlier strips, by
        the layer that reads them. ``above`` has the gradients that the band above found for the first rows of this one;
        those of halo rows of the band below are added to ``below``.
        """
        start, stop = self._layout.ends[k], self._layout.ends[k + 1]
        earlier: dict[int, Tensor] = {}
        grad = torch.zeros_like(activations.outputs[self.chain[-1].name])
        for i in range(len(self.chain) - 1, -1, -1):
            layer = self.chain[i]
            if layer.name in self._plan.observed or self._plan.masks_itself(i):
                x = activations.outputs.pop(layer.name)
                if x.shape[2]:
                    add_gradients(layer.name, slice(start[i + 1], stop[i + 1]), grad, x, layer.kind == "relu")
            if not self._plan.is_window(i):
                continue
            found = self._steps.backward(k, i, grad, activations)
            if below is not None and self._layout.reads_below(k, i):
                first = self._layout.input_start(k, i)
                below.add(i, max(first, stop[i]), found[:, :, max(stop[i] - first, 0) :])
            grad, rest = self._split(k, i, found, carried.get(i), above)
            if rest is not None:
                earlier[i] = rest
        return grad, earlier

    def _split(
        self, k: int, i: int, found: Tensor, carried: Tensor | None, above: Halo | None
    ) -> tuple[Tensor, Tensor | None]:
        """The gradient of the input of layer ``i``: of the strip's own rows, and of the rows of earlier strips."""
        start, stop, first = self._layout.ends[k][i], self._layout.ends[k + 1][i], self._layout.input_start(k, i)
        count = stop - start
        grad = found[:, :, max(start - first, 0) : max(stop - first, 0)]
        if grad.shape[2] < count:  # at the top of a band the layer does not read all rows
            grad = F.pad(grad, (0, 0, count - grad.shape[2], 0))
        if above is not None:
            above.add_to(grad, i, start)
        parts = [found[:, :, : start - first]] if first < start else []
        if carried is not None:
            own = min(carried.shape[2], count)
            rest = carried.shape[2] - own
            grad[:, :, count - own :] += carried[:, :, rest:]
            parts += [carried[:, :, :rest]] if rest else []
        return grad, _sum_of_last_rows(parts)

    def _empty_halo(self, rows: Mapping[int, slice]) -> Halo:
        """A halo of zeros for rows that this band shares with another."""
        below = {i: self.chain[i - 1] for i in rows if i > 0}
        shapes = {i: (3, self._width) if i == 0 else (below[i].channels, self._width // below[i].stride) for i in rows}
        return Halo(rows, shapes, self.network.mean)


def _sum_of_last_rows(parts: list[Tensor]) -> Tensor | None:
    """The sum of at most two tensors ``[1, C, rows, W]`` that end at the same row; None without any."""
    if not parts:
        return None
    parts = sorted(parts, key=lambda part: part.shape[2])
    total = parts[-1].clone()
    if len(parts) == 2:
        total[:, :, total.shape[2] - parts[0].shape[2] :] += parts[0]
    return total

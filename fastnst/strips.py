"""A network over a picture a strip of rows at a time, without convolving a pixel twice: memory for a strip, not a map.

A layer's strip ends a row before that of its input, since its window looks one row ahead; pools halve. So each layer
goes down the picture a little behind the one below it, and the last rows of its input are carried over to its next
strip. The way up leaves what it carried at the boundaries on a shelf; the way down goes from the last strip to the
first, makes each strip's features again from there, and carries gradients the other way: those of the rows that were
carried over belong to the strip before.

Work: the way up twice, the way down once. Tiles with margins of their own would recompute the margins as well; for a
network to relu5_1 these are 80 rows for features and 160 for gradients on every side.

Ranks that share a picture out have a band of rows each, and recompute nothing either. A band's layers begin where its
first row of the image lets them, each a little below the one before, and end where those of the next band begin. What
lies between is made by the band above, from the few rows of each layer in which the next band has begun: those are sent
up while the sweep goes on, and the gradients found for them are sent down on the way back. See :mod:`fastnst.edges`.

Convolutions of ours make tiles of rows together. There strips begin where such tiles do, so that every feature has the
bits that it has in a picture looked at whole: rounded otherwise, a few would fall on the other side of a ReLU.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from fastnst import heap
from fastnst.arena import Arena
from fastnst.cuts import Cuts, lag
from fastnst.edges import Edge
from fastnst.ranks import ALONE, Ranks
from fastnst.shelf import Shelf
from fastnst.vgg import VGG, Layer

Look = Callable[[str, slice, Tensor], None]
"""Given a layer's name, the rows of it, and its features there ``[1, C, rows, W]``, for the length of the call."""

Lay = Callable[[str, slice, Tensor, Tensor, bool], None]
"""Given name and rows, the gradient that came down, to be changed in place, the features, and whether the ReLU's mask
is to be laid on as well."""


@dataclass
class Tape:
    """What one strip keeps on its way up for its way down: inputs by layer, with the rows carried over before them,
    outputs that somebody looks at, and of pools where maxima lay or what came out."""

    inputs: dict[str, Tensor] = field(default_factory=dict)
    outputs: dict[str, Tensor] = field(default_factory=dict)
    places: dict[str, Tensor] = field(default_factory=dict)
    pooled: dict[str, Tensor] = field(default_factory=dict)


class Strips:
    """The sweeps of a network over an image of a size, up to the deepest layer of a chain.

    Args:
        network: of at least ``chain``.
        chain: the layers up to the deepest one that is looked at.
        looked_at: their names.
        size: height and width of the image.
        rows: of the image in a strip; the last may have fewer.
        ranks: the processes that share the picture out, each a band: ``band`` are the rows of this one's.
    """

    def __init__(
        self,
        network: VGG,
        chain: tuple[Layer, ...],
        looked_at: Collection[str],
        size: tuple[int, int],
        rows: int,
        ranks: Ranks = ALONE,
    ) -> None:
        self.network, self.chain, self.looked_at, self.ranks = network, chain, frozenset(looked_at), ranks
        self.bands = ranks.bands(size[0], lag(network, chain))
        self.band = self.bands[ranks.rank]
        self._width = size[1]
        self._cuts = Cuts(network, chain, self.looked_at, size[0], rows, self.band)
        self._carried: list[dict[str, Shelf.Place]] = []
        self._lent: dict[int, Shelf.Place] = {}
        self._shelf, self._arena = Shelf(), Arena()

    @property
    def count(self) -> int:
        """The number of strips."""
        return self._cuts.count

    @torch.no_grad()
    def up(self, image: Tensor, look: Look, *, keep: bool = True) -> None:
        """Show each layer that is looked at to ``look``, strip by strip; ``keep`` what :meth:`down` begins with.

        Of several ranks each shows rows of its own; of a layer that its band has none of, no rows, once.
        """
        self._shelf.clear()
        self._carried, self._lent = [], {}
        carried: dict[str, Tensor] = {}
        edge, arrived = self._open(self._cuts.above) if self._cuts.above else None, None
        for k in range(self.count):
            if keep:
                self._carried.append({name: self._shelf.put(x) for name, x in carried.items()})
            with self._arena.evaluation(("up", self._cuts.kind(k))):
                carried = self._up(image, k, carried, look, None, edge)
            if edge is not None and edge.reached(self._cuts.ends[k + 1]):
                arrived, edge = self.ranks.send(edge.flat, self.ranks.rank - 1), None
            heap.return_unused()  # the C library finds few of a strip's maps again and would keep them all
        if not keep:
            self._arena.release()
        if arrived is not None:
            arrived()

    @torch.no_grad()
    def down(self, image: Tensor, lay: Lay, gradient: Tensor) -> None:
        """Add the gradient by the band's rows of the image to ``gradient``, of the image's shape, after :meth:`up`."""
        cuts = self._cuts
        late: dict[int, Tensor] = {}
        scale = self.network.scale.to(gradient.dtype)
        edge, found_above, arrived = self._open(cuts.below) if cuts.below else None, None, None
        for k in range(self.count - 1, -1, -1):
            if found_above is None and cuts.touches_above(k):
                found_above = self._open(cuts.above)
                self.ranks.receive(found_above.flat, self.ranks.rank - 1)
            tape = Tape()
            before = {name: self._shelf.get(place) for name, place in self._carried[k].items()}
            with self._arena.evaluation(("down", cuts.kind(k))):
                self._up(image, k, before, None, tape)
                found, late = self._down(tape, k, late, lay, found_above, edge)
                gradient[:, :, cuts.ends[k][0] : cuts.ends[k + 1][0]] += found.to(gradient.dtype) * scale
                del found
            if edge is not None and k == cuts.closing:
                arrived, edge = self.ranks.send(edge.flat, self.ranks.rank + 1), None
            del tape
            heap.return_unused()
        self._arena.release()
        if arrived is not None:
            arrived()

    def _up(
        self,
        image: Tensor,
        k: int,
        carried: Mapping[str, Tensor],
        look: Look | None,
        tape: Tape | None,
        edge: Edge | None = None,
    ) -> dict[str, Tensor]:
        """One strip, from what was carried over into it; returns what is carried over into the next.

        ``edge`` takes what the band above is to see.
        """
        cuts, chain = self._cuts, self.chain
        start, stop = cuts.ends[k], cuts.ends[k + 1]
        following: dict[str, Tensor] = {}
        first = min(cuts.needed(k, 0), start[0])
        x = self.network.prepare(image[:, :, first : stop[0]].to(self.network.device))
        for i, layer in enumerate(chain):
            if cuts.has_window(i):
                if edge is not None:
                    edge.take(i, start[i], x[:, :, x.shape[2] - (stop[i] - start[i]) :])
                x = x[:, :, max(cuts.needed(k, i) - start[i], 0) :]  # at the top of a band not all of it serves
                if i > 0 and k + 1 < self.count and cuts.needed(k + 1, i) < stop[i]:
                    following[layer.name] = x[:, :, cuts.needed(k + 1, i) - stop[i] :].clone()
                if cuts.sees_below(k, i):
                    x = torch.cat((x, self._borrowed(k, i)), 2)
            if layer.kind == "relu":
                x = x if cuts.rectifies(i - 1) else self._after(carried, i, F.relu(x[:, :, start[i] - stop[i] :]))
            elif layer.kind == "conv":
                x = self._convolve(k, i, x, carried, tape)
            elif not cuts.pools(i - 2):
                x = self._after(carried, i, self._pool(k, i, x, tape))
            own = x[:, :, x.shape[2] - (stop[i + 1] - start[i + 1]) :]
            if look is not None and layer.name in self.looked_at and (own.shape[2] or cuts.shows_none(k, i)):
                look(layer.name, slice(start[i + 1], stop[i + 1]), own)
            if tape is not None and (layer.name in self.looked_at or cuts.masks_itself(i) or i + 1 == len(chain)):
                tape.outputs[layer.name] = own
        return following

    def _borrowed(self, k: int, i: int) -> Tensor:
        """The rows of the band below that layer ``i`` looks at in strip ``k``."""
        cuts = self._cuts
        if not self._lent:
            edge = self._open(cuts.below)
            self.ranks.receive(edge.flat, self.ranks.rank + 1)
            self._lent = {layer: self._shelf.put(x) for layer, x in edge.maps.items()}
        end = cuts.ends[-1][i]
        rows = slice(max(cuts.needed(k, i) - end, 0), cuts.seen(i, cuts.ends[k + 1][i + 1]) - end)
        return self._shelf.get(self._lent[i])[:, :, rows]

    def _after(self, carried: Mapping[str, Tensor], i: int, y: Tensor) -> Tensor:
        """The output of layer ``i`` after what was carried over of it."""
        before = self._before(carried, i)
        return y if before is None else torch.cat((before, y), 2)

    def _before(self, carried: Mapping[str, Tensor], i: int) -> Tensor | None:
        """What was carried over of the output of layer ``i``, whose next layer has a window."""
        above = self.chain[i + 1 : i + 2]
        return carried.get(above[0].name) if above and above[0].kind != "relu" else None

    def _convolve(self, k: int, i: int, x: Tensor, carried: Mapping[str, Tensor], tape: Tape | None) -> Tensor:
        """The rows of a convolution, with its ReLU and pool where it brings these, after what was carried over."""
        cuts, network, name, outputs = self._cuts, self.network, self.chain[i].name, self.chain[i].channels
        start, stop = cuts.ends[k][i + 1], cuts.ends[k + 1][i + 1]
        if tape is not None:
            tape.inputs[name] = x
        last = i + 2 if cuts.pools(i) else i + 1 if cuts.rectifies(i) else i
        if not network.winograd:
            if start == stop:
                return self._after(carried, last, x.new_empty((1, outputs, 0, x.shape[3])))
            first = start - cuts.needed(k, i)
            y = network.convolve(x, name, relu=last > i)
            return self._after(carried, last, y[:, :, first : first + stop - start])
        before = self._before(carried, last)
        lead = 0 if before is None else before.shape[2]
        pooled = last == i + 2
        rows = cuts.ends[k + 1][last + 1] - cuts.ends[k][last + 1]
        y = self._empty(outputs, lead + rows, x.shape[3] // (2 if pooled else 1), x)
        out, first, weights = y[:, :, lead:], start - cuts.needed(k, i), network.convs[name]
        if pooled:
            places = self._empty(outputs, rows, out.shape[3], x, torch.uint8)
            if rows:
                torch.ops.fastnst.conv3x3_pool_out(x, *weights, network.border(name), first, out, places)
            if tape is not None:
                tape.places[self.chain[last].name] = places
        elif rows:
            torch.ops.fastnst.conv3x3_out(x, *weights, last > i, network.border(name), first, out)
        if before is not None:
            y[:, :, :lead] = before
        return y

    def _pool(self, k: int, i: int, x: Tensor, tape: Tape | None) -> Tensor:
        network, name = self.network, self.chain[i].name
        count = self._cuts.ends[k + 1][i + 1] - self._cuts.ends[k][i + 1]
        y, places = torch.ops.fastnst.pool(x[:, :, : 2 * count], network.pooling)
        if tape is not None:
            tape.places[name] = places
            # Of what went into another pool than that of root mean squares, the shape alone counts.
            tape.inputs[name] = x if network.pooling == "l2" else x.new_empty(()).expand(x.shape)
            tape.pooled[name] = y
        pooled: Tensor = y
        return pooled

    def _down(
        self, tape: Tape, k: int, late: Mapping[int, Tensor], lay: Lay, found_above: Edge | None, edge: Edge | None
    ) -> tuple[Tensor, dict[int, Tensor]]:
        """The gradient by the strip's own rows of the network's input.

        ``late`` is what the strips below have found of the last rows of this one and of those before it, by the layer
        they go into; the same of the strips above is returned. ``found_above`` is what the band above has found of the
        first rows of this one; ``edge`` takes what is found here of the band below.
        """
        cuts = self._cuts
        start, stop = cuts.ends[k], cuts.ends[k + 1]
        above: dict[int, Tensor] = {}
        grad = torch.zeros_like(tape.outputs[self.chain[-1].name])
        for i in range(len(self.chain) - 1, -1, -1):
            layer = self.chain[i]
            if layer.name in self.looked_at or cuts.masks_itself(i):
                x = tape.outputs.pop(layer.name)
                if x.shape[2]:
                    lay(layer.name, slice(start[i + 1], stop[i + 1]), grad, x, layer.kind == "relu")
            if not cuts.has_window(i):
                continue
            found = self._back(k, i, grad, tape)
            first, count = cuts.needed(k, i), stop[i] - start[i]
            grad = found[:, :, max(start[i] - first, 0) : max(stop[i] - first, 0)]
            if grad.shape[2] < count:  # at the top of a band not all rows serve
                grad = F.pad(grad, (0, 0, count - grad.shape[2], 0))
            if edge is not None and cuts.sees_below(k, i):
                edge.add(i, max(first, stop[i]), found[:, :, max(stop[i] - first, 0) :])
            if found_above is not None:
                found_above.add_to(grad, i, start[i])
            parts = [found[:, :, : start[i] - first]] if first < start[i] else []
            if i in late:
                here = min(late[i].shape[2], count)
                rest = late[i].shape[2] - here
                grad[:, :, count - here :] += late[i][:, :, rest:]
                parts += [late[i][:, :, :rest]] if rest else []
            if parts:
                parts.sort(key=lambda part: part.shape[2])
                above[i] = parts[-1].clone()
                if len(parts) == 2:
                    above[i][:, :, parts[1].shape[2] - parts[0].shape[2] :] += parts[0]
        return grad, above

    def _back(self, k: int, i: int, grad: Tensor, tape: Tape) -> Tensor:
        """The gradient by a layer's input, with the rows that its window looked at."""
        cuts, layer, network = self._cuts, self.chain[i], self.network
        x = tape.inputs.pop(layer.name)
        start, stop, first = cuts.ends[k][i + 1], cuts.ends[k + 1][i + 1], cuts.needed(k, i)
        if start == stop:
            return self._empty(x.shape[1], x.shape[2], x.shape[3], x).zero_()
        below = self.chain[i - 1] if i > 0 else None
        masked = below is not None and below.kind == "relu" and below.name not in self.looked_at
        if layer.kind == "pool":
            values = (x, tape.pooled.pop(layer.name)) if network.pooling == "l2" else (None, None)
            places = tape.places.pop(layer.name) if network.pooling == "max" else None
            relu = masked and network.pooling == "max"
            size = (x.shape[2], x.shape[3])
            found: Tensor = torch.ops.fastnst.pool_backward(grad, *values, places, network.pooling, *size, relu)
            return found.contiguous(memory_format=torch.channels_last)
        mask = x if masked else None
        places = tape.places.pop(self.chain[i + 2].name) if cuts.pools(i) else None
        if places is not None:
            start = 2 * cuts.ends[k][i + 3]
        size = (stop - start, x.shape[3])
        if network.winograd and network.border(layer.name) == "zeros":
            weight, _ = network.convs[layer.name]
            found = self._empty(x.shape[1], x.shape[2], x.shape[3], x)
            rows = slice(max(start - 1 - first, 0), min(stop + 1 - first, x.shape[2]))
            found[:, :, : rows.start] = 0
            found[:, :, rows.stop :] = 0
            torch.ops.fastnst.conv3x3_backward_out(
                grad,
                weight,
                None if mask is None else mask[:, :, rows],
                places,
                *size,
                False,
                first + rows.start - start,
                found[:, :, rows],
            )
            return found
        if places is not None:
            grad = torch.ops.fastnst.pool_backward(grad, None, None, places, "max", *size, True)
        # As many rows as went in, zero where there is no gradient.
        grad = F.pad(grad, (0, 0, start - first, first + x.shape[2] - stop))
        return network.unconvolve(grad.contiguous(memory_format=torch.channels_last), layer.name, mask)

    def _empty(self, channels: int, rows: int, width: int, like: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """A map of a strip, channels_last, of the dtype and on the device of another, with anything in it."""
        dtype = dtype or like.dtype
        if like.device.type == "cpu":
            return self._arena.empty(channels, rows, width, dtype)
        return like.new_empty((1, rows, width, channels), dtype=dtype).permute(0, 3, 1, 2)

    def _open(self, rows: Mapping[int, slice]) -> Edge:
        """Room for the rows that are shared with another band."""
        below = {i: self.chain[i - 1] for i in rows if i > 0}
        shapes = {i: (3, self._width) if i == 0 else (below[i].channels, self._width // below[i].stride) for i in rows}
        return Edge(rows, shapes, self.network.mean)

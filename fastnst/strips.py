"""A network over a picture a strip of rows at a time, without convolving a pixel twice: memory for a strip, not a map.

A layer's strip ends a row before that of its input, since its window looks one row ahead; pools halve. So each layer
goes down the picture a little behind the one below it, and the last rows of its input are carried over to its next
strip. The way up leaves what it carried at the boundaries on a shelf; the way down goes from the last strip to the
first, makes each strip's features again from there, and carries gradients the other way: those of the rows that were
carried over belong to the strip before.

Work: the way up twice, the way down once. Tiles with margins of their own would recompute the margins as well; for a
network to relu5_1 these are 80 rows for features and 160 for gradients on every side.

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
from fastnst.engine import TILE
from fastnst.shelf import Shelf
from fastnst.vgg import VGG, Layer

Look = Callable[[str, slice, Tensor], None]
"""Given a layer's name, the rows of it, and its features there ``[1, C, rows, W]``, for the length of the call."""

Lay = Callable[[str, slice, Tensor, Tensor, bool], None]
"""Given name and rows, the gradient that came down, to be changed in place, the features, and whether the ReLU's mask
is to be laid on as well."""

ALIGNED = 32  # rows of the image in which bands begin, with which all layers' tiles do


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
        band: the rows of the image whose gradient is wanted; None: all. The sweeps go :func:`margin` rows beyond it.
    """

    def __init__(
        self,
        network: VGG,
        chain: tuple[Layer, ...],
        looked_at: Collection[str],
        size: tuple[int, int],
        rows: int,
        band: tuple[int, int] | None = None,
    ) -> None:
        self.network, self.chain, self.looked_at = network, chain, frozenset(looked_at)
        self._heights = [size[0], *(size[0] // layer.stride for layer in chain)]
        self._grid = TILE if network.winograd else 1
        top, bottom = band or (0, size[0])
        self._wanted = _pulling(chain, top, bottom)
        beyond = margin(network, chain)
        top, bottom = max((top - beyond) // ALIGNED * ALIGNED, 0), min(bottom + beyond, size[0])
        # For each boundary between strips, how far the image and each layer have come there.
        first = _first(chain, top, self._grid)
        self._cuts = [first, *(self._reached(row, first) for row in (*range(top + rows, bottom, rows), bottom))]
        self._carried: list[dict[str, Shelf.Place]] = []
        self._shelf = Shelf()

    @property
    def count(self) -> int:
        """The number of strips."""
        return len(self._cuts) - 1

    @torch.no_grad()
    def up(self, image: Tensor, look: Look, *, keep: bool = True) -> None:
        """Show each layer that is looked at to ``look``, strip by strip; ``keep`` what :meth:`down` begins with."""
        self._shelf.clear()
        self._carried = []
        carried: dict[str, Tensor] = {}
        for k in range(self.count):
            if keep:
                self._carried.append({name: self._shelf.put(x) for name, x in carried.items()})
            carried = self._up(image, k, carried, look, None)
            heap.return_unused()  # the C library finds few of a strip's maps again and would keep them all

    @torch.no_grad()
    def down(self, image: Tensor, lay: Lay, gradient: Tensor, rows: slice) -> None:
        """Add the gradient by ``rows`` of the image to ``gradient``, of the image's shape, after :meth:`up`."""
        late: dict[int, Tensor] = {}
        scale = self.network.scale.to(gradient.dtype)
        for k in range(self.count - 1, -1, -1):
            tape = Tape()
            self._up(image, k, {name: self._shelf.get(place) for name, place in self._carried[k].items()}, None, tape)
            found, late = self._down(tape, k, late, lay)
            start = self._cuts[k][0]
            first, last = max(start, rows.start), min(self._cuts[k + 1][0], rows.stop)
            if first < last:
                gradient[:, :, first:last] += found[:, :, first - start : last - start].to(gradient.dtype) * scale
            del tape, found
            heap.return_unused()

    def _up(
        self, image: Tensor, k: int, carried: Mapping[str, Tensor], look: Look | None, tape: Tape | None
    ) -> dict[str, Tensor]:
        """One strip, from what was carried over into it; returns what is carried over into the next."""
        start, stop, chain = self._cuts[k], self._cuts[k + 1], self.chain
        following: dict[str, Tensor] = {}
        x = self.network.prepare(image[:, :, self._needed(k, 0) : stop[0]].to(self.network.device))
        for i, layer in enumerate(chain):
            if i > 0 and layer.kind != "relu" and not self._pools(i - 2):
                x = x[:, :, max(self._needed(k, i) - start[i], 0) :]  # at the top of a band not all of it serves
                if k + 1 < self.count and self._needed(k + 1, i) < stop[i]:
                    following[layer.name] = x[:, :, self._needed(k + 1, i) - stop[i] :].clone()
            if layer.kind == "relu":
                x = x if self._rectifies(i - 1) else self._after(carried, i, F.relu(x[:, :, start[i] - stop[i] :]))
            elif layer.kind == "conv":
                x = self._convolve(k, i, x, carried, tape)
            elif not self._pools(i - 2):
                x = self._after(carried, i, self._pool(k, i, x, tape))
            own = x[:, :, x.shape[2] - (stop[i + 1] - start[i + 1]) :]
            if layer.name in self.looked_at and look is not None and own.shape[2]:
                look(layer.name, slice(start[i + 1], stop[i + 1]), own)
            if tape is not None and (layer.name in self.looked_at or self._masks_itself(i) or i + 1 == len(chain)):
                tape.outputs[layer.name] = own
        return following

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
        network, name, outputs = self.network, self.chain[i].name, self.chain[i].channels
        start, stop = self._cuts[k][i + 1], self._cuts[k + 1][i + 1]
        if tape is not None:
            tape.inputs[name] = x
        last = i + 2 if self._pools(i) else i + 1 if self._rectifies(i) else i
        if not network.winograd:
            if start == stop:
                return self._after(carried, last, _empty(x, outputs, 0, x.shape[3]))
            first = start - self._needed(k, i)
            y = network.convolve(x, name, relu=last > i)
            return self._after(carried, last, y[:, :, first : first + stop - start])
        before = self._before(carried, last)
        lead = 0 if before is None else before.shape[2]
        pooled = last == i + 2
        rows = self._cuts[k + 1][last + 1] - self._cuts[k][last + 1]
        y = _empty(x, outputs, lead + rows, x.shape[3] // (2 if pooled else 1))
        out, first, weights = y[:, :, lead:], start - self._needed(k, i), network.convs[name]
        if pooled:
            places = torch.empty_like(out, dtype=torch.uint8)
            torch.ops.fastnst.conv3x3_pool_out(x, *weights, network.padding, first, out, places)
            if tape is not None:
                tape.places[self.chain[last].name] = places
        else:
            torch.ops.fastnst.conv3x3_out(x, *weights, last > i, network.padding, first, out)
        if before is not None:
            y[:, :, :lead] = before
        return y

    def _pool(self, k: int, i: int, x: Tensor, tape: Tape | None) -> Tensor:
        network, name = self.network, self.chain[i].name
        count = self._cuts[k + 1][i + 1] - self._cuts[k][i + 1]
        y, places = torch.ops.fastnst.pool(x[:, :, : 2 * count], network.pooling)
        if tape is not None:
            tape.places[name] = places
            # Of what went into another pool than that of root mean squares, the shape alone counts.
            tape.inputs[name] = x if network.pooling == "l2" else x.new_empty(()).expand(x.shape)
            tape.pooled[name] = y
        pooled: Tensor = y
        return pooled

    def _down(self, tape: Tape, k: int, late: Mapping[int, Tensor], lay: Lay) -> tuple[Tensor, dict[int, Tensor]]:
        """The gradient by the strip's own rows of the network's input.

        ``late`` is what the strips below have found of the last rows of this one and of those before it, by the layer
        they go into; the same of the strips above is returned.
        """
        start, stop = self._cuts[k], self._cuts[k + 1]
        above: dict[int, Tensor] = {}
        grad = torch.zeros_like(tape.outputs[self.chain[-1].name])
        for i in range(len(self.chain) - 1, -1, -1):
            layer = self.chain[i]
            if layer.name in self.looked_at or self._masks_itself(i):
                x = tape.outputs.pop(layer.name)
                if x.shape[2]:
                    lay(layer.name, slice(start[i + 1], stop[i + 1]), grad, x, layer.kind == "relu")
            if layer.kind == "relu" or (layer.kind == "pool" and self._pools(i - 2)):
                continue
            found = self._back(k, i, grad, tape)
            over = start[i] - self._needed(k, i)
            grad = found[:, :, over:] if over >= 0 else F.pad(found, (0, 0, -over, 0))
            parts = [found[:, :, :over]] if over > 0 else []
            if i in late:
                here = min(late[i].shape[2], grad.shape[2])
                rest = late[i].shape[2] - here
                grad[:, :, grad.shape[2] - here :] += late[i][:, :, rest:]
                parts += [late[i][:, :, :rest]] if rest else []
            if parts:
                parts.sort(key=lambda part: part.shape[2])
                above[i] = parts[-1].clone()
                if len(parts) == 2:
                    above[i][:, :, parts[1].shape[2] - parts[0].shape[2] :] += parts[0]
        return grad, above

    def _back(self, k: int, i: int, grad: Tensor, tape: Tape) -> Tensor:
        """The gradient by a layer's input, with the rows that its window looked at."""
        layer, network = self.chain[i], self.network
        x = tape.inputs.pop(layer.name)
        start, stop, first = self._cuts[k][i + 1], self._cuts[k + 1][i + 1], self._needed(k, i)
        low, high = self._wanted[i]
        if start == stop or stop <= low or start >= high:
            return _empty(x, *x.shape[1:]).zero_()
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
        places = tape.places.pop(self.chain[i + 2].name) if self._pools(i) else None
        if places is not None:
            start = 2 * self._cuts[k][i + 3]
        size = (stop - start, x.shape[3])
        if network.winograd and network.padding == "zeros":
            weight, _ = network.convs[layer.name]
            found = _empty(x, *x.shape[1:])
            # Of the rows beside a band those that pull at it, and what they pull at.
            begin, end = max(start, low // TILE * TILE), min(stop, -(-high // TILE) * TILE)
            rows = slice(max(begin - 1 - first, 0), min(end + 1 - first, x.shape[2]))
            found[:, :, : rows.start] = 0
            found[:, :, rows.stop :] = 0
            half = 1 if places is None else 2
            some = slice((begin - start) // half, -(-(end - start) // half))
            torch.ops.fastnst.conv3x3_backward_out(
                grad[:, :, some],
                weight,
                None if mask is None else mask[:, :, rows],
                None if places is None else places[:, :, some],
                end - begin,
                x.shape[3],
                False,
                first + rows.start - begin,
                found[:, :, rows],
            )
            return found
        if places is not None:
            grad = torch.ops.fastnst.pool_backward(grad, None, None, places, "max", *size, True)
        # As many rows as went in, zero where there is no gradient.
        grad = F.pad(grad, (0, 0, start - first, first + x.shape[2] - stop))
        return network.unconvolve(grad.contiguous(memory_format=torch.channels_last), layer.name, mask)

    def _rectifies(self, i: int) -> bool:
        """Whether the convolution at ``i`` brings its ReLU with it."""
        return self.chain[i].name not in self.looked_at and i + 1 < len(self.chain)

    def _pools(self, i: int) -> bool:
        """Whether the convolution at ``i`` brings its ReLU and the pool above with it."""
        above = self.chain[i + 1 : i + 3]
        ours = (
            self.network.winograd
            and self.network.pooling == "max"
            and [layer.kind for layer in above] == ["relu", "pool"]
        )
        return ours and i >= 0 and self.looked_at.isdisjoint((self.chain[i].name, above[0].name))

    def _masks_itself(self, i: int) -> bool:
        """Whether layer ``i`` is a ReLU whose mask no step of the way down brings with it."""
        above = self.chain[i + 1 : i + 2]
        return (
            self.chain[i].kind == "relu" and bool(above) and above[0].kind == "pool" and self.network.pooling != "max"
        )

    def _needed(self, k: int, i: int) -> int:
        """The first row of its input that layer ``i`` looks at in strip ``k``."""
        first = self._cuts[k][i + 1]
        return max(first - 1, 0) if self.chain[i].kind == "conv" else first * (2 if self.chain[i].kind == "pool" else 1)

    def _reached(self, row: int, first: list[int]) -> list[int]:
        """How far the rows above ``row`` of the image take it and each layer."""
        if row == self._heights[0]:
            return list(self._heights)
        return [max(pair) for pair in zip(_ends(self.chain, row, self._grid), first, strict=True)]


def _empty(like: Tensor, channels: int, rows: int, width: int) -> Tensor:
    """A map ``[1, channels, rows, width]``, channels_last, with anything in it."""
    return like.new_empty((1, rows, width, channels)).permute(0, 3, 1, 2)


def margin(network: VGG, chain: tuple[Layer, ...]) -> int:
    """How many rows beyond a band are swept for the gradient by the band's rows.

    A position of the deepest layer covers ``stride`` rows and depends on ``r`` more on either side, r being the sum of
    its convolutions' strides; it pulls at all of these, by its own features, which depend on r rows more. Where strips
    begin with tiles of the convolution, it is some more.
    """
    grid, beyond = TILE if network.winograd else 1, 0
    top, bottom = 2**16, 2**17
    wanted = _pulling(chain, top, bottom)
    while True:
        made = zip(_first(chain, top - beyond, grid)[1:], _ends(chain, bottom + beyond, grid)[1:], strict=True)
        if all(first <= low and end >= high for (first, end), (low, high) in zip(made, wanted, strict=True)):
            return beyond
        beyond += ALIGNED


def _pulling(chain: tuple[Layer, ...], top: int, bottom: int) -> list[tuple[int, int]]:
    """For each layer, its rows that depend on rows ``top`` to ``bottom`` of the image, and so pull at them."""
    pulling, beside = [], 0
    for layer in chain:
        beside += layer.stride * (layer.kind == "conv")
        pulling.append(
            (-(-(top - beside - layer.stride + 1) // layer.stride), (bottom - 1 + beside) // layer.stride + 1)
        )
    return pulling


def _first(chain: tuple[Layer, ...], row: int, grid: int) -> list[int]:
    """The first row of the image, and of each layer, that rows from ``row`` on make."""
    firsts = [row]
    for layer in chain:
        last = firsts[-1]
        if layer.kind == "conv" and last > 0:
            last = -(-(last + 1) // grid) * grid
        firsts.append(-(-last // 2) if layer.kind == "pool" else last)
    return firsts


def _ends(chain: tuple[Layer, ...], row: int, grid: int) -> list[int]:
    """How many rows of the image, and of each layer, the first ``row`` rows of a higher image make."""
    ends = [row]
    for layer in chain:
        last = ends[-1]
        if layer.kind == "conv":
            last = (last - 1) // grid * grid
        ends.append(last // 2 if layer.kind == "pool" else last)
    return ends

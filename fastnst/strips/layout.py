"""Which rows of each layer belong to which strip, and which rows of its input a strip reads.

A 3 x 3 window reads one row beyond the row that it computes, so a layer's strip ends one row before the strip of its
input; pools halve row numbers. A band ends at every layer where the next band begins, one row after its input. With
fastnst's convolutions strips and bands begin where tiles do, so a layer may end up to the rows of a tile before its
input.
"""

from __future__ import annotations

from fastnst.network.fusion import FusionPlan, tile_rows
from fastnst.network.layer import Layer
from fastnst.network.vgg import VGG


class StripLayout:
    """The strips of one band of a picture.

    Args:
        plan: the layers and which of them are computed together.
        size: height and width of the picture.
        rows: of the picture in a strip.
        band: the first row of the picture in the band, and the first row below it.

    Attributes:
        ends: ``ends[k][0]`` and ``ends[k][i + 1]`` are the first rows of strip ``k`` of the image and of layer ``i``.
            The last entry is the end of the band. Rows of the input of layer ``i`` are therefore ``ends[k][i]``.
        halo_above, halo_below: by layer, the rows of its input that this band shares with the band above or below.
        first_reading_below: the first strip that reads rows of the band below.
    """

    def __init__(self, plan: FusionPlan, size: tuple[int, int], rows: int, band: tuple[int, int]) -> None:
        self.plan, self.chain = plan, plan.chain
        height, width = size
        self._tiles = _tiles(self.chain, width, plan.winograd)
        self._heights = [height, *(height // layer.stride for layer in self.chain)]
        first, last, row = self._band_start(band[0]), self._band_start(band[1]), band[0]
        self.ends = [first]
        while self.ends[-1] != last:
            row += rows
            reached = zip(self._computed_from(row), first, last, strict=True)
            self.ends.append([min(max(end, low), high) for end, low, high in reached])
        self.halo_above = {} if band[0] == 0 else self._halo(first)
        self.halo_below = {} if band[1] == height else self._halo(last)
        reading = (k for k in range(self.count) if any(self.reads_below(k, i) for i in self.halo_below))
        self.first_reading_below = next(reading, self.count)

    @property
    def count(self) -> int:
        """The number of strips."""
        return len(self.ends) - 1

    def shapes(self, k: int) -> tuple[tuple[int, int, int], ...]:
        """A key for strip ``k``: strips with equal keys have maps of equal sizes.

        For the image and each layer it has the number of rows, of carried-over rows that the next layer reads before
        them, and of halo rows after them.
        """
        found = []
        for i, (start, stop) in enumerate(zip(self.ends[k], self.ends[k + 1], strict=True)):
            deepest = i == len(self.chain)
            carried = 0 if deepest else start - self.input_start(k, i)
            reads_below = not deepest and self.reads_below(k, i)
            found.append(
                (stop - start, carried, self.input_end(i, self.ends[k + 1][i + 1]) - stop if reads_below else 0)
            )
        return tuple(found)

    def input_start(self, k: int, i: int) -> int:
        """The first row of its input that layer ``i`` reads in strip ``k``."""
        first = self.ends[k][i + 1]
        return max(first - 1, 0) if self.chain[i].kind == "conv" else first * (2 if self.chain[i].kind == "pool" else 1)

    def input_end(self, i: int, end: int) -> int:
        """The end of the rows of its input that layer ``i`` reads for its own rows up to ``end``."""
        return 2 * end if self.chain[i].kind == "pool" else min(end + 1, self._heights[i])

    def reads_below(self, k: int, i: int) -> bool:
        """Whether layer ``i`` reads halo rows of the band below in strip ``k``."""
        first, last = self.ends[k][i + 1], self.ends[k + 1][i + 1]
        return bool(self.halo_below) and first < last and self.input_end(i, last) > self.ends[-1][i]

    def overlaps_halo_above(self, k: int) -> bool:
        """Whether strip ``k`` has rows that the band above reads."""
        start, stop = self.ends[k], self.ends[k + 1]
        return any(start[i] < rows.stop and stop[i] > rows.start for i, rows in self.halo_above.items())

    def lacks_layer(self, k: int, i: int) -> bool:
        """Whether ``k`` is the last strip and no strip of the band has rows of layer ``i``."""
        return k + 1 == self.count and self.ends[0][i + 1] == self.ends[-1][i + 1]

    def _computed_from(self, row: int) -> list[int]:
        """The ends of the image and of each layer, as computed from the rows of the image above ``row``."""
        return self._heights if row >= self._heights[0] else _ends(self.chain, row, self._tiles)

    def _band_start(self, row: int) -> list[int]:
        """The first row of the image and of each layer in a band that begins at ``row``; the band above ends there."""
        if row == self._heights[0]:
            return self._heights
        return [min(pair) for pair in zip(_starts(self.chain, row, self._tiles), self._heights, strict=True)]

    def _halo(self, start: list[int]) -> dict[int, slice]:
        """By layer, the rows of its input in a band beginning at ``start`` that the band above reads."""
        ends = {i: self.input_end(i, start[i + 1]) for i in range(len(self.chain)) if self.plan.is_window(i)}
        return {i: slice(start[i], max(start[i], end)) for i, end in ends.items()}


def receptive_offset(network: VGG, chain: tuple[Layer, ...], width: int) -> float:
    """How many rows below the first row of a band its work begins, on average over convolutions weighted by cost.

    ``width`` is that of the picture.
    """
    row, tiles = 2**16, _tiles(chain, width, network.winograd)
    costs, offsets, inputs = [], [], 3
    for layer, first in zip(chain, _starts(chain, row, tiles)[1:], strict=True):
        if layer.kind == "conv":
            costs.append(inputs * layer.channels / layer.stride**2)
            offsets.append(first * layer.stride - row)
            inputs = layer.channels
    return sum(cost * rows for cost, rows in zip(costs, offsets, strict=True)) / sum(costs)


def _tiles(chain: tuple[Layer, ...], width: int, winograd: bool) -> list[int]:
    """By layer, the rows at multiples of which it may begin: those of a tile for fastnst's convolutions, else 1."""
    inputs = [3, *(layer.channels for layer in chain[:-1])]
    return [
        tile_rows(count, width // layer.stride) if winograd and layer.kind == "conv" else 1
        for count, layer in zip(inputs, chain, strict=True)
    ]


def _starts(chain: tuple[Layer, ...], row: int, tiles: list[int]) -> list[int]:
    """The first row of the image and of each layer that can be computed from rows ``row`` and below."""
    starts = [row]
    for layer, tile in zip(chain, tiles, strict=True):
        start = starts[-1]
        if layer.kind == "conv" and start > 0:
            start = -(-(start + 1) // tile) * tile
        starts.append(-(-start // 2) if layer.kind == "pool" else start)
    return starts


def _ends(chain: tuple[Layer, ...], row: int, tiles: list[int]) -> list[int]:
    """How many rows of the image and of each layer can be computed from the first ``row`` rows of a higher image."""
    ends = [row]
    for layer, tile in zip(chain, tiles, strict=True):
        end = ends[-1]
        if layer.kind == "conv":
            end = (end - 1) // tile * tile
        ends.append(end // 2 if layer.kind == "pool" else end)
    return ends

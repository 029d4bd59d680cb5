"""Where strips begin and end at every layer, and what a layer looks at beyond its strip.

A layer's strip ends a row before that of its input, since its window looks one row ahead, and pools halve. At the lower
end of a band it ends where the layers of the next band begin, each a row after its input. Convolutions of ours make
tiles of rows together: there strips and bands begin where such tiles do.
"""

from __future__ import annotations

from collections.abc import Collection

from fastnst.engine import TILE
from fastnst.vgg import VGG, Layer


class Cuts:
    """The strips of a band of a picture.

    Args:
        network, chain, looked_at: as of :class:`fastnst.strips.Strips`.
        height: of the picture.
        rows: of the picture in a strip.
        band: its first row, and the first below it.

    ``ends[k]`` says how far the image, and each layer after it, have come before strip ``k``; the last of them, how far
    they come in this band. Rows of layer ``i`` are counted by ``ends[k][i + 1]``, those of its input by ``ends[k][i]``.
    ``above`` and ``below`` are the rows of layers' inputs, by layer, that are shared with the bands there. ``closing``
    is the first strip that looks at those below.
    """

    def __init__(
        self,
        network: VGG,
        chain: tuple[Layer, ...],
        looked_at: Collection[str],
        height: int,
        rows: int,
        band: tuple[int, int],
    ) -> None:
        self.network, self.chain, self.looked_at = network, chain, frozenset(looked_at)
        self._grid = TILE if network.winograd else 1
        self._heights = [height, *(height // layer.stride for layer in chain)]
        first, last, row = self._edge(band[0]), self._edge(band[1]), band[0]
        self.ends = [first]
        while self.ends[-1] != last:
            row += rows
            reached = zip(self._reached(row), first, last, strict=True)
            self.ends.append([min(max(end, low), high) for end, low, high in reached])
        self.above = {} if band[0] == 0 else self._shared(first)
        self.below = {} if band[1] == height else self._shared(last)
        lowest = (k for k in range(self.count) if any(self.sees_below(k, i) for i in self.below))
        self.closing = next(lowest, self.count)

    @property
    def count(self) -> int:
        """The number of strips."""
        return len(self.ends) - 1

    def kind(self, k: int) -> tuple[tuple[int, int, int], ...]:
        """What strips have in common whose maps have the same sizes: of the image and each layer its rows, those before
        them that the next layer looks at, and those of the band below."""
        found = []
        for i, (start, stop) in enumerate(zip(self.ends[k], self.ends[k + 1], strict=True)):
            last = i == len(self.chain)
            before = 0 if last else start - self.needed(k, i)
            below = 0 if last or not self.sees_below(k, i) else self.seen(i, self.ends[k + 1][i + 1]) - stop
            found.append((stop - start, before, below))
        return tuple(found)

    def has_window(self, i: int) -> bool:
        """Whether layer ``i`` is a step of its own that looks at more than one row."""
        return self.chain[i].kind == "conv" or (self.chain[i].kind == "pool" and not self.pools(i - 2))

    def rectifies(self, i: int) -> bool:
        """Whether the convolution at ``i`` brings its ReLU with it."""
        return self.chain[i].name not in self.looked_at and i + 1 < len(self.chain)

    def pools(self, i: int) -> bool:
        """Whether the convolution at ``i`` brings its ReLU and the pool above with it."""
        if i < 0 or not self.network.winograd or self.network.pooling != "max":
            return False
        above = self.chain[i + 1 : i + 3]
        ends = [layer.kind for layer in above] == ["relu", "pool"]
        return ends and self.looked_at.isdisjoint((self.chain[i].name, above[0].name))

    def masks_itself(self, i: int) -> bool:
        """Whether layer ``i`` is a ReLU whose mask no step of the way down brings with it."""
        if self.network.pooling == "max":
            return False
        return [layer.kind for layer in self.chain[i : i + 2]] == ["relu", "pool"]

    def needed(self, k: int, i: int) -> int:
        """The first row of its input that layer ``i`` looks at in strip ``k``."""
        first = self.ends[k][i + 1]
        return max(first - 1, 0) if self.chain[i].kind == "conv" else first * (2 if self.chain[i].kind == "pool" else 1)

    def seen(self, i: int, end: int) -> int:
        """The end of the rows of its input that layer ``i`` looks at for its own rows above ``end``."""
        return 2 * end if self.chain[i].kind == "pool" else min(end + 1, self._heights[i])

    def sees_below(self, k: int, i: int) -> bool:
        """Whether layer ``i`` looks at rows of the band below in strip ``k``."""
        first, last = self.ends[k][i + 1], self.ends[k + 1][i + 1]
        return bool(self.below) and first < last and self.seen(i, last) > self.ends[-1][i]

    def touches_above(self, k: int) -> bool:
        """Whether strip ``k`` has rows that the band above looks at."""
        return any(self.ends[k][i] < rows.stop and self.ends[k + 1][i] > rows.start for i, rows in self.above.items())

    def shows_none(self, k: int, i: int) -> bool:
        """Whether strip ``k`` is the last one and none had rows of layer ``i``."""
        return k + 1 == self.count and self.ends[0][i + 1] == self.ends[-1][i + 1]

    def _reached(self, row: int) -> list[int]:
        """How far the rows above ``row`` of the image take it and each layer."""
        return self._heights if row >= self._heights[0] else _ends(self.chain, row, self._grid)

    def _edge(self, row: int) -> list[int]:
        """Where the image and each layer begin in a band from ``row`` on, and end in the band above."""
        if row == self._heights[0]:
            return self._heights
        return [min(pair) for pair in zip(_first(self.chain, row, self._grid), self._heights, strict=True)]

    def _shared(self, edge: list[int]) -> dict[int, slice]:
        """By layer, the rows of its input from ``edge`` on that the band above looks at."""
        seen = {i: self.seen(i, edge[i + 1]) for i in range(len(self.chain)) if self.has_window(i)}
        return {i: slice(edge[i], max(edge[i], end)) for i, end in seen.items()}


def lag(network: VGG, chain: tuple[Layer, ...]) -> float:
    """How many rows below the start of a band its work begins: the mean over convolutions, weighed by their cost."""
    row, grid = 2**16, TILE if network.winograd else 1
    costs, below, inputs = [], [], 3
    for layer, first in zip(chain, _first(chain, row, grid)[1:], strict=True):
        if layer.kind == "conv":
            costs.append(inputs * layer.channels / layer.stride**2)
            below.append(first * layer.stride - row)
            inputs = layer.channels
    return sum(cost * rows for cost, rows in zip(costs, below, strict=True)) / sum(costs)


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

"""Receptive fields: which pixels a position of a layer depends on, composed from kernels, strides and paddings."""

from __future__ import annotations

from dataclasses import dataclass

from fastnst.config.layer_names import layer_names
from fastnst.errors import UsageError


@dataclass(frozen=True)
class ReceptiveField:
    """The pixels that positions of a layer depend on, along one axis, the same along the other.

    Position ``i`` reads the ``size`` pixels from ``i * stride - before`` on, some of which may be padding. The layer
    has ``(n + before + after - size) // stride + 1`` positions for ``n`` pixels. With kernel ``k``, stride ``s`` and
    paddings ``b`` and ``a`` of a further window, ``size`` grows by ``(k - 1) stride``, ``before`` by ``b stride``,
    ``after`` by ``a stride``, and ``stride`` becomes ``s stride`` (Araujo, Norris and Sim, "Computing receptive fields
    of convolutional neural networks", Distill, 2019).

    Attributes:
        size: pixels that a position reads.
        stride: pixels from one position to the next.
        before: pixels of padding that the first position reads before the first pixel.
        after: pixels of padding that there are after the last pixel.

    Raises:
        UsageError: a size or stride below 1, or a negative padding.

    Example:
        >>> field = ReceptiveField().then(3, stride=2, padding=1).then(5, padding=2)
        >>> field
        ReceptiveField(size=11, stride=2, before=5, after=5)
        >>> field.positions(32), field.pixels(0, 32), field.pixels(9, 32)
        (16, range(0, 6), range(13, 24))
    """

    size: int = 1
    stride: int = 1
    before: int = 0
    after: int = 0

    def __post_init__(self) -> None:
        if self.size < 1 or self.stride < 1 or self.before < 0 or self.after < 0:
            raise UsageError(f"{self}: expected a size and stride of at least 1, and paddings of at least 0")

    def then(self, kernel: int, *, stride: int = 1, padding: int | tuple[int, int] = 0) -> ReceptiveField:
        """The field after a further window, such as a convolution or a pool.

        Args:
            kernel: positions that the window reads.
            stride: positions from one window to the next.
            padding: positions added at both ends, or before and after.
        """
        before, after = (padding, padding) if isinstance(padding, int) else padding
        return ReceptiveField(
            self.size + (kernel - 1) * self.stride,
            self.stride * stride,
            self.before + before * self.stride,
            self.after + after * self.stride,
        )

    def positions(self, pixels: int) -> int:
        """The positions along an axis of so many pixels; 0 if there are too few for one."""
        return max((pixels + self.before + self.after - self.size) // self.stride + 1, 0)

    def pixels(self, position: int, pixels: int) -> range:
        """The pixels that a position depends on, of so many, without padding."""
        first = position * self.stride - self.before
        return range(max(first, 0), min(first + self.size, pixels))

    @property
    def reach(self) -> int:
        """The most pixels that a position reads on one side beyond its own ``stride`` pixels."""
        return max(self.before, self.size - self.before - self.stride, 0)

    @property
    def least(self) -> int:
        """The fewest pixels with a position."""
        return max(self.size - self.before - self.after, 1)


def vgg_fields(arch: str) -> dict[str, ReceptiveField]:
    """The receptive fields of VGG's layers: convolutions read 3 x 3, with zeros around the map, pools 2 x 2."""
    found, field = {}, ReceptiveField()
    for name in layer_names(arch):
        if name.startswith("conv"):
            field = field.then(3, padding=1)
        elif name.startswith("pool"):
            field = field.then(2, stride=2)
        found[name] = field
    return found

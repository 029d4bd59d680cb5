"""The objective of a picture that is too large to be looked at whole: the same loss and gradient, a strip at a time.

A Gram matrix, and every other statistic of a layer, is a sum over positions, so strips of the picture can be added up:
one way up over all of them gives the statistics of the whole picture, and with them the gradient by each layer's
features is known wherever these are made again. See :mod:`fastnst.strips` for the ways up and down.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from fastnst import ops
from fastnst.objective import (
    Losses,
    Region,
    StyleTargets,
    ask,
    check_image,
    style_loss_of,
    styled_layers,
    weighing,
)
from fastnst.ranks import ALONE, Ranks
from fastnst.settings import Settings
from fastnst.shelf import Shelf
from fastnst.strips import Strips
from fastnst.sums import Sums
from fastnst.taps import NORM_EPSILON, Slope, StyleTerm, Tap, alone, lay_on, look_at_content, magnitude
from fastnst.variation import add_variation
from fastnst.vgg import VGG, chain_to, check_size


@dataclass
class Found:
    """Of one layer: the sums of each style term, their gradients when they are known, and the content's loss."""

    sums: list[Sums]
    style: Tensor
    content: Tensor
    slopes: list[Slope] = field(default_factory=list)


class TiledObjective:
    """What :class:`fastnst.objective.Objective` answers, with feature maps of a strip of the picture at a time.

    Args:
        network, content, styles, settings, content_mask: as there; the content may lie on the CPU.
        rows: of the picture in a strip; the last may have fewer.
        ranks: the processes that share the work: each takes a band of the picture.

    Raises:
        UsageError: as there.
    """

    def __init__(
        self,
        network: VGG,
        content: Tensor,
        styles: StyleTargets | Sequence[Region],
        settings: Settings,
        rows: int,
        content_mask: Tensor | None = None,
        ranks: Ranks = ALONE,
    ) -> None:
        ops.follow_matmul_precision()
        self.network, self.settings, self.ranks = network, settings, ranks
        self.size = (content.shape[-2], content.shape[-1])
        self.chain, self.taps = ask(network, self.size, styles, settings, content_mask)
        self.strips = Strips(network, self.chain, self.taps, self.size, rows, ranks)
        self._layers = {layer.name: layer for layer in self.chain}
        self._shelf = Shelf()
        self._content: dict[tuple[str, int], Shelf.Place] = {}
        if any(tap.content for tap in self.taps.values()):
            self.strips.up(content, self._keep, keep=False)

    def value_and_grad(self, image: Tensor) -> tuple[Losses, Tensor]:
        """Losses and gradient of an image ``[1, 3, H, W]``, as of the untiled objective."""
        check_image(image, self.size)

        def zero() -> Tensor:
            return torch.zeros((), dtype=torch.float64, device=image.device)

        found = {
            name: Found([self._sums(name, term) for term in tap.styles], zero(), zero())
            for name, tap in self.taps.items()
        }
        self.strips.up(image, lambda name, rows, x: self._add(found[name], name, rows, x))
        gradient = torch.zeros_like(image)
        settings, own = self.settings, slice(*self.strips.band)
        variation = zero()
        if settings.tv_weight:
            variation += add_variation(gradient, image, settings.tv_kind, settings.tv_weight, own)
        self._finish(found, variation)
        taps = self._normalised(image, found) if settings.normalise_gradients else self.taps

        def lay(name: str, rows: slice, grad: Tensor, x: Tensor, relu: bool) -> None:
            slopes = [slope.rows(rows) for slope in found[name].slopes] if name in found else []
            lay_on(grad, x, self._content_at(taps[name], name, rows) if name in taps else None, slopes, relu=relu)

        self.strips.down(image, lay, gradient)
        self.ranks.gather(gradient, self.strips.bands)
        style = {name: float(one.style) for name, one in found.items() if one.sums}
        content = {name: float(one.content) for name, one in found.items() if self.taps[name].content}
        tv = float(variation)
        return Losses(sum(style.values()) + sum(content.values()) + tv, content, style, tv), gradient

    def _sums(self, name: str, term: StyleTerm) -> Sums:
        layer = self._layers[name]
        positions = (self.size[0] // layer.stride) * (self.size[1] // layer.stride)
        return Sums(term.loss, term.scale, positions, term.weight)

    def _keep(self, name: str, rows: slice, x: Tensor) -> None:
        """Put the content's features away."""
        if self.taps[name].content:
            self._content[name, rows.start] = self._shelf.put(x)

    def _add(self, found: Found, name: str, rows: slice, x: Tensor) -> None:
        """Take in some rows of a layer."""
        tap = self.taps[name]
        for sums in found.sums:
            sums.add(x, rows)
        if tap.content:
            found.content += look_at_content(x, self._content_at(tap, name, rows)).double()

    def _finish(self, found: Mapping[str, Found], variation: Tensor) -> None:
        """Add up over all ranks, and find values and slopes of the styles."""
        every = [sums for one in found.values() for sums in one.sums]
        self.ranks.sum(
            [variation, *(one.content for one in found.values()), *(x for sums in every for x in sums.added)]
        )
        for name, one in found.items():
            for sums, term in zip(one.sums, self.taps[name].styles, strict=True):
                if sums.parts:
                    sums.parts = [self.ranks.join(torch.cat(sums.parts, 2))]
                value, slope = sums.value_and_slope(term)
                one.style += value
                one.slopes.append(slope)

    def _normalised(self, image: Tensor, found: Mapping[str, Found]) -> dict[str, Tap]:
        """Divide every layer's gradients by the sum of their magnitudes, which takes one more way up."""
        sizes = {name: torch.zeros(2, dtype=torch.float64, device=image.device) for name in self.taps}

        def look(name: str, rows: slice, x: Tensor) -> None:
            slopes = [slope.rows(rows) for slope in found[name].slopes]
            content = self._content_at(self.taps[name], name, rows)
            sizes[name] += torch.stack([magnitude(alone(x, slopes, None)), magnitude(alone(x, (), content))])

        self.strips.up(image, look)
        self.ranks.sum(list(sizes.values()))
        taps = {}
        for name, tap in self.taps.items():
            assert tap.norms is not None
            styled, kept = (
                norm / (size + NORM_EPSILON) for norm, size in zip(tap.norms, sizes[name].tolist(), strict=True)
            )
            found[name].slopes[:] = [replace(slope, factor=slope.factor * styled) for slope in found[name].slopes]
            taps[name] = replace(tap, content=tap.content * kept)
        return taps

    def _content_at(self, tap: Tap, name: str, rows: slice) -> Tap:
        """The content's part of a tap at some rows."""
        if (name, rows.start) not in self._content:
            return Tap()
        weight = None if tap.content_weight is None else tap.content_weight[rows]
        return Tap(content=tap.content, target=self._shelf.get(self._content[name, rows.start]), content_weight=weight)


def tiled_targets(
    network: VGG, style: Tensor, settings: Settings, rows: int, mask: Tensor | None = None
) -> StyleTargets:
    """What :func:`fastnst.objective.style_targets` keeps of a style picture, from strips of it."""
    names = styled_layers(settings)
    if not names:
        return {}
    chain, loss = chain_to(network.arch, names), style_loss_of(settings)
    size = (style.shape[-2], style.shape[-1])
    check_size(chain, *size)
    sums = {}
    for layer in chain:
        if layer.name in names:
            shape = (layer.channels, size[0] // layer.stride, size[1] // layer.stride)
            scale, weight = weighing(network, layer.name, shape, settings, mask)
            sums[layer.name] = Sums(loss, scale, shape[1] * shape[2], weight)
    Strips(network, chain, names, size, rows).up(style, lambda name, some, x: sums[name].add(x, some), keep=False)
    return {name: one.target() for name, one in sums.items()}

"""Style targets of a scene at the sizes of a run, kept between runs by the content of what was measured."""

from __future__ import annotations

from collections.abc import Sequence

from fastnst.errors import UsageError
from fastnst.network.cudnn import timed_algorithms
from fastnst.network.vgg import VGG, check_size
from fastnst.objective.targets import Region, StyleTargets, blend, style_targets
from fastnst.run.scales import style_at
from fastnst.run.scene import StylePicture, mask_values
from fastnst.run.setup import Setup
from fastnst.run.sizing import view_of_edges
from fastnst.strips.objective import strip_targets


def regions(
    setup: Setup,
    styles: Sequence[StylePicture],
    shares: Sequence[float],
    shrink: float,
    size: tuple[int, int],
    scale: int,
) -> tuple[Region, ...]:
    """The style targets for an image of ``size``: one blend of all styles or, with masks, one region for each.

    Args:
        setup: network, settings and cache.
        styles: the styles and their masks.
        shares: the weight of each style.
        shrink: how many times smaller than the last scale this one is.
        size: height and width of the image.
        scale: number of the scale, from 1.
    """
    settings = setup.settings
    sizes = [style_at(style.picture.size, size, shrink, settings) for style in styles]
    targets = []
    for one in zip(styles, sizes, strict=True):
        with timed_algorithms(setup.network.device, one[1] == size):  # other sizes are convolved only once
            targets.append(_style_targets(setup, *one, scale))
    if all(style.mask is None for style in styles):
        return (Region(blend(targets, shares, settings)),)
    view = view_of_edges(size, settings, setup.network)
    found = [mask_values(style.mask, size) for style in styles]
    masks = [None if mask is None else view.image(mask) for mask in found]
    return tuple(Region(*one) for one in zip(targets, masks, shares, strict=True))


def _style_targets(setup: Setup, style: StylePicture, size: tuple[int, int], scale: int) -> StyleTargets:
    """The targets of one style picture at a height and width."""
    settings = setup.settings
    network = setup.network
    if isinstance(network, VGG):
        network = network.padded(settings.padding)  # a style picture does not continue at its opposite side
    try:
        check_size(network.chain, *size)
    except UsageError as error:
        raise UsageError(f"{style.picture.path or 'style picture'}: {error}") from None
    rows = None if setup.sizing.settings.tiles == "off" else setup.sizing.rows(*size, scale)

    def measure() -> StyleTargets:
        view, mask = view_of_edges(size, settings, network), mask_values(style.style_mask, size)
        pixels, mask = view.image(setup.pixels(style.picture.pixels, *size)), None if mask is None else view.image(mask)
        if rows is None:
            return style_targets(network, pixels, settings, mask)
        assert isinstance(network, VGG)
        return strip_targets(network, pixels, settings, rows, mask)

    names = ("style_loss", "style_form", "style_layers", "edges", "seed")
    measured = (*(getattr(settings, name) for name in names), settings.style_weight > 0)
    return setup.targets.get((style.fingerprint, size, rows, measured), measure)

"""A picture has the same bits with any number of threads, but for losses that take eigenvectors or sort."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from support.pictures import samples

from fastnst import Settings
from fastnst.run.stylizer import stylize


@pytest.mark.parametrize("style_loss", ["gram", "mean_std", "covariance"])
@pytest.mark.parametrize("optimizer", ["lbfgs", "adam"])
@pytest.mark.parametrize("changes", [{}, {"tiles": 32}, {"tv_kind": "nine_point", "pooling": "average"}])
@pytest.mark.sweep(4)
def test_bits_do_not_depend_on_threads(style_loss: str, optimizer: str, changes: dict[str, Any]) -> None:
    layers: dict[str, Any] = {
        "content_layers": (("relu3_1", 1.0),),
        "style_layers": (("relu1_1", 1.0), ("relu3_1", 1.0)),
    }
    settings = Settings.from_preset(
        size=136, steps=4, scales=(64, 136), optimizer=optimizer, style_loss=style_loss, **layers, **changes
    )
    before, found = torch.get_num_threads(), []
    content, style = samples(136, 100), samples(90, 120)
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append(stylize(content, style, settings=settings).image)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])

"""The curve of the loss: its points are those of a plain computation, and no loss breaks it."""

from __future__ import annotations

import base64
import math
import re
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fastnst.notebook.curve import POINTS, curve

SVG = "{http://www.w3.org/2000/svg}"


def parse(text: str) -> ElementTree.Element:
    """The SVG of the image."""
    (data,) = re.findall('src="data:image/svg\\+xml;base64,([^"]*)"', text)
    return ElementTree.fromstring(base64.b64decode(data))


def points(text: str) -> np.ndarray:
    (line,) = parse(text).iter(f"{SVG}polyline")
    return np.array([[float(x) for x in pair.split(",")] for pair in line.attrib["points"].split()])


def test_the_points_are_logarithms_of_the_losses() -> None:
    losses = [1000.0, 100.0, 50.0, 1.0]
    found = points(curve(losses, [], width=302, height=100))
    assert found[:, 0].tolist() == [1.0, 101.0, 201.0, 301.0]
    top, bottom = found[0, 1], found[-1, 1]
    assert 0 < top < bottom < 100
    share = (found[:, 1] - top) / (bottom - top)
    np.testing.assert_allclose(share, 1 - np.log10(losses) / 3, atol=0.01)


def test_losses_that_are_not_above_zero_are_drawn_linearly() -> None:
    found = points(curve([4.0, 1.0, -2.0], [], width=102))
    assert found[1, 1] - found[0, 1] == pytest.approx(found[2, 1] - found[1, 1], abs=0.11)


def test_scales_are_marked_where_they_begin() -> None:
    (mark,) = parse(curve([3.0, 2.0, 5.0, 1.0], [2], width=302)).iter(f"{SVG}path")
    assert mark.attrib["d"].startswith("M201.0 ")


def test_the_curve_is_an_image_with_a_description_between_its_ends() -> None:
    """JupyterLab takes ``<svg>`` out of a notebook that is not trusted, and leaves images and text."""
    text = curve([30.0, 20.0, 1.0], [], width=300)
    assert re.sub('<img src="[^"]*"', "<img", text) == (
        '<div style="font:0.85em/1.5 sans-serif;opacity:0.8">30</div>'
        '<img alt="curve of the loss over 3 steps, from 30 to 1" width="300" height="72" '
        'style="max-width:100%;height:auto;display:block">'
        '<div style="font:0.85em/1.5 sans-serif;opacity:0.8">1</div>'
    )


def test_a_long_run_is_drawn_with_few_points_the_first_and_the_last_among_them() -> None:
    found = points(curve([1e6 / (i + 1) for i in range(100_000)], [], width=501))
    assert len(found) == POINTS
    assert (found[0, 0], found[-1, 0]) == (1.0, 500.0)


@given(st.lists(st.floats(width=64), max_size=600), st.data())
@example([1.7e308, 0.0, -1.7e308], None)
def test_any_losses_give_an_svg_or_nothing(losses: list[float], data: st.DataObject | None) -> None:
    indices = st.lists(st.integers(0, max(len(losses) - 1, 0)), max_size=3)
    marks = data.draw(indices) if losses and data is not None else []
    svg = curve(losses, marks, width=320, height=96)
    assert (svg == "") == (sum(map(math.isfinite, losses)) < 2)
    if svg:
        found = points(svg)
        assert np.isfinite(found).all()
        assert ((found >= 0) & (found <= [320, 96])).all()

"""Colours kept and matched, against definitions written down here once more, and end to end on small pictures."""

from __future__ import annotations

import pytest
import torch
from loop_colours import LEVEL, LINEAR_WAYS, covariance, lab, matrix_of, picture, random_colours, to_lab, yiq
from loop_pictures import tiny
from torch import Tensor

from fastnst import colours
from fastnst.errors import UsageError
from fastnst.images import Picture
from fastnst.settings import KEEP_COLOURS, MATCH_COLOURS

# Matching.


@pytest.mark.parametrize("how", LINEAR_WAYS)
@pytest.mark.parametrize("seed", range(5))
def test_mean_and_covariance_become_the_contents(how: str, seed: int) -> None:
    style, content = random_colours(seed), random_colours(seed + 100, count=300)
    moved = colours.match(style, content, how)
    assert moved.dtype == torch.float64
    torch.testing.assert_close(moved.mean(1), content.mean(1), atol=1e-9, rtol=0)
    torch.testing.assert_close(covariance(moved), covariance(content), atol=1e-9, rtol=0)
    assert (moved - style).abs().max() > 0.05


@pytest.mark.parametrize("seed", range(5))
def test_monge_kantorovich_is_symmetric_positive_definite_and_moves_colours_least(seed: int) -> None:
    style, content = random_colours(seed), random_colours(seed + 100)
    matrix = matrix_of(style, content, "monge-kantorovich")
    torch.testing.assert_close(matrix, matrix.T, atol=1e-9, rtol=0)
    assert torch.linalg.eigvalsh(matrix).min() > 0
    moved = {how: (colours.match(style, content, how) - style).square().sum().item() for how in LINEAR_WAYS}
    assert moved["monge-kantorovich"] < min(moved["cholesky"], moved["pca"])


def test_the_matrices_of_cholesky_and_pca_are_those_of_the_paper() -> None:
    style, content = random_colours(1), random_colours(2)
    lower = matrix_of(style, content, "cholesky")
    assert lower.triu(1).abs().max() < 1e-9
    assert lower.diagonal().min() > 0
    # T^(1/2) S^(-1/2), by roots of another kind: of the singular values.
    root, back = (torch.linalg.svd(covariance(x)) for x in (content, style))
    expected = root.U @ root.S.sqrt().diag() @ root.U.T @ back.U @ back.S.rsqrt().diag() @ back.U.T
    torch.testing.assert_close(matrix_of(style, content, "pca"), expected, atol=1e-8, rtol=0)


@pytest.mark.parametrize("how", MATCH_COLOURS)
def test_colours_matched_to_themselves_stay(how: str) -> None:
    generator = torch.Generator().manual_seed(3)
    in_levels = torch.randint(0, 256, (3, 400), generator=generator).double() / 255
    grey = in_levels[:1].expand(3, -1)
    for same in (random_colours(7), in_levels, grey, torch.full((3, 50), 0.25, dtype=torch.float64)):
        torch.testing.assert_close(colours.match(same, same.clone(), how), same, atol=1e-9, rtol=0)


def test_histogram_gives_the_contents_sorted_values() -> None:
    style, content = random_colours(1), random_colours(2)
    moved = colours.match(style, content, "histogram")
    assert torch.equal(moved.sort().values, content.sort().values)
    assert torch.equal(moved.argsort(), style.argsort())


def test_histogram_keeps_the_distribution_where_the_sizes_differ() -> None:
    style, content = random_colours(1, count=3000), random_colours(2, count=1000)
    moved = colours.match(style, content, "histogram")
    shares = torch.linspace(0.02, 0.98, 25, dtype=torch.float64)
    torch.testing.assert_close(moved.quantile(shares, 1), content.quantile(shares, 1), atol=2e-3, rtol=0)


def test_histogram_keeps_equal_values_equal() -> None:
    style = torch.tensor([[0.2, 0.8, 0.2, 0.5, 0.8, 0.2]], dtype=torch.float64)
    content = torch.tensor([[0.6, 0.0, 0.1, 0.3, 0.4, 0.5]], dtype=torch.float64)
    # Ranks 0 1 2, 3 and 4 5 of the style; their middles are 1, 3 and 4.5.
    expected = torch.tensor([[0.1, 0.55, 0.1, 0.4, 0.55, 0.1]], dtype=torch.float64)
    torch.testing.assert_close(colours.match(style, content, "histogram"), expected, atol=1e-12, rtol=0)


COLOURFUL = random_colours(1)
FLAT, GREY = torch.full((3, 500), 0.3, dtype=torch.float64), random_colours(2)[:1].expand(3, -1)


@pytest.mark.parametrize("how", LINEAR_WAYS)
@pytest.mark.parametrize("content", [COLOURFUL, FLAT, GREY])
def test_flat_and_grey_colours_are_matched_within_a_level(how: str, content: Tensor) -> None:
    for style in (COLOURFUL, FLAT, GREY):
        torch.testing.assert_close(colours.match(style, content, how).mean(1), content.mean(1), atol=1e-9, rtol=0)
    spread = covariance(colours.match(COLOURFUL, content, how)).diagonal().sqrt()
    assert (spread - covariance(content).diagonal().sqrt()).abs().max() <= LEVEL


def test_histograms_of_flat_and_grey_colours_are_matched() -> None:
    for content in (COLOURFUL, FLAT, GREY):
        for style in (COLOURFUL, GREY):
            moved = colours.match(style, content, "histogram")
            assert torch.equal(moved.sort().values, content.sort().values)
        middle = content.quantile(0.5, 1, keepdim=True).expand(3, 500)
        torch.testing.assert_close(colours.match(FLAT, content, "histogram"), middle, atol=1e-12, rtol=0)


@pytest.mark.parametrize("how", LINEAR_WAYS)
def test_a_grey_style_takes_on_the_contents_spread_in_one_direction(how: str) -> None:
    values = torch.linalg.eigvalsh(covariance(colours.match(GREY, COLOURFUL, how)))
    assert values[:2].abs().max() < 1e-12
    spread = torch.linalg.eigvalsh(covariance(COLOURFUL))
    assert spread[0] / 2 < values[2] < spread.sum()


def test_match_refuses_what_it_does_not_know() -> None:
    x = random_colours(1)
    message = r"unknown match_colour 'choleski', did you mean cholesky\? \(known: none, cholesky, pca, monge-kant"
    with pytest.raises(UsageError, match=message):
        colours.match(x, x, "choleski")


# Keeping.


@pytest.mark.parametrize("how", ["yiq", "luminance"])
def test_yiq_takes_luminance_from_one_and_chroma_from_the_other(how: str) -> None:
    image, content = picture(2, 0.4, 0.6), picture(0, 0.3, 0.7)
    kept = colours.keep(image, content, how)
    assert kept.dtype == image.dtype
    torch.testing.assert_close(yiq(kept)[:, 0], yiq(image)[:, 0], atol=1e-6, rtol=0)
    torch.testing.assert_close(yiq(kept)[:, 1:], yiq(content)[:, 1:], atol=1e-6, rtol=0)


def test_lab_takes_lightness_from_one_and_chroma_from_the_other() -> None:
    image, content = picture(2, 0.4, 0.6), picture(0, 0.3, 0.6)
    kept = to_lab(colours.keep(image, content, "lab"))
    torch.testing.assert_close(kept[:, 0], to_lab(image)[:, 0], atol=1e-4, rtol=0)
    torch.testing.assert_close(kept[:, 1:], to_lab(content)[:, 1:], atol=1e-4, rtol=0)


def test_lab_is_that_of_published_tables() -> None:
    """Primaries of sRGB under D65 (Lindbloom, rounded); and the oracle of these tests is held to the same."""
    for colour, expected in {
        (1.0, 0.0, 0.0): (53.24, 80.09, 67.20),
        (0.0, 1.0, 0.0): (87.73, -86.18, 83.18),
        (0.0, 0.0, 1.0): (32.30, 79.19, -107.86),
        (1.0, 1.0, 1.0): (100.0, 0.0, 0.0),
    }.items():
        assert lab(*colour) == pytest.approx(expected, abs=0.03)
        grey = colours.keep(torch.full((1, 3, 1, 1), 0.5), torch.tensor(colour).view(1, 3, 1, 1), "lab")
        assert to_lab(grey)[0, 0].item() == pytest.approx(lab(0.5, 0.5, 0.5)[0], abs=1e-4)


@pytest.mark.parametrize("how", ["yiq", "lab"])
def test_a_colour_without_a_place_in_srgb_keeps_lightness_and_hue(how: str) -> None:
    """And gives up no more chroma than it must: it ends on the border of sRGB."""
    generator = torch.Generator().manual_seed(5)
    image, content = torch.rand(2, 1, 3, 20, 30, generator=generator, dtype=torch.float64).clamp(0.02, 0.98)
    space = yiq if how == "yiq" else to_lab
    rgb = colours.keep(image, content, how)
    kept, wanted = space(rgb), space(content)
    unit = 1.0 if how == "yiq" else 100.0
    assert rgb.min() >= 0
    assert rgb.max() <= 1
    torch.testing.assert_close(kept[:, :1], space(image)[:, :1], atol=1e-5 * unit, rtol=0)
    long = wanted[:, 1:].norm(dim=1) > 0.02 * unit
    share = ((kept * wanted)[:, 1:].sum(1) / wanted[:, 1:].square().sum(1))[long]
    across = (kept[:, 1] * wanted[:, 2] - kept[:, 2] * wanted[:, 1]).abs()[long]
    assert across.max() < 1e-4 * unit**2
    assert share.min() > 0
    assert share.max() < 1 + 1e-4
    room = torch.minimum(rgb, 1 - rgb).amin(1)[long]
    full = share > 1 - 1e-4
    assert 0.2 < full.double().mean() < 0.9
    assert room[~full].max() < 1e-4


@pytest.mark.parametrize("how", KEEP_COLOURS)
def test_a_picture_in_its_own_colours_stays(how: str) -> None:
    image = picture(3)
    torch.testing.assert_close(colours.keep(image, image.clone(), how), image, atol=1e-6, rtol=0)


def test_keeping_a_grey_contents_colours_makes_grey() -> None:
    grey = picture(1)[:, :1].expand(1, 3, -1, -1)
    for how in ("yiq", "lab"):
        kept = colours.keep(picture(2), grey, how)
        assert (kept.amax(1) - kept.amin(1)).max() < 1e-6


def test_keep_refuses_what_makes_no_sense() -> None:
    image = picture(0)
    with pytest.raises(UsageError, match=r"unknown keep_colour 'lap', did you mean lab\? \(known: none, yiq, lab"):
        colours.keep(image, image, "lap")
    with pytest.raises(UsageError, match=r"expected pictures of one size, got \(1, 3, 48, 64\) and \(1, 3, 47, 64\)"):
        colours.keep(image, image[:, :, 1:], "yiq")


# What the transfer sees.


def test_luminance_makes_both_grey_and_gives_the_style_the_contents_mean_and_deviation() -> None:
    content, style = Picture(picture(0, 0.3, 0.7)), Picture(picture(2, 0.1, 0.4))
    settings = tiny(keep_colour="luminance")
    seen, matched = colours.content_for(content, settings).pixels, colours.style_for(style, content, settings).pixels
    for pixels in (seen, matched):
        assert pixels.dtype == torch.float32
        assert torch.equal(pixels[:, :1].expand(1, 3, -1, -1), pixels)
    target = yiq(content.pixels)[:, 0]
    torch.testing.assert_close(seen[:, 0].double(), target, atol=1e-6, rtol=0)
    assert matched[:, 0].mean().item() == pytest.approx(target.mean().item(), abs=1e-6)
    assert matched[:, 0].std().item() == pytest.approx(target.std().item(), abs=1e-6)


def test_without_a_choice_pictures_are_passed_on_as_they_are() -> None:
    content, style = Picture(picture(0)), Picture(picture(2))
    assert colours.content_for(content, tiny()) is content
    assert colours.style_for(style, content, tiny()) is style
    assert colours.content_for(content, tiny(match_colour="pca")) is content
    assert colours.keep(style.pixels, content.pixels, "none") is style.pixels


def test_transparent_pixels_do_not_count() -> None:
    alpha = torch.ones(1, 1, 48, 64)
    alpha[..., :32] = 0
    settings = tiny(match_colour="monge-kantorovich")
    content, style = picture(0, 0.4, 0.6), picture(2, 0.3, 0.5)
    whole = colours.style_for(Picture(style[..., 32:]), Picture(content[..., 32:]), settings).pixels
    half = colours.style_for(Picture(style, alpha), Picture(content, alpha), settings)
    torch.testing.assert_close(half.pixels[..., 32:], whole, atol=1e-6, rtol=0)
    filled = whole.mean((2, 3), keepdim=True).expand(1, 3, 48, 32)
    torch.testing.assert_close(half.pixels[..., :32], filled, atol=1e-6, rtol=0)
    assert half.alpha is alpha


def test_a_crop_of_nothing_but_transparency_is_taken_as_it_is() -> None:
    nothing = Picture(torch.full((1, 3, 48, 64), 0.5), torch.zeros(1, 1, 48, 64))
    assert colours.style_for(nothing, Picture(picture(0)), tiny(match_colour="pca")).pixels.isfinite().all()

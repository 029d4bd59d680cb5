"""Colors kept and matched, against independent implementations of the definitions."""

from __future__ import annotations

import pytest
import torch
from support.colors import LEVEL, LINEAR_METHODS, covariance, lab, matrix_of, picture, random_colors, to_lab, yiq
from support.pictures import tiny
from torch import Tensor

from fastnst.config.ranges import KEEP_COLORS, MATCH_COLORS
from fastnst.errors import UsageError
from fastnst.images import Picture
from fastnst.run import colors

# Matching.


@pytest.mark.parametrize("how", LINEAR_METHODS)
@pytest.mark.parametrize("seed", range(5))
def test_mean_and_covariance_become_the_contents(how: str, seed: int) -> None:
    style, content = random_colors(seed), random_colors(seed + 100, count=300)
    moved = colors.match(style, content, how)
    assert moved.dtype == torch.float64
    torch.testing.assert_close(moved.mean(1), content.mean(1), atol=1e-9, rtol=0)
    torch.testing.assert_close(covariance(moved), covariance(content), atol=1e-9, rtol=0)
    assert (moved - style).abs().max() > 0.05


@pytest.mark.parametrize("seed", range(5))
def test_monge_kantorovich_is_symmetric_positive_definite_and_moves_colors_least(seed: int) -> None:
    style, content = random_colors(seed), random_colors(seed + 100)
    matrix = matrix_of(style, content, "monge-kantorovich")
    torch.testing.assert_close(matrix, matrix.T, atol=1e-9, rtol=0)
    assert torch.linalg.eigvalsh(matrix).min() > 0
    moved = {how: (colors.match(style, content, how) - style).square().sum().item() for how in LINEAR_METHODS}
    assert moved["monge-kantorovich"] < min(moved["cholesky"], moved["pca"])


def test_the_matrices_of_cholesky_and_pca_equal_those_of_the_paper() -> None:
    style, content = random_colors(1), random_colors(2)
    lower = matrix_of(style, content, "cholesky")
    assert lower.triu(1).abs().max() < 1e-9
    assert lower.diagonal().min() > 0
    # T^(1/2) S^(-1/2), with roots from the singular values.
    root, back = (torch.linalg.svd(covariance(x)) for x in (content, style))
    expected = root.U @ root.S.sqrt().diag() @ root.U.T @ back.U @ back.S.rsqrt().diag() @ back.U.T
    torch.testing.assert_close(matrix_of(style, content, "pca"), expected, atol=1e-8, rtol=0)


@pytest.mark.parametrize("how", MATCH_COLORS)
def test_colors_matched_to_themselves_are_unchanged(how: str) -> None:
    generator = torch.Generator().manual_seed(3)
    in_levels = torch.randint(0, 256, (3, 400), generator=generator).double() / 255
    gray = in_levels[:1].expand(3, -1)
    for same in (random_colors(7), in_levels, gray, torch.full((3, 50), 0.25, dtype=torch.float64)):
        torch.testing.assert_close(colors.match(same, same.clone(), how), same, atol=1e-9, rtol=0)


def test_histogram_gives_the_contents_sorted_values() -> None:
    style, content = random_colors(1), random_colors(2)
    moved = colors.match(style, content, "histogram")
    assert torch.equal(moved.sort().values, content.sort().values)
    assert torch.equal(moved.argsort(), style.argsort())


def test_histogram_keeps_the_distribution_where_the_sizes_differ() -> None:
    style, content = random_colors(1, count=3000), random_colors(2, count=1000)
    moved = colors.match(style, content, "histogram")
    shares = torch.linspace(0.02, 0.98, 25, dtype=torch.float64)
    torch.testing.assert_close(moved.quantile(shares, 1), content.quantile(shares, 1), atol=2e-3, rtol=0)


def test_histogram_keeps_equal_values_equal() -> None:
    style = torch.tensor([[0.2, 0.8, 0.2, 0.5, 0.8, 0.2]], dtype=torch.float64)
    content = torch.tensor([[0.6, 0.0, 0.1, 0.3, 0.4, 0.5]], dtype=torch.float64)
    # Ranks 0 1 2, 3 and 4 5 of the style; their middles are 1, 3 and 4.5.
    expected = torch.tensor([[0.1, 0.55, 0.1, 0.4, 0.55, 0.1]], dtype=torch.float64)
    torch.testing.assert_close(colors.match(style, content, "histogram"), expected, atol=1e-12, rtol=0)


COLORFUL = random_colors(1)
FLAT, GRAY = torch.full((3, 500), 0.3, dtype=torch.float64), random_colors(2)[:1].expand(3, -1)


@pytest.mark.parametrize("how", LINEAR_METHODS)
@pytest.mark.parametrize("content", [COLORFUL, FLAT, GRAY])
def test_flat_and_gray_colors_are_matched_within_a_level(how: str, content: Tensor) -> None:
    for style in (COLORFUL, FLAT, GRAY):
        torch.testing.assert_close(colors.match(style, content, how).mean(1), content.mean(1), atol=1e-9, rtol=0)
    spread = covariance(colors.match(COLORFUL, content, how)).diagonal().sqrt()
    assert (spread - covariance(content).diagonal().sqrt()).abs().max() <= LEVEL


def test_histograms_of_flat_and_gray_colors_are_matched() -> None:
    for content in (COLORFUL, FLAT, GRAY):
        for style in (COLORFUL, GRAY):
            moved = colors.match(style, content, "histogram")
            assert torch.equal(moved.sort().values, content.sort().values)
        middle = content.quantile(0.5, 1, keepdim=True).expand(3, 500)
        torch.testing.assert_close(colors.match(FLAT, content, "histogram"), middle, atol=1e-12, rtol=0)


@pytest.mark.parametrize("how", LINEAR_METHODS)
def test_a_gray_style_gets_the_contents_spread_along_one_axis(how: str) -> None:
    values = torch.linalg.eigvalsh(covariance(colors.match(GRAY, COLORFUL, how)))
    assert values[:2].abs().max() < 1e-12
    spread = torch.linalg.eigvalsh(covariance(COLORFUL))
    assert spread[0] / 2 < values[2] < spread.sum()


def test_match_refuses_unknown_methods() -> None:
    x = random_colors(1)
    message = r"unknown match_color 'choleski', did you mean cholesky\? \(known: none, cholesky, pca, monge-kant"
    with pytest.raises(UsageError, match=message):
        colors.match(x, x, "choleski")


# Keeping.


@pytest.mark.parametrize("how", ["yiq", "luminance"])
def test_yiq_takes_luminance_from_one_and_chroma_from_the_other(how: str) -> None:
    image, content = picture(2, 0.4, 0.6), picture(0, 0.3, 0.7)
    restored = colors.restore(image, content, how)
    assert restored.dtype == image.dtype
    torch.testing.assert_close(yiq(restored)[:, 0], yiq(image)[:, 0], atol=1e-6, rtol=0)
    torch.testing.assert_close(yiq(restored)[:, 1:], yiq(content)[:, 1:], atol=1e-6, rtol=0)


def test_lab_takes_lightness_from_one_and_chroma_from_the_other() -> None:
    image, content = picture(2, 0.4, 0.6), picture(0, 0.3, 0.6)
    restored = to_lab(colors.restore(image, content, "lab"))
    torch.testing.assert_close(restored[:, 0], to_lab(image)[:, 0], atol=1e-4, rtol=0)
    torch.testing.assert_close(restored[:, 1:], to_lab(content)[:, 1:], atol=1e-4, rtol=0)


def test_lab_agrees_with_published_tables() -> None:
    """Primaries of sRGB under D65 (Lindbloom, rounded); the reference of these tests is checked as well."""
    for color, expected in {
        (1.0, 0.0, 0.0): (53.24, 80.09, 67.20),
        (0.0, 1.0, 0.0): (87.73, -86.18, 83.18),
        (0.0, 0.0, 1.0): (32.30, 79.19, -107.86),
        (1.0, 1.0, 1.0): (100.0, 0.0, 0.0),
    }.items():
        assert lab(*color) == pytest.approx(expected, abs=0.03)
        gray = colors.restore(torch.full((1, 3, 1, 1), 0.5), torch.tensor(color).view(1, 3, 1, 1), "lab")
        assert to_lab(gray)[0, 0].item() == pytest.approx(lab(0.5, 0.5, 0.5)[0], abs=1e-4)


@pytest.mark.parametrize("how", ["yiq", "lab"])
def test_a_color_outside_srgb_keeps_lightness_and_hue(how: str) -> None:
    """It loses no more chroma than necessary: it ends on the boundary of sRGB."""
    generator = torch.Generator().manual_seed(5)
    image, content = torch.rand(2, 1, 3, 20, 30, generator=generator, dtype=torch.float64).clamp(0.02, 0.98)
    space = yiq if how == "yiq" else to_lab
    rgb = colors.restore(image, content, how)
    restored, wanted = space(rgb), space(content)
    unit = 1.0 if how == "yiq" else 100.0
    assert rgb.min() >= 0
    assert rgb.max() <= 1
    torch.testing.assert_close(restored[:, :1], space(image)[:, :1], atol=1e-5 * unit, rtol=0)
    long = wanted[:, 1:].norm(dim=1) > 0.02 * unit
    share = ((restored * wanted)[:, 1:].sum(1) / wanted[:, 1:].square().sum(1))[long]
    across = (restored[:, 1] * wanted[:, 2] - restored[:, 2] * wanted[:, 1]).abs()[long]
    assert across.max() < 1e-4 * unit**2
    assert share.min() > 0
    assert share.max() < 1 + 1e-4
    room = torch.minimum(rgb, 1 - rgb).amin(1)[long]
    full = share > 1 - 1e-4
    assert 0.2 < full.double().mean() < 0.9
    assert room[~full].max() < 1e-4


@pytest.mark.parametrize("how", KEEP_COLORS)
def test_restoring_the_colors_of_a_picture_to_itself_changes_nothing(how: str) -> None:
    image = picture(3)
    torch.testing.assert_close(colors.restore(image, image.clone(), how), image, atol=1e-6, rtol=0)


def test_keeping_a_gray_contents_colors_makes_gray() -> None:
    gray = picture(1)[:, :1].expand(1, 3, -1, -1)
    for how in ("yiq", "lab"):
        restored = colors.restore(picture(2), gray, how)
        assert (restored.amax(1) - restored.amin(1)).max() < 1e-6


def test_keep_refuses_invalid_arguments() -> None:
    image = picture(0)
    with pytest.raises(UsageError, match=r"unknown keep_color 'lap', did you mean lab\? \(known: none, yiq, lab"):
        colors.restore(image, image, "lap")
    with pytest.raises(UsageError, match=r"expected pictures of one size, got \(1, 3, 48, 64\) and \(1, 3, 47, 64\)"):
        colors.restore(image, image[:, :, 1:], "yiq")


# Inputs of the transfer.


def test_luminance_makes_both_gray_and_gives_the_style_the_contents_mean_and_deviation() -> None:
    content, style = Picture(picture(0, 0.3, 0.7)), Picture(picture(2, 0.1, 0.4))
    settings = tiny(keep_color="luminance")
    seen, matched = colors.content_for(content, settings).pixels, colors.style_for(style, content, settings).pixels
    for pixels in (seen, matched):
        assert pixels.dtype == torch.float32
        assert torch.equal(pixels[:, :1].expand(1, 3, -1, -1), pixels)
    target = yiq(content.pixels)[:, 0]
    torch.testing.assert_close(seen[:, 0].double(), target, atol=1e-6, rtol=0)
    assert matched[:, 0].mean().item() == pytest.approx(target.mean().item(), abs=1e-6)
    assert matched[:, 0].std().item() == pytest.approx(target.std().item(), abs=1e-6)


def test_without_color_settings_pictures_are_passed_unchanged() -> None:
    content, style = Picture(picture(0)), Picture(picture(2))
    assert colors.content_for(content, tiny()) is content
    assert colors.style_for(style, content, tiny()) is style
    assert colors.content_for(content, tiny(match_color="pca")) is content
    assert colors.restore(style.pixels, content.pixels, "none") is style.pixels


def test_transparent_pixels_are_ignored() -> None:
    alpha = torch.ones(1, 1, 48, 64)
    alpha[..., :32] = 0
    settings = tiny(match_color="monge-kantorovich")
    content, style = picture(0, 0.4, 0.6), picture(2, 0.3, 0.5)
    whole = colors.style_for(Picture(style[..., 32:]), Picture(content[..., 32:]), settings).pixels
    half = colors.style_for(Picture(style, alpha), Picture(content, alpha), settings)
    torch.testing.assert_close(half.pixels[..., 32:], whole, atol=1e-6, rtol=0)
    filled = whole.mean((2, 3), keepdim=True).expand(1, 3, 48, 32)
    torch.testing.assert_close(half.pixels[..., :32], filled, atol=1e-6, rtol=0)
    assert half.alpha is alpha


def test_a_fully_transparent_style_stays_finite() -> None:
    nothing = Picture(torch.full((1, 3, 48, 64), 0.5), torch.zeros(1, 1, 48, 64))
    assert colors.style_for(nothing, Picture(picture(0)), tiny(match_color="pca")).pixels.isfinite().all()

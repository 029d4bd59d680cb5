"""Colors kept and matched in whole runs, from Python and from the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from support.colors import LEVEL, picture, to_lab, yiq
from support.pictures import samples, tiny
from torch import Tensor

from fastnst import cli, gallery, images
from fastnst.config.ranges import KEEP_COLORS, MATCH_COLORS
from fastnst.config.settings import Settings
from fastnst.errors import UsageError
from fastnst.images import Picture
from fastnst.run import targets
from fastnst.run.scene import Scene, StylePicture
from fastnst.run.setup import Setup
from fastnst.run.stylizer import Stylizer, stylize

# End to end.

pytestmark = pytest.mark.usefixtures("weights_read_once")


@pytest.mark.parametrize(("how", "space", "unit"), [("yiq", yiq, 1.0), ("luminance", yiq, 1.0), ("lab", to_lab, 100.0)])
def test_the_result_has_the_contents_chroma(how: str, space: Any, unit: float) -> None:
    content, style = picture(0, 0.4, 0.6), picture(2, 0.2, 0.8)
    optimized: list[Tensor] = []
    result = stylize(content, style, settings=tiny(keep_color=how), callback=lambda step: optimized.append(step.image))
    restored = space(result.image)
    torch.testing.assert_close(restored[:, :1], space(optimized[-1])[:, :1], atol=1e-5 * unit, rtol=0)
    torch.testing.assert_close(restored[:, 1:], space(content)[:, 1:], atol=1e-5 * unit, rtol=0)
    assert (optimized[-1] - result.image).abs().max() > LEVEL


@pytest.mark.parametrize("init", ["content", "style", "start.png"])
def test_the_transfer_on_luminance_uses_gray_pictures(
    init: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Tensor] = []
    real = Setup.pixels

    def watched(self: Setup, pixels: Tensor, height: int, width: int) -> Tensor:
        seen.append(pixels)
        return real(self, pixels, height, width)

    monkeypatch.setattr(Setup, "pixels", watched)
    if init == "start.png":
        init = str(tmp_path / init)
        Image.fromarray(samples(seed=3)).save(init)
    stylize(samples(), samples(seed=2), settings=tiny(keep_color="luminance", steps=1, init=init))
    assert len(seen) == 3  # style, content, start
    for pixels in seen:
        assert torch.equal(pixels[:, :1].expand(1, 3, -1, -1), pixels)


def styles_seen(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """The pictures, in 0..1, of which targets are computed after this call."""
    seen: list[Tensor] = []
    real = targets.style_targets

    def watched(network: Any, pixels: Tensor, *rest: Any) -> Any:
        seen.append(pixels[0] / 255)
        return real(network, pixels, *rest)

    monkeypatch.setattr("fastnst.run.targets.style_targets", watched)
    return seen


@pytest.mark.parametrize("how", MATCH_COLORS[1:])
def test_the_style_is_matched_to_each_content(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = styles_seen(monkeypatch)
    stylizer = Stylizer(tiny(match_color=how, steps=1))
    style = Picture(picture(4, 0.4, 0.6))
    for i in range(3):
        content = Picture(picture(i, 0.35, 0.65))
        stylizer.run(Scene(content, (StylePicture(style),)))
        torch.testing.assert_close(seen[i].mean((1, 2)), content.pixels[0].mean((1, 2)), atol=2e-3, rtol=0)
    assert len(seen) == 3


def test_matching_changes_the_result() -> None:
    results = [
        stylize(samples(), samples(seed=2), settings=tiny(match_color=how)).image
        for how in ("none", "pca", "histogram")
    ]
    assert all((results[0] - other).abs().max() > LEVEL for other in results[1:])


def test_default_settings_leave_colors_unchanged() -> None:
    optimized: list[Tensor] = []
    result = stylize(samples(), samples(seed=2), settings=tiny(), callback=lambda step: optimized.append(step.image))
    assert torch.equal(result.image, optimized[-1])


def run_cli(folder: Path, *options: str) -> None:
    for name, seed in (("photo.png", 0), ("painting.png", 2)):
        Image.fromarray(samples(48, 64, seed=seed)).save(folder / name)
    fast = ("--size", "64", "--steps", "2", "--scales", "1", "--style-layers", "relu1_1", "--content-layers", "relu1_1")
    pair = (str(folder / "photo.png"), str(folder / "painting.png"))
    assert cli.main(["stylize", *pair, "-o", str(folder / "out.png"), "--quiet", *fast, *options]) == 0


def test_the_command_line_keeps_colors_in_snapshots(tmp_path: Path) -> None:
    run_cli(tmp_path, "--keep-color", "yiq", "--match-color", "monge-kantorovich", "--snapshot-every", "1")
    written = images.read_settings(tmp_path / "out.png")
    assert written is not None
    assert (written["keep_color"], written["match_color"]) == ("yiq", "monge-kantorovich")
    last, out = (images.load(tmp_path / name).pixels for name in ("out_0002.png", "out.png"))
    assert torch.equal(last, out)
    first = images.load(tmp_path / "out_0001.png").pixels
    content = images.load(tmp_path / "photo.png").pixels
    inside = (torch.minimum(first, 1 - first) > 2 * LEVEL).all(1, keepdim=True).expand(1, 2, -1, -1)
    difference = (yiq(first) - yiq(content))[:, 1:].abs()[inside]
    assert len(difference) > 1000
    assert difference.max() < 2 * LEVEL  # rounding to 8 bits


def test_a_gallery_keeps_and_matches_colors(tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name, seed in (("content_1.png", 0), ("content_2.png", 1), ("style_1.png", 2)):
        Image.fromarray(samples(48, 64, seed=seed) // 2 + 64).save(folder / name)
    settings = tiny(keep_color="lab", match_color="cholesky", snapshot_every=2)
    report = gallery.run(folder, tmp_path / "out", settings)
    assert len(report.made) == 2
    for made, content in zip(report.made, ("content_1.png", "content_2.png"), strict=True):
        chroma = to_lab(images.load(folder / content).pixels)[:, 1:]
        for name in ("gen_2.jpg", "gen_3.jpg"):
            restored = to_lab(images.load(made.pair.folder / name).pixels)[:, 1:]
            assert (restored - chroma).abs().mean() < 2  # JPEG compression


def test_alpha_is_preserved() -> None:
    alpha = torch.ones(48, 64)
    alpha[:, :20] = 0
    content = Picture(picture(0), alpha[None, None])
    result = stylize(content, samples(seed=2), settings=tiny(keep_color="lab", match_color="pca"))
    assert result.alpha is not None
    assert torch.equal(result.alpha[0, 0], alpha)


# Choices.


@pytest.mark.parametrize(("name", "known"), [("keep_color", KEEP_COLORS), ("match_color", MATCH_COLORS)])
def test_color_settings_are_validated(name: str, known: tuple[str, ...]) -> None:
    for value in known:
        assert getattr(Settings.from_preset(**{name: value}), name) == value
    for wrong in ("nnoe", None, 3, ["none"]):
        with pytest.raises(UsageError) as caught:
            Settings.from_preset().replace(**{name: wrong})
        assert str(caught.value).startswith(f"unknown {name} {wrong!r}")
        assert str(caught.value).endswith(f"(known: {', '.join(known)})")
        assert "\n" not in str(caught.value)


def test_luminance_leaves_no_colors_to_match() -> None:
    with pytest.raises(UsageError, match=r"^keep_color 'luminance' leaves no colors for match_color 'pca': give one"):
        Settings.from_preset(keep_color="luminance", match_color="pca")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ("--keep-color", "yuq"),
            "error: unknown keep_color 'yuq', did you mean yiq? (known: none, yiq, lab, luminance)",
        ),
        (("--match-color", "mk"), f"error: unknown match_color 'mk' (known: {', '.join(MATCH_COLORS)})"),
        (("--keep-colour", "yiq"), "error: unrecognized argument '--keep-colour', did you mean --keep-color?"),
    ],
)
def test_a_mistyped_choice_is_a_one_line_error(
    options: tuple[str, str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["stylize", "photo.jpg", "painting.jpg", *options]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(f"fastnst: {message}")
    assert captured.err.count("\n") == 1

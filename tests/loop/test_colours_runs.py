"""Colours kept and matched in whole runs, from Python and from the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from loop_colours import LEVEL, picture, to_lab, yiq
from loop_pictures import samples, tiny
from PIL import Image
from torch import Tensor

from fastnst import cli, gallery, images, transfer
from fastnst.errors import UsageError
from fastnst.images import Picture
from fastnst.scene import Painting, Scene
from fastnst.settings import KEEP_COLOURS, MATCH_COLOURS, Settings
from fastnst.transfer import Stylizer, stylize

# End to end.

pytestmark = pytest.mark.usefixtures("weights_read_once")


@pytest.mark.parametrize(("how", "space", "unit"), [("yiq", yiq, 1.0), ("luminance", yiq, 1.0), ("lab", to_lab, 100.0)])
def test_the_result_has_the_contents_chroma(how: str, space: Any, unit: float) -> None:
    content, style = picture(0, 0.4, 0.6), picture(2, 0.2, 0.8)
    optimised: list[Tensor] = []
    result = stylize(content, style, settings=tiny(keep_colour=how), callback=lambda step: optimised.append(step.image))
    kept = space(result.image)
    torch.testing.assert_close(kept[:, :1], space(optimised[-1])[:, :1], atol=1e-5 * unit, rtol=0)
    torch.testing.assert_close(kept[:, 1:], space(content)[:, 1:], atol=1e-5 * unit, rtol=0)
    assert (optimised[-1] - result.image).abs().max() > LEVEL


@pytest.mark.parametrize("init", ["content", "style", "start.png"])
def test_the_transfer_on_luminance_sees_no_colour(init: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Tensor] = []
    real = Stylizer._pixels

    def watched(self: Stylizer, pixels: Tensor, height: int, width: int) -> Tensor:
        seen.append(pixels)
        return real(self, pixels, height, width)

    monkeypatch.setattr(Stylizer, "_pixels", watched)
    if init == "start.png":
        init = str(tmp_path / init)
        Image.fromarray(samples(seed=3)).save(init)
    stylize(samples(), samples(seed=2), settings=tiny(keep_colour="luminance", steps=1, init=init))
    assert len(seen) == 3  # style, content, start
    for pixels in seen:
        assert torch.equal(pixels[:, :1].expand(1, 3, -1, -1), pixels)


def styles_seen(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """The pictures, 0..1, of which targets are made from now on."""
    seen: list[Tensor] = []
    real = transfer.style_targets

    def watched(network: Any, pixels: Tensor, *rest: Any) -> Any:
        seen.append(pixels[0] / 255)
        return real(network, pixels, *rest)

    monkeypatch.setattr(transfer, "style_targets", watched)
    return seen


@pytest.mark.parametrize("how", MATCH_COLOURS[1:])
def test_the_style_is_matched_to_each_content(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = styles_seen(monkeypatch)
    stylizer = Stylizer(tiny(match_colour=how, steps=1))
    style = Picture(picture(4, 0.4, 0.6))
    for i in range(3):
        content = Picture(picture(i, 0.35, 0.65))
        stylizer.run(Scene(content, (Painting(style),)))
        torch.testing.assert_close(seen[i].mean((1, 2)), content.pixels[0].mean((1, 2)), atol=2e-3, rtol=0)
    assert len(seen) == 3


def test_matching_changes_the_result() -> None:
    results = [
        stylize(samples(), samples(seed=2), settings=tiny(match_colour=how)).image
        for how in ("none", "pca", "histogram")
    ]
    assert all((results[0] - other).abs().max() > LEVEL for other in results[1:])


def test_what_is_not_asked_for_changes_nothing() -> None:
    optimised: list[Tensor] = []
    result = stylize(samples(), samples(seed=2), settings=tiny(), callback=lambda step: optimised.append(step.image))
    assert torch.equal(result.image, optimised[-1])


def run_cli(folder: Path, *options: str) -> None:
    for name, seed in (("photo.png", 0), ("painting.png", 2)):
        Image.fromarray(samples(48, 64, seed=seed)).save(folder / name)
    fast = ("--size", "64", "--steps", "2", "--scales", "1", "--style-layers", "relu1_1", "--content-layers", "relu1_1")
    pair = (str(folder / "photo.png"), str(folder / "painting.png"))
    assert cli.main(["stylize", *pair, "-o", str(folder / "out.png"), "--quiet", *fast, *options]) == 0


def test_the_command_line_keeps_colours_in_snapshots_too(tmp_path: Path) -> None:
    run_cli(tmp_path, "--keep-colour", "yiq", "--match-colour", "monge-kantorovich", "--snapshot-every", "1")
    written = images.read_settings(tmp_path / "out.png")
    assert written is not None
    assert (written["keep_colour"], written["match_colour"]) == ("yiq", "monge-kantorovich")
    last, out = (images.load(tmp_path / name).pixels for name in ("out_0002.png", "out.png"))
    assert torch.equal(last, out)
    first = images.load(tmp_path / "out_0001.png").pixels
    content = images.load(tmp_path / "photo.png").pixels
    inside = (torch.minimum(first, 1 - first) > 2 * LEVEL).all(1, keepdim=True).expand(1, 2, -1, -1)
    difference = (yiq(first) - yiq(content))[:, 1:].abs()[inside]
    assert len(difference) > 1000
    assert difference.max() < 2 * LEVEL  # of rounding to 8 bits


def test_a_gallery_keeps_and_matches_colours(tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name, seed in (("content_1.png", 0), ("content_2.png", 1), ("style_1.png", 2)):
        Image.fromarray(samples(48, 64, seed=seed) // 2 + 64).save(folder / name)
    settings = tiny(keep_colour="lab", match_colour="cholesky", snapshot_every=2)
    report = gallery.run(folder, tmp_path / "out", settings)
    assert len(report.made) == 2
    for made, content in zip(report.made, ("content_1.png", "content_2.png"), strict=True):
        chroma = to_lab(images.load(folder / content).pixels)[:, 1:]
        for name in ("gen_2.jpg", "gen_3.jpg"):
            kept = to_lab(images.load(made.pair.folder / name).pixels)[:, 1:]
            assert (kept - chroma).abs().mean() < 2  # of a JPEG


def test_alpha_stays() -> None:
    alpha = torch.ones(48, 64)
    alpha[:, :20] = 0
    content = Picture(picture(0), alpha[None, None])
    result = stylize(content, samples(seed=2), settings=tiny(keep_colour="lab", match_colour="pca"))
    assert result.alpha is not None
    assert torch.equal(result.alpha[0, 0], alpha)


# Choices.


@pytest.mark.parametrize(("name", "known"), [("keep_colour", KEEP_COLOURS), ("match_colour", MATCH_COLOURS)])
def test_a_choice_is_checked_by_name(name: str, known: tuple[str, ...]) -> None:
    for value in known:
        assert getattr(Settings.of(**{name: value}), name) == value
    for wrong in ("nnoe", None, 3, ["none"]):
        with pytest.raises(UsageError) as caught:
            Settings.of().but(**{name: wrong})
        assert str(caught.value).startswith(f"unknown {name} {wrong!r}")
        assert str(caught.value).endswith(f"(known: {', '.join(known)})")
        assert "\n" not in str(caught.value)


def test_luminance_leaves_no_colours_to_match() -> None:
    with pytest.raises(
        UsageError, match=r"^keep_colour 'luminance' leaves no colours for match_colour 'pca': give one"
    ):
        Settings.of(keep_colour="luminance", match_colour="pca")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ("--keep-colour", "yuq"),
            "error: unknown keep_colour 'yuq', did you mean yiq? (known: none, yiq, lab, luminance)",
        ),
        (("--match-colour", "mk"), f"error: unknown match_colour 'mk' (known: {', '.join(MATCH_COLOURS)})"),
        (("--keep-color", "yiq"), "error: unrecognised argument '--keep-color', did you mean --keep-colour?"),
    ],
)
def test_a_mistyped_choice_is_one_line(
    options: tuple[str, str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["stylize", "photo.jpg", "painting.jpg", *options]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(f"fastnst: {message}")
    assert captured.err.count("\n") == 1

"""The photoreal pass in whole runs: snapshots, colors, transparency, checkpoints, films, the command line."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from support.checkpoints import STEPS, same, settings_of, stopping, styled
from support.colors import yiq
from support.pictures import samples, tiny
from torch import Tensor

import fastnst
from fastnst import cli, images
from fastnst.config.settings import Settings
from fastnst.errors import CheckpointError, UsageError
from fastnst.network import vgg
from fastnst.run import photoreal
from fastnst.run.memory_model import Workload
from fastnst.run.stylizer import Stylizer, stylize

pytestmark = pytest.mark.usefixtures("weights_read_once")


def last_image(**changes: Any) -> tuple[fastnst.Result, Tensor]:
    """A run, and what it optimized."""
    optimized: list[Tensor] = []
    result = styled(tiny(**changes), callback=lambda step: optimized.append(step.image))
    return result, optimized[-1]


def content_of(result: fastnst.Result) -> Tensor:
    return images.load(samples(), size=result.settings.size).pixels


def test_the_result_is_the_pass_over_the_optimized_picture() -> None:
    result, optimized = last_image(photoreal=0.5)
    assert torch.equal(result.image, photoreal.smooth(optimized, content_of(result), 0.5))
    assert not torch.equal(result.image, optimized)
    plain, optimized_without = last_image()
    assert torch.equal(plain.image, optimized_without)
    assert torch.equal(optimized, optimized_without)


def test_colors_are_kept_after_the_pass() -> None:
    result, _ = last_image(photoreal=1.0, keep_color="yiq")
    inside = (torch.minimum(result.image, 1 - result.image) > 0.01).all(1, keepdim=True).expand(1, 2, -1, -1)
    chroma = [yiq(x)[:, 1:][inside] for x in (result.image, content_of(result))]
    torch.testing.assert_close(*chroma, atol=1e-5, rtol=0)
    assert len(chroma[0]) > 1000


def test_a_result_with_transparency_has_sixteen_bits(tmp_path: Path) -> None:
    content = np.dstack([samples(), np.full((72, 96), 128, np.uint8)])
    result = stylize(Image.fromarray(content), samples(seed=2), settings=tiny(photoreal=1.0))
    assert result.alpha is not None
    assert result.alpha.unique().tolist() == [pytest.approx(128 / 255)]
    result.save(tmp_path / "out.tif")
    stored = images.load(tmp_path / "out.tif")
    torch.testing.assert_close(stored.pixels, result.image, atol=0.6 / 65535, rtol=0)


# Checkpoints.


@pytest.mark.parametrize("at", [2, STEPS + 1])
def test_a_resumed_run_has_the_same_bits(at: int, tmp_path: Path) -> None:
    settings, file = settings_of("lbfgs", photoreal=1.0), tmp_path / "run.ckpt"
    whole = styled(settings)
    assert styled(settings, checkpoint=file, callback=stopping(at)).stopped == "callback"
    assert same(whole, styled(settings, checkpoint=file, resume=True))


def test_a_finished_run_is_resumed_with_another_strength_and_no_other_change(tmp_path: Path) -> None:
    settings, file = settings_of("adam", learning_rate=2.0), tmp_path / "run.ckpt"
    styled(settings, checkpoint=file)
    steps: list[Any] = []
    again = styled(settings.replace(photoreal=2.0), checkpoint=file, resume=True, callback=steps.append)
    assert steps == []
    assert torch.equal(again.image, styled(settings.replace(photoreal=2.0)).image)
    assert again.settings.photoreal == 2
    with pytest.raises(CheckpointError, match="keep_color was"):
        styled(settings.replace(photoreal=2.0, keep_color="lab"), checkpoint=file, resume=True)


def test_an_interrupted_pass_leaves_the_picture_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*arguments: object) -> Tensor:
        raise KeyboardInterrupt

    monkeypatch.setattr(photoreal, "solve", interrupted)
    result, optimized = last_image(photoreal=1.0)
    assert result.stopped == "interrupt"
    assert torch.equal(result.image, optimized)
    assert result.settings.photoreal == 0  # what the picture says of itself


# Memory.


@pytest.mark.parametrize("strips", [False, True])
def test_the_estimate_of_the_memory_includes_the_pass(strips: bool) -> None:
    def need(strength: float) -> int:
        settings = Settings.from_preset(photoreal=strength)
        chain = vgg.chain_to("vgg19", settings.layer_names())
        work = Workload(chain, 3000, 4000, torch.float32, settings)
        return work.strip_bytes(64) if strips else work.bytes()

    assert need(1.0) - need(0.0) == photoreal.pass_bytes(3000, 4000, 1.0) > 2**26


def test_a_run_for_which_memory_is_too_small_is_refused_before_it_starts() -> None:
    stylizer = Stylizer(tiny(tiles="off"))
    have = stylizer.setup.sizing.workload(1500, 2000, stylizer.setup.chosen).bytes()
    stylizer.replace(memory=have).check(1500, 2000)
    with pytest.raises(fastnst.errors.OutOfMemoryError, match="out of memory at 2000x1500"):
        stylizer.replace(memory=have, photoreal=1.0).check(1500, 2000)


# What has no content.


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (
            lambda: fastnst.texture(samples(), photoreal=1.0),
            "photoreal 1: a texture has no content picture whose edges",
        ),
        (lambda: fastnst.inpaint(samples(), samples(), photoreal=0.5), "photoreal 0.5: inpainting has no edges"),
        (lambda: tiny(photoreal=1.0, tileable="x"), "photoreal 1: the content that it restores does not continue"),
        (lambda: tiny(photoreal=-0.1), "photoreal: expected a finite number of at least 0 and at most 100, got -0.1"),
        (lambda: tiny(photoreal=True), "photoreal: expected a finite number .*, got True"),
    ],
)
def test_mistakes_are_one_line(make: Callable[[], object], words: str) -> None:
    with pytest.raises(UsageError, match=words) as caught:
        make()
    assert "\n" not in str(caught.value)


# The command line.

FAST = ("--size", "64", "--steps", "2", "--scales", "1", "--style-layers", "relu1_1", "--content-layers", "relu1_1")


def run_cli(folder: Path, *options: str) -> int:
    for name, seed in (("photo.png", 0), ("painting.png", 2)):
        Image.fromarray(samples(48, 64, seed=seed)).save(folder / name)
    pair = (str(folder / "photo.png"), str(folder / "painting.png"))
    return cli.main(["stylize", *pair, "-o", str(folder / "out.png"), "--quiet", *FAST, *options])


def test_the_command_line_has_a_strength_for_the_option_alone(tmp_path: Path) -> None:
    """Snapshots have the pass as well, and a picture says so and can be made again."""
    assert run_cli(tmp_path, "--snapshot-every", "1", "--photoreal") == 0
    written = images.read_settings(tmp_path / "out.png")
    assert written is not None
    assert written["photoreal"] == 1
    last, out = (images.load(tmp_path / name).pixels for name in ("out_0002.png", "out.png"))
    assert torch.equal(last, out)
    again = ["stylize", "--like", str(tmp_path / "out.png"), "-o", str(tmp_path / "again.png"), "-q"]
    assert cli.main(again) == 0
    assert torch.equal(images.load(tmp_path / "again.png").pixels, out)
    assert run_cli(tmp_path, "--photoreal", "0") == 0
    assert not torch.equal(images.load(tmp_path / "out.png").pixels, out)


def test_the_film_of_the_progress_does_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("av")
    calls = []
    real = photoreal.smooth
    monkeypatch.setattr(photoreal, "smooth", lambda *given: calls.append(given) or real(*given))
    assert run_cli(tmp_path, "--film", str(tmp_path / "p.gif"), "--film-every", "1", "--photoreal", "0.5") == 0
    assert (tmp_path / "p.gif").exists()
    assert len(calls) == 1


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (["stylize", "a.png", "b.png", "--photoreal", "much"], "photoreal: expected a finite number of at least 0"),
        (["texture", "a.png", "--photoreal", "1"], "unrecognized argument '--photoreal'"),
    ],
)
def test_mistakes_on_the_command_line_are_one_line(
    command: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(command) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1


def test_the_settings_may_be_frozen_again() -> None:
    assert dataclasses.replace(Settings(), photoreal=np.float32(0.5)).photoreal == 0.5

"""Stylizing pictures: inputs, results, scales and the start image."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from support.pictures import TINY, as_tensor, samples, tiny
from torch import Tensor

from fastnst import __version__, images
from fastnst.config.settings import Settings
from fastnst.errors import ImageError, UsageError
from fastnst.optim.loop import ScaleResult, optimize
from fastnst.optim.progress import Step
from fastnst.run.scales import scale_sizes
from fastnst.run.stylizer import Stylizer, stylize
from fastnst.weights import Weights

pytestmark = pytest.mark.usefixtures("weights_read_once")


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    Image.fromarray(samples()).save(path)
    return path


@pytest.fixture
def painting(tmp_path: Path) -> Path:
    path = tmp_path / "painting.png"
    Image.fromarray(samples(80, 64, seed=3)).save(path)
    return path


# Inputs and results.


def test_stylize_takes_paths_images_arrays_and_tensors_alike(photo: Path, painting: Path) -> None:
    style = samples(80, 64, seed=3)
    expected = stylize(photo, painting, settings=tiny()).image
    with Image.open(photo) as image, Image.open(painting) as other:
        for content, painted in (
            (str(photo), str(painting)),
            (image, other),
            (samples(), style),
            (as_tensor(samples()), as_tensor(style)),
        ):
            assert torch.equal(stylize(content, painted, settings=tiny()).image, expected)


def test_a_result_is_a_float_picture_of_the_requested_size() -> None:
    result = stylize(samples(), samples(seed=2), **TINY)
    assert result.image.shape == (1, 3, 48, 64)
    assert result.image.dtype == torch.float32
    assert 0 <= result.image.min() <= result.image.max() <= 1
    assert result.alpha is None
    assert result.stopped is None
    assert result.seconds > 0


@pytest.mark.parametrize("optimizer", ["lbfgs", "adam"])
def test_the_loss_decreases_and_the_picture_changes(optimizer: str) -> None:
    content = samples(48, 64)
    result = stylize(content, samples(seed=2), settings=tiny(optimizer=optimizer, learning_rate=1.0, steps=6))
    trace = [losses.total for losses in result.trace[0]]
    assert len(trace) == 6
    assert trace[-1] < 0.8 * trace[0]
    assert (result.image - as_tensor(content)).abs().max() > 2 / 255


def test_the_style_loss_changes_the_picture_and_the_content_loss_preserves_it() -> None:
    content, style = samples(48, 64), samples(seed=2)
    preserved = stylize(content, style, settings=tiny(style_weight=0.0, steps=4))
    assert torch.allclose(preserved.image, as_tensor(content), atol=1e-6)
    assert preserved.trace[0][-1].style == {}
    styled = stylize(content, style, settings=tiny(content_weight=0.0, steps=4))
    assert not torch.allclose(styled.image, as_tensor(content), atol=0.01)
    assert styled.trace[0][-1].content == {}


@pytest.mark.parametrize(
    ("shape", "changes", "expected"),
    [
        ((72, 96), {"size": 64}, (48, 64)),
        ((96, 72), {"size": 65}, (65, 49)),
        ((40, 40), {"size": 65}, (65, 65)),
        ((51, 33), {"size": None}, (51, 33)),
        ((72, 96), {"crop": 40}, (40, 40)),
        ((30, 96), {"crop": 41}, (41, 41)),
    ],
)
def test_size_and_crop_give_the_side(
    shape: tuple[int, int], changes: dict[str, Any], expected: tuple[int, int]
) -> None:
    settings = Settings(**{**TINY, "steps": 1, "size": None, **changes})
    assert stylize(samples(*shape), samples(seed=2), settings=settings).image.shape[-2:] == expected


@pytest.mark.parametrize(
    ("changes", "expected"),
    [({}, (64, 32)), ({"style_scale": 0.5}, (32, 16)), ({"style_scale": 1.5}, (96, 48)), ({"crop": 40}, (40, 40))],
)
def test_the_style_is_sized_by_the_contents_longest_side(changes: dict[str, Any], expected: tuple[int, int]) -> None:
    stylizer = Stylizer(tiny(**changes))
    content = stylizer.loader.content(samples())
    assert stylizer.loader.style(samples(120, 60), content).pixels.shape[-2:] == expected


def test_style_scale_changes_the_result() -> None:
    one, other = (stylize(samples(), samples(seed=2), settings=tiny(style_scale=s)).image for s in (1.0, 0.5))
    assert not torch.equal(one, other)


def test_changes_override_settings() -> None:
    result = stylize(samples(), samples(seed=2), settings=tiny(), steps=1, tv_weight=0.5)
    assert result.settings == tiny(steps=1, tv_weight=0.5)
    assert result.trace[0][0].tv > 0


def test_invalid_changes_are_refused() -> None:
    for changes in ({"stepps": 3}, {"preset": "johnson"}, {"steps": 0}):
        with pytest.raises(UsageError):
            stylize(samples(), samples(), settings=tiny(), **changes)
    with pytest.raises(UsageError, match="did you mean steps"):
        stylize(samples(), samples(), stepps=3)


# Alpha and files.


def test_alpha_is_preserved(tmp_path: Path) -> None:
    content = np.dstack([samples(48, 64), np.full((48, 64), 255, np.uint8)])
    content[:, :20, 3] = 0
    content[:, 20:30, 3] = 100
    result = stylize(content, samples(seed=2), settings=tiny())
    assert result.alpha is not None
    with Image.open(result.save(tmp_path / "out.png")) as image:
        assert image.mode == "RGBA"
        assert np.array_equal(np.asarray(image)[..., 3], content[..., 3])


@pytest.mark.parametrize("name", ["out.png", "out.jpg", "out.webp", "out.tif"])
def test_the_settings_are_written_into_the_file(tmp_path: Path, name: str) -> None:
    result = stylize(samples(), samples(seed=2), settings=tiny(steps=1, seed=7))
    path = result.save(tmp_path / name)
    assert path == tmp_path / name
    settings = json.loads(json.dumps(tiny(steps=1, seed=7).to_dict()))
    assert images.read_settings(path) == {"fastnst": __version__, **settings, "files": {}}
    assert images.load(path).pixels.shape == result.image.shape


# Scales.


@pytest.mark.parametrize(
    ("shape", "scales", "expected"),
    [
        ((256, 256), 3, ((64, 64), (128, 128), (256, 256))),
        ((256, 256), 9, ((64, 64), (128, 128), (256, 256))),
        ((256, 256), 1, ((256, 256),)),
        ((257, 193), 2, ((128, 96), (257, 193))),
        ((127, 127), 2, ((127, 127),)),  # half would be 63.5
        ((128, 127), 2, ((128, 127),)),  # half of the shorter side would be 63.5
        ((128, 128), 2, ((64, 64), (128, 128))),
        ((256, 100), 3, ((256, 100),)),  # half of the short side would be 50
        ((2, 90), 5, ((2, 90),)),
    ],
)
def test_each_scale_has_half_the_side_and_none_is_tiny(
    shape: tuple[int, int], scales: int, expected: tuple[tuple[int, int], ...]
) -> None:
    assert scale_sizes(*shape, tiny(scales=scales)) == expected


def test_every_scale_takes_its_steps_on_its_own_image() -> None:
    seen: list[tuple[int, int, int, int, tuple[int, ...], bool]] = []

    def callback(step: Step) -> None:
        seen.append((step.scale, step.scales, step.step, step.count, tuple(step.image.shape[-2:]), step.last))

    result = stylize(samples(), samples(seed=2), settings=tiny(size=170, scales=2, steps=2), callback=callback)
    small, large = (64, 85), (128, 170)
    assert seen == [
        (1, 2, 1, 1, small, False),
        (1, 2, 2, 2, small, False),
        (2, 2, 1, 3, large, False),
        (2, 2, 2, 4, large, True),
    ]
    assert [len(scale) for scale in result.trace] == [2, 2]
    assert result.image.shape[-2:] == large


def test_a_scale_starts_from_the_one_before(monkeypatch: pytest.MonkeyPatch) -> None:
    starts: list[Tensor] = []

    def watched(objective: Any, image: Tensor, *rest: Any, **more: Any) -> ScaleResult:
        starts.append(image.clone())
        run = optimize(objective, image, *rest, **more)
        starts.append(run.image)
        return run

    monkeypatch.setattr("fastnst.run.scene_run.optimize", watched)
    stylize(samples(), samples(seed=2), settings=tiny(size=170, scales=2, steps=2))
    _, coarse, fine, _ = starts
    enlarged = images.resize((coarse / 255).clamp(0, 1), 128, 170) * 255
    torch.testing.assert_close(fine, enlarged)


# The start image.


def first_image(**changes: Any) -> Tensor:
    """The image at which the first evaluation is made, in 0..255."""
    found: list[Tensor] = []

    def caught(objective: Any, image: Tensor, *_: Any, **__: Any) -> ScaleResult:
        found.append(image.clone())
        return ScaleResult(image, [])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fastnst.run.scene_run.optimize", caught)
        stylize(samples(), samples(60, 80, seed=2), settings=tiny(**changes))
    return found[0]


def test_the_start_is_the_content() -> None:
    expected = images.load(samples(), size=64).pixels * 255
    assert torch.equal(first_image(init="content"), expected)


def test_the_start_is_the_style_at_the_contents_size() -> None:
    style = images.load(samples(60, 80, seed=2), size=64).pixels
    assert torch.equal(first_image(init="style"), images.resize(style, 48, 64) * 255)


def test_the_start_is_a_file_at_the_contents_size(tmp_path: Path) -> None:
    path = tmp_path / "start.png"
    Image.fromarray(samples(30, 30, seed=5)).save(path)
    expected = images.resize(as_tensor(samples(30, 30, seed=5)), 48, 64) * 255
    torch.testing.assert_close(first_image(init=str(path)), expected)


def test_noise_has_the_mean_color_and_the_requested_deviation() -> None:
    mean = torch.tensor([123.68, 116.779, 103.939]).view(1, 3, 1, 1)
    for deviation in (1.0, 1e-3, 30.0):
        offset = first_image(init="noise", noise=deviation) - mean
        assert offset.std().item() == pytest.approx(deviation, rel=0.05)
        assert abs(offset.mean().item()) < 0.05 * deviation


def test_the_seed_determines_the_noise_bit_for_bit() -> None:
    assert torch.equal(first_image(init="noise", seed=3), first_image(init="noise", seed=3))
    assert not torch.equal(first_image(init="noise", seed=3), first_image(init="noise", seed=4))


def test_noise_leaves_the_global_random_state_unchanged() -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first_image(init="noise", seed=3)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_float64_run_starts_in_float64() -> None:
    assert first_image(precision="float64", init="noise").dtype == torch.float64
    assert first_image(precision="float64").dtype == torch.float64
    assert first_image(precision="bfloat16").dtype == torch.float32


def test_a_start_file_that_is_missing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"nowhere\.png"):
        stylize(samples(), samples(), settings=tiny(init=str(tmp_path / "nowhere.png")))


# Presets end to end.


@pytest.mark.parametrize("preset", ["default", "gatys", "johnson", "tutorial"])
def test_every_preset_lowers_its_loss(preset: str, caplog: pytest.LogCaptureFixture) -> None:
    sides: dict[str, Any] = {"crop": 32} if preset == "tutorial" else {"size": 40}
    changes = {**sides, "steps": 4, "device": "cpu", "precision": "float32"}
    with caplog.at_level(logging.WARNING, "fastnst"):
        result = stylize(samples(), samples(seed=2), preset=preset, **changes)
    trace = [losses.total for scale in result.trace for losses in scale]
    assert trace[-1] < trace[0]
    assert result.settings.preset == preset
    assert ("VGG-16" in caplog.text) == (preset == "tutorial")


@pytest.mark.parametrize("make", [lambda path: path, str])
def test_weights_are_read_from_a_file(tmp_path: Path, bundled: Weights, make: Callable[[Path], Any]) -> None:
    from safetensors.torch import save_file

    state = {}
    for name in ("conv1_1", "conv1_2", "conv2_1"):
        kernel, bias = bundled.convs[name]
        kernel = kernel.flip(1) if name == "conv1_1" else kernel
        state[f"{name}.weight"], state[f"{name}.bias"] = kernel.contiguous(), bias
    save_file(state, tmp_path / "first.safetensors")
    settings = tiny(weights=make(tmp_path / "first.safetensors"))
    found = stylize(samples(), samples(seed=2), settings=settings)
    assert torch.equal(found.image, stylize(samples(), samples(seed=2), settings=tiny()).image)

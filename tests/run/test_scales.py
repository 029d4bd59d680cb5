"""Coarse to fine: sizes, steps per scale, the state carried over, and the average of the images."""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from support.graphs import Rerun
from support.pictures import samples, tiny
from support.toys import SHAPE, Bowl, Script, Valley, adam, newton, noise
from torch import Tensor

from fastnst import images
from fastnst.config.parsing import parse_counts, parse_factor
from fastnst.config.settings import Settings
from fastnst.errors import UsageError
from fastnst.objective.protocol import Losses
from fastnst.objective.targets import style_targets
from fastnst.optim import loop, progress
from fastnst.optim.adam import resize_state
from fastnst.optim.cuda_graph import StepCapture
from fastnst.optim.loop import LoopContext, LoopState, ScaleResult
from fastnst.optim.progress import Step
from fastnst.run.scales import scale_sizes
from fastnst.run.stylizer import stylize

pytestmark = pytest.mark.usefixtures("weights_read_once")
BOTH = pytest.mark.parametrize("make", [adam, newton])
ROOT = math.sqrt(2)


def sizes(height: int, width: int, **changes: Any) -> tuple[tuple[int, int], ...]:
    return scale_sizes(height, width, tiny(**changes))


# Sizes.


@pytest.mark.parametrize("end", [128, 512, 700, 724, 1000, 2048])
def test_scales_by_the_root_of_two_equal_those_of_style_transfer_pytorch(end: int) -> None:
    sides, side = {end}, end
    while side >= 128:
        sides.add(side)
        side = round(end / 2 ** (len(sides) / 2))
    found = sizes(end, end, scales="auto", scale_factor=ROOT, min_scale=128)
    assert [height for height, _ in found] == sorted(sides)


@pytest.mark.parametrize(
    ("shape", "changes", "expected"),
    [
        ((512, 512), {"scales": 3, "scale_factor": ROOT}, ((256, 256), (362, 362), (512, 512))),
        ((384, 512), {"scales": 2, "scale_factor": 4}, ((96, 128), (384, 512))),
        ((512, 512), {"scales": "auto"}, ((64, 64), (128, 128), (256, 256), (512, 512))),
        ((512, 512), {"scales": "auto", "min_scale": 200}, ((256, 256), (512, 512))),
        ((512, 512), {"scales": 4, "min_scale": 257}, ((512, 512),)),
        ((100, 512), {"scales": "auto", "scale_factor": 1.5}, ((67, 341), (100, 512))),
        ((48, 64), {"scales": (16, 40, 64), "size": 64}, ((12, 16), (30, 40), (48, 64))),
    ],
)
def test_sizes_come_from_a_factor_a_minimum_side_or_a_list(
    shape: tuple[int, int], changes: dict[str, Any], expected: tuple[tuple[int, int], ...]
) -> None:
    assert sizes(*shape, **changes) == expected


def test_the_last_side_of_scales_sets_the_size() -> None:
    assert Settings.from_preset(scales=(128, 256)).size == 256
    assert Settings.from_preset("tutorial", scales=(64, 112)).size == 112
    assert Settings.from_preset(scales=(128, 256), crop=256).size is None
    assert stylize(samples(), samples(seed=2), settings=tiny(steps=1), scales=[32, 48]).image.shape[-2:] == (36, 48)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scales": (128, 256), "size": 300}, "scales 128,256: expected the last to be the size or crop, which is 300"),
        ({"scales": (256, 128), "size": 128}, "scales 256,128: expected increasing sides"),
        ({"scales": (128, 128)}, "scales 128,128: expected increasing sides"),
        ({"scales": (1, 256)}, "scales: expected a whole number of at least 2"),
        ({"scales": "all"}, "scales: expected a whole number of at least 1"),
        ({"scales": ()}, "scales: expected a whole number of at least 1"),
        ({"scale_factor": 1.0}, "scale_factor: expected a finite number of at least 1.1 and at most 1000, got 1.0"),
        ({"scale_factor": "two"}, "scale_factor: expected a finite number of at least 1.1 and at most 1000, got 'two'"),
        ({"min_scale": 32}, "min_scale: expected a whole number of at least 64"),
        ({"steps": (10, 0)}, "steps: expected a whole number of at least 1"),
        ({"steps": ()}, "steps: expected a whole number of at least 1"),
        ({"steps": (1, 2, 3)}, "steps 1,2,3: 3 numbers for 2 scales"),
        ({"steps": (1, 2, 3), "scales": (64, 128)}, "steps 1,2,3: 3 numbers for 2 scales"),
        ({"average": 1.0}, "average: expected a finite number of at least 0 and below 1, got 1.0"),
        ({"average": -0.1}, "average: expected a finite number of at least 0 and below 1, got -0.1"),
        ({"carry": 1}, "carry: expected True or False, got 1"),
        ({"style_size": 1}, "style_size: expected a whole number of at least 2"),
    ],
)
def test_invalid_settings_are_refused_by_name(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=f"^{message}"):
        Settings.from_preset(**changes)


def test_style_size_and_style_scale_exclude_each_other() -> None:
    with pytest.raises(UsageError, match=r"style_size 200 and style_scale 0\.5: give one of the two"):
        Settings.from_preset(style_size=200, style_scale=0.5)


@pytest.mark.parametrize(
    ("text", "value"), [("3", 3), ("128,256", (128, 256)), ("auto", "auto"), ("3,", "3,"), ("1.5", "1.5"), ("", "")]
)
def test_counts_are_read_from_text(text: str, value: object) -> None:
    assert parse_counts(text) == value


def test_factors_are_read_from_text() -> None:
    assert [parse_factor(text) for text in ("2", "1.5", "sqrt2", "two")] == [2.0, 1.5, 1.4142135623730951, "two"]


# The style.


def test_the_style_size_is_in_pixels_and_shrinks_with_the_scales(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, ...]] = []

    def counted(network: Any, style: Tensor, *rest: Any) -> Any:
        seen.append(tuple(style.shape[-2:]))
        return style_targets(network, style, *rest)

    monkeypatch.setattr("fastnst.run.targets.style_targets", counted)
    settings = tiny(scales=(40, 80), style_size=60, steps=1, size=80)
    stylize(samples(), samples(30, 40, seed=2), settings=settings)
    assert seen == [(24, 30), (46, 60)]  # odd sides are continued by a row


# Steps.


def test_the_moments_carried_over_are_freed(monkeypatch: pytest.MonkeyPatch) -> None:
    """At the last scale of a large picture the moments of the scale before take half as much memory as its image."""
    held: list[weakref.ref[Tensor]] = []

    def watched(state: dict[str, Any], height: int, width: int) -> dict[str, Any]:
        held.extend(weakref.ref(state[name]) for name in ("mean", "square"))
        return resize_state(state, height, width)

    monkeypatch.setattr("fastnst.run.scene_run.resize_state", watched)
    alive: list[bool] = []

    def watch(step: Step) -> None:
        alive.extend(tensor() is not None for tensor in held)

    settings = tiny(steps=2, optimizer="adam", scales=(32, 48), size=48)
    stylize(samples(), samples(seed=2), settings=settings, callback=watch)
    assert alive == [False] * 4  # two moments, at each step of the second scale


def test_every_scale_takes_the_steps_given_for_it() -> None:
    seen: list[tuple[int, int, int, int, bool]] = []

    def callback(step: Step) -> None:
        seen.append((step.scale, step.step, step.steps, step.count, step.last))

    settings = tiny(size=64, scales=(32, 48, 64), steps=(3, 1))
    result = stylize(samples(), samples(seed=2), settings=settings, callback=callback)
    assert [len(losses) for losses in result.trace] == [3, 1, 1]
    assert seen == [
        (1, 1, 3, 1, False),
        (1, 2, 3, 2, False),
        (1, 3, 3, 3, False),
        (2, 1, 1, 4, False),
        (3, 1, 1, 5, True),
    ]


def test_the_time_left_counts_the_steps_of_each_scale() -> None:
    ratios: list[float] = []

    def callback(step: Step) -> None:
        ratios.append(step.remaining / step.seconds)

    settings = tiny(size=64, scales=(32, 64), steps=(3, 1))
    stylize(samples(), samples(seed=2), settings=settings, callback=callback)
    small, large = 24 * 32, 48 * 64
    total = 3 * small + large
    assert ratios == pytest.approx([(total - done) / done for done in (small, 2 * small, 3 * small, total)])


# State carried over.


def carried(capture: StepCapture | None = None, **changes: Any) -> tuple[ScaleResult, ScaleResult]:
    """Two scales of different bowls, the second twice the side."""
    settings = adam(steps=(4, 3), learning_rate=0.3, **changes)
    _, _, height, width = SHAPE
    first = loop.optimize(Valley(), noise(), settings, context=LoopContext(scale=1, scales=2, capture=capture))
    state = LoopState(state={"optimizer": resize_state(first.carried, 2 * height, 2 * width)})
    start = F.interpolate(first.image, scale_factor=2)
    second = loop.optimize(
        Bowl(tuple(start.shape)), start, settings, context=LoopContext(scale=2, scales=2, capture=capture), state=state
    )
    return first, second


def test_adam_continues_with_its_moments_at_the_new_size() -> None:
    """As torch.optim.Adam with its state interpolated: the count unchanged, the moments bicubic and bilinear."""
    image = noise().requires_grad_()
    other = torch.optim.Adam([image], 0.3)
    for _ in range(4):
        image.grad = Valley().evaluate(image.detach())[1]
        other.step()
    state = other.state[image]
    size = (2 * SHAPE[2], 2 * SHAPE[3])
    larger = F.interpolate(image.detach(), scale_factor=2).requires_grad_()
    then = torch.optim.Adam([larger], 0.3)
    then.state[larger] = {
        "step": state["step"],
        "exp_avg": F.interpolate(state["exp_avg"], size, mode="bicubic", align_corners=False),
        "exp_avg_sq": F.interpolate(state["exp_avg_sq"], size, mode="bilinear", align_corners=False),
    }
    bowl = Bowl(tuple(larger.shape))
    for _ in range(3):
        larger.grad = bowl.value_and_grad(larger.detach())[1]
        then.step()
    _, second = carried()
    torch.testing.assert_close(second.image, larger.detach(), rtol=1e-12, atol=1e-12)


def test_a_captured_run_carries_the_same_state() -> None:
    plain, captured = carried(), carried(StepCapture(Rerun()))
    assert plain[0].carried["count"] == captured[0].carried["count"] == 4
    assert all(torch.equal(plain[0].carried[name], captured[0].carried[name]) for name in ("mean", "square"))
    assert torch.equal(plain[1].image, captured[1].image)


def test_the_reduced_rate_of_adam_is_not_carried() -> None:
    run = loop.optimize(Valley(5.0), noise(), adam(learning_rate=2.0), context=LoopContext(scale=1, scales=2))
    assert set(run.carried) == {"mean", "square", "count"}


def test_nothing_is_carried_by_lbfgs_without_carry_or_from_the_last_scale() -> None:
    for settings, scale in ((newton(), 1), (adam(carry=False), 1), (adam(), 2)):
        assert loop.optimize(Valley(), noise(), settings, context=LoopContext(scale=scale, scales=2)).carried == {}


@pytest.mark.parametrize(("optimizer", "differs"), [("adam", True), ("lbfgs", False)])
def test_carry_changes_the_result_of_adam_only(optimizer: str, differs: bool) -> None:
    first, second = (
        stylize(samples(), samples(seed=2), settings=tiny(scales=(32, 64), optimizer=optimizer, carry=carry)).image
        for carry in (True, False)
    )
    assert torch.equal(first, second) != differs


# The average.


def averages(images: list[Tensor], decay: float) -> Tensor:
    """By the definition, in float64."""
    weights = [(1 - decay) * decay ** (len(images) - 1 - i) for i in range(len(images))]
    return sum(w * image for w, image in zip(weights, images, strict=True)) / (1 - decay ** len(images))


@BOTH
@pytest.mark.parametrize("backend", [None, Rerun])
def test_the_result_is_the_average_of_all_images_including_the_start(
    make: Callable[..., Settings], backend: Any
) -> None:
    images: list[Tensor] = []

    def callback(step: Step) -> None:
        images.append(step._image.clone())
        assert torch.equal(step.image, progress.to_picture(averages([noise(), *images], 0.7)))

    capture = StepCapture(backend() if backend else None)
    run = loop.optimize(
        Valley(), noise(), make(steps=6, average=0.7), context=LoopContext(callback=callback, capture=capture)
    )
    assert len(images) == 6
    torch.testing.assert_close(run.image, averages([noise(), *images], 0.7), rtol=1e-13, atol=1e-13)


@BOTH
def test_an_average_does_not_change_the_steps(make: Callable[..., Settings]) -> None:
    plain, averaged = (loop.optimize(Bowl(), noise(), make(average=decay)) for decay in (0.0, 0.9))
    assert plain.trace == averaged.trace
    assert not torch.equal(plain.image, averaged.image)


@pytest.mark.parametrize("stops", [KeyboardInterrupt(), math.nan])
def test_a_run_that_ends_early_returns_the_average_of_the_good_images(stops: Any) -> None:
    objective = Script([3.0, 2.0, 1.0, *[stops] * 99])
    run = loop.optimize(objective, noise(), adam(average=0.7))
    assert run.stopped in ("interrupt", "stalled")
    torch.testing.assert_close(run.image, averages(objective.images[:3], 0.7), rtol=1e-13, atol=1e-13)


def test_ctrl_c_before_the_first_step_returns_the_start() -> None:
    assert torch.equal(loop.optimize(Script([KeyboardInterrupt()]), noise(), adam(average=0.7)).image, noise())


def test_the_next_scale_starts_from_the_average_with_a_new_average(monkeypatch: pytest.MonkeyPatch) -> None:
    starts: list[Tensor] = []
    runs: list[ScaleResult] = []

    def watched(objective: Any, image: Tensor, *rest: Any, **more: Any) -> ScaleResult:
        starts.append(image.clone())
        runs.append(loop.optimize(objective, image, *rest, **more))
        return runs[-1]

    monkeypatch.setattr("fastnst.run.scene_run.optimize", watched)
    result = stylize(samples(), samples(seed=2), settings=tiny(scales=(32, 64), average=0.5, steps=2))
    enlarged = images.resize((runs[0].image / 255).clamp(0, 1), 48, 64) * 255
    torch.testing.assert_close(starts[1], enlarged)
    assert torch.equal(result.image, progress.to_picture(runs[1].image))


def test_a_scale_of_the_preset_crowson_equals_its_program_step_by_step() -> None:
    """torch.optim.Adam on pixels in 0..1, clamped after each step, and a bias-corrected moving average of them."""
    target = 40 * torch.randn(1, 3, 5, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64) + 120
    start = torch.full_like(target, 250.0)

    class Far:
        def value_and_grad(self, image: Tensor) -> tuple[Losses, Tensor]:
            apart = (image - target) / 255  # far below black and above white for some
            return Losses(float(apart.pow(4).mean())), 4 * apart.pow(3) / 255 / apart.numel()

    settings = Settings.from_preset("crowson", steps=30, scales=1)
    found = loop.optimize(Far(), start, settings).image

    x = (start / 255).clone().requires_grad_(True)
    adam = torch.optim.Adam([x], lr=0.02, betas=(0.9, 0.99))
    average, weight = torch.zeros_like(x), 1.0
    for image in range(31):  # the start counts as one
        if image:
            adam.zero_grad()
            (x - target / 255).pow(4).mean().backward()
            adam.step()
            with torch.no_grad():
                x.clamp_(0, 1)
        average, weight = 0.99 * average + 0.01 * x.detach(), 0.99 * weight
    torch.testing.assert_close(found, 255 * average / (1 - weight), rtol=1e-9, atol=1e-7)

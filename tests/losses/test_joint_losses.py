"""NNST, STROTSS and the losses of users, against definitions with whole matrices and autograd in float64."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from support import joint_cases as plain
from torch import Tensor

from fastnst.errors import UsageError
from fastnst.losses.joint import (
    IMAGE,
    JointLoss,
    NeuralNeighbor,
    RelaxedTransport,
    SelfSimilarity,
    Stage,
    neural_neighbor,
    strotss,
)
from fastnst.losses.style import content_loss

WEIGHTS = {"relu1_1": 1.0, "relu2_1": 0.5, "relu3_1": 2.0}
Features = dict[str, Tensor]


def features(height: int = 22, width: int = 19, seed: int = 0) -> Features:
    """Of a picture of this size; odd sides, whose last row or column pools ignore."""
    maps = {
        name: plain.smooth(c, height // s, width // s, seed + c)
        for name, c, s in zip(WEIGHTS, (4, 6, 8), (1, 2, 4), strict=True)
    }
    picture = torch.rand(1, 3, height, width, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) - 0.5
    return {**maps, IMAGE: picture}


def size_of(maps: Features) -> tuple[int, int]:
    height, width = maps[IMAGE].shape[2:]
    return height, width


def check(loss: JointLoss, x: Features, target: Any, stage: Stage, definition: Callable[[Features], Tensor]) -> None:
    """Value and gradients are those of the definition."""
    value, found = loss.value_and_gradients(x, target, stage)
    free = {name: one.clone().requires_grad_() for name, one in x.items()}
    exact = definition(free)
    expected = dict(zip(free, torch.autograd.grad(exact, list(free.values()), allow_unused=True), strict=True))
    assert value.item() == pytest.approx(exact.item(), rel=1e-11)
    assert not value.requires_grad
    for name, gradient in expected.items():
        if gradient is None or not gradient.any():
            assert name not in found or not found[name].any()
        else:
            assert (found[name] - gradient).norm() <= 1e-10 * gradient.norm(), name
            assert found[name].shape == x[name].shape


def matched(loss: NeuralNeighbor, style: Features, source: Features, stage: Stage) -> Any:
    zero = torch.zeros(1, 3, *size_of(source), dtype=torch.float64)
    return loss.begin(loss.target(style, stage), zero, zero, lambda _: source, stage)


def test_nnst_is_the_distance_to_the_replaced_hypercolumns() -> None:
    loss, stage = NeuralNeighbor(), Stage(WEIGHTS, steps=10, scales=2)
    x, style, source = features(), features(17, 26, 1), features(seed=2)
    columns = [plain.nnst_columns(one, size_of(one), WEIGHTS) for one in (source, style)]
    wanted = plain.nnst_replacements(*columns)
    target = matched(loss, style, source, stage)
    check(loss, x, target, stage, lambda free: plain.nnst_matched(plain.nnst_columns(free, (22, 19), WEIGHTS), wanted))


def test_nnst_matches_layers_apart_in_the_second_half_of_the_last_scale() -> None:
    loss, x, style = NeuralNeighbor(), features(), features(17, 26, 1)
    target = matched(loss, style, features(seed=2), Stage(WEIGHTS))

    def split(free: Features) -> Tensor:
        rows = [[plain.rows_of(one[name]) for name in WEIGHTS] for one in (free, style)]
        return plain.nnst_split(*rows, list(WEIGHTS.values()))

    for step in (6, 11):  # the last is the image after the last step
        check(loss, x, target, Stage(WEIGHTS, scale=2, scales=2, step=step, steps=10), split)
    before = Stage(WEIGHTS, scale=2, scales=2, step=5, steps=10), Stage(WEIGHTS, scale=1, scales=2, step=6, steps=10)
    whole = {loss.value_and_gradients(x, target, stage)[0].item() for stage in before}
    assert len(whole) == 1
    assert whole != {split(x).item()}


def test_nnst_samples_large_layers_at_a_stride_with_an_offset_of_the_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neural_neighbor, "SPLIT_SIDE", 7)  # 22 positions: every third
    loss, x, style = NeuralNeighbor(split=1.0), features(), features(22, 22, 1)
    stage = Stage({"relu1_1": 1.0}, steps=10)
    target = matched(loss, style, x, stage)
    kept = target[1]
    assert any(torch.equal(kept, plain.rows_of(style["relu1_1"][:, :, i::3, j::3])) for i in range(3) for j in range(3))
    used = set()
    for step in range(1, 8):
        _, found = loss.value_and_gradients(x, target, replace(stage, step=step))
        rows, columns = (found["relu1_1"][0].abs().sum(0).sum(1 - i).nonzero().flatten() for i in range(2))
        assert set(rows.diff().tolist()) == set(columns.diff().tolist()) == {3}
        used.add((int(rows[0]), int(columns[0])))

        def split(free: Features, rows: Tensor = rows, columns: Tensor = columns) -> Tensor:
            own = plain.rows_of(free["relu1_1"][:, :, rows][:, :, :, columns])
            return plain.nnst_split([own], [kept], [1.0])

        check(loss, x, target, replace(stage, step=step), split)
    assert len(used) > 3


def test_nnst_searches_with_a_mix_of_content_and_start_after_the_first_scale() -> None:
    """The program: alpha of the result so far with the finest details of the content, 1 - alpha of the content."""
    loss, seen = NeuralNeighbor(mix=0.25), []
    content, start = (torch.rand(1, 3, 24, 20, generator=torch.Generator().manual_seed(i)) * 255 for i in range(2))
    target = loss.target(features(24, 20), Stage(WEIGHTS))

    def measure(picture: Tensor) -> Features:
        seen.append(picture)
        return features(24, 20)

    for scale in (1, 2):
        loss.begin(target, content, start, measure, Stage(WEIGHTS, scale=scale, scales=3))
    half = torch.nn.functional.avg_pool2d(content, 2)
    details = content - torch.nn.functional.interpolate(half, scale_factor=2, mode="bilinear")
    torch.testing.assert_close(seen[0], content)
    torch.testing.assert_close(seen[1], 0.25 * (start + details) + 0.75 * content)


def test_nnst_uses_the_style_in_four_orientations() -> None:
    picture = torch.arange(12.0).reshape(1, 1, 3, 4)
    views = NeuralNeighbor().views(picture)
    assert [tuple(view.shape[2:]) for view in views] == [(3, 4), (4, 3), (3, 4), (4, 3)]
    corners = {float(view[0, 0, 0, 0]) for view in views}
    assert corners == {0.0, 3.0, 11.0, 8.0}
    assert len(NeuralNeighbor(rotations=False).views(picture)) == 1


def test_nnst_of_several_styles_is_that_of_their_union() -> None:
    loss, stage = NeuralNeighbor(), Stage(WEIGHTS)
    targets = [loss.target(features(seed=seed), stage) for seed in (1, 2)]
    for joined, first, second in zip(loss.blend(targets, [0.5, 0.5]), *targets, strict=True):
        assert torch.equal(joined, torch.cat([first, second]))
    with pytest.raises(UsageError, match="takes no style_weights"):
        loss.blend(targets, [0.7, 0.3])


def test_strotss_is_transport_moments_and_palette() -> None:
    loss, x, style = RelaxedTransport(samples=60), features(), features(17, 26, 1)
    for scale, share in ((1, 1 / 16), (3, 1 / 4), (7, 1.0)):
        stage = Stage(WEIGHTS, scale=scale, scales=7, step=3, unit=0.5)
        zero = torch.zeros(1, 3, 22, 19)
        target = loss.begin(loss.target(style, stage), zero, zero, lambda _: x, stage)
        places = strotss._positions(x, 60, stage)

        def definition(free: Features, places: Any = places, y: Tensor = target[0], share: float = share) -> Tensor:
            return plain.strotss(plain.strotss_columns(free[IMAGE], free, WEIGHTS, places, 0.5), y, share)

        check(loss, x, target, stage, definition)


def test_strotss_keeps_five_draws_of_the_style_at_whole_positions() -> None:
    style, stage = features(40, 30, 1), Stage(WEIGHTS, unit=2.0)
    (rows,) = RelaxedTransport().target(style, stage)
    assert rows.shape == (5 * 1000, 3 + 4 + 6 + 8)
    f, deep = plain.rows_of(style["relu1_1"]) * 2, plain.rows_of(style["relu3_1"]) * 2 * 2
    pixels = plain.rows_of(style[IMAGE])
    for row in rows[:20]:
        at = int((pixels - row[:3]).norm(dim=1).argmin())
        assert torch.equal(row[:3], pixels[at])
        assert torch.allclose(row[3:7], f[at])
        y, x = min(at // 30 // 4, 9), min(at % 30 // 4, 6)
        assert torch.allclose(row[13:], deep[y * 7 + x])
    assert len(rows[:1000].unique(dim=0)) == 1000


def test_self_similarity_is_the_difference_of_normalized_distances() -> None:
    loss, x, content = SelfSimilarity(samples=50), features(), features(seed=1)
    for scale in (1, 3):
        stage = Stage(WEIGHTS, scale=scale, scales=3, unit=0.5)
        places = strotss._positions(x, 50, stage)
        wanted = plain.strotss_columns(content[IMAGE], content, WEIGHTS, places, 0.5)

        def definition(free: Features, places: Any = places, wanted: Tensor = wanted, scale: int = scale) -> Tensor:
            own = plain.strotss_columns(free[IMAGE], free, WEIGHTS, places, 0.5)
            return plain.self_similarity(own, wanted) / 2 ** (scale - 1)

        check(loss, x, loss.target(content, stage), stage, definition)


def test_positions_differ_from_step_to_step_and_repeat_with_the_seed() -> None:
    x, stage = features(300, 200), Stage(WEIGHTS, step=1)
    first = torch.stack(strotss._positions(x, 1024, stage))
    assert torch.equal(first, torch.stack(strotss._positions(x, 1024, stage)))
    assert first.shape == (2, 1024)
    assert len(first.unique(dim=1)[0]) == 1024
    assert first[0].max() > 280
    assert first[1].max() > 180
    for other in (replace(stage, step=2), replace(stage, seed=1), replace(stage, scale=2)):
        assert not torch.equal(first, torch.stack(strotss._positions(x, 1024, other)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", ["nnst", "strotss", "self_similarity"])
def test_lower_precision_is_near_and_keeps_its_dtype(name: str, dtype: torch.dtype) -> None:
    loss, stage, found = content_loss(name), Stage(WEIGHTS, scales=2), []
    for kind in (torch.float64, dtype):
        x, style = ({key: one.to(kind) for key, one in features(24, 20, seed).items()} for seed in (0, 1))
        zero = torch.zeros(1, 3, 24, 20)
        target = loss.begin(loss.target(style, stage), zero, zero, lambda _, x=x: x, stage)
        value, gradients = loss.value_and_gradients(x, target, stage)
        assert {one.dtype for one in gradients.values()} == {kind}
        found.append((value.item(), gradients["relu2_1"].double()))
    error = 1e-3 if dtype == torch.float32 else 0.1
    assert found[1][0] == pytest.approx(found[0][0], rel=error)
    assert (found[1][1] - found[0][1]).norm() <= 2 * error * found[0][1].norm()


class Means(JointLoss):
    """As in the docstring of JointLoss."""

    def target(self, features: Any, stage: Stage) -> tuple[Tensor, ...]:
        return tuple(features[name].float().mean((2, 3)) for name in stage.weights)

    def loss(self, features: Any, target: tuple[Tensor, ...], stage: Stage) -> Tensor:
        pairs = zip(self.target(features, stage), target, strict=True)
        return torch.stack([(a - b).square().mean() for a, b in pairs]).sum()


class Numbers(Means):
    def loss(self, features: Any, target: tuple[Tensor, ...], stage: Stage) -> Any:
        return 3.0


class Constant(Means):
    def loss(self, features: Any, target: tuple[Tensor, ...], stage: Stage) -> Tensor:
        return target[0].sum()


class Vector(Means):
    def loss(self, features: Any, target: tuple[Tensor, ...], stage: Stage) -> Tensor:
        return features["relu1_1"].flatten()


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (Numbers(), "loss Numbers: expected a value of shape (), got float"),
        (Constant(), "loss Constant: its value has no derivative"),
        (Vector(), "loss Vector: expected a value of shape (), got (1672,)"),
    ],
)
def test_a_loss_whose_value_is_no_differentiable_number_is_refused(loss: JointLoss, message: str) -> None:
    x, stage = features(), Stage(WEIGHTS)
    with pytest.raises(UsageError) as caught:
        loss.value_and_gradients(x, loss.target(x, stage), stage)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize("changes", [{"mix": 1.5}, {"split": -0.1}])
def test_shares_outside_0_to_1_are_refused(changes: dict[str, float]) -> None:
    with pytest.raises(UsageError, match=r"NeuralNeighbor: expected (mix|split) in 0\.\.1"):
        NeuralNeighbor(**changes)

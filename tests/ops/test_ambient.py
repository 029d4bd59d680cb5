"""Results do not depend on the default device and dtype, no_grad or inference mode."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest
import torch
from op_cases import CASES, DIFFERENTIABLE, Case, features, noise
from support.style_cases import SINGLE
from torch import Tensor
from torch.utils import _pytree as pytree

from fastnst import losses
from fastnst.config.ranges import KEEP_COLORS, MATCH_COLORS
from fastnst.losses import variation
from fastnst.losses.style import (
    FeatureLoss,
    MomentLoss,
    StyleLoss,
    Target,
    measure,
    style_loss,
    value_and_gradient,
)
from fastnst.losses.style.patches import NearestPatch
from fastnst.run import colors


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextmanager
def default_device(name: str) -> Iterator[None]:
    torch.set_default_device(name)
    try:
        yield
    finally:
        torch.set_default_device(None)


Mode = Callable[[], AbstractContextManager[None]]
DEFAULTS: dict[str, Mode] = {
    "meta": lambda: default_device("meta"),
    "float64": lambda: default_dtype(torch.float64),
    "float16": lambda: default_dtype(torch.float16),
    "bfloat16": lambda: default_dtype(torch.bfloat16),
}
MODES: dict[str, Mode] = {**DEFAULTS, "no_grad": torch.no_grad, "inference_mode": torch.inference_mode}
every_mode = pytest.mark.parametrize("mode", MODES.values(), ids=MODES)
every_default = pytest.mark.parametrize("mode", DEFAULTS.values(), ids=DEFAULTS)


def assert_same(got: Any, wanted: Any) -> None:
    got, wanted = pytree.tree_leaves(got), pytree.tree_leaves(wanted)
    assert len(got) == len(wanted) > 0
    for y, z in zip(got, wanted, strict=True):
        if isinstance(z, Tensor):
            assert (y.dtype, y.device) == (z.dtype, z.device)
            assert torch.equal(y, z)


class Brightest(FeatureLoss):
    """A custom loss, whose derivative saves the target and the weight."""

    def target(self, x: Tensor, weight: Tensor | None = None) -> Target:
        return ((x if weight is None else x * weight).flatten(2).amax(2),)

    def loss(self, x: Tensor, target: Target, weight: Tensor | None = None) -> Tensor:
        (found,) = self.target(x, weight)
        return (found * target[0]).float().square().mean()


class Product(MomentLoss):
    def target(self, mean: Tensor, moment: Tensor) -> Target:
        return (moment + mean,)

    def loss(self, mean: Tensor, moment: Tensor, target: Target) -> Tensor:
        return (moment * target[0]).square().mean() + mean.square().sum()


LOSSES: dict[str, StyleLoss] = {
    **{name: style_loss(name) for name in SINGLE if name != "gram"},
    "of features": Brightest(),
    "of moments": Product(),
}


@every_mode
@pytest.mark.parametrize("case", CASES, ids=str)
def test_an_op_gives_the_same(case: Case, mode: Mode) -> None:
    t = case.tensors((2, 5, 6, 7), torch.float32)
    wanted = case.call(t)
    with mode():
        got = case.call(t)
    assert_same(got, wanted)


@every_default
@pytest.mark.parametrize("case", DIFFERENTIABLE, ids=str)
def test_a_gradient_is_the_same(case: Case, mode: Mode) -> None:
    t = case.tensors((2, 5, 6, 7), torch.float32)
    leaves = {name: value.detach().requires_grad_(name in case.differentiable) for name, value in t.items()}

    def slopes() -> tuple[Tensor, ...]:
        total = torch.stack([y.double().square().sum() for y in case.call(leaves)]).sum()
        return torch.autograd.grad(total, [leaves[name] for name in case.differentiable])

    wanted = slopes()
    with mode():
        got = slopes()
    assert_same(got, wanted)


def style_of(loss: StyleLoss, x: Tensor, style: Tensor, weight: Tensor, masked: bool) -> Any:
    """All results of a style loss, with inputs created in the current mode."""
    x, style = x.clone(), style.clone()
    of_x, of_style = (weight.clone(), weight[:, :4].clone() / weight[:, :4].sum()) if masked else (None, None)
    target = measure(loss, style, of_style)
    shares = (0.5, 0.5) if isinstance(loss, NearestPatch) else (0.25, 0.75)
    blended = loss.blend([target, measure(loss, 2 * style, of_style)], shares)
    pulls = [value_and_gradient(loss, x, kept, of_x) for kept in (target, blended)]
    return [target, blended, [(value, p.matrix, p.shift, p.direct) for value, p in pulls]]


@every_mode
@pytest.mark.parametrize("masked", [False, True], ids=["whole", "masked"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_a_style_loss_gives_the_same(loss: StyleLoss, dtype: torch.dtype, masked: bool, mode: Mode) -> None:
    x, style, weight = features((1, 6, 5, 7)).to(dtype), features((1, 6, 4, 7), 2).to(dtype), noise((1, 5, 7)).abs()
    weight = (weight / weight.sum()).float()
    wanted = style_of(loss, x, style, weight, masked)
    with mode():
        got = style_of(loss, x, style, weight, masked)
    assert_same(got, wanted)


def test_a_target_from_inference_mode_works_outside() -> None:
    x, style = features((1, 6, 5, 7)), features((1, 6, 4, 7), 2)
    for loss in LOSSES.values():
        wanted = value_and_gradient(loss, x, measure(loss, style))[0]
        with torch.inference_mode():
            target, inside = measure(loss, style.clone()), x.clone()
        assert torch.equal(value_and_gradient(loss, inside, target)[0], wanted)


def test_features_are_not_modified() -> None:
    x, style = features((1, 6, 5, 7)), features((1, 6, 4, 7), 2)
    for loss in LOSSES.values():
        value_and_gradient(loss, x, measure(loss, style))
        assert not x.requires_grad
        assert not style.requires_grad


@every_mode
@pytest.mark.parametrize("kind", ["anisotropic", "isotropic", "squared", "nine_point"])
def test_a_total_variation_gives_the_same(kind: str, mode: Mode) -> None:
    image, weight = noise((1, 3, 20, 9)).float(), torch.tensor(0.3)

    def both() -> Any:
        inside, gradient = image.clone(), torch.zeros_like(image)
        total = variation.add_variation(gradient, inside, kind, 0.3, slice(3, 20))
        return [variation.weighted_variation(inside, kind, weight.clone()), total, gradient]

    wanted = both()
    with mode():
        got = both()
    assert_same(got, wanted)


@every_mode
def test_colors_are_the_same(mode: Mode) -> None:
    style, content = (noise((3, 9000), seed).abs() % 1 for seed in (1, 2))
    style[:, :3001] = style[:, :1]  # equal values, whose mean rank is a half-integer

    def every() -> list[Tensor]:
        matched = [colors.match(style, content, how) for how in MATCH_COLORS]
        image, other = (values.reshape(1, 3, 90, 100).float() for values in (style, content))
        return [*matched, *(colors.restore(image, other, how) for how in KEEP_COLORS)]

    wanted = every()
    with mode():
        got = every()
    assert_same(got, wanted)


@every_mode
def test_the_modules_of_losses_give_the_same(mode: Mode) -> None:
    x, style = features((1, 3, 5, 7)).float(), features((1, 3, 5, 7), 2).float()

    def every() -> Any:
        modules = [losses.GramLoss(style), losses.ContentLoss(style), losses.TotalVariationLoss()]
        return [module(x) for module in modules] + [module.state_dict() for module in modules]

    wanted = every()
    with mode():
        got = every()
    assert_same(got, wanted)


def test_constants_made_at_import_do_not_follow_the_default_device() -> None:
    code = (
        "import torch; torch.set_default_device('meta'); torch.set_default_dtype(torch.float16); "
        "from fastnst.run import colors; "
        "print(*(t.device.type + str(t.dtype) for t in vars(colors).values() if isinstance(t, torch.Tensor)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) == {"cputorch.float64"}

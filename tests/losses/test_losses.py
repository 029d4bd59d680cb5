from __future__ import annotations

import copy
import io
from collections.abc import Callable

import pytest
import torch
from support.oracles import CONTENT, STYLE, variation
from torch import Tensor, nn

from fastnst import losses
from fastnst.errors import UsageError
from fastnst.losses.modules import ContentLoss, GramLoss, TotalVariationLoss


def features(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).relu()


def gradient(loss: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    x = x.clone().requires_grad_(True)
    (found,) = torch.autograd.grad(loss(x), x)
    return found


def test_every_form_has_its_formula_here() -> None:
    assert set(losses.STYLE_FORMS) == set(STYLE)
    assert set(losses.CONTENT_FORMS) == set(CONTENT)


@pytest.mark.parametrize("form", STYLE)
def test_style_loss_is_the_formula_of_its_form(form: str) -> None:
    style, x = features(1, 6, 7, 9), features(1, 6, 5, 4, seed=1)
    module = GramLoss(style, form, weight=3.0)
    torch.testing.assert_close(module(x), 3.0 * STYLE[form](x, style), rtol=1e-13, atol=0)
    torch.testing.assert_close(
        gradient(module, x), gradient(lambda y: 3.0 * STYLE[form](y, style), x), rtol=1e-11, atol=1e-13
    )


@pytest.mark.parametrize("form", CONTENT)
def test_content_loss_is_the_formula_of_its_form(form: str) -> None:
    content, x = features(1, 6, 5, 4), features(1, 6, 5, 4, seed=1)
    module = ContentLoss(content, form, weight=3.0)
    torch.testing.assert_close(module(x), 3.0 * CONTENT[form](x, content), rtol=1e-13, atol=0)
    torch.testing.assert_close(
        gradient(module, x), gradient(lambda y: 3.0 * CONTENT[form](y, content), x), rtol=1e-12, atol=1e-15
    )


@pytest.mark.parametrize("kind", ["anisotropic", "isotropic", "squared"])
def test_total_variation_loss_is_its_formula(kind: str) -> None:
    x = features(1, 3, 9, 7)
    torch.testing.assert_close(TotalVariationLoss(kind, 0.5)(x), 0.5 * variation(x, kind), rtol=1e-13, atol=0)


def test_gatys_form_has_the_value_of_the_paper_for_images_of_one_size() -> None:
    style, x = features(1, 4, 5, 6), features(1, 4, 5, 6, seed=1)
    f, s = x[0].flatten(1), style[0].flatten(1)
    paper = ((f @ f.T - s @ s.T) ** 2).sum() / (4 * 4**2 * 30**2)
    torch.testing.assert_close(GramLoss(style, "gatys")(x), paper, rtol=1e-13, atol=0)


def test_johnson_form_is_mse_of_gram_matrices_over_their_elements() -> None:
    style, x = features(1, 4, 5, 6), features(1, 4, 3, 8, seed=1)

    def gram(y: Tensor) -> Tensor:
        flat = y.view(y.shape[1], -1)
        return torch.mm(flat, flat.t()).div(y.nelement())

    exact = nn.MSELoss()(gram(x), gram(style))
    torch.testing.assert_close(GramLoss(style, "johnson")(x), exact, rtol=1e-13, atol=0)


@pytest.mark.parametrize("form", STYLE)
def test_the_loss_of_a_batch_is_the_sum_over_its_images(form: str) -> None:
    style, x = features(1, 4, 5, 6), features(3, 4, 5, 6, seed=1)
    each = sum(GramLoss(style, form)(x[i : i + 1]) for i in range(3))
    torch.testing.assert_close(GramLoss(style, form)(x), each)


def test_equal_features_have_zero_loss_and_zero_gradient() -> None:
    x = features(1, 4, 5, 6)
    for module in (GramLoss(x), ContentLoss(x)):
        assert module(x).item() == 0
        assert not gradient(module, x).any()


def test_permuted_positions_keep_the_style_and_change_the_content() -> None:
    x = features(1, 4, 5, 6)
    moved = x.flatten(2)[..., torch.randperm(30, generator=torch.Generator().manual_seed(0))].view_as(x)
    assert GramLoss(x)(moved).item() < 1e-28
    assert ContentLoss(x)(moved).item() > 0.1


class Trained(nn.Module):
    """A small network with loss modules, as in training code."""

    def __init__(self, style: Tensor, content: Tensor) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 4, 3, padding=1)
        self.style, self.content, self.smooth = (
            GramLoss(style, "johnson", 50.0),
            ContentLoss(content),
            TotalVariationLoss(),
        )

    def forward(self, x: Tensor) -> Tensor:
        y = self.layer(x)
        loss: Tensor = self.style(y) + self.content(y) + 1e-4 * self.smooth(y)
        return loss


def trained(seed: int = 0) -> Trained:
    torch.manual_seed(seed)
    return Trained(features(1, 4, 6, 6, seed=seed).float(), features(2, 4, 8, 8, seed=seed + 1).float())


def test_a_training_loop_with_the_modules_reduces_the_loss() -> None:
    module, x = trained(), features(2, 3, 8, 8, seed=2).float()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.05)
    history = []
    for _ in range(20):
        optimizer.zero_grad()
        loss = module(x)
        loss.backward()
        optimizer.step()
        history.append(loss.item())
    assert history[-1] < 0.8 * history[0]


def test_targets_are_buffers_in_the_state_dict() -> None:
    one, other, x = trained(0), trained(5), features(2, 3, 8, 8, seed=2).float()
    assert {"style.target", "content.target"} <= set(one.state_dict())
    assert {name for name, _ in one.named_parameters()} == {"layer.weight", "layer.bias"}
    other.load_state_dict(one.state_dict())
    assert torch.equal(one(x), other(x))


def test_modules_are_pickled_and_copied() -> None:
    module, x = trained(), features(2, 3, 8, 8, seed=2).float()
    buffer = io.BytesIO()
    torch.save(module, buffer)
    buffer.seek(0)
    for again in (torch.load(buffer, weights_only=False), copy.deepcopy(module)):
        assert torch.equal(again(x), module(x))


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 1e-6), (torch.bfloat16, 0.05), (torch.float16, 0.01)])
def test_modules_move_to_a_dtype(dtype: torch.dtype, bound: float) -> None:
    module, x = trained(), features(2, 3, 8, 8, seed=2).float()
    exact = module(x).item()
    moved = module.to(dtype)(x.to(dtype))
    assert abs(moved.item() - exact) < bound * abs(exact)


@pytest.mark.parametrize("form", STYLE)
@pytest.mark.sweep(4)
def test_one_compiled_style_loss_works_for_every_size(form: str) -> None:
    module = GramLoss(features(1, 4, 6, 6), form)
    torch.compiler.reset()
    compiled = torch.compile(module, fullgraph=True, dynamic=True, backend="aot_eager")
    for shape in ((1, 4, 5, 6), (1, 4, 9, 7), (3, 4, 6, 6)):
        x = features(*shape, seed=1)
        assert torch.equal(compiled(x), module(x))
        assert torch.equal(gradient(compiled, x), gradient(module, x))


@pytest.mark.parametrize("make", [ContentLoss, lambda x: TotalVariationLoss()], ids=["content", "variation"])
def test_the_other_losses_compile_for_dynamic_shapes(make: Callable[[Tensor], nn.Module]) -> None:
    module, x = make(features(1, 3, 6, 5)), features(1, 3, 6, 5, seed=1)
    torch.compiler.reset()
    compiled = torch.compile(module, fullgraph=True, dynamic=True, backend="aot_eager")
    assert torch.equal(compiled(x), module(x))
    assert torch.equal(gradient(compiled, x), gradient(module, x))


CASTS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "half": lambda module: module.half(),
    "bfloat16": lambda module: module.bfloat16(),
    "to half": lambda module: module.to(torch.float16),
    "to device and half": lambda module: module.to("cpu", torch.float16),
    "half twice": lambda module: module.half().half(),
    "half in a network": lambda module: nn.Sequential(module).half()[0],
}


@pytest.mark.parametrize("make", [lambda x: GramLoss(x, "raw"), ContentLoss], ids=["style", "content"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("cast", CASTS.values(), ids=CASTS)
def test_a_cast_to_half_precision_does_not_change_the_target(
    cast: Callable[[nn.Module], nn.Module], dtype: torch.dtype, make: Callable[[Tensor], nn.Module]
) -> None:
    module = make((300 * features(1, 4, 40, 40)).to(dtype))
    before = copy.deepcopy(module.state_dict())
    cast(module)
    assert {name: value.dtype for name, value in module.state_dict().items()} == {"target": dtype}
    assert torch.equal(module.state_dict()["target"], before["target"])
    module.load_state_dict({"target": 2 * before["target"]})
    assert torch.equal(module.state_dict()["target"], 2 * before["target"])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_a_raw_style_loss_in_half_precision_equals_that_in_float64(dtype: torch.dtype) -> None:
    style, x = (30 * features(1, 4, 40, 40, seed=seed).to(dtype) for seed in (0, 1))
    exact = STYLE["raw"](x.double(), style.double())
    module = GramLoss(style, "raw").to(dtype)
    torch.testing.assert_close(module(x).double(), exact, rtol=1e-5, atol=0)


def test_targets_widen_and_move() -> None:
    for module in (GramLoss(features(1, 4, 5, 6).float()), ContentLoss(features(1, 4, 5, 6).half())):
        assert module.double().target.dtype == torch.float64
        assert module.half().target.dtype == torch.float64
        assert module.float().target.dtype == torch.float32
        assert module.to("meta", torch.float16).target.device.type == "meta"
        assert module.target.dtype == torch.float32


def test_a_content_loss_in_half_precision_has_the_gradient_of_float64() -> None:
    content, x = features(1, 4, 5, 6).half(), features(1, 4, 5, 6, seed=1).half()
    exact = gradient(lambda y: CONTENT["mean"](y, content.double()), x.double())
    for module in (ContentLoss(content.float()).half(), ContentLoss(content)):
        torch.testing.assert_close(gradient(module, x).double(), exact, rtol=2e-3, atol=1e-5)


def test_a_target_requires_no_gradient() -> None:
    x = features(1, 4, 5, 6).requires_grad_(True)
    assert not GramLoss(x).target.requires_grad
    assert not ContentLoss(x).target.requires_grad


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            losses.style_form,
            r"unknown style form 'jonson', did you mean johnson\? \(known: gatys, channels, johnson, raw\)",
        ),
        (losses.content_form, r"unknown content form 'jonson' \(known: half_sum, mean, half_mean\)"),
        (lambda name: GramLoss(torch.zeros(1, 2, 3, 3), name), "unknown style form 'jonson'"),
        (lambda name: ContentLoss(torch.zeros(1, 2, 3, 3), name), "unknown content form 'jonson'"),
    ],
)
def test_an_unknown_form_is_an_error(make: Callable[[str], object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make("jonson")

"""The ops inside what PyTorch offers programs: export, AOTInductor, checkpointing, data parallelism, compiled steps."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from op_cases import (
    CASES,
    DIFFERENTIABLE,
    Case,
    Tensors,
    doubles,
    exact_gram,
    exact_pool,
    exact_variation,
    features,
    noise,
)
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from fastnst import losses, ops

SHAPE = (2, 5, 6, 7)
# PyTorch's own, while it loads what torch.export wrote.
pytestmark = pytest.mark.filterwarnings("ignore:.isinstance.treespec, LeafSpec.. is deprecated:FutureWarning")


@pytest.fixture(autouse=True)
def _fresh_compiler() -> Iterator[None]:
    torch.compiler.reset()
    yield
    torch.compiler.reset()


class Calls(nn.Module):
    """A module that calls an op."""

    def __init__(self, call: Callable[[Tensors], tuple[Tensor, ...]]) -> None:
        super().__init__()
        self.call = call

    def forward(self, t: Tensors) -> tuple[Tensor, ...]:
        return self.call(t)


class EveryOp(nn.Module):
    def forward(self, every: list[Tensors]) -> list[tuple[Tensor, ...]]:
        return [case.call(t) for case, t in zip(CASES, every, strict=True)]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_an_exported_program_is_saved_and_loaded(case: Case) -> None:
    t = case.tensors(SHAPE, torch.float32)
    buffer = io.BytesIO()
    torch.export.save(torch.export.export(Calls(case.call), (t,)), buffer)
    buffer.seek(0)
    loaded = torch.export.load(buffer)
    assert all(torch.equal(y, z) for y, z in zip(loaded.module()(t), case.call(t), strict=True))
    targets = {str(node.target) for node in loaded.graph.nodes}
    assert f"fastnst.{case.name.split()[0]}.default" in targets


@pytest.mark.slow
def test_aot_inductor_runs_every_op(tmp_path: Path) -> None:
    every = [case.tensors(SHAPE, torch.float32) for case in CASES]
    program = torch.export.export(EveryOp(), (every,))
    path = torch._inductor.aoti_compile_and_package(program, package_path=str(tmp_path / "ops.pt2"))
    for case, got, t in zip(CASES, torch._inductor.aoti_load_package(path)(every), every, strict=True):
        for y, z in zip(got, case.call(t), strict=True):
            assert y.stride() == z.stride(), case
            torch.testing.assert_close(y, z)


@pytest.mark.parametrize("reentrant", [False, True], ids=["not reentrant", "reentrant"])
@pytest.mark.parametrize("case", DIFFERENTIABLE, ids=str)
def test_a_checkpoint_gives_the_gradient_of_the_definition(case: Case, reentrant: bool) -> None:
    def gradient(call: Callable[[Tensors], tuple[Tensor, ...]], t: Tensors, kept: bool) -> Tensor:
        x = t["x"].detach().requires_grad_()

        def part(x: Tensor) -> tuple[Tensor, ...]:
            return call({**t, "x": 2 * x})

        outputs = part(x) if kept else checkpoint(part, x, use_reentrant=reentrant)
        torch.stack([y.square().sum() for y in outputs]).sum().backward()
        assert x.grad is not None
        return x.grad

    t = case.tensors(SHAPE)
    torch.testing.assert_close(gradient(case.call, t, False), gradient(case.exact, t, True), rtol=1e-10, atol=1e-10)


def pictures() -> Tensor:
    return noise((4, 3, 8, 8))


class Trained(nn.Module):
    """A convolution and every op that training differentiates, in float64."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 5, 3, padding=1, dtype=torch.float64)
        with torch.no_grad():
            for i, parameter in enumerate(self.parameters()):
                parameter.copy_(0.3 * noise(tuple(parameter.shape), i))
        self.style = losses.GramLoss(features((1, 5, 6, 6), 5), "gatys")
        self.weight = nn.Parameter(noise((8, 8), 6).abs())

    def forward(self, x: Tensor) -> Tensor:
        y = self.layer(x)
        weighted, pooled = ops.gram(y, self.weight, 1 / 64), ops.pool(y.relu(), "l2")
        mean, moment = ops.moments(pooled, 1 / 16)
        loss: Tensor = self.style(y) + weighted.square().sum() + mean.sum() + moment.square().sum()
        return (loss + ops.content_loss(y, 0.5 * y.detach()) + ops.total_variation(y, "squared")) / len(x)

    def definition(self, x: Tensor) -> Tensor:
        y = F.conv2d(x, self.layer.weight, self.layer.bias, padding=1)
        pooled = exact_pool(y.relu(), "l2")
        style = (exact_gram(y, scale=1 / 64) - exact_gram(features((1, 5, 6, 6), 5), scale=1 / 36)).pow(2).sum() / 100
        loss = style + exact_gram(y, self.weight.expand(len(x), -1, -1), 1 / 64).pow(2).sum()
        loss = loss + pooled.mean((2, 3)).sum() + exact_gram(pooled, scale=1 / 16).pow(2).sum()
        return (loss + (y - 0.5 * y.detach()).pow(2).sum() + exact_variation(y, "squared")) / len(x)


def parameter_gradients(module: Trained, loss: Tensor) -> dict[str, Tensor]:
    names = [name for name, _ in module.named_parameters()]
    return dict(zip(names, torch.autograd.grad(loss, list(module.parameters())), strict=True))


def assert_gradients(got: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    assert set(got) == set(wanted) == {"weight", "layer.weight", "layer.bias"}
    for name, value in wanted.items():
        torch.testing.assert_close(got[name], value, rtol=1e-10, atol=1e-10)


def test_the_module_has_the_gradients_of_its_definition() -> None:
    module = Trained()
    wanted = parameter_gradients(module, module.definition(pictures()))
    assert_gradients(parameter_gradients(module, module(pictures())), wanted)


def test_data_parallel_processes_have_the_mean_of_the_gradients(tmp_path: Path) -> None:
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
    subprocess.run(
        [sys.executable, *launcher, str(Path(__file__).with_name("ddp_step.py")), str(tmp_path)],
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
        check=True,
        capture_output=True,
        timeout=240,
    )
    module = Trained()
    wanted = parameter_gradients(module, module.definition(pictures()))
    for rank in range(2):
        assert_gradients(torch.load(tmp_path / f"{rank}.pt"), wanted)


@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_a_compiled_training_step_is_that_of_the_definition(backend: str) -> None:
    module, plain = Trained(), Trained()
    compiled = torch.compile(module, fullgraph=True, backend=backend)
    for model, call in ((module, compiled), (plain, plain.definition)):
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
        for _ in range(3):
            optimizer.zero_grad()
            call(pictures()).backward()
            optimizer.step()
    for got, wanted in zip(module.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("case", DIFFERENTIABLE, ids=str)
def test_per_sample_gradients_of_a_module_equal_a_loop(case: Case) -> None:
    """The recipe of PyTorch's documentation: functional_call, grad and vmap over the samples."""
    layer = nn.Conv2d(5, 5, 1, dtype=torch.float64)
    parameters, t = dict(layer.named_parameters()), doubles(case.tensors((1, *SHAPE[1:])))
    rest = {name: value for name, value in t.items() if name != "x"}
    samples = noise((3, *SHAPE[1:]))

    def loss(call: Callable[[Tensors], tuple[Tensor, ...]]) -> Callable[[dict[str, Tensor], Tensor], Tensor]:
        def of_sample(parameters: dict[str, Tensor], sample: Tensor) -> Tensor:
            y = torch.func.functional_call(layer, parameters, (sample[None],))
            return torch.stack([z.square().sum() for z in call({**rest, "x": y})]).sum()

        return of_sample

    got = torch.vmap(torch.func.grad(loss(case.call)), in_dims=(None, 0))(parameters, samples)
    for i, sample in enumerate(samples):
        wanted = torch.func.grad(loss(case.exact))(parameters, sample)
        for name, value in wanted.items():
            torch.testing.assert_close(got[name][i], value, rtol=1e-9, atol=1e-10)

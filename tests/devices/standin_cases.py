"""Ops, losses and runs on the device of ``standin.cpp``, which has no kernels of fastnst and no float64.

``test_standin.py`` runs this file in a process of its own: the device is the accelerator of its process from then on.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any

import pytest
import standin
import torch
from support.pictures import samples, tiny
from support.style_cases import SINGLE
from torch import Tensor

sys.path.append(str(Path(__file__).resolve().parents[1] / "ops"))
from op_cases import BOUNDS, CASES, DIFFERENTIABLE, Case, Shape, channels_last, doubles, gradients, relative_error

import fastnst
from fastnst import devices, losses, ops
from fastnst.cli import info, main
from fastnst.config.resolve import choose_device, choose_precision
from fastnst.config.settings import Settings
from fastnst.errors import UsageError
from fastnst.losses.style import style_losses
from fastnst.optim import ImageLBFGS
from fastnst.run.memory_limits import OutOfMemoryError
from fastnst.run.stylizer import Result, Stylizer, stylize

pytestmark = pytest.mark.usefixtures("weights_read_once")

DEVICE = standin.register()
NAME = "standin"
SHAPES: tuple[Shape, ...] = ((2, 17, 9, 11), (1, 3, 5, 4), (2, 5), (0, 3, 2, 2))


def on_device(t: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: x.to(NAME) for name, x in t.items()}


def test_the_device_is_as_strict_as_a_real_one() -> None:
    x = torch.ones(3, device=NAME)
    assert x.device == torch.device(NAME, 0)
    for wide in (
        lambda: x.double(),
        lambda: torch.zeros(1, dtype=torch.float64, device=NAME),
        lambda: x.sum(dtype=torch.float64),
        lambda: x.to("cpu", torch.float64),
    ):
        with pytest.raises(TypeError, match="no float64"):
            wide()
    with pytest.raises(RuntimeError, match="xpected all tensors"):
        x.add(torch.ones(3))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_op_runs_its_reference(case: Case, dtype: torch.dtype) -> None:
    for shape in filter(case.takes, SHAPES):
        for layout in (torch.Tensor.contiguous, channels_last):
            t = case.tensors(shape, dtype)
            t["x"] = layout(t["x"])
            found = case.call(on_device(t))
            for y, exact in zip(found, case.exact(doubles(t)), strict=True):
                assert y.device.type == NAME
                assert relative_error(y.cpu(), exact) <= 4 * BOUNDS[dtype]


@pytest.mark.parametrize("case", DIFFERENTIABLE, ids=str)
def test_every_op_has_its_gradient(case: Case) -> None:
    for shape in filter(case.takes, SHAPES[:2]):
        t = case.tensors(shape, torch.float32)
        found = gradients(case.call, on_device(t), case.differentiable)
        exact = gradients(case.exact, doubles(t), case.differentiable)
        for y, z in zip(found, exact, strict=True):
            assert y.device.type == NAME
            assert relative_error(y.cpu(), z) <= 1e-5


def second_derivative(x: Tensor, target: Tensor) -> Tensor:
    x = x.requires_grad_()
    (first,) = torch.autograd.grad(ops.style_loss(x, target), x, create_graph=True)
    (second,) = torch.autograd.grad(first.square().sum(), x)
    return second


def test_second_derivatives_vmap_and_forward_mode() -> None:
    x, target, many = torch.rand(1, 5, 6, 7), torch.rand(1, 5, 5), torch.rand(3, 2, 5, 6, 7)
    results = []
    for device in (NAME, "cpu"):
        at = x.to(device, copy=True)
        derivatives = torch.func.jvp(ops.gram, (at,), (torch.ones_like(at),))
        mapped = torch.vmap(ops.gram)(many.to(device))
        results.append([*derivatives, mapped, second_derivative(at, target.to(device))])
    for found, wanted in zip(*results, strict=True):
        assert found.device.type == NAME
        assert torch.allclose(found.cpu(), wanted, rtol=1e-4)


@pytest.mark.parametrize("name", ["gram", "moments", "bias_relu_", "layer_backward_", "pool", "conv3x3"])
def test_registrations_are_correct(name: str) -> None:
    x = torch.rand(1, 4, 6, 8, device=NAME)
    bias, weight = torch.rand(4, device=NAME), torch.rand(4, 4, 3, 3, device=NAME)
    arguments: dict[str, tuple[Any, ...]] = {
        "gram": (x, None, 1.0),
        "moments": (x, None, 1.0),
        "bias_relu_": (x, bias),
        "layer_backward_": (torch.rand_like(x), x, torch.rand(1, 4, 4, device=NAME), None, 1.0, None, None, 0.0, True),
        "pool": (x, "max"),
        "conv3x3": (x, weight, bias, True, "zeros"),
    }
    checks = ("test_schema", "test_autograd_registration", "test_faketensor")
    torch.library.opcheck(getattr(torch.ops.fastnst, name).default, arguments[name], test_utils=checks)


def test_conv3x3_and_its_parts() -> None:
    x, weight, bias = torch.rand(1, 4, 6, 8), torch.rand(5, 4, 3, 3), torch.rand(5)
    for padding in ("zeros", "replicate"):
        wanted = ops.conv3x3(x, weight, bias, relu=True, padding=padding)
        found = ops.conv3x3(x.to(NAME), weight.to(NAME), bias.to(NAME), relu=True, padding=padding)
        assert torch.allclose(found.cpu(), wanted, rtol=1e-4, atol=1e-4)
    out = torch.empty(1, 5, 2, 8, device=NAME)
    torch.ops.fastnst.conv3x3_out(x.to(NAME), weight.to(NAME), bias.to(NAME), True, "zeros", 3, out)
    assert torch.allclose(out.cpu(), ops.conv3x3(x, weight, bias, relu=True)[:, :, 3:5], rtol=1e-4, atol=1e-4)


def test_modules_of_losses_and_the_optimizer_of_images() -> None:
    style, start = torch.rand(1, 3, 16, 16) * 255, torch.rand(1, 3, 16, 16) * 255
    images = []
    for device in (NAME, "cpu"):
        modules = [losses.GramLoss(style), losses.ContentLoss(style), losses.TotalVariationLoss()]
        image = start.to(device, copy=True).requires_grad_()
        optimizer = ImageLBFGS([image])
        for _ in range(3):
            optimizer.zero_grad()
            torch.stack([module.to(device)(image) for module in modules]).sum().backward()
            optimizer.step()
        images.append(image.detach().cpu())
    assert torch.allclose(*images, atol=1e-2)
    assert not torch.equal(images[0], start)


# Runs. The layers' settings as in the tests of runs on the CPU, with PyTorch's convolutions there.

RUNS: dict[str, dict[str, Any]] = {
    "gram": {},
    "adam": {"optimizer": "adam", "average": 0.9, "scales": 2, "size": 128},
    "strips": {"tiles": 16, "tv_weight": 1e-3},
    "nine point": {"tv_kind": "nine_point", "tv_weight": 1e-3},
    "nine point in strips": {"tv_kind": "nine_point", "tv_weight": 1e-3, "tiles": 16},
    "l2 pooling": {"pooling": "l2"},
    "replicate padding": {"padding": "replicate"},
    "normalized": {"normalize_gradients": True},
    "normalized in strips": {"normalize_gradients": True, "tiles": 16},
    "bfloat16 history": {"history_dtype": "bfloat16"},
    "colors": {"keep_color": "lab", "match_color": "monge-kantorovich"},
    "noise": {"init": "noise", "noise": 20.0},
    **{name: {"style_loss": name} for name in style_losses() if name != "gram"},
    "self-similarity": {"style_loss": "strotss", "content_loss": "self_similarity"},
    **{f"{name} in strips": {"style_loss": name, "tiles": 16} for name in SINGLE if name != "gram"},
}


def settings(device: str, **changes: Any) -> Settings:
    return tiny(**{"convolution": "direct", "steps": 2, **changes, "device": device})


def run(device: str, **changes: Any) -> Result:
    return stylize(samples(), samples(seed=2), settings=settings(device, **changes))


@pytest.mark.parametrize("changes", RUNS.values(), ids=RUNS)
def test_a_run_gives_the_picture_of_the_cpu(changes: dict[str, Any]) -> None:
    before = DEVICE.library.standin_ops()
    found, wanted = run(NAME, **changes), run("cpu", **changes)
    assert DEVICE.library.standin_ops() > before + 100
    assert found.image.device.type == "cpu"
    assert found.trace[0][0].total == pytest.approx(wanted.trace[0][0].total, rel=1e-4)
    assert (found.image - wanted.image).abs().mean() < 1e-3


def test_masks_several_styles_and_every_loss_with_weights() -> None:
    mask = samples()
    for name in SINGLE:
        for tiles in ("off", 16):
            images = []
            for device in (NAME, "cpu"):
                stylizer = Stylizer(settings(device, style_loss=name, tiles=tiles))
                pictures = [samples(seed=2), samples(seed=3)]
                masks = {"masks": [mask, 255 - mask], "style_masks": [mask, None], "content_mask": mask}
                images.append(stylizer.run(stylizer.load_scene(samples(), pictures, **masks)).image)
                blended = stylizer.run(stylizer.load_scene(samples(), pictures))
                assert blended.image.isfinite().all()
            assert (images[0] - images[1]).abs().mean() < 1e-3, (name, tiles)


def test_bfloat16_and_channels_last() -> None:
    found, wanted = run(NAME, precision="bfloat16"), run("cpu", precision="bfloat16")
    assert found.trace[0][0].total == pytest.approx(wanted.trace[0][0].total, rel=0.02)
    network = Stylizer(settings(NAME, precision="bfloat16")).network
    (features,) = network.features(torch.rand(1, 3, 32, 32).to(NAME) * 255).values()
    assert features.dtype == torch.bfloat16
    assert features.is_contiguous(memory_format=torch.channels_last)


def test_a_resumed_run_is_that_of_an_uninterrupted_one(tmp_path: Path) -> None:
    whole = run(NAME, steps=4).image
    options: dict[str, Any] = {"checkpoint": tmp_path / "run.ckpt", "settings": settings(NAME, steps=4)}
    stylize(samples(), samples(seed=2), callback=lambda step: step.step == 2, **options)
    assert torch.equal(stylize(samples(), samples(seed=2), resume=True, **options).image, whole)


def test_auto_is_the_accelerator_and_the_defaults_of_the_host_do_not_matter() -> None:
    assert choose_device("auto") == torch.device(NAME)
    plain = run("auto").image
    torch.set_default_dtype(torch.float64)
    torch.set_default_device(NAME)
    try:
        assert torch.equal(run("auto").image, plain)
    finally:
        torch.set_default_dtype(torch.float32)
        torch.set_default_device(None)


def test_float64_is_refused_in_one_line() -> None:
    assert not devices.has_float64(torch.device(NAME))
    with pytest.raises(UsageError, match="precision 'float64': device 'standin' has no float64; use float32, or"):
        run(NAME, precision="float64")


@pytest.mark.parametrize(
    ("supports", "chosen"),
    [
        (lambda including_emulation=True: including_emulation, torch.float32),
        (lambda including_emulation=True: True, torch.bfloat16),
        (lambda: True, torch.bfloat16),
        (None, torch.float32),
    ],
)
def test_auto_is_bfloat16_where_the_device_says_so(
    supports: Any, chosen: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    if supports is not None:
        monkeypatch.setattr(DEVICE, "is_bf16_supported", supports, raising=False)
    assert choose_precision("auto", torch.device(NAME)) == chosen


def test_one_warning_per_process_says_what_is_missing(caplog: pytest.LogCaptureFixture) -> None:
    from fastnst.ops import _library

    _library.warn_without_kernels.cache_clear()
    with caplog.at_level(logging.WARNING, "fastnst"):
        ops.gram(torch.rand(1, 2, 3, 3, device=NAME))
        run("auto")
    assert [record.getMessage() for record in caplog.records] == [
        "no fastnst kernels for standin: its ops run as PyTorch's, which is slower: kernels exist for the CPU and for "
        "NVIDIA GPUs"
    ]


def test_info_lists_the_device_with_the_path_of_each_op(capsys: pytest.CaptureFixture[str]) -> None:
    facts = info.collect()
    assert (facts["device"], facts["device_name"]) == (NAME, "a stand-in")
    assert set(facts["kernels"]) == {"cpu", NAME}
    assert set(facts["kernels"][NAME].values()) == {"reference"}
    assert main(["info"]) == 0
    assert "gram on standin " in capsys.readouterr().out


def test_the_memory_of_the_device_is_reported() -> None:
    seen: list[int] = []
    stylize(samples(), samples(seed=2), settings=settings(NAME), callback=lambda step: seen.append(step.memory))
    assert seen[-1] == DEVICE.library.standin_peak()


def test_out_of_memory_is_the_error_of_fastnst_and_torch() -> None:
    held = DEVICE.library.standin_held()
    DEVICE.limit(held + 40 * 2**20)
    try:
        with pytest.raises(OutOfMemoryError, match=r"out of memory at .*: an allocation failed; ") as caught:
            run(NAME, size=768)
        assert isinstance(caught.value, torch.OutOfMemoryError)
    finally:
        DEVICE.limit(-1)
    del caught
    assert run(NAME).image.isfinite().all()


def test_the_command_takes_the_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    before = DEVICE.library.standin_ops()
    assert main(["demo", "-o", "out", "--size", "64", "--steps", "1", "-q"]) == 0
    assert DEVICE.library.standin_ops() > before
    assert fastnst.images.load(next((tmp_path / "out").glob("*.png"))).pixels.isfinite().all()


def test_a_picture_on_the_device_gets_the_colors_of_the_content() -> None:
    stylizer = Stylizer(settings(NAME, keep_color="lab"))
    scene, image = stylizer.load_scene(samples(), samples(seed=2)), torch.rand(1, 3, 48, 64)
    found, wanted = (stylizer.finish(x, scene.content).cpu() for x in (image.to(NAME), image))
    assert torch.allclose(found, wanted, atol=1e-6)

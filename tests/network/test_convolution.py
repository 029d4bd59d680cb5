"""Which convolutions a run uses, and that both give the same results."""

from __future__ import annotations

import pytest
import torch
from support.pictures import samples, tiny

from fastnst.config.resolve import choose_convolution
from fastnst.config.settings import Settings
from fastnst.errors import UsageError
from fastnst.objective.engines import PlainEngine, WinogradEngine, winograd
from fastnst.objective.targets import style_targets
from fastnst.objective.whole import Objective
from fastnst.run.stylizer import Stylizer, stylize

CPU, GPU = torch.device("cpu"), torch.device("cuda:1")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_auto_chooses_winograd_on_the_cpu(monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    assert choose_convolution("auto", CPU, dtype)


def test_auto_chooses_pytorch_for_matrix_units_float64_and_other_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True)
    assert choose_convolution("auto", CPU, torch.float32)
    assert not choose_convolution("auto", CPU, torch.bfloat16)
    assert not choose_convolution("auto", CPU, torch.float64)
    assert not choose_convolution("auto", GPU, torch.float32)


def test_an_explicit_choice_is_used_or_refused() -> None:
    assert choose_convolution("winograd", CPU, torch.float64)
    assert not choose_convolution("direct", CPU, torch.float32)
    with pytest.raises(UsageError, match="convolution 'winograd' runs on the CPU only, not on 'cuda:1'"):
        choose_convolution("winograd", GPU, torch.float32)
    with pytest.raises(UsageError, match="unknown convolution 'fft'"):
        Settings.from_preset("default", convolution="fft")


@pytest.mark.parametrize(("name", "engine"), [("winograd", WinogradEngine), ("direct", PlainEngine)])
def test_the_setting_reaches_the_objective(name: str, engine: type[PlainEngine]) -> None:
    stylizer = Stylizer(Settings.from_preset("johnson", convolution=name, device="cpu"))
    image = torch.zeros(1, 3, 32, 32)
    targets = style_targets(stylizer.network, image, stylizer.settings)
    assert type(Objective(stylizer.network, image, targets, stylizer.settings).engine) is engine


def test_runs_with_both_give_the_same_picture() -> None:
    """After a few steps of Adam, in which rounding does not yet matter."""
    pictures = [
        stylize(samples(), samples(seed=1), settings=tiny(convolution=name, optimizer="adam")).image
        for name in ("winograd", "direct")
    ]
    torch.testing.assert_close(pictures[0], pictures[1], atol=2e-3, rtol=0)


@pytest.mark.parametrize("content", ["relu1_1", "relu1_2", "relu2_1"])
@pytest.mark.parametrize("padding", ["zeros", "replicate", "replicate_first", "reflect"])
@pytest.mark.parametrize("rows", [4, 28])
@pytest.mark.sweep(5)
def test_recomputing_the_first_map_in_strips_gives_the_same_bits(
    content: str, padding: str, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a short last strip, an odd height, and pools that are fused and not fused."""
    settings = tiny(convolution="winograd", padding=padding, content_layers=((content, 1.0),))
    network = Stylizer(settings).network
    generator = torch.Generator().manual_seed(3)
    content_pixels, style, image = (255 * torch.rand(1, 3, 61, 42, generator=generator) for _ in range(3))
    gradients = []
    for height in (rows, 64):
        monkeypatch.setattr(winograd, "strip_rows", lambda _, height=height: height)
        objective = Objective(network, content_pixels, style_targets(network, style, settings), settings)
        for _ in range(2):  # the second in the layout recorded by the first
            gradients.append(objective.value_and_grad(image)[1])
    assert all(torch.equal(gradient, gradients[0]) for gradient in gradients)
    assert gradients[0].isfinite().all()
    assert gradients[0].abs().max() > 0

"""Whose convolutions a run takes, and that they are taken."""

from __future__ import annotations

import pytest
import torch
from loop_pictures import samples, tiny

from fastnst import engine as engines
from fastnst import ops
from fastnst.choices import choose_convolution
from fastnst.engine import Engine, WinogradEngine
from fastnst.errors import UsageError
from fastnst.objective import Objective, style_targets
from fastnst.settings import Settings
from fastnst.transfer import Stylizer, stylize

CPU, GPU = torch.device("cpu"), torch.device("cuda:1")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("table", ["avx512_bf16", "avx512", "avx2", "portable"])
def test_auto_takes_ours_where_the_op_is_built_for_the_processor(
    monkeypatch: pytest.MonkeyPatch, table: str, dtype: torch.dtype
) -> None:
    monkeypatch.setattr(ops, "kernels", lambda: {"conv3x3": table})
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    assert choose_convolution("auto", CPU, dtype) == (table != "portable")


def test_auto_leaves_matrix_units_exactness_and_other_devices_to_pytorch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ops, "kernels", lambda: {"conv3x3": "avx512"})
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True)
    assert choose_convolution("auto", CPU, torch.float32)
    assert not choose_convolution("auto", CPU, torch.bfloat16)
    assert not choose_convolution("auto", CPU, torch.float64)
    assert not choose_convolution("auto", GPU, torch.float32)


def test_a_choice_by_hand_is_followed_or_refused() -> None:
    assert choose_convolution("winograd", CPU, torch.float64)
    assert not choose_convolution("direct", CPU, torch.float32)
    with pytest.raises(UsageError, match="convolution 'winograd': it runs on the CPU alone, not on 'cuda:1'"):
        choose_convolution("winograd", GPU, torch.float32)
    with pytest.raises(UsageError, match="unknown convolution 'fft'"):
        Settings.of("default", convolution="fft")


@pytest.mark.parametrize(("name", "engine"), [("winograd", WinogradEngine), ("direct", Engine)])
def test_the_setting_reaches_the_objective(name: str, engine: type[Engine]) -> None:
    stylizer = Stylizer(Settings.of("johnson", convolution=name, device="cpu"))
    image = torch.zeros(1, 3, 32, 32)
    targets = style_targets(stylizer.network, image, stylizer.settings)
    assert type(Objective(stylizer.network, image, targets, stylizer.settings).engine) is engine


def test_runs_of_both_end_alike() -> None:
    """After few steps of Adam, which rounding does not part."""
    pictures = [
        stylize(samples(), samples(seed=1), settings=tiny(convolution=name, optimizer="adam")).image
        for name in ("winograd", "direct")
    ]
    torch.testing.assert_close(pictures[0], pictures[1], atol=2e-3, rtol=0)


@pytest.mark.parametrize("content", ["relu1_1", "relu1_2", "relu2_1"])
@pytest.mark.parametrize("padding", ["zeros", "replicate", "replicate_first"])
@pytest.mark.parametrize("rows", [4, 28])
def test_the_first_map_in_strips_gives_the_bits_of_the_whole(
    content: str, padding: str, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A last strip of few rows, an odd height, pools that come with the convolution and pools that do not."""
    settings = tiny(convolution="winograd", padding=padding, content_layers=((content, 1.0),))
    network = Stylizer(settings).network
    generator = torch.Generator().manual_seed(3)
    content_pixels, style, image = (255 * torch.rand(1, 3, 61, 42, generator=generator) for _ in range(3))
    gradients = []
    for height in (rows, 64):
        monkeypatch.setattr(engines, "strip", lambda _, height=height: height)
        objective = Objective(network, content_pixels, style_targets(network, style, settings), settings)
        for _ in range(2):  # the second from the plan of the first
            gradients.append(objective.value_and_grad(image)[1])
    assert all(torch.equal(gradient, gradients[0]) for gradient in gradients)
    assert gradients[0].isfinite().all()
    assert gradients[0].abs().max() > 0

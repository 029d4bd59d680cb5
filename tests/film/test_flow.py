"""Optical flow on motion that is known, and warping against SciPy's interpolation."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import scipy.ndimage
import torch
from torch import Tensor

from bench.film.films import FILMS
from fastnst.errors import UsageError, WeightsError
from fastnst.film.flow import DisFlow, RaftFlow, sample, warp


@pytest.mark.parametrize("name", ["pan", "zoom", "square"])
def test_dis_finds_the_motion_of_films(name: str) -> None:
    film = FILMS[name](2, 120, 160)
    found = DisFlow()(film.frames[1], film.frames[0])
    apart = (found - film.flows[0]).square().sum(1).sqrt()[film.weights[0][:, 0] > 0]
    assert apart.quantile(0.8) < 0.6  # pixels
    assert found.dtype == torch.float32


def test_dis_has_the_same_bits_with_any_number_of_threads() -> None:
    film, threads = FILMS["zoom"](2, 120, 160), cv2.getNumThreads()
    try:
        found = []
        for count in (1, 3):
            cv2.setNumThreads(count)
            found.append(DisFlow()(*film.frames))
            assert cv2.getNumThreads() == count
    finally:
        cv2.setNumThreads(threads)
    assert torch.equal(*found)


def test_without_opencv_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(UsageError, match=r"optical flow needs OpenCV; install fastnst\[film\]"):
        DisFlow()


def test_a_picture_that_is_not_moved_keeps_its_levels() -> None:
    picture = torch.rand(1, 3, 67, 45, generator=torch.Generator().manual_seed(0))
    levels = (picture * 255).round() / 255
    moved = warp(levels, torch.zeros(1, 2, 67, 45))
    assert torch.equal((moved * 255).round() / 255, levels)


def test_warping_agrees_with_scipys_linear_interpolation() -> None:
    generator = torch.Generator().manual_seed(0)
    picture = torch.rand(1, 2, 20, 30, generator=generator, dtype=torch.float64)
    flow = torch.randn(1, 2, 20, 30, generator=generator, dtype=torch.float64) * 4
    y, x = np.mgrid[:20, :30]
    places = np.stack((y + flow[0, 1].numpy(), x + flow[0, 0].numpy()))
    for channel in range(2):
        plane = picture[0, channel].numpy()
        expected = scipy.ndimage.map_coordinates(plane, places, order=1, mode="nearest")
        np.testing.assert_allclose(sample(picture, flow)[0, channel].numpy(), expected, atol=1e-12)


def test_warping_is_exact_on_whole_pixels_and_mirrors_outside() -> None:
    picture = torch.rand(1, 3, 12, 16, generator=torch.Generator().manual_seed(0))
    flow = torch.zeros(1, 2, 12, 16)
    flow[:, 0], flow[:, 1] = 3.0, -2.0
    moved = warp(picture, flow)
    torch.testing.assert_close(moved[:, :, 2:, :-3], picture[:, :, :-2, 3:], atol=1e-5, rtol=0)
    torch.testing.assert_close(moved[:, :, 0, :-3], picture[:, :, 2, 3:], atol=1e-5, rtol=0)  # row -2 mirrors row 2
    assert moved.min() >= picture.min()
    assert moved.max() <= picture.max()


def raft(monkeypatch: pytest.MonkeyPatch, seen: list[tuple[int, ...]]) -> None:
    """A stand-in for torchvision's RAFT: inputs in -1..1 with sides that 8 divides, a list of flows."""

    class Network(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.shift = torch.nn.Parameter(torch.zeros(2))

        def forward(self, first: Tensor, second: Tensor) -> list[Tensor]:
            seen.append(tuple(first.shape))
            assert first.min() >= -1
            assert first.max() <= 1
            whole = self.shift.view(1, 2, 1, 1).expand(1, 2, *first.shape[2:])
            return [torch.zeros_like(whole), whole]

    module: Any = ModuleType("torchvision.models")
    module.optical_flow = SimpleNamespace(raft_small=Network, raft_large=Network)
    monkeypatch.setitem(sys.modules, "torchvision", ModuleType("torchvision"))
    monkeypatch.setitem(sys.modules, "torchvision.models", module)


def test_raft_gets_padded_frames_and_gives_its_last_flow(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seen: list[tuple[int, ...]] = []
    raft(monkeypatch, seen)
    torch.save({"shift": torch.tensor([1.5, -2.0])}, tmp_path / "raft.pth")
    flow = RaftFlow(str(tmp_path / "raft.pth"))(torch.rand(1, 3, 50, 60), torch.rand(1, 3, 50, 60))
    assert seen == [(1, 3, 56, 64)]
    assert flow.shape == (1, 2, 50, 60)
    assert flow[0, :, 7, 9].tolist() == [1.5, -2.0]


@pytest.mark.parametrize("kind", ["missing", "text", "other", "pickle"])
def test_raft_refuses_other_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kind: str) -> None:
    raft(monkeypatch, [])
    path = tmp_path / "raft.pth"
    if kind == "text":
        path.write_text("no weights")
    elif kind == "other":
        torch.save({"a": torch.zeros(2)}, path)
    elif kind == "pickle":
        torch.save(print, path)
    with pytest.raises(WeightsError, match=r"raft\.pth: not the weights of torchvision's RAFT \("):
        RaftFlow(str(path))


def test_without_torchvision_raft_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchvision.models", None)
    with pytest.raises(UsageError, match="flow raft: needs torchvision"):
        RaftFlow("raft.pth")

"""Fixtures for networks, and for a single thread on small pictures."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from fastnst import weights
from fastnst.weights import Weights


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """On such small pictures, threads mostly wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def bundled() -> Weights:
    """The bundled VGG-19, read once."""
    return weights.load()


@pytest.fixture(scope="session")
def bundled64(bundled: Weights) -> Weights:
    """The same in float64 and channels_last, so that networks made of it share its memory."""
    convs = {
        name: (weight.to(torch.float64, memory_format=torch.channels_last), bias.double())
        for name, (weight, bias) in bundled.convs.items()
    }
    return dataclasses.replace(bundled, convs=convs)


def _as_vgg16(given: Weights) -> Weights:
    """A network of VGG-16's shape up to conv5_1, made of the bundled convolutions of the same names."""
    convs = {name: pair for name, pair in given.convs.items() if name not in ("conv3_4", "conv4_4")}
    return dataclasses.replace(given, arch="vgg16", convs=convs, name="a VGG-16")


@pytest.fixture(scope="session")
def vgg16(bundled: Weights) -> Weights:
    return _as_vgg16(bundled)


@pytest.fixture(scope="session")
def vgg16_64(bundled64: Weights) -> Weights:
    return _as_vgg16(bundled64)


@pytest.fixture
def weights_read_once(bundled: Weights, monkeypatch: pytest.MonkeyPatch) -> None:
    real = weights.load

    def load(spec: Any = None, **rest: Any) -> Weights:
        return bundled if spec is None else real(spec, **rest)

    monkeypatch.setattr(weights, "load", load)

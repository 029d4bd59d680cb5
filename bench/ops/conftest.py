"""Options of the benchmark, and what it adds to pytest-benchmark's JSON: the machine, and refusals with reasons."""

from __future__ import annotations

import os
from typing import Any

import pytest
import torch

from bench.common.machine import machine

REFUSED: list[dict[str, object]] = []


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--rounds", type=int, default=15, help="rounds, each of which times every contender (default 15)")
    parser.addoption("--threads", type=int, default=os.cpu_count() or 1)


def pytest_configure(config: pytest.Config) -> None:
    # Warnings of torch.compile; the project's own tests turn warnings into errors.
    config.addinivalue_line("filterwarnings", "ignore")
    torch.set_num_threads(config.getoption("--threads"))


@pytest.fixture(scope="session")
def rounds(request: pytest.FixtureRequest) -> int:
    return int(request.config.getoption("--rounds"))


@pytest.fixture(scope="session")
def refused() -> list[dict[str, object]]:
    return REFUSED


def pytest_benchmark_update_json(config: pytest.Config, benchmarks: Any, output_json: dict[str, Any]) -> None:
    output_json["machine"] = machine()
    output_json["refused"] = REFUSED

"""Options of the benchmark, and what it adds to pytest-benchmark's JSON: the machine, and who was refused and why."""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

BENCH = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(BENCH / part) for part in ("ops", "e2e")]  # scripts, not packages

REFUSED: list[dict[str, object]] = []


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--rounds", type=int, default=15, help="rounds in which every contender has its turn (default 15)")
    parser.addoption("--threads", type=int, default=os.cpu_count() or 1)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("filterwarnings", "ignore")  # of the compiler's; the project's own tests forbid them
    torch.set_num_threads(config.getoption("--threads"))


@pytest.fixture(scope="session")
def rounds(request: pytest.FixtureRequest) -> int:
    return int(request.config.getoption("--rounds"))


@pytest.fixture(scope="session")
def refused() -> list[dict[str, object]]:
    return REFUSED


def pytest_benchmark_update_json(config: pytest.Config, benchmarks: Any, output_json: dict[str, Any]) -> None:
    output_json["machine"] = importlib.import_module("machine").machine()
    output_json["refused"] = REFUSED

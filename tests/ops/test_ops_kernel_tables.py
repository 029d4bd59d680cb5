"""Each table of CPU kernels, selected by FASTNST_CPU, keeps the error bounds."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
import torch

SCRIPT = Path(__file__).with_name("kernel_table_check.py")
WIDTHS = {"DEFAULT": 0, "AVX2": 1, "AVX512": 2}
TABLES = {"portable": 0, "avx2": 1, "avx512": 2, "avx512_bf16": 2, "neon": 0}


def run(table: str, *command: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "FASTNST_CPU": table}
    return subprocess.run([sys.executable, *command], env=environment, capture_output=True, text=True, check=False)


def serves(table: str) -> bool:
    if table == "neon":
        return platform.machine() in ("aarch64", "arm64")
    if table == "avx512_bf16" and not torch.cpu._is_avx512_bf16_supported():
        return False
    return WIDTHS.get(torch.backends.cpu.get_cpu_capability(), 0) >= TABLES[table]


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.sweep(3)
def test_every_kernel_table_keeps_the_bounds(table: str) -> None:
    if not serves(table):
        pytest.skip(f"this processor has no {table}")
    done = run(table, str(SCRIPT))
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["kernels"] == table
    assert {name: error for name, error in report["errors"].items() if error > 1} == {}


def test_an_unknown_kernel_table_is_an_error_that_names_the_known() -> None:
    done = run("avx1024", "-c", "from fastnst import ops")
    assert done.returncode == 1
    expected = (
        "RuntimeError: FASTNST_CPU=avx1024: expected portable, avx2, avx512, avx512_bf16 or neon, and an instruction "
        "set that this processor supports"
    )
    assert expected in done.stderr


def test_an_empty_name_selects_the_table_by_the_processor() -> None:
    """Which is the last table that it supports."""
    done = run("", "-c", "from fastnst import ops; print(ops.kernels()['gram'])")
    assert done.stdout.strip() == [table for table in TABLES if serves(table)][-1]

"""Runs ``standin_cases.py`` and ``fake_cases.py`` where a device without kernels is PyTorch's accelerator."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

HERE = Path(__file__).parent


@pytest.mark.skipif(shutil.which("g++") is None and shutil.which("c++") is None, reason="requires a C++ compiler")
@pytest.mark.skipif(torch.accelerator.is_available(), reason="there is an accelerator already")
def test_ops_and_runs_on_a_device_without_kernels() -> None:
    """Every case passes. The device has its dispatch key, memory and rules; its arithmetic is the CPU's."""
    scripts = Path(sys.executable).parent  # ninja
    environment = {**os.environ, "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}"}
    cases = [str(HERE / "standin_cases.py"), str(HERE / "fake_cases.py")]
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:xdist", *cases]
    done = subprocess.run(command, env=environment, cwd=HERE.parents[1], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    found = re.search(r"(\d+) passed", done.stdout)
    assert found is not None
    assert int(found[1]) > 120
    assert "skipped" not in done.stdout.rpartition("\n\n")[2]

"""NVIDIA's compute-sanitizer finds no invalid access, race, uninitialized read or invalid barrier in any op."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import cuda_every_op
import pytest
import torch

SCRIPT = Path(cuda_every_op.__file__)


def sanitizer() -> str | None:
    """compute-sanitizer on the path, or in the toolkit."""
    homes = [os.environ.get(name) for name in ("CUDA_HOME", "CUDA_PATH")]
    folders = [str(Path(home) / "bin") for home in (*homes, "/usr/local/cuda") if home]
    return shutil.which("compute-sanitizer") or shutil.which("compute-sanitizer", path=os.pathsep.join(folders))


def test_the_script_runs_every_op(capsys: pytest.CaptureFixture[str]) -> None:
    cuda_every_op.main("cpu")
    ran = re.fullmatch(r"(\d+) of (\d+) cases ran\n", capsys.readouterr().out)
    assert ran is not None
    assert int(ran[1]) == int(ran[2]) == len(cuda_every_op.CASES) * 4 * 2 * len(cuda_every_op.SHAPES)


def test_the_script_stops_when_its_seconds_are_over(capsys: pytest.CaptureFixture[str]) -> None:
    cuda_every_op.main("cpu", seconds=-1)
    assert capsys.readouterr().out.startswith("0 of ")


@pytest.mark.cuda
@pytest.mark.slow
@pytest.mark.skipif(sanitizer() is None, reason="needs compute-sanitizer of the CUDA toolkit")
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("tool", ["memcheck", "racecheck", "initcheck", "synccheck"])
def test_the_sanitizer_finds_nothing(tool: str) -> None:
    found = sanitizer()
    assert found is not None
    # Without PyTorch's cache each tensor is a separate allocation, whose bounds the tool knows.
    environment = {**os.environ, "PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
    command = [found, "--tool", tool, "--error-exitcode", "3", sys.executable, str(SCRIPT)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=1800)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert re.search(r"(\d+) of \1 cases ran", done.stdout)
    assert re.search(r"(ERROR|RACECHECK) SUMMARY: 0 (errors|hazards)", done.stdout), done.stdout[-2000:]

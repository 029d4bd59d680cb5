"""What happens where the CUDA module is missing or does not load: the CPU works, and one line says why."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch._subclasses import FakeTensorMode

from fastnst import ops
from fastnst.ops import _library

BROKEN = """
import importlib.abc, importlib.util, logging, sys, torch

class Broken(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        return importlib.util.spec_from_file_location(name, sys.argv[1]) if name == "fastnst._C_cuda" else None

sys.meta_path.insert(0, Broken())
torch.version.cuda = torch.version.cuda or "12.8"
logging.basicConfig(format="%(message)s", stream=sys.stdout)
import fastnst
from fastnst import ops
from fastnst.cli import info
from fastnst.config.resolve import choose_device
print(float(ops.gram(torch.ones(1, 1, 2))))
print([line for line in info.table(info.collect()).splitlines() if line.startswith("CUDA module")][0])
torch.accelerator.current_accelerator = lambda check_available: torch.device("cuda")
print(choose_device("auto"), choose_device("auto"))
"""


def compile_c(source: str, *options: str | Path, cwd: Path) -> None:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("needs a C compiler")
    command = [compiler, "-shared", "-fPIC", "-x", "c", "-", "-x", "none", *map(str, options)]
    subprocess.run(command, input=source, text=True, check=True, cwd=cwd)


@pytest.mark.parametrize("missing", ["library", "symbol", "file"])
def test_a_cuda_module_that_does_not_load_leaves_the_cpu(missing: str, tmp_path: Path) -> None:
    """For example one that was copied from another machine, or whose torch lacks a symbol."""
    module = tmp_path / "_C_cuda.abi3.so"
    if missing == "library":
        compile_c("int runtime(void) { return 0; }", "-Wl,-soname,libcudart.so.99", "-o", "libcudart.so", cwd=tmp_path)
        compile_c("int runtime(void); int use(void) { return runtime(); }", "libcudart.so", "-o", module, cwd=tmp_path)
        said = "libcudart.so.99: cannot open shared object file"
    elif missing == "symbol":
        compile_c("extern int aoti_torch_new; int *use = &aoti_torch_new;", "-o", module, cwd=tmp_path)
        said = "undefined symbol: aoti_torch_new"
    else:
        module.write_bytes(b"\x7fELF, and then nothing")
        said = "_C_cuda.abi3.so: "
    done = subprocess.run([sys.executable, "-c", BROKEN, str(module)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    value, line, warning, device = done.stdout.splitlines()
    assert (value, device) == ("2.0", "cuda cuda")
    assert line.startswith("CUDA module")
    assert warning.startswith("no fastnst kernels for cuda: its ops run as PyTorch's, which is slower: ")
    for text in (line, warning):
        assert f"does not load beside torch's CUDA {torch.version.cuda or '12.8'} (" in text
        assert said in text


def test_a_cuda_tensor_without_cuda_kernels_is_taken_with_one_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(_library, "cuda_error", "built for CPU only")
    _library.warn_without_kernels.cache_clear()
    with FakeTensorMode(allow_non_fake_inputs=True):
        x = torch.empty(1, 3, 4, 4, device="cuda")
        found = ops.gram(x)
    assert (found.device.type, found.shape) == ("cuda", (1, 3, 3))
    _library.warn_without_kernels("cuda")
    _library.warn_without_kernels("cuda")
    assert [record.getMessage() for record in caplog.records] == [
        "no fastnst kernels for cuda: its ops run as PyTorch's, which is slower: built for CPU only. "
        f"{_library.CUDA_REMEDY}"
    ]
    _library.warn_without_kernels.cache_clear()


@pytest.mark.parametrize(
    ("device", "hip", "error", "reason"),
    [
        ("cpu", None, "built for CPU only", None),
        ("meta", None, "built for CPU only", None),
        ("cuda", None, None, None),
        ("cuda", None, "built for CPU only", "built for CPU only. Compile"),
        ("cuda", "7.1", "torch 2.13.0 is not a CUDA build", "kernels exist for the CPU and for NVIDIA GPUs"),
        ("mps", None, None, "kernels exist for the CPU and for NVIDIA GPUs"),
    ],
)
def test_the_reason_for_missing_kernels(
    monkeypatch: pytest.MonkeyPatch, device: str, hip: str | None, error: str | None, reason: str | None
) -> None:
    monkeypatch.setattr(_library, "cuda_error", error)
    monkeypatch.setattr(torch.version, "hip", hip)
    found = _library.missing_kernels(device)
    assert found is None if reason is None else str(found).startswith(reason)

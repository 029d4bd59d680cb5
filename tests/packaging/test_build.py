"""What setup.py decides, without compiling: `--version` evaluates its extensions and builds none."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import fastnst

ROOT = Path(__file__).resolve().parents[2]

if not (ROOT / "setup.py").exists():
    pytest.skip("needs a checkout", allow_module_level=True)


def setup_py(**environment: str) -> subprocess.CompletedProcess[str]:
    clean = {k: v for k, v in os.environ.items() if k not in ("USE_CUDA", "FORCE_CUDA", "TORCH_CUDA_ARCH_LIST")}
    command = [sys.executable, "setup.py", "--version"]
    return subprocess.run(command, cwd=ROOT, env=clean | environment, capture_output=True, text=True, check=False)


def test_the_version_is_the_package_version():
    assert setup_py(USE_CUDA="0").stdout.splitlines()[-1] == fastnst.__version__


def test_use_cuda_0_builds_for_cpu_and_says_so():
    assert "fastnst: building for CPU only: USE_CUDA=0" in setup_py(USE_CUDA="0").stdout


@pytest.mark.skipif(torch.version.cuda is not None, reason="the installed torch is a CUDA build")
def test_force_cuda_fails_loudly_where_torch_has_no_cuda():
    run = setup_py(FORCE_CUDA="1")
    assert run.returncode != 0
    assert run.stderr.splitlines()[-1] == f"fastnst: FORCE_CUDA=1, but torch {torch.__version__} is not a CUDA build"


def test_the_build_does_not_ask_whether_a_gpu_is_present():
    assert "is_available" not in (ROOT / "setup.py").read_text()


def test_the_extension_uses_stable_interfaces_only():
    """No unstable C++ header of torch, and symbols of one Python-version-independent module."""
    for source in (ROOT / "csrc").rglob("*"):
        if source.suffix in {".cpp", ".h", ".cu", ".cuh"}:
            for line in source.read_text().splitlines():
                if line.startswith("#include <torch/"):
                    assert line.startswith(("#include <torch/csrc/stable/", "#include <torch/headeronly/")), line
    import fastnst._C

    assert Path(fastnst._C.__file__).name == "_C.abi3.so"


def test_every_op_has_schema_reference_and_wrapper_and_what_cpus_run_is_said():
    from fastnst import ops

    plain = {"bias_relu_", "bias_relu_style_loss"}  # a convolution adds its bias itself on CPUs

    schemas = (ROOT / "csrc" / "library.cpp").read_text()
    for name in ops.NAMES:
        assert f'"{name}(' in schemas
        assert callable(getattr(ops, name))
        assert callable(getattr(ops.reference, name))
        has_kernel = torch._C._dispatch_has_kernel_for_dispatch_key(f"fastnst::{name}", "CPU")
        assert has_kernel == (name not in plain)
        assert (ops.kernels()[name] == "reference") == (name in plain)

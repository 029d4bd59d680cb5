"""What `make wheel` refuses: modules that need what a machine may lack, incomplete wheels, a wrong CUDA release."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace

import fastnst._C
import pytest
import torch
from elftools.elf.elffile import ELFFile

from fastnst.ops import _library
from tools.wheel import audit, build

if sys.platform != "linux":
    pytest.skip("reads ELF files", allow_module_level=True)


def compiled(folder: Path, source: str, *options: str) -> Path:
    """A shared library from C++."""
    compiler = shutil.which("c++")
    if compiler is None:
        pytest.skip("needs a C++ compiler")
    path = folder / "module.abi3.so"
    command = [compiler, "-shared", "-fPIC", "-x", "c++", "-", "-x", "none", "-o", str(path), *options]
    subprocess.run(command, input=source, text=True, check=True, cwd=folder)
    return path


def read(path: Path) -> tuple[list[str], dict[str, str]]:
    with path.open("rb") as file:
        module = ELFFile(file)
        return audit.libraries(module), audit.undefined(module)


def test_the_built_module_needs_torch_and_the_system_alone() -> None:
    needed, symbols = read(Path(fastnst._C.__file__))
    assert "libtorch_cpu.so" in needed
    assert symbols["aoti_torch_library_def"] == ""
    assert symbols["memcpy"].startswith("GLIBC_2.")
    assert audit.faults("_C.abi3.so", needed, symbols) == []


def test_an_unstable_symbol_of_torch_is_a_fault(tmp_path: Path) -> None:
    source = "namespace c10 { struct Tensor { void f(); }; } void use(c10::Tensor& x) { x.f(); }"
    needed, symbols = read(compiled(tmp_path, source))
    (fault,) = audit.faults("_C.abi3.so", needed, symbols)
    assert fault == "_C.abi3.so uses symbols outside of torch's stable interface: _ZN3c106Tensor1fEv"


def test_a_shared_cuda_runtime_is_a_fault(tmp_path: Path) -> None:
    library = tmp_path / "libcudart.so"
    compiled(tmp_path, 'extern "C" int cudaLaunch() { return 0; }', "-Wl,-soname,libcudart.so.13").rename(library)
    source = 'extern "C" int cudaLaunch(); int use() { return cudaLaunch(); }'
    needed, symbols = read(compiled(tmp_path, source, str(library)))
    assert audit.faults("_C_cuda.abi3.so", needed, symbols) == [
        "_C_cuda.abi3.so needs libcudart.so.13, which torch and the system do not have",
        "_C_cuda.abi3.so uses symbols outside of torch's stable interface: cudaLaunch",
    ]


def test_only_the_cuda_module_may_need_the_cuda_part_of_torch() -> None:
    assert audit.faults("fastnst/_C_cuda.abi3.so", ["libtorch_cuda.so"], {}) == []
    assert audit.faults("fastnst/_C.abi3.so", ["libtorch_cuda.so"], {}) == [
        "fastnst/_C.abi3.so needs libtorch_cuda.so, which torch and the system do not have"
    ]


def test_symbols_of_a_later_c_library_are_named() -> None:
    symbols = {"dlsym": "GLIBC_2.34", "memcpy": "GLIBC_2.14", "log2f": "GLIBC_2.27", "f": "GLIBCXX_3.4.30", "g": ""}
    assert audit.newer(symbols | {"dlopen": "GLIBC_2.34"}) == {"GLIBC_2.34": ["dlopen", "dlsym"]}


def test_a_symbol_outside_the_limited_api_fails_the_audit(tmp_path: Path) -> None:
    pytest.importorskip("abi3audit")
    module = compiled(tmp_path, 'extern "C" void* PyCode_NewEmpty(); void* use() { return PyCode_NewEmpty(); }')
    wheel = wheel_of(tmp_path, {"fastnst/_C.abi3.so": module.read_bytes()})
    assert audit.faults("_C.abi3.so", *read(module)) == []
    with pytest.raises(subprocess.CalledProcessError, match="abi3audit"):
        audit.audit(wheel)


def wheel_of(folder: Path, files: dict[str, bytes], name: str = "fastnst-1-cp310-abi3-linux_x86_64.whl") -> Path:
    path = folder / name
    with zipfile.ZipFile(path, "w") as archive:
        for file, content in files.items():
            archive.writestr(file, content)
    return path


def test_an_incomplete_a_stray_a_large_and_a_version_specific_wheel_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = dict.fromkeys(build.IN_WHEEL, b"x")
    build.check_wheel(wheel_of(tmp_path, files))
    with pytest.raises(AssertionError, match=r"wheel lacks \{'fastnst/_C.abi3.so'\}"):
        build.check_wheel(wheel_of(tmp_path, {name: b"x" for name in files if name != "fastnst/_C.abi3.so"}))
    with pytest.raises(AssertionError, match=r"wheel contains \['tests/a.py'\]"):
        build.check_wheel(wheel_of(tmp_path, files | {"tests/a.py": b""}))
    with pytest.raises(AssertionError, match="expected a cp310-abi3 wheel"):
        build.check_wheel(wheel_of(tmp_path, files, "fastnst-1-cp311-cp311-linux_x86_64.whl"))
    monkeypatch.setattr(build, "MOST_MEGABYTES", 1e-4)
    with pytest.raises(AssertionError, match=r"MB, more than 0\.0001"):
        build.check_wheel(wheel_of(tmp_path, files))


@pytest.mark.parametrize(
    ("release", "torch_cuda", "reason"),
    [
        ("13.0", "12.8", "built for CUDA 13.0, while torch {torch} is built for CUDA 12.8"),
        ("12.8", "13.2", "built for CUDA 12.8, while torch {torch} is built for CUDA 13.2"),
        ("13.0", "13.2", None),
        ("13.0", None, "torch {torch} is not a CUDA build"),
    ],
)
def test_the_cuda_module_is_loaded_beside_its_own_major_release_alone(
    release: str, torch_cuda: str | None, reason: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[str] = []
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: SimpleNamespace(name=name))
    monkeypatch.setattr(_library.importlib, "import_module", loaded.append)
    monkeypatch.setattr(torch.version, "cuda", torch_cuda)
    monkeypatch.setattr(torch, "ops", SimpleNamespace(fastnst=SimpleNamespace(cuda_release=lambda: release)))
    assert _library._load_cuda() == (reason and reason.format(torch=torch.__version__))
    assert loaded == ([] if reason else ["fastnst._C_cuda"])

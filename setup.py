"""Builds the extension modules of fastnst; everything else about the package is in pyproject.toml.

`fastnst._C` holds the schemas and the CPU kernels. `fastnst._C_cuda` holds the CUDA kernels and is built where a CUDA
toolkit and a CUDA build of torch are found. Both use the stable ABIs of Python and LibTorch only, so one wheel serves
every Python from 3.10 and every torch from 2.10.

Environment: USE_CUDA=0 skips CUDA, FORCE_CUDA=1 fails where CUDA is missing, TORCH_CUDA_ARCH_LIST names architectures
("8.6;9.0+PTX"), CUDA_HOME names the toolkit, MAX_JOBS limits parallel compilers. FASTNST_SANITIZE=address or thread
builds the CPU module for tools/sanitize.py.
"""

import os
import shlex
import shutil
import sys
from pathlib import Path

import torch
from setuptools import Extension, setup
from torch.utils import cpp_extension

STABLE_TORCH = "0x020a000000000000"  # LibTorch 2.10
ARCHITECTURES = "7.5;8.0;8.6;8.9;9.0;10.0;12.0+PTX"

CSRC = Path("csrc")
DEFINES = [f"-DTORCH_TARGET_VERSION={STABLE_TORCH}"]
# errno and the exception flags of floating point, which nobody reads, would keep loops from being vectorized.
FLOATING_POINT = ["-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math"]
CXX_FLAGS = ["-O3", "-g0", "-std=c++17", "-fvisibility=hidden", *FLOATING_POINT, "-Wall", "-Wno-psabi", *DEFINES]
# The vector extensions that the kernels are written in, which Visual C++ does not have.
NO_WINDOWS = "fastnst: no build for Windows: the CPU kernels need GCC or Clang; use the Windows Subsystem for Linux"
# Two architectures of a file at once: the largest files are the last to finish.
NVCC_FLAGS = ["-O3", "-std=c++17", "--threads=2", "-Xcompiler=-fvisibility=hidden", "-DUSE_CUDA", *DEFINES]


SANITIZERS = {
    "address": ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"],
    "thread": ["-fsanitize=thread", "-include", str(Path("tools", "sanitize_threads.h").resolve())],
}
SANITIZE = os.environ.get("FASTNST_SANITIZE", "")


def sources(folder: str, *suffixes: str) -> list[str]:
    return sorted(str(path) for path in (CSRC / folder).iterdir() if path.suffix in suffixes)


def headers() -> list[str]:
    return sorted(str(path) for path in CSRC.rglob("*") if path.suffix in {".h", ".cuh"})


def find_toolkit() -> str | None:
    """The folder of the CUDA toolkit: one that has both the compiler and the runtime's headers."""
    nvcc = shutil.which("nvcc")
    places = [os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH")]
    places += [str(Path(nvcc).resolve().parent.parent)] if nvcc else []
    for place in [*places, "/usr/local/cuda"]:
        if place and Path(place, "bin", "nvcc").exists() and Path(place, "include", "cuda_runtime.h").exists():
            return place
    return None


def toolkit_release(toolkit: str) -> str | None:
    """The toolkit's CUDA version, such as "13.0", from its own version file."""
    for line in Path(toolkit, "include", "cuda.h").read_text(errors="replace").splitlines():
        if line.startswith("#define CUDA_VERSION"):
            number = int(line.split()[-1])
            return f"{number // 1000}.{number % 1000 // 10}"
    return None


def compression(release: str) -> list[str]:
    """The flag that makes machine code smallest, for toolkits that have it."""
    return ["--compress-mode=size"] if tuple(map(int, release.split("."))) >= (12, 8) else []


def cuda_toolkit() -> str | None:
    """Decide on CUDA from what can compile it, never from whether a GPU is present; say what was decided and why."""
    force = os.environ.get("FORCE_CUDA") == "1"
    toolkit = find_toolkit()
    if os.environ.get("USE_CUDA") == "0":
        reason = "USE_CUDA=0"
    elif torch.version.cuda is None:
        reason = f"torch {torch.__version__} is not a CUDA build"
    elif toolkit is None:
        reason = "no CUDA toolkit found (set CUDA_HOME)"
    elif (toolkit_release(toolkit) or "").split(".")[0] != torch.version.cuda.split(".")[0]:
        reason = f"toolkit is CUDA {toolkit_release(toolkit)}, torch was built with CUDA {torch.version.cuda}"
    else:
        return toolkit
    if force:
        sys.exit(f"fastnst: FORCE_CUDA=1, but {reason}")
    print(f"fastnst: building for CPU only: {reason}")
    return None


def extensions() -> list:
    build = f"torch-{torch.__version__.split('+')[0]}"
    sanitized = [*SANITIZERS[SANITIZE], "-O1", "-g1", "-fno-omit-frame-pointer"] if SANITIZE else []
    toolkit = cuda_toolkit()
    cuda = toolkit_release(toolkit) if toolkit else ""
    modules = [
        cpp_extension.CppExtension(
            "fastnst._C",
            [str(CSRC / "library.cpp"), *sources("cpu", ".cpp")],
            depends=headers(),
            extra_compile_args={
                "cxx": [*CXX_FLAGS, f'-DFASTNST_BUILD="{build}"', f'-DFASTNST_CUDA="{cuda}"', *sanitized]
            },
            extra_link_args=SANITIZERS[SANITIZE][:1] if SANITIZE else [],
            py_limited_api=True,
        )
    ]
    if toolkit:
        os.environ["CUDA_HOME"] = cpp_extension.CUDA_HOME = toolkit
        architectures = os.environ.setdefault("TORCH_CUDA_ARCH_LIST", ARCHITECTURES)
        print(f"fastnst: building for CUDA {cuda}, architectures {architectures}")
        built_for = f'-DFASTNST_ARCHITECTURES="{architectures.replace(";", ",").replace(" ", ",")}"'
        modules.append(
            cpp_extension.CUDAExtension(
                "fastnst._C_cuda",
                sources("cuda", ".cpp", ".cu"),
                depends=headers(),
                extra_compile_args={
                    "cxx": [*CXX_FLAGS, built_for],
                    "nvcc": [*NVCC_FLAGS, *compression(cuda), built_for],
                },
                py_limited_api=True,
            )
        )
        if sys.platform == "linux":
            link_runtime_statically(modules[-1])
    return modules


def link_runtime_statically(module: Extension) -> None:
    """Link the CUDA runtime into the module: the wheel then needs a driver and torch, and no library of a toolkit."""
    shared = {"cudart", "c10_cuda"}
    module.libraries = [name for name in module.libraries if name not in shared]
    module.libraries += ["cudart_static", "rt", "dl", "pthread"]
    module.extra_link_args = [*module.extra_link_args, "-Wl,--as-needed"]


class Build(cpp_extension.BuildExtension):
    def finalize_options(self) -> None:
        if sys.platform == "win32":
            sys.exit(NO_WINDOWS)
        super().finalize_options()
        # Editable installs use a fresh temporary folder each time, which would recompile everything.
        compiler = "-".join(Path(word).name for word in shlex.split(os.environ.get("CXX", ""))[:2])  # also "ccache g++"
        kind = [sys.implementation.cache_tag, f"torch-{torch.__version__}", SANITIZE, compiler]
        self.build_temp = str(Path("build", "-".join(["temp", *filter(None, kind)])))


setup(
    ext_modules=extensions(),
    cmdclass={"build_ext": Build},
    options={"bdist_wheel": {"py_limited_api": "cp310"}},
)

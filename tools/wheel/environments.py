"""New virtual environments in which the wheel and the sdist are installed and used, without a compiler on PATH."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import venv
from pathlib import Path

from tools.wheel.build import ROOT, call

COMPILERS = ("cc", "c++", "gcc", "g++")
BINARY_TOOLS = ("as", "ld")

# torch warns where there is no NumPy, which fastnst installs and its compilation does not need.
STRICT = ("-W", "error", "-W", "ignore:Failed to initialize NumPy")

# Run with the installed package, in an empty folder, where warnings are errors.
USE = """
import pathlib, sys, torch, fastnst
from fastnst import ops
file = pathlib.Path(fastnst.__file__).resolve()
assert pathlib.Path(sys.argv[1]) not in file.parents, f"imported from the checkout: {file}"
release = str(torch.ops.fastnst.cuda_release())
assert bool(release) == (sys.argv[2] == "cuda"), f"built with CUDA {release}"
wanted = bool(release and torch.version.cuda) and release.split(".")[0] == torch.version.cuda.split(".")[0]
why = ops.build_info()["no_cuda_because"]
assert wanted == (why is None), f"built with CUDA {release}, torch for {torch.version.cuda}: {why}"
assert wanted == ("fastnst._C_cuda" in sys.modules)
assert wanted == torch._C._dispatch_has_kernel_for_dispatch_key("fastnst::gram", "CUDA")
x = torch.randn(2, 64, 33, 47)
expected = torch.einsum("bchw,bdhw->bcd", x.double(), x.double())
error = ((ops.gram(x).double() - expected).norm() / expected.norm()).item()
assert error < 1e-6, error
print(f"  {torch.__version__}, {ops.kernels()['gram']}: gram error {error:.1e}; {why or 'CUDA module loaded'}")
"""

STYLIZE = """
import pathlib, fastnst
assets = pathlib.Path(fastnst.__file__).parent / "assets"
result = fastnst.stylize(assets / "demo_photo.jpg", assets / "demo_painting.jpg", size=64, steps=2, scales=1)
assert result.image.shape[1] == 3 and max(result.image.shape) == 64, result.image.shape
result.save("out.png")
"""


class Environment:
    """A virtual environment in ``folder``, and an empty folder beside it to run in.

    Its programs see no variable of this process, no home, no network through a proxy, and as PATH the environment's own
    programs alone, with those in ``tools`` where they are given.
    """

    def __init__(self, folder: Path) -> None:
        self.bin = folder / "venv" / "bin"
        self.python = self.bin / "python"
        self.elsewhere = folder / "elsewhere"
        self.compiler = folder / "compiler"
        venv.create(folder / "venv", with_pip=True)
        for made in (self.elsewhere, self.compiler):
            made.mkdir()
        for name in BINARY_TOOLS:
            if found := shutil.which(name):
                (self.compiler / name).symlink_to(found)
        for name in COMPILERS:
            if found := shutil.which(name):
                # The last -O holds. What is compiled here is used for one op; all optimizations take a minute more.
                script = self.compiler / name
                script.write_text(f'#!/bin/sh\nexec {shlex.quote(found)} "$@" -O1\n')
                script.chmod(0o755)

    def variables(self, *tools: Path) -> dict[str, str]:
        """The variables of a program: nothing of this process."""
        nowhere = "http://127.0.0.1:9"  # the port of no service
        return {
            "PATH": os.pathsep.join(map(str, (self.bin, *tools))),
            "HOME": str(self.elsewhere),
            "LANG": "C.UTF-8",
            "http_proxy": nowhere,
            "https_proxy": nowhere,
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "PIP_ROOT_USER_ACTION": "ignore",
        }

    def pip(self, *arguments: str | Path) -> None:
        """pip with the variables of this process: the index may need them."""
        call(self.python, "-m", "pip", "install", "-q", *arguments)

    def compile(self, sdist: Path) -> None:
        """Compile and install an sdist for the CPU where torch, setuptools and a compiler are, without an index."""
        options = ("--no-index", "--no-deps", "--no-build-isolation")
        command = (self.python, "-m", "pip", "install", "-q", *options, sdist)
        call(*command, env=self.variables(self.compiler) | {"USE_CUDA": "0"}, cwd=self.elsewhere)

    def run(self, *command: str | Path) -> str:
        """Run a program of the environment; return what it prints. Anything on stderr is an error."""
        program = [str(self.bin / command[0]), *map(str, command[1:])]
        done = subprocess.run(program, capture_output=True, text=True, env=self.variables(), cwd=self.elsewhere)
        said = f"{' '.join(program)[:200]}: exit code {done.returncode}\n{done.stdout}{done.stderr}"
        assert done.returncode == 0, said
        assert not done.stderr, said
        return done.stdout

    def use(self, cuda: bool) -> None:
        """Import the package, run an op, and compare the CUDA module that is loaded with the one that should be."""
        print(self.run("python", *STRICT, "-c", USE, ROOT, "cuda" if cuda else "cpu"), end="")

    def style(self) -> None:
        """Make a picture and run the commands that report on the installation."""
        self.run("python", *STRICT, "-c", STYLIZE)
        for command in (("fastnst", "--version"), ("fastnst", "info")):
            lines = self.run(*command).splitlines()
            print(*(f"  {line}" for line in lines if line.startswith(("fastnst", "torch", "CUDA module"))), sep="\n")

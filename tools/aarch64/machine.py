"""An aarch64 Python with torch in build/aarch64, and the command that runs it in QEMU."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from tools.aarch64.stand_ins import stand_ins

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "build" / "aarch64"
SYSTEM, SITE, CUDA = FOLDER / "system", FOLDER / "site", FOLDER / "cuda"

DEBIAN = ("python3", "libgomp1", "libstdc++6")
PACKAGES = ("torch", "numpy", "scipy", "pytest", "hypothesis", "pillow", "safetensors", "psutil", "tqdm", "filelock")
PACKAGES += ("platformdirs", "tifffile", "tomli-w", "pytest-xdist", "pytest-benchmark")
# What torch imports of its own requirements; the rest is for CUDA.
OF_TORCH = ("jinja2", "networkx", "sympy", "fsspec", "typing-extensions", "setuptools")
PLATFORMS = ("manylinux_2_28", "manylinux_2_27", "manylinux_2_17", "manylinux2014")

PROCESSOR = "neoverse-n1"  # of AWS Graviton 2 and Ampere Altra: NEON, no SVE, no bfloat16
IDENTIFICATION = "0x00000000413fd0c1\n"
CPUINFO = """processor\t: {index}
Features\t: fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x3
CPU part\t: 0xd0c
CPU revision\t: 1

"""


def prepare() -> None:
    """Fill build/aarch64; what is there stays."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, step in (("system", _system), ("site", _site), ("cuda", lambda: stand_ins(SITE / "torch" / "lib", CUDA))):
        _once(name, step)
    (SITE / "sitecustomize.py").write_text(f"import sys\nsys.executable = {str(FOLDER / 'python')!r}\n")
    # Tests that start a process start the emulator again.
    script = FOLDER / "python"
    script.write_text(f'#!/bin/sh\nexec {" ".join(python())} "$@"\n')
    script.chmod(0o755)


def python(emulator: str = "qemu-aarch64-static", *options: str) -> list[str]:
    """The command that runs Python in the emulator."""
    libraries = [SITE / "torch" / "lib", CUDA, *(SYSTEM / part / "aarch64-linux-gnu" for part in ("usr/lib", "lib"))]
    environment = {
        "LD_LIBRARY_PATH": ":".join(map(str, libraries)),
        "PYTHONHOME": SYSTEM / "usr",
        "PYTHONPATH": f"{FOLDER / 'package'}:{SITE}",
        "PYTHONDONTWRITEBYTECODE": 1,
    }
    given = [word for name, value in environment.items() for word in ("-E", f"{name}={value}")]
    return [emulator, *options, "-cpu", PROCESSOR, "-L", str(SYSTEM), *given, str(SYSTEM / "usr" / "bin" / "python3")]


def _once(name: str, step: Callable[[], None]) -> None:
    done = FOLDER / f".{name}"
    if not done.exists():
        print(f"tools.aarch64: {name}", flush=True)
        step()
        done.touch()


def _system() -> None:
    """Python and its libraries, and what programs read of the processor. QEMU takes these paths before the host's."""
    apt = FOLDER / "apt"
    for folder in ("state/lists/partial", "cache/archives/partial"):
        (apt / folder).mkdir(parents=True, exist_ok=True)
    settings = ["APT::Architecture=arm64", "APT::Architectures::=arm64", "Debug::NoLocking=1", "APT::Sandbox::User="]
    settings += [f"Dir::State={apt / 'state'}", "Dir::State::status=/dev/null", f"Dir::Cache={apt / 'cache'}"]
    command = ["apt-get", "-qq", *(word for setting in settings for word in ("-o", setting))]
    subprocess.run([*command, "update"], check=True)
    download = ["install", "-y", "--download-only", "--no-install-recommends", *DEBIAN]
    subprocess.run([*command, *download], check=True, stdout=subprocess.DEVNULL)
    for package in sorted((apt / "cache" / "archives").glob("*.deb")):
        subprocess.run(["dpkg", "-x", package, SYSTEM], check=True)
    (SYSTEM / "proc").mkdir(exist_ok=True)
    (SYSTEM / "proc" / "cpuinfo").write_text("".join(CPUINFO.format(index=index) for index in range(2)))
    registers = SYSTEM / "sys/devices/system/cpu/cpu0/regs/identification"
    registers.mkdir(parents=True, exist_ok=True)
    (registers / "midr_el1").write_text(IDENTIFICATION)


def _site() -> None:
    """torch and the other packages, for the distribution's Python."""
    version = next((SYSTEM / "usr" / "bin").glob("python3.*[0-9]")).name.removeprefix("python")
    torch = importlib.metadata.version("torch").partition("+")[0]
    target = [*("--target", str(SITE), "--python-version", version, "--only-binary=:all:")]
    target += [word for name in PLATFORMS for word in ("--platform", f"{name}_aarch64")]
    command = [sys.executable, "-m", "pip", "install", "-q", *target]
    wanted = [f"torch=={torch}" if name == "torch" else name for name in PACKAGES]
    # Without the requirements of torch, whose CUDA libraries alone are 2.5 GB.
    subprocess.run([*command, "--no-deps", wanted[0]], check=True)
    subprocess.run([*command, *wanted[1:], *OF_TORCH], check=True)

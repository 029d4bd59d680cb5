"""Registers, memory, occupancy and machine code of every CUDA kernel on every architecture; needs no GPU.

    python -m tools.kernel_report [--json FILE] [BINARY ...]

Reads the built `fastnst/_C_cuda*.so`, or the given objects, with cuobjdump. Prints for each kernel and architecture
registers, shared memory, local memory, spills and occupancy, and from its machine code the width of the global loads
and the share of tensor-core instructions in the main loop. Fails, with the list, where a kernel keeps anything in local
memory, or where one meant for tensor cores or 16-byte loads has none. Run by `make cuda` and `make kernels`.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import sysconfig
import tempfile
from collections import Counter, defaultdict
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tools import sass

SITE = Path(sysconfig.get_path("purelib"))
ARCHITECTURES = (75, 80, 86, 89, 90, 100, 120)

# Kernels launched with dynamic shared memory. All are launched with the threads of their launch bounds.
DYNAMIC = ("gram_tiles", "backward_tiles")

# Patterns of kernel names with template arguments. On sm_75 tensor cores multiply half only, in the Gram kernel only.
TENSOR_CORES = r"^(gram_tiles|backward_tiles)<"
TENSOR_CORES_SM75 = r"^gram_tiles<__half,"
# Fast paths. Other kernels take one value at a time, for data whose size is not a multiple of 16 bytes.
FULL = r"(double, 2|float, 4|__\w+, 8)\b"
WIDE = (
    r"^(gram_tiles|backward_tiles|bias_relu_rows)<",
    rf"^(squared_difference|scaled_difference|pointwise_backward|bias_relu_channels|adam_check|adam_update)<{FULL}",
    rf"^(sum_of_variation|gradient_of_variation)<{FULL}",
    rf"^(pool_channels|bias_relu_pool_channels|pool_backward_channels)<\d, {FULL}",
    r"^pool_rows<.*, true>",
    r"^bias_relu_pool_rows<.*, true, (true|false)>",
)


@dataclass
class Kernel:
    """One kernel on one architecture."""

    name: str
    architecture: int
    registers: int = 0
    static_shared: int = 0
    stack: int = 0  # bytes of local memory a thread
    threads: int = 0  # of its launch bounds
    spills: int = 0  # loads from and stores to local memory, in the machine code
    loads: dict[int, int] = field(default_factory=dict)  # instructions by their width in bits
    loop_loads: dict[int, int] = field(default_factory=dict)
    loop: int = 0  # instructions of the main loop
    tensor: int = 0  # of these, on tensor cores
    launches: list[dict[str, int | float]] = field(default_factory=list)


def tool(name: str) -> str:
    """The path of a binary tool of one of NVIDIA's packages."""
    found = sorted((SITE / "nvidia").glob(f"*/bin/{name}"))
    if not found:
        sys.exit(f"kernel_report: no {name}: pip install nvidia-cuda-cuobjdump nvidia-cuda-nvdisasm")
    return str(found[-1])


def cuobjdump(*arguments: str | Path) -> str:
    # It calls nvdisasm, which is in a folder of its own.
    path = {"PATH": f"{Path(tool('nvdisasm')).parent}:/usr/bin:/bin"}
    command = [tool("cuobjdump"), *map(str, arguments)]
    return subprocess.run(command, env=path, capture_output=True, text=True, check=True).stdout


def demangled(names: list[str]) -> list[str]:
    """Readable names, without namespace, parameters and types of enumerations."""
    run = subprocess.run(["c++filt"], input="\n".join(names), capture_output=True, text=True, check=True)
    return [short(line) for line in run.stdout.splitlines()]


def short(name: str) -> str:
    name = re.sub(r"\((?:[\w:]|\(anonymous namespace\))+\)(?=\d)", "", name)  # (Load)1
    name = name.removeprefix("void ").replace("fastnst::kernels::", "").replace("(anonymous namespace)::", "")
    depth = 0
    for i, character in enumerate(name):
        depth += (character == "<") - (character == ">")
        if character == "(" and depth == 0:
            return name[:i]
    return name


def parse_usage(text: str) -> dict[tuple[int, str], dict[str, int]]:
    """`cuobjdump -res-usage`: the resources of each (architecture, mangled name)."""
    found: dict[tuple[int, str], dict[str, int]] = {}
    architecture, name = 0, ""
    for line in text.splitlines():
        if match := re.match(r"arch = sm_(\d+)", line):
            architecture = int(match[1])
        elif match := re.match(r"\s*Function (\S+):", line):
            name = match[1]
        elif name and "REG:" in line:
            found[architecture, name] = {key: int(value) for key, value in re.findall(r"(\w+):(\d+)", line)}
            name = ""
    return found


def own_shared(architecture: int, shared: int) -> int:
    """Shared memory without the KiB reserved by the driver: the assembler counts it, and cuda_occupancy.h adds it."""
    return shared - 1024 if architecture >= 90 and shared >= 1024 else shared


def parse_threads(text: str) -> dict[str, int]:
    """`cuobjdump -elf`: the most threads a block of each kernel has, from its launch bounds."""
    found: dict[str, int] = {}
    name = ""
    lines = iter(text.splitlines())
    for line in lines:
        if match := re.match(r"\.nv\.info\.(\S+)\s*$", line):
            name = match[1]
        elif "EIATTR_MAX_THREADS" in line and name:
            next(lines)
            x, y, z = (int(value, 16) for value in next(lines).split()[1:4])
            found[name] = x * y * z
    return found


def read(binary: Path) -> list[Kernel]:
    usage = parse_usage(cuobjdump("-res-usage", binary))
    architectures = sorted({architecture for architecture, _ in usage})
    if not architectures:
        return []
    threads = parse_threads(cuobjdump("-elf", "-arch", f"sm_{architectures[-1]}", binary))
    mangled = sorted({name for _, name in usage})
    names = dict(zip(mangled, demangled(mangled), strict=True))
    kernels = []
    for architecture in architectures:
        code = sass.parse(cuobjdump("-sass", "-arch", f"sm_{architecture}", binary))
        for (where, name), used in usage.items():
            if where != architecture:
                continue
            kernel = Kernel(names[name], architecture, used["REG"], own_shared(architecture, used["SHARED"]))
            kernel.stack = used["STACK"] + used["LOCAL"]
            kernel.threads = threads.get(name, 0)
            instructions = code[name]
            kernel.spills = sum(i.opcode.startswith(("LDL", "STL")) for i in instructions)
            kernel.loads = sass.load_widths(instructions)
            loop = sass.main_loop(instructions)
            kernel.loop, kernel.loop_loads = len(loop), sass.load_widths(loop)
            kernel.tensor = sum(i.tensor for i in loop)
            kernels.append(kernel)
    return kernels


def add_occupancy(kernels: list[Kernel]) -> None:
    """Compute occupancies with cuda_occupancy.h, compiled into a small program."""
    folders = [*sorted((SITE / "nvidia").glob("*/include")), Path("/usr/local/cuda/include")]
    include = next((folder for folder in folders if (folder / "cuda_occupancy.h").exists()), None)
    if include is None:
        sys.exit("kernel_report: no cuda_occupancy.h beside torch nor in /usr/local/cuda/include")
    launches = [(kernel, *launch) for kernel in kernels for launch in launches_of(kernel)]
    inputs = [f"{k.architecture} {k.registers} {k.static_shared} {dynamic} {t}" for k, t, dynamic in launches]
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder, "occupancy")
        source = Path(__file__).with_name("occupancy.cpp")
        subprocess.run(["c++", "-O1", f"-I{include}", str(source), "-o", str(program)], check=True)
        run = subprocess.run([str(program)], input="\n".join(inputs), capture_output=True, text=True, check=True)
    for (kernel, threads, dynamic), line in zip(launches, run.stdout.splitlines(), strict=True):
        resident, most = map(int, line.split())
        kernel.launches.append({"threads": threads, "dynamic_shared": dynamic, "occupancy": resident / most})


def launches_of(kernel: Kernel) -> list[tuple[int, int]]:
    if kernel.threads == 0:
        return []
    dynamic = (64 if kernel.architecture < 80 else 96) * 1024  # at most, in csrc/kernels/*_tiles.cuh
    return [(kernel.threads, dynamic if kernel.name.partition("<")[0] in DYNAMIC else 0)]


def defects(kernel: Kernel) -> list[str]:
    """Defects of a kernel; empty for a good one."""
    found = []
    if kernel.spills:
        found.append(f"{kernel.spills} loads and stores of local memory")
    if kernel.stack:
        found.append(f"{kernel.stack} bytes of local memory a thread")
    if kernel.threads == 0:
        found.append("has no launch bounds")
    found += [f"does not fit: {launch}" for launch in kernel.launches if launch["occupancy"] == 0]
    if not launched(kernel):
        return found
    if re.search(TENSOR_CORES, kernel.name) and kernel.tensor == 0:
        found.append("no tensor-core instruction in the main loop")
    if any(re.search(pattern, kernel.name) for pattern in WIDE) and 128 not in kernel.loads:
        found.append(f"no 128-bit load, only {dict(sorted(kernel.loads.items()))}")
    return found


def launched(kernel: Kernel) -> bool:
    """Whether the kernel is launched on its architecture: sm_75 has no tf32 and no bfloat16 products."""
    pattern = TENSOR_CORES_SM75 if kernel.architecture < 80 else TENSOR_CORES
    return not re.search(TENSOR_CORES, kernel.name) or re.search(pattern, kernel.name) is not None


def widths(loads: dict[int, int]) -> str:
    return " ".join(f"{count}x{width}" for width, count in sorted(loads.items(), reverse=True)) or "-"


def table(kernels: list[Kernel]) -> list[str]:
    """Lines of the printed table: for each kernel its name, and a line for each architecture."""
    head = ("sm", "registers", "shared", "local", "spills", "occupancy", "loads in loop", "tensor", "of loop")
    form = "  {:>4} {:>9} {:>12} {:>5} {:>6} {:>11}  {:<22} {:>6} {:>7}"
    rows = []
    by_name: dict[str, list[Kernel]] = defaultdict(list)
    for kernel in kernels:
        by_name[kernel.name].append(kernel)
    for name, variants in sorted(by_name.items()):
        rows += [name, form.format(*head)]
        for k in sorted(variants, key=lambda k: k.architecture):
            dynamic = "/".join(str(launch["dynamic_shared"]) for launch in k.launches)
            shared = f"{k.static_shared}" if dynamic in ("", "0") else f"{k.static_shared}+{dynamic}"
            occupancy = "/".join(f"{launch['occupancy']:.0%}" for launch in k.launches)
            share = f"{k.tensor / k.loop:.0%}" if k.loop else "-"
            cells = (k.registers, shared, k.stack, k.spills, occupancy, widths(k.loop_loads), k.tensor, share)
            rows.append(form.format(k.architecture, *cells) + ("" if launched(k) else "  never launched"))
    return rows


def installed() -> list[Path]:
    found = sorted((SITE / "fastnst").glob("_C_cuda*.so"))
    if not found:
        sys.exit("kernel_report: no fastnst/_C_cuda*.so in this environment: make cuda")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("binaries", nargs="*", type=Path, help="shared libraries or objects; default: the built module")
    parser.add_argument("--json", type=Path, help="also write everything to this file")
    parser.add_argument("--quick", action="store_true", help="accept fewer architectures than a release is built for")
    options = parser.parse_args()
    unique = {(k.name, k.architecture): k for binary in options.binaries or installed() for k in read(binary)}
    kernels = list(unique.values())
    add_occupancy(kernels)
    print("\n".join(table(kernels)))
    if options.json:
        options.json.write_text(json.dumps([asdict(kernel) for kernel in kernels], indent=1) + "\n")
    wrong = [f"sm_{k.architecture} {k.name}: {defect}" for k in kernels for defect in defects(k)]
    counts = Counter(kernel.architecture for kernel in kernels)
    names = {kernel.name for kernel in kernels}
    if not kernels:
        wrong.append("no kernel found")
    if not options.quick:
        for architecture in ARCHITECTURES:
            if counts[architecture] != len(names):
                wrong.append(f"sm_{architecture}: {counts[architecture]} kernels of {len(names)}")
    print(f"\n{len(names)} kernels, architectures {' '.join(map(str, sorted(counts)))}")
    if wrong:
        sys.exit("kernel_report: " + "\n  ".join([f"{len(wrong)} defects", *wrong]))
    print("no spills, no local memory; tensor cores and 16-byte loads where expected")


if __name__ == "__main__":
    main()

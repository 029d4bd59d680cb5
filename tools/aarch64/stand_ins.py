"""Stand-ins for the CUDA libraries that torch for aarch64 on PyPI is linked to, so that it loads without them.

Each has the names that torch asks for, in the versions that it asks for. Every function returns 100, which means
cudaErrorNoDevice to the caller that asks for devices; no other is called.
"""

from __future__ import annotations

import re
import subprocess
from collections import defaultdict
from pathlib import Path

OF_CUDA = re.compile(r"lib(cu|nv|nccl)")
FUNCTION = re.compile(r"_*cuda\w+|cu[A-Z]\w+|cu(blas|fft|rand|sparse|solver|file|pti|dnn)\w+|nccl\w+|nv\w+")


def stand_ins(libraries: Path, folder: Path) -> None:
    """Compile into ``folder`` what ``libraries`` need of CUDA and do not have."""
    folder.mkdir(exist_ok=True)
    needed: set[str] = set()
    versions: dict[str, set[str]] = defaultdict(set)
    undefined: dict[str, set[str]] = defaultdict(set)
    defined: set[str] = set()
    for library in libraries.glob("lib*.so*"):
        needed |= set(re.findall(r"\(NEEDED\).*\[(.+)\]", _output("readelf", "-dW", library)))
        for name, nodes in _versions(library).items():
            versions[name] |= nodes
        for line in _output("aarch64-linux-gnu-nm", "-D", library).splitlines():
            kind, symbol = line.split()[-2:]
            name, _, version = symbol.partition("@")
            if kind == "U":
                undefined[version].add(name)
            else:
                defined.add(name)
    plain = {name for name in undefined[""] - defined if FUNCTION.fullmatch(name)}
    for name in sorted(filter(OF_CUDA.match, needed)):
        if not (libraries / name).exists():
            named = {version: undefined[version] for version in versions[name]}
            _compile(folder / name, named, plain if name.startswith("libcudart") else set())


def _versions(library: Path) -> dict[str, set[str]]:
    """The versions of symbols that a library asks for, by the library that must have them."""
    found: dict[str, set[str]] = defaultdict(set)
    file = ""
    for line in _output("readelf", "-VW", library).splitlines():
        if match := re.search(r"File: (\S+)", line):
            file = match[1]
        elif match := re.search(r"Name: (\S+)\s+Flags", line):
            found[file].add(match[1])
    return found


def _compile(library: Path, versions: dict[str, set[str]], plain: set[str]) -> None:
    names = sorted(plain.union(*versions.values()))
    source, script = library.parent / "source.c", library.parent / "versions.txt"
    source.write_text("".join(f"long {name}(void) {{ return 100; }}\n" for name in names))
    lists = {node: "".join(f" {name};" for name in sorted(named)) for node, named in versions.items()}
    script.write_text("".join(f"{node} {{{named and ' global:' + named} }};\n" for node, named in lists.items()))
    command = ["aarch64-linux-gnu-gcc", "-shared", "-fPIC", "-fno-builtin", "-w", f"-Wl,-soname,{library.name}"]
    command += [f"-Wl,--version-script={script}"] if versions else []
    subprocess.run([*command, "-o", library, source], check=True)


def _output(*command: str | Path) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout

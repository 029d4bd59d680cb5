"""Kernels with one mistake each: a check of the emulator or the comparison with float64 finds every one."""

import os
import re
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest
from emulator_build import BUILD, EMULATOR, ROOT, find_compiler

KERNELS = ROOT / "csrc" / "kernels"
DRIVERS = {"gram": ("gram",), "simt": ("gram", "-DSIMT"), "backward": ("backward",)}


@dataclass(frozen=True)
class Mutant:
    driver: str
    file: str
    snippet: str  # occurs once in the file; spaces and line breaks are all the same
    instead: str
    finding: str  # a regular expression


MUTANTS = {
    "dropped barrier before a read": Mutant(
        "simt",
        "gram_simt.cuh",
        "__syncthreads(); tile.multiply(diagonal",
        "tile.multiply(diagonal",
        r"gram_simt<float>.*shared scratch: (race|uninitialized memory)",
    ),
    "dropped barrier before a write": Mutant(
        "simt",
        "gram_simt.cuh",
        "row_sum += part; } __syncthreads();",
        "row_sum += part; }",
        r"gram_simt<float>.*shared scratch: race: .* with no barrier between",
    ),
    "missing wait": Mutant(
        "backward",
        "backward_mma.cuh",
        "copy_async_wait(); __syncthreads();",
        "__syncthreads();",
        r"shared memory: data of copy_async is pending there",
    ),
    "off-by-one tail": Mutant(
        "gram",
        "fragments.cuh",
        "const bool inside = n < x.positions;",
        "const bool inside = n <= x.positions;",
        r"past the end of x",
    ),
    "off-by-one tail of a strip": Mutant(
        "backward",
        "backward_mma.cuh",
        "if (c >= x.channels || first + n >= x.positions) continue;",
        "if (c >= x.channels || first + n > x.positions) continue;",
        r"backward_strips<float, .*(past the end of|wrote there too|did not release|wrong)",
    ),
    "wrong leading dimension": Mutant(
        "gram",
        "gram_units.cuh",
        "const int64_t i = row * channels + column;",
        "const int64_t i = row * kUnit + column;",
        r"wrote there too|race|uninitialized|wrong",
    ),
    "wrong leading dimension of the matrix": Mutant(
        "backward",
        "backward_mma.cuh",
        "matrix + matrix_row(r) * task.padded + k + 4 * t",
        "matrix + matrix_row(r) * x.channels + k + 4 * t",
        r"wrong: the error is",
    ),
    "early publish": Mutant(
        "gram",
        "device.cuh",
        "FASTNST_SHARED(int, last, 1); __syncthreads(); if (threadIdx.x == 0) {",
        "FASTNST_SHARED(int, last, 1); if (threadIdx.x == 0) {",
        r"of partial: block \d+ wrote there, and did not release it to this thread",
    ),
    "publish without a fence": Mutant(
        "gram",
        "device.cuh",
        "__threadfence(); *last = ",
        "*last = ",
        r"of partial: block \d+ wrote there, and did not release it to this thread",
    ),
    "missing mirror": Mutant(
        "gram",
        "gram_units.cuh",
        "if (diagonal) shared_tile[j * kPitch + i] = value;",
        "",
        r"shared scratch: uninitialized memory",
    ),
    "missing mirror off the diagonal": Mutant(
        "gram",
        "gram_units.cuh",
        "if (!diagonal) write(column0 + i, row0 + j, shared_tile[j * kPitch + i]);",
        "",
        r"wrong: the error is nan",
    ),
    "overlapping splits": Mutant(
        "gram",
        "gram_mma.cuh",
        "(at.split + i / kSpan * plan.splits) * kSpan",
        "(at.split / 2 + i / kSpan * plan.splits) * kSpan",
        r"wrong: the error is",
    ),
    "two splits in one slot": Mutant(
        "simt",
        "gram_simt.cuh",
        "slot_of(task, plan, at, at.split)",
        "slot_of(task, plan, at, at.split / 2)",
        r"of partial: block \d+ wrote there too",
    ),
    "swapped fragment": Mutant(
        "gram",
        "fragments.cuh",
        "high[4] = {a.high[2 * i][0], a.high[2 * i + 1][0],",
        "high[4] = {a.high[2 * i + 1][0], a.high[2 * i][0],",
        r"wrong: the error is",
    ),
    "sums of other blocks by way of the cache for constants": Mutant(
        "gram",
        "gram_units.cuh",
        "sum += __ldcg(value + i * step);",
        "sum += __ldg(value + i * step);",
        r"of partial: __ldg of what this launch wrote",
    ),
    "lanes missing from a collective": Mutant(
        "simt",
        "device.cuh",
        "for (int step = kWarp / 2; step > 0; step /= 2) value +=",
        "for (int step = kWarp / 2; step > 0; step /= 2) if (threadIdx.x != 9) value +=",
        r"gram_simt<float>.*: divergent warp collective",
    ),
}


def replace_once(source: str, snippet: str, instead: str) -> str:
    pattern = r"\s*".join(re.escape(token) for token in re.findall(r"\w+|[^\w\s]", snippet))
    changed, count = re.subn(pattern, lambda _: instead, source)
    assert count == 1, f"{snippet!r} occurs {count} times"
    return changed


def findings(name: str, folder) -> str:
    """What the program of a driver or a mutant prints."""
    folder.mkdir()
    driver = name
    sources = KERNELS
    if name in MUTANTS:
        mutant = MUTANTS[name]
        driver = mutant.driver
        sources = folder / "kernels"
        shutil.copytree(KERNELS, sources)
        file = sources / mutant.file
        file.write_text(replace_once(file.read_text(), mutant.snippet, mutant.instead))
    source, *defines = DRIVERS[driver]
    program = folder / "program"
    flags = ["-std=c++17", "-g0", "-w", "-DFASTNST_EMULATED", *(BUILD / "watch_flags.txt").read_text().split()]
    includes = [f"-I{EMULATOR}", f"-I{EMULATOR / 'mutants'}", f"-I{sources}"]
    compiler = find_compiler()
    made = folder / "program.o"
    commands = [
        [compiler, *flags, *defines, *includes, "-c", str(EMULATOR / "mutants" / f"{source}.cpp"), "-o", str(made)],
        [compiler, str(made), str(BUILD / "libemulator_core.a"), "-ldl", "-rdynamic", "-o", str(program)],
    ]
    for command in commands:
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    return subprocess.run([str(program)], capture_output=True, text=True, timeout=60).stdout.strip()


@pytest.fixture(scope="module")
def outcomes(module, tmp_path_factory):
    """What each program printed, compiled side by side; `module` has built the library they link with."""
    folder = tmp_path_factory.mktemp("mutants")
    names = [*DRIVERS, *MUTANTS]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        jobs = {name: pool.submit(findings, name, folder / str(i)) for i, name in enumerate(names)}
    return jobs


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.sweep(3)
def test_kernel_as_it_is_passes(outcomes, driver):
    assert outcomes[driver].result() == "right"


@pytest.mark.parametrize("name", MUTANTS)
def test_mutant_is_caught(outcomes, name):
    assert re.search(MUTANTS[name].finding, outcomes[name].result())

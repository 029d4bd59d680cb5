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
DRIVERS = {
    "gram": ("gram",),
    "simt": ("gram", "-DSIMT"),
    "backward": ("backward",),
    "pool": ("pool",),
    "adam": ("adam",),
}


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
        r"gram_simt<float>.*shared (left|right): (race|uninitialized memory)",
    ),
    "dropped barrier before a write": Mutant(
        "simt",
        "gram_simt.cuh",
        "row_sum += part; } __syncthreads();",
        "row_sum += part; }",
        r"gram_simt<float>.*shared (left|right): race: .* with no barrier between",
    ),
    "dropped barrier of the pipeline": Mutant(
        "gram",
        "gram_tiles.cuh",
        "__syncthreads(); const int ahead",
        "const int ahead",
        r"shared memory: (race|uninitialized memory|data of copy_async)",
    ),
    "dropped barrier of the backward's pipeline": Mutant(
        "backward",
        "backward_tiles.cuh",
        "__syncthreads(); copy(stage + kSlots - 1);",
        "copy(stage + kSlots - 1);",
        r"shared memory: (race|uninitialized memory|data of copy_async)",
    ),
    "missing wait": Mutant(
        "backward",
        "backward_tiles.cuh",
        "copy_async_wait<kSlots - 2>();",
        "",
        r"shared memory: data of copy_async is pending there",
    ),
    "wait for one group less": Mutant(
        "gram",
        "gram_tiles.cuh",
        "copy_async_wait<kStages - 2>();",
        "copy_async_wait<kStages - 1>();",
        r"shared memory: data of copy_async is pending there",
    ),
    "missing wait for the gradient from above": Mutant(
        "backward",
        "backward_tiles.cuh",
        "copy_async_wait<0>();",
        "",
        r"shared memory: data of copy_async is pending there",
    ),
    "copy into a slot in use": Mutant(
        "backward",
        "backward_tiles.cuh",
        "copy(stage + kSlots - 1);",
        "copy(stage + kSlots);",
        r"shared memory|wrong: the error is",
    ),
    "off-by-one tail": Mutant(
        "gram",
        "gram_pieces.cuh",
        "position_of(i) < count",
        "position_of(i) <= count",
        r"past the end of x|wrong: the error is",
    ),
    "off-by-one tail of a strip": Mutant(
        "backward",
        "backward_parts.cuh",
        "position + further_position(v) < positions_left",
        "position + further_position(v) <= positions_left",
        r"backward_tiles<float, .*(past the end of|wrote there too|did not release|wrong)",
    ),
    "wrong leading dimension": Mutant(
        "gram",
        "gram_units.cuh",
        "c * channels + r : r * channels + c",
        "c * channels + r : r * kUnit + c",
        r"wrote there too|race|uninitialized|wrong",
    ),
    "wrong leading dimension of the matrix": Mutant(
        "backward",
        "backward_tiles.cuh",
        "further_row(j) * task.padded",
        "further_row(j) * x.channels",
        r"wrong: the error is",
    ),
    "publish without a fence": Mutant(
        "gram",
        "device.cuh",
        "__threadfence(); *last = ",
        "*last = ",
        r"of losses: block \d+ wrote there, and did not release it to this thread",
    ),
    "counter not reset": Mutant("gram", "gram_tiles.cuh", "reset_counter(task);", "", r"counter: uninitialized memory"),
    "missing mirror off the diagonal": Mutant(
        "gram",
        "gram_units.cuh",
        "if (mirrored && r == c) continue;",
        "if (mirrored) continue;",
        r"wrong: the error is nan",
    ),
    "overlapping splits": Mutant(
        "gram",
        "gram_tiles.cuh",
        "image + pieces.offset(x, 0, int64_t{at.split} * per_stage)",
        "image + pieces.offset(x, 0, int64_t{at.split} / 2 * per_stage)",
        r"uninitialized memory|wrong: the error is",
    ),
    "two splits in one slot": Mutant(
        "simt",
        "gram_units.cuh",
        "int64_t{blockIdx.x} * plan.slot()",
        "int64_t{blockIdx.x / 2} * plan.slot()",
        r"of partial: block \d+ wrote there too",
    ),
    "a split left out": Mutant(
        "gram",
        "gram_units.cuh",
        "(splits - group + groups - 1) / groups",
        "(splits - group) / groups",
        r"wrong: the error is",
    ),
    "swapped fragment": Mutant(
        "gram",
        "fragments.cuh",
        "a[4] = {a0[0], a1[0], a0[1], a1[1]};",
        "a[4] = {a1[0], a0[0], a0[1], a1[1]};",
        r"wrong: the error is",
    ),
    "losses of other blocks by way of the cache for constants": Mutant(
        "gram",
        "gram_units.cuh",
        "total += __ldcg(task.losses + k);",
        "total += __ldg(task.losses + k);",
        r"of losses: __ldg of what this launch wrote",
    ),
    "odd last column not activated": Mutant(
        "pool",
        "bias_relu_pool.cuh",
        "const int per_row = (kKeep ? (shape.width + 1) / 2 : width) / kWindows;",
        "const int per_row = width / kWindows;",
        r"wrong: the error is|past the end|wrote there too|race",
    ),
    "odd last row not activated": Mutant(
        "pool",
        "bias_relu_pool.cuh",
        "const int rows = kKeep ? (shape.height + 1) / 2 : height; const int per_row",
        "const int rows = height; const int per_row",
        r"wrong: the error is",
    ),
    "a value beyond the last column read": Mutant(
        "pool",
        "pooling.cuh",
        "return {from[0], right ? from[1] : from[0]};",
        "return {from[0], from[1]};",
        r"past the end of x|did not release|race",
    ),
    "the bias of the neighboring channel": Mutant(
        "pool",
        "bias_relu_pool.cuh",
        "const P add = load<P>(bias + channel);",
        "const P add = load<P>(bias + channel / 2);",
        r"wrong: the error is|misaligned",
    ),
    "a map written that nothing reads": Mutant(
        "pool",
        "bias_relu_pool.cuh",
        "if constexpr (kKeep) { store_pairs<kPacked>(from, lines[0], right);",
        "if constexpr (!kKeep) { store_pairs<kPacked>(from, lines[0], right);",
        r"wrong: the error is",
    ),
    "the argmax of the map before its ReLU": Mutant(
        "pool",
        "pooling.cuh",
        "*place = static_cast<uint8_t>(result > 0 ? found : found + 4);",
        "*place = static_cast<uint8_t>(found);",
        r"wrong: the error is",
    ),
    "a step that asks one block alone": Mutant(
        "adam",
        "adam.cuh",
        "for (int i = threadIdx.x; i < blocks; i += kSumThreads) sum += found.finite[i];",
        "for (int i = threadIdx.x; i < blocks; i += kSumThreads) sum += found.finite[0];",
        r"wrong: the error is",
    ),
    "a count that another block has changed": Mutant(
        "adam",
        "adam.cuh",
        "const int count = *found.count,",
        "const int count = *schedule.count,",
        r"of count: (race|block \d+)|wrote there|wrong: the error is|did not release",
    ),
    "a good image after the step": Mutant(
        "adam",
        "adam.cuh",
        "reinterpret_cast<P*>(tensors.image)[i] = image;",
        "reinterpret_cast<P*>(tensors.image)[i] = image; reinterpret_cast<P*>(tensors.good)[i] = image;",
        r"wrong: the error is",
    ),
    "a flag before its barrier": Mutant(
        "adam",
        "adam.cuh",
        "if (threadIdx.x == 0) *finite = sum == blocks; __syncthreads();",
        "if (threadIdx.x == 0) *finite = sum == blocks;",
        r"shared finite: (race|uninitialized memory)",
    ),
    "lanes missing from a collective": Mutant(
        "simt",
        "device.cuh",
        "for (int step = kWarp / 2; step > 0; step /= 2) value +=",
        "for (int step = kWarp / 2; step > 0; step /= 2) if (threadIdx.x != 9) value +=",
        r"gram_finish<float>.*: divergent warp collective",
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

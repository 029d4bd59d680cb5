"""Kernels with one mistake each that the emulator cannot see: the interpreter of compiled PTX finds every one."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import test_emulated_backward as backward
import test_emulated_gram as gram
import test_ptx as wrapped
from emulated import Device
from gram_launches import features
from ptx.compiled import HERE, KERNELS, compile_ptx, only, source_of
from ptx.device import Interpreter
from ptx.parse import Kernel
from test_mutants import replace_once

Kernels = Mapping[str, Kernel]


def multiplies(dtype: str) -> Callable[[Any, Kernels], None]:
    def run(module: Any, kernels: Kernels) -> None:
        assert wrapped.product_error(module, kernels, dtype) < 2**-23, "the product is wrong"

    return run


def permutes(module: Any, kernels: Kernels) -> None:
    assert np.array_equal(*wrapped.permuted(module, kernels)), "the bytes are wrong"


def copies(module: Any, kernels: Kernels) -> None:
    assert np.array_equal(*wrapped.copied(module, kernels)), "the copy is wrong"


def copies_in_a_ring(module: Any, kernels: Kernels) -> None:
    assert np.array_equal(*wrapped.ring(module, kernels)), "the copy is wrong"


def grams(module: Any, kernels: Kernels) -> None:
    rng = np.random.default_rng(1)
    device = Device(Interpreter(module, kernels), seed=1)
    x = features(rng, (1, 40, 1100), "float16")
    gram.check(device, x, "float16", rng, {"target"}, layout="channels_last", splits=17)


def adds_bias(module: Any, kernels: Kernels) -> None:
    """40 channels and 64 threads."""
    device = Device(Interpreter(module, kernels))
    x, bias = (features(np.random.default_rng(2), (1, n, 40), "float16")[0] for n in (3, 1))
    out = device.output("out", (40,), "float32")
    given = device.input("x", x, "float16"), device.input("bias", bias[0], "float16")
    device.module.launch("run_guarded_bias", 1, 64, *given, out, 40, len(x))
    assert np.allclose(out.numpy(), np.maximum(x + bias, 0).sum(axis=0), rtol=1e-6), "the sum is wrong"


def differentiates(module: Any, kernels: Kernels) -> None:
    rng = np.random.default_rng(3)
    device = Device(Interpreter(module, kernels))
    backward.check(device, features(rng, (1, 72, 100), "float32"), "float32", rng, {"above", "relu"})


@dataclass(frozen=True)
class Program:
    """What a mistake is tried with: a source, its C++ type or all, and what is done with its kernels."""

    source: str
    run: Callable[[Any, Kernels], None]
    only: str = ""
    arch: int = 80


PROGRAMS = {
    "tf32": Program("wrappers", multiplies("tf32")),
    "bf16": Program("wrappers", multiplies("bfloat16")),
    "f16": Program("wrappers", multiplies("float16")),
    "f16 on sm_75": Program("wrappers", multiplies("float16"), arch=75),
    "permute": Program("wrappers", permutes),
    "copy": Program("wrappers", copies),
    "ring": Program("wrappers", copies_in_a_ring),
    "gram": Program("gram", grams, "__half"),
    "bias": Program("wrappers", adds_bias),
    "backward": Program("backward", differentiates, "float"),
}


@dataclass(frozen=True)
class Mutant:
    program: str
    file: str
    snippet: str  # occurs once in the file; spaces and line breaks are all the same
    instead: str
    finding: str  # a regular expression


def operands(kind: str, shape: str, d: str = "%0,%1,%2,%3", a: str = "%4,%5,%6,%7", b: str = "%8,%9") -> str:
    """The operands of one mma, as ptx.cuh has them or with some of them exchanged."""
    return f"{shape}.row.col.f32.{kind}.{kind}.f32 {{{d}}}, {{{a}}}, {{{b}}}"


def exchanged(program: str, kind: str, shape: str, **how: str) -> Mutant:
    return Mutant(program, "ptx.cuh", operands(kind, shape), operands(kind, shape, **how), "the product is wrong")


PENDING = r"shared memory: data of cp\.async is pending there"
UNPUBLISHED = r"block \d+ wrote there, and did not release it to this thread"
MUTANTS = {
    "tf32: a1 and a2 exchanged": exchanged("tf32", "tf32", "m16n8k8", a="%4,%6,%5,%7"),
    "tf32: b0 and b1 exchanged": exchanged("tf32", "tf32", "m16n8k8", b="%9,%8"),
    "bf16: a1 and a2 exchanged": exchanged("bf16", "bf16", "m16n8k16", a="%4,%6,%5,%7"),
    "bf16: b0 and b1 exchanged": exchanged("bf16", "bf16", "m16n8k16", b="%9,%8"),
    "f16: d1 and d2 exchanged": exchanged("f16", "f16", "m16n8k16", d="%0,%2,%1,%3"),
    "f16 on sm_75: the first half of b twice": Mutant(
        "f16 on sm_75",
        "ptx.cuh",
        '"r"(a[2]), "r"(a[3]), "r"(b[1])',
        '"r"(a[2]), "r"(a[3]), "r"(b[0])',
        "product is wrong",
    ),
    "byte_permute: operands exchanged": Mutant(
        "permute", "ptx.cuh", "__byte_perm(a, b, selector)", "__byte_perm(b, a, selector)", "the bytes are wrong"
    ),
    "copy_async: `valid` ignored": Mutant(
        "copy", "ptx.cuh", "valid ? 16 : 0", "16", r"from: byte \d+ is past the end of .*cp\.async"
    ),
    "copy_async_wait: no wait": Mutant(
        "copy",
        "ptx.cuh",
        'asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");',
        "",
        PENDING,
    ),
    "copy_async_wait: one group later": Mutant("copy", "ptx.cuh", '"n"(kPending)', '"n"(kPending + 1)', PENDING),
    "copy_async_wait: one group later in a ring": Mutant(
        "ring", "ptx.cuh", '"n"(kPending)', '"n"(kPending + 1)', PENDING
    ),
    "copy_async_commit: no group": Mutant(
        "copy", "ptx.cuh", 'asm volatile("cp.async.commit_group;" ::: "memory");', "", PENDING
    ),
    "gram: wait for one group less": Mutant(
        "gram", "gram_tiles.cuh", "copy_async_wait<kStages - 2>();", "copy_async_wait<kStages - 1>();", PENDING
    ),
    "gram: no barrier after the wait": Mutant(
        "gram",
        "gram_tiles.cuh",
        "__syncthreads(); const int ahead",
        "const int ahead",
        "shared memory: race|" + PENDING,
    ),
    "backward: wait for one group less": Mutant(
        "backward", "backward_tiles.cuh", "copy_async_wait<kSlots - 2>();", "copy_async_wait<kSlots - 1>();", PENDING
    ),
    "backward: no wait for the gradient from above": Mutant(
        "backward", "backward_tiles.cuh", "copy_async_wait<0>();", "", PENDING
    ),
    "gram: losses of other blocks by way of the non-coherent cache": Mutant(
        "gram",
        "gram_units.cuh",
        "total += __ldcg(task.losses + k);",
        "total += __ldg(task.losses + k);",
        r"losses: ld\.global\.nc of what this launch wrote",
    ),
    "bias: a load that the compiler moves above its guard": Mutant(
        "bias",
        "wrappers.cu",
        "__half2float(bias[c])",
        "__half2float(__ldg(bias + c))",
        r"bias: byte 80 is past the end of 80 bytes: ld\.global\.nc",
    ),
    "gram: no fence after the counter": Mutant(
        "gram", "device.cuh", "count - 1; __threadfence();", "count - 1;", "losses: " + UNPUBLISHED
    ),
    "gram: no fence before the counter": Mutant(
        "gram", "device.cuh", "__threadfence(); *last = ", "*last = ", "losses: " + UNPUBLISHED
    ),
}


def finding(name: str, module: Any, folder: Path) -> str:
    """What running a program or a mutant says: nothing if all is right."""
    mutant = MUTANTS.get(name)
    program = PROGRAMS[mutant.program if mutant else name]
    source = HERE / "wrappers.cu" if program.source == "wrappers" else source_of(program.source)
    if program.only:
        source = only(source, program.only, folder)
    headers = KERNELS
    if mutant:
        headers = folder / "kernels"
        shutil.copytree(KERNELS, headers)
        if mutant.file == source.name:
            source = Path(shutil.copy(source, headers))
        file = headers / mutant.file
        file.write_text(replace_once(file.read_text(), mutant.snippet, mutant.instead))
    label = re.sub(r"\W+", "_", f"{program.only} {name if mutant else ''}").strip("_")
    kernels = compile_ptx(source, program.arch, kernels=headers, label=label)
    try:
        program.run(module, kernels)
    except (AssertionError, RuntimeError) as error:
        return str(error)
    return ""


@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.sweep(3)
def test_kernel_as_it_is_passes(module: Any, tmp_path: Path, name: str) -> None:
    assert finding(name, module, tmp_path) == ""


@pytest.mark.parametrize("name", MUTANTS)
def test_mutant_is_caught(module: Any, tmp_path: Path, name: str) -> None:
    assert re.search(MUTANTS[name].finding, finding(name, module, tmp_path))

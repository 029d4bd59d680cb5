"""The model of kernel time: reading of machine code, times of known kernels, targets.

data/ has machine code and launches of two versions of the kernels. The old one is gone from csrc/. After a change of
the kernels, `python -m tools.kernel_model --check --snapshot tests/bench/data/new` writes the new one.
"""

from __future__ import annotations

import dataclasses
import shutil
import subprocess
from pathlib import Path

import pytest

from bench.gpu import step_launches
from tools import sass
from tools.kernel_model import cards, eager, facts, model, parts, scoreboard, step, targets
from tools.kernel_model.__main__ import read_cases, snapshot
from tools.kernel_model.cases import Case

DATA = Path(__file__).parent / "data"
# Of an independent reading of the same machine code, in microseconds on H200: the sum of the five layers by precision
# and side, for the forward with its tails, and for the backward.
FORWARD = {("bfloat16", 512): 385, ("bfloat16", 1024): 489, ("float32", 512): 455, ("float32", 1024): 667}
TAILS = {512: 328, 1024: 377}  # bfloat16
BACKWARD = {("bfloat16", 512): 140, ("bfloat16", 1024): 484, ("float32", 512): 229, ("float32", 1024): 817}
ERROR = 1.4
H200 = cards.named("H200")


def kernels() -> model.Kernels:
    found = [k for name in ("old", "new") for k in facts.from_json((DATA / f"{name}_facts.json").read_text())]
    return {(kernel.name, kernel.architecture): kernel for kernel in found}


def cases(version: str, op: str, precision: str, side: int) -> list[Case]:
    """``version`` old: one kernel, whose last block adds the partial results; new: gram_finish adds them."""
    read = read_cases(DATA / f"{version}_launches.json")
    return [c for c in read if (c.op, c.precision, c.side) == (op, precision, side)]


def instruction(opcode: str, stall: int = 1, sets: int = 7, waits: int = 0, operands: str = "") -> sass.Instruction:
    """``waits`` is a mask of barriers."""
    return sass.Instruction(0, False, opcode, operands, stall | sets << 5 | 7 << 8 | waits << 11)


def test_control_bits_are_read_from_the_second_line_of_an_instruction() -> None:
    text = """
        Function : f
        /*0010*/                   LDC R156, c[0x0][0x250] ;    /* 0x00009400ff9c7b82 */
                                                                /* 0x000e220000000800 */
        /*0020*/                   S2R R158, SR_TID.X ;         /* 0x00000000009e7919 */
                                                                /* 0x000e6e0000002100 */
        /*0060*/                   SHF.R.U32.HI R173, RZ, 0x5, R158 ;  /* 0x00000005ffad7819 */
                                                                       /* 0x002fe4000001169e */
"""
    constant, thread, shift = sass.parse(text)["f"]
    assert (constant.stall, constant.write_barrier, constant.waits_for) == (1, 0, [])
    assert (thread.stall, thread.write_barrier, thread.waits_for) == (7, 1, [])
    assert (shift.stall, shift.write_barrier, shift.waits_for) == (2, 7, [1])  # R158


def test_independent_loads_wait_once_and_dependent_ones_each_time() -> None:
    use = instruction("FADD", waits=1)
    together = [*(instruction("LDG.E", sets=0) for _ in range(4)), use]
    apart = [instruction("LDG.E", sets=0), use] * 4
    cycles, warp = scoreboard.steady(together, 500)
    assert cycles == pytest.approx(500, abs=10)
    assert (warp.most_loads, warp.most_bytes) == (4, 16)
    cycles, warp = scoreboard.steady(apart, 500)
    assert cycles == pytest.approx(2000, abs=10)
    assert (warp.most_loads, warp.most_bytes) == (1, 4)


@pytest.mark.parametrize(("pending", "expected"), [(0, 1020), (1, 510), (3, 255)])
def test_copies_in_flight_divide_the_latency(pending: int, expected: float) -> None:
    """A loop that starts a copy, then waits for all but the `pending` latest."""
    wait = instruction("DEPBAR.LE", operands=f"SB0, 0x{pending:x}")
    body = [instruction("LDGSTS.E.128"), instruction("LDGDEPBAR"), wait]
    cycles, warp = scoreboard.steady(body, 1020, settle=40, measured=40)
    assert cycles == pytest.approx(expected, rel=0.02)
    assert warp.most_bytes == 16 * (pending + 1)


def code(*lines: str) -> list[sass.Instruction]:
    """Instructions 16 bytes apart; "@P0 BRA 3" branches to line 3."""
    found = []
    for n, line in enumerate(lines):
        words = line.removeprefix("@P0 ").split(maxsplit=1)
        operands = f"0x{16 * int(words[1]):x}" if words[0] == "BRA" else " ".join(words[1:])
        found.append(sass.Instruction(16 * n, line.startswith("@"), words[0], operands, 1 | 63 << 5))
    return found


def test_the_usual_way_skips_optional_terms_and_keeps_stores() -> None:
    kernel = facts.kernel_of(
        "f", 90, code("MOV R1", "@P0 BRA 4", "LDG.E R2", "FMUL R3", "@P0 BRA 6", "STG.E.128 R4", "@P0 BRA 1", "EXIT")
    )
    (loop,) = kernel.loops
    assert (loop.instructions, loop.loads, loop.stores) == (4, {}, {"128": 1})
    assert kernel.straight == 2


def test_of_two_ways_to_copy_the_usual_one_has_fewer_instructions() -> None:
    """Line 2 branches to the usual copies; the others are more, and the compiler puts loads of nothing before each."""
    copies = ["LDGSTS.E.128 [R2]"] * 5
    rare = ["LDS RZ, [RZ]", *copies, "MOV R3", "LDS RZ, [RZ]", *copies]
    lines = ["MOV R1", "HMMA.16816.F32.BF16 R2", f"@P0 BRA {len(rare) + 4}", *rare, f"BRA {len(rare) + 10}",
             "LDS RZ, [RZ]", *copies, "@P0 BRA 1", "EXIT"]  # fmt: skip
    (loop,) = facts.kernel_of("f", 90, code(*lines)).loops
    assert loop.copies == {"128": 5}
    assert loop.instructions == 9


def test_narrow_predicated_loads_beside_wide_ones_are_off() -> None:
    lines = ("MOV R1", "LDG.E.128 R4", "@P0 LDG.E R2", "STG.E.128 R4", "@P0 BRA 1", "EXIT")
    (loop,) = facts.kernel_of("f", 90, code(*lines)).loops
    assert loop.loads == {"128": 1}
    (loop,) = facts.kernel_of("f", 90, code(*(line.replace("LDG.E.128", "LDG.E") for line in lines))).loops
    assert loop.loads == {"32": 2}


@pytest.mark.parametrize(("copies", "expected"), [({"128": 8}, [150, 250, 400]), ({}, [150, 350, 500])])
def test_copies_arrive_during_the_inner_loop_and_loads_do_not(copies: dict[str, int], expected: list[int]) -> None:
    chain = [50.0, 250.0, 400.0, 900.0, 1900.0]  # at latencies of 0, 250, 500, 1000, 2000
    outer = facts.Loop(0, -1, inner=False, tail=False, copies=copies, chain=chain)
    inner = facts.Loop(1, 0, inner=True, tail=False, chain=[25.0] * 5)
    kernel = facts.Kernel("f", 90, 0, 0, 0, [outer, inner])
    work = parts.Pass(0, 3, "memory", (parts.Pass(1, 4),))
    cycles = [work.cycles(kernel, {"memory": latency}) / 3 for latency in (0, 250, 500)]
    assert cycles == expected


def test_branches_with_products_of_their_own_are_two_ways() -> None:
    kernel = facts.kernel_of(
        "f", 90, code("MOV R1", "@P0 BRA 5", "HMMA.16816.F32.BF16 R2", "HMMA.16816.F32.BF16 R4", "BRA 6",
                      "HMMA.16816.F32.BF16 R2", "@P0 BRA 1", "EXIT"),
    )  # fmt: skip
    assert [(loop.number, loop.products) for loop in kernel.loops] == [(0, 2), (0, 1)]


@pytest.mark.parametrize(("precision", "side"), FORWARD)
def test_the_old_forward_takes_what_another_reading_says(precision: str, side: int) -> None:
    times = [t for c in cases("old", "style_loss", precision, side) for t in model.op_times(H200, c, kernels())]
    assert len(times) == 5
    total = 1e6 * sum(t.main + t.tail for t in times)
    assert FORWARD[precision, side] / ERROR < total < FORWARD[precision, side] * ERROR
    tails = 1e6 * sum(t.tail for t in times)
    assert TAILS[side] / ERROR < tails < TAILS[side] * ERROR
    assert all(t.binds == "tail" for t in times if precision == "bfloat16")


@pytest.mark.parametrize(("precision", "side"), BACKWARD)
def test_the_old_backward_takes_what_another_reading_says(precision: str, side: int) -> None:
    """That reading counted instructions and bytes; the model adds the stalls between dependent instructions."""
    times = [t for c in cases("old", "layer_backward_", precision, side) for t in model.op_times(H200, c, kernels())]
    counted = 1e6 * sum(max(s for name, s in t.terms.items() if name != "latency") for t in times)
    expected = BACKWARD[precision, side]
    total = 1e6 * sum(t.main for t in times)
    assert counted / ERROR < expected < total * ERROR
    assert total < 1.8 * expected


def test_the_old_tail_is_told_from_the_new_one() -> None:
    """One block adds all partial results with four 4-byte loads in flight, or many blocks with 16-byte loads."""
    known = kernels()
    for side in (512, 1024):
        old = [model.op_times(H200, c, known) for c in cases("old", "style_loss", "bfloat16", side)]
        new = [model.op_times(H200, c, known) for c in cases("new", "style_loss", "bfloat16", side)]
        for (before,), (_, finish) in zip(old, new, strict=True):
            assert finish.kernel == "gram_finish<float>"
            assert before.tail > 4 * finish.seconds
        assert sum(t.seconds for times in new for t in times) < 0.5 * sum(t.seconds for times in old for t in times)


def test_more_loads_in_flight_shorten_a_tail() -> None:
    known = kernels()
    (case,) = [c for c in cases("old", "style_loss", "bfloat16", 512) if c.layer == "relu2_1"]
    key = (case.launches[0].kernel, 90)
    (before,) = model.op_times(H200, case, known)
    tails = [loop.tail and loop.inner and "32" in loop.loads for loop in known[key].loops]
    wide = [
        dataclasses.replace(loop, independent=16) if tail and loop.independent == 4 else loop
        for loop, tail in zip(known[key].loops, tails, strict=True)
    ]
    known[key] = dataclasses.replace(known[key], loops=wide)
    (after,) = model.op_times(H200, case, known)
    assert after.tail < 0.6 * before.tail
    assert after.terms == before.terms


def test_a_block_too_many_is_a_second_wave() -> None:
    known = kernels()
    (case,) = [c for c in cases("new", "layer_backward_", "bfloat16", 512) if c.layer == "relu3_1"]
    (launch,) = case.launches
    (time,) = model.op_times(H200, case, known)
    full = dataclasses.replace(launch, blocks=132 * time.resident)
    over = dataclasses.replace(launch, blocks=132 * time.resident + 1)
    kernel = known[launch.kernel, 90]
    work = model.FAMILIES["backward_tiles"](case, launch, kernel)
    one, two = (model.launch_time(H200, item, kernel, work).terms["latency"] for item in (full, over))
    assert two == 2 * one


def test_rates_of_tensor_cores_follow_from_published_peaks() -> None:
    """Multiply-adds of a cycle and a quarter of a multiprocessor: 256 in half on A100, 64 on RTX 4090, 128 on L4."""
    half, tf32 = "HMMA.16816.F32.BF16", "HMMA.1688.F32.TF32"
    cycles = {name: (cards.named(name).product_cycles(half), cards.named(name).product_cycles(tf32)) for name in
              ("A100-80", "RTX 4090", "L4", "H100")}  # fmt: skip
    assert cycles["A100-80"] == pytest.approx((8, 8), rel=0.01)
    assert cycles["RTX 4090"] == pytest.approx((32, 32), rel=0.01)
    assert cycles["L4"] == pytest.approx((16, 16), rel=0.01)
    assert 6 < cycles["H100"][0] < 7.5  # 4 with wgmma


def test_resident_blocks_equal_cuda_occupancy(tmp_path: Path) -> None:
    include = Path("/usr/local/cuda/include")
    compiler = shutil.which("c++")
    if compiler is None or not (include / "cuda_occupancy.h").exists():
        pytest.skip("requires a C++ compiler and cuda_occupancy.h")
    program = tmp_path / "occupancy"
    source = Path(sass.__file__).with_name("occupancy.cpp")
    subprocess.run([compiler, "-O1", f"-I{include}", str(source), "-o", str(program)], check=True)
    limits = [(r, s, t) for r in (24, 40, 64, 104, 174, 255) for s in (0, 1024, 17000, 33792) for t in (64, 128, 256)]
    asked = [(chip, *limit) for chip in cards.CHIPS for limit in limits]
    lines = "\n".join(f"{chip.architecture} {r} {s} 0 {t}" for chip, r, s, t in asked)
    run = subprocess.run([str(program)], input=lines, capture_output=True, text=True, check=True)
    for (chip, r, s, t), line in zip(asked, run.stdout.splitlines(), strict=True):
        assert chip.resident(t, r, s) == int(line.split()[0]) // t, (chip.name, r, s, t)


def test_misses_are_listed_unless_they_are_known() -> None:
    old = [c for op in ("style_loss", "layer_backward_") for c in cases("old", op, "bfloat16", 512)]
    found = targets.misses(old, kernels(), step=1.3e-3)
    assert {(miss.kind, miss.op) for miss in found if miss.kind != "eager"} == {
        ("sum", "style_loss"),
        ("sum", "layer_backward_"),
        ("step", ""),
    }
    assert {miss.layer for miss in found if miss.op == "style_loss" and miss.kind == "eager"} == {
        "relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1"
    }  # fmt: skip
    assert any(line.startswith("style_loss, 512^2, bfloat16: the five layers take 4") for line in targets.check(found))
    known = tuple(targets.Known(kind, "a test") for kind in ("sum", "eager", "step"))
    assert targets.check(found, known) == []
    unused = targets.Known("sum", "a test", op="style_loss", precision="float32")
    assert targets.check(found, (*known, unused)) == ["no longer an exception, remove it: sum style_loss a test"]
    assert targets.misses([], kernels(), step=1.1e-3) == []


def test_eager_takes_the_generous_side() -> None:
    """Never below the roofline, and above it by little for large maps."""
    for case in cases("old", "layer_backward_", "bfloat16", 1024) + cases("old", "style_loss", "bfloat16", 1024):
        for chip in cards.CHIPS:
            assert model.roof(chip, case) < eager.by_hand(chip, case) <= eager.seconds(chip, case)
    (large,) = [c for c in cases("old", "style_loss", "bfloat16", 1024) if c.layer == "relu1_1"]
    assert eager.seconds(H200, large) < 1.5 * model.roof(H200, large)
    # Two products that read and write, then three passes with two reads: 13 times the map.
    (large,) = [c for c in cases("old", "layer_backward_", "bfloat16", 1024) if c.layer == "relu1_1"]
    assert eager.seconds(H200, large) == pytest.approx(13 * large.features / H200.bandwidth, rel=0.05)
    assert eager.by_hand(H200, large) == pytest.approx(6 * large.features / H200.bandwidth, rel=0.05)


def test_eager_multiplies_float32_on_the_ordinary_units() -> None:
    """67 TFLOP/s on an H200; the whole matrix, not its triangle."""
    (large,) = [c for c in cases("old", "style_loss", "float32", 1024) if c.layer == "relu3_1"]
    assert eager.seconds(H200, large) > 2 * 256**2 * 256**2 / 67e12


def test_a_whole_step_with_the_old_kernels_takes_what_another_reading_says() -> None:
    """1.75 ms when it had 50 launches more, of it 0.9 in convolutions: 13 forward and 13 backward, 190 GF each."""
    calls = step_launches.step()
    sizes = [(3, 64, 1), (64, 64, 1), (64, 128, 2), (128, 128, 2), (128, 256, 4), *[(256, 256, 4)] * 3, (256, 512, 8)]
    sizes += [(512, 512, 8)] * 3 + [(512, 512, 16)]
    forward = sum(2 * 9 * a * b * (512 / scale) ** 2 for a, b, scale in sizes)
    assert sum(op.operations for op in calls if op.name in step_launches.CONVOLUTIONS) == 2 * forward
    styled = cases("old", "style_loss", "bfloat16", 512) + cases("old", "layer_backward_", "bfloat16", 512)
    time = step.step_time(H200, calls, styled, kernels())
    assert time.convolutions == pytest.approx(0.9e-3, rel=0.05)
    assert 1.75e-3 / ERROR < time.seconds < 1.75e-3 * ERROR
    assert 50 < time.launches < 100
    assert f"{1e6 * time.seconds:.0f} us in {time.launches} launches" in step.line(time)


def test_a_table_that_does_not_fit_the_code_is_an_error() -> None:
    """Such as a loop that the compiler has unrolled twice."""
    known = kernels()
    (case,) = [c for c in cases("old", "style_loss", "bfloat16", 512) if c.layer == "relu2_1"]
    key = (case.launches[0].kernel, 90)
    loops = [
        dataclasses.replace(loop, tensor={name: 4 * n for name, n in loop.tensor.items()}) for loop in known[key].loops
    ]
    known[key] = dataclasses.replace(known[key], loops=loops)
    with pytest.raises(LookupError, match="1179648 tensor-core instructions, 294912 are needed"):
        model.op_times(H200, case, known)


def test_a_snapshot_is_read_as_it_was_written(tmp_path: Path) -> None:
    kept = cases("new", "style_loss", "bfloat16", 512)
    snapshot(tmp_path / "now", kept, list(kernels().values()))
    read = facts.from_json((tmp_path / "now_facts.json").read_text())
    assert {kernel.name for kernel in read} == {launch.kernel for case in kept for launch in case.launches}
    again = read_cases(tmp_path / "now_launches.json")
    assert again == kept
    found = {(kernel.name, kernel.architecture): kernel for kernel in read}
    for case, other in zip(kept, again, strict=True):
        assert model.op_times(H200, other, found) == model.op_times(H200, case, kernels())


def test_what_is_missing_is_named() -> None:
    (case, *_) = cases("old", "style_loss", "bfloat16", 512)
    with pytest.raises(LookupError, match="no machine code of gram_mma<__nv_bfloat16, 1, 0, false, false> for sm_90"):
        model.op_times(H200, case, {})
    launch = dataclasses.replace(case.launches[0], kernel="other<float>")
    with pytest.raises(LookupError, match="no entry for other in FAMILIES"):
        model.op_times(
            H200, dataclasses.replace(case, launches=(launch,)), {("other<float>", 90): facts.Kernel("", 90, 0, 0, 0)}
        )

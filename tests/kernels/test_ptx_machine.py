"""The interpreter of tests/kernels/ptx itself: small programs in PTX, and arithmetic against Python's integers."""

from __future__ import annotations

import re
import struct

import numpy as np
import pytest
from ptx.machine import Unknown, launch
from ptx.memory import Region, Violation
from ptx.operations import OPERATIONS, compare, convert
from ptx.parse import Module

PROGRAM = """
.version 9.0
.target sm_80
.address_size 64

.visible .entry program(
	.param .u64 program_param_0
)
{{
	.reg .pred 	%p<9>;
	.reg .b32 	%r<9>;
	.reg .b64 	%rd<9>;
	.shared .align 16 .b8 held[256];

	ld.param.u64 	%rd1, [program_param_0];
	cvta.to.global.u64 	%rd2, %rd1;
	mov.u32 	%r1, %tid.x;
	mul.wide.u32 	%rd3, %r1, 4;
	add.s64 	%rd4, %rd2, %rd3;
	shl.b32 	%r2, %r1, 2;
	mov.u32 	%r3, held;
	add.s32 	%r4, %r3, %r2;
	setp.lt.u32 	%p1, %r1, 16;
{body}
}}
"""


def run(body: str, blocks: int = 1) -> np.ndarray:
    """The 64 words of output of 64 threads; %rd4 and %r4 are a thread's addresses in global and shared memory."""
    kernel = Module(PROGRAM.format(body=body))["program"]
    out = Region("out", 1 << 32, np.full(256, 7, np.uint8), granule=4)
    out.ready[:] = True
    launch(kernel, [out], range(blocks), blocks, 64, [struct.pack("Q", out.base)])
    return out.data.view(np.uint32)


def test_threads_that_branched_meet_again() -> None:
    """Half of a warp adds 100; then all shuffle."""
    out = run("""
	mov.u32 	%r5, %r1;
	@!%p1 bra 	$after;
	add.s32 	%r5, %r5, 100;
$after:
	shfl.sync.bfly.b32 	%r6|%p2, %r5, 31, 31, -1;
	st.global.u32 	[%rd4], %r6;
	ret;
""")
    thread = np.arange(64)
    other = thread // 32 * 32 + 31 - thread % 32
    assert np.array_equal(out, other + 100 * (other < 16))


def test_a_loop_runs_as_often_as_each_thread_needs() -> None:
    out = run("""
	mov.u32 	%r5, 0;
	mov.u32 	%r6, 0;
$again:
	setp.ge.u32 	%p2, %r6, %r1;
	@%p2 bra 	$done;
	add.s32 	%r5, %r5, %r6;
	add.s32 	%r6, %r6, 1;
	bra.uni 	$again;
$done:
	st.global.u32 	[%rd4], %r5;
	ret;
""")
    assert out.tolist() == [n * (n - 1) // 2 for n in range(64)]


ERRORS = {
    "an unknown instruction": ("tex.2d.v4.f32.f32 {%r5}, [%rd4]; ret;", r"^program, block 0: tex\.2d\.v4\.f32\.f32: "),
    "outside every buffer": ("st.global.u32 [%rd2+4096], %r1; ret;", r"out: byte 4096 is past the end of 256"),
    "before a buffer": ("ld.global.u32 %r5, [%rd4+-16]; ret;", r"out: byte -16 is past the end"),
    "misaligned": ("st.global.u32 [%rd4+2], %r1; ret;", r"out: an address is not a multiple of 4"),
    "never written": ("ld.shared.u32 %r5, [%r4]; ret;", r"shared memory: uninitialized memory is read"),
    "a register without a value": ("st.global.u32 [%rd4], %r7; ret;", r"%r7 is read before it is written"),
    "one place, two threads": ("st.shared.u32 [held], %r1; ret;", r"race: two threads write to one place"),
    "no barrier before a read": (
        "st.shared.u32 [%r4], %r1; xor.b32 %r5, %r4, 4; ld.shared.u32 %r6, [%r5]; ret;",
        r"race: another thread wrote there with no barrier between",
    ),
    "no barrier before a write": (
        "st.shared.u32 [%r4], %r1; bar.sync 0; xor.b32 %r5, %r4, 4; ld.shared.u32 %r6, [%r5]; "
        "st.shared.u32 [%r4], %r6; ret;",
        r"race: another thread reads there with no barrier between",
    ),
    "a barrier of the warp alone": (
        "st.shared.u32 [%r4], %r1; bar.warp.sync -1; xor.b32 %r5, %r4, 128; ld.shared.u32 %r6, [%r5]; ret;",
        r"race: another thread wrote there",
    ),
    "a barrier in a branch": (
        "@%p1 bra $out; bar.sync 0;\n$out:\nret;",
        r"divergent barrier: 16 threads have left, 48 wait",
    ),
    "a shuffle in a branch": (
        "@%p1 bra $out; shfl.sync.bfly.b32 %r6|%p2, %r1, 1, 31, -1;\n$out:\nret;",
        r"divergent warp collective: shfl\.sync",
    ),
    "two blocks at one place": (
        "st.global.u32 [%rd4], %r1; ret;",
        r"out: block 0 wrote there too, and did not release",
    ),
}


@pytest.mark.parametrize("name", ERRORS)
def test_what_is_wrong_is_an_error(name: str) -> None:
    body, message = ERRORS[name]
    with pytest.raises((Violation, Unknown), match=message):
        run(re.sub(r"; ", ";\n\t", body), blocks=2)


def test_a_barrier_of_the_warp_orders_its_lanes() -> None:
    out = run(
        "st.shared.u32 [%r4], %r1;\nbar.warp.sync -1;\nxor.b32 %r5, %r4, 4;\n"
        "ld.shared.u32 %r6, [%r5];\nst.global.u32 [%rd4], %r6;\nret;"
    )
    assert np.array_equal(out, np.arange(64) ^ 1)


COPY = """
	cp.async.cg.shared.global [%r5], [%rd5], 16;
	cp.async.commit_group;
"""
GROUPS = """
	shl.b32 	%r5, %r1, 4;
	and.b32 	%r5, %r5, 255;
	add.s32 	%r5, %r3, %r5;
	cvt.u64.u32 	%rd5, %r5;
	add.s64 	%rd5, %rd2, %rd5;
	setp.ge.u32 	%p2, %r1, {n};
	@%p2 bra 	$done;
{copies}
	cp.async.wait_group {pending};
	ld.shared.u32 	%r6, [%r5];
	st.global.u32 	[%rd4+64], %r6;
$done:
	ret;
"""


@pytest.mark.parametrize(("pending", "error"), [(0, None), (1, None), (2, "data of cp.async is pending there")])
def test_a_wait_completes_all_but_the_last_groups(pending: int, error: str | None) -> None:
    """One copy, then an empty group: a wait for all but one group has the copy, a wait for all but two has not."""
    body = GROUPS.format(n=4, copies=COPY + "\tcp.async.commit_group;", pending=pending)
    if error is None:
        assert run(body)[16:20].tolist() == 4 * [0x07070707]
        return
    with pytest.raises(Violation, match=error):
        run(body)


@pytest.mark.parametrize("kind", ["i4", "i8", "u4", "u8"])
def test_integers_equal_those_of_python(kind: str) -> None:
    rng = np.random.default_rng(8)
    limits = np.iinfo(kind)
    a, b = rng.integers(limits.min, limits.max, (2, 200), dtype=kind, endpoint=True)
    b[:100] = np.where(b[:100] % 100 == 0, 1, b[:100] % 100)
    by, bits = rng.integers(0, 80, 200).astype(np.uint32), 8 * a.itemsize

    def wrap(value: int) -> int:
        value %= 1 << bits
        return value - (1 << bits) if kind[0] == "i" and value >> (bits - 1) else value

    def divide(x: int, y: int) -> int:
        return abs(x) // abs(y) * (1 if (x < 0) == (y < 0) else -1)

    pairs = list(zip(a.tolist(), b.tolist(), strict=True))
    with np.errstate(all="ignore"):
        got = {name: OPERATIONS[name]([name], a, b).tolist() for name in ("div", "rem", "mul")}
        got["hi"] = OPERATIONS["mul"](["mul", "hi"], a, b).tolist()
        got |= {name: OPERATIONS[name]([name], a, by).tolist() for name in ("shl", "shr")}
    assert got["div"] == [divide(x, y) for x, y in pairs]
    assert got["rem"] == [x - divide(x, y) * y for x, y in pairs]
    assert got["mul"] == [wrap(x * y) for x, y in pairs]
    assert got["hi"] == [wrap(x * y >> bits) for x, y in pairs]
    assert got["shl"] == [wrap(x << n) if n < bits else 0 for x, n in zip(a.tolist(), by.tolist(), strict=True)]
    assert got["shr"] == [x >> n for x, n in zip(a.tolist(), by.tolist(), strict=True)]


def test_fields_of_bits_equal_their_definitions() -> None:
    rng = np.random.default_rng(9)
    a, b = rng.integers(0, 2**32, (2, 100), dtype=np.uint32)
    at, length = rng.integers(0, 16, 100).astype(np.uint32), rng.integers(1, 17, 100).astype(np.uint32)
    with np.errstate(all="ignore"):
        inserted = OPERATIONS["bfi"](["bfi", "b32"], a, b, at, length)
        taken = OPERATIONS["bfe"](["bfe", "u32"], a, at, length)
        signed = OPERATIONS["bfe"](["bfe", "s32"], a.view(np.int32), at, length)
        turned = OPERATIONS["shf"](["shf", "l", "wrap", "b32"], a, b, at)
        chosen = OPERATIONS["lop3"](["lop3", "b32"], a, b, a ^ b, np.uint32(0xE8))
        negated = OPERATIONS["prmt"](["prmt", "b32"], a, b, np.uint32(0xFA41))
    for i in range(100):
        x, y, n, m = int(a[i]), int(b[i]), int(at[i]), int(length[i])
        mask = ((1 << m) - 1) << n
        field = x >> n & ((1 << m) - 1)
        assert int(inserted[i]) == (y & ~mask | x << n & mask) % 2**32
        assert int(taken[i]) == field
        assert int(signed[i]) == (field - (1 << m) if field >> (m - 1) else field)
        assert int(turned[i]) == ((y << 32 | x) << n >> 32) % 2**32
        z = x ^ y
        assert int(chosen[i]) == x & y | y & z | x & z  # the majority
        eight = x.to_bytes(4, "little") + y.to_bytes(4, "little")
        sign = [255 if eight[k] > 127 else 0 for k in (2, 7)]
        assert int(negated[i]).to_bytes(4, "little") == bytes([eight[1], eight[4], *sign])


def test_comparisons_and_conversions_of_numbers_that_are_not_finite() -> None:
    x = np.array([np.nan, np.inf, -np.inf, 3.5, -3.5], np.float32)
    one = np.float32(1)
    assert compare("ne", x, one).tolist() == [False, True, True, True, True]
    assert compare("neu", x, one).tolist() == [True, True, True, True, True]
    assert compare("ltu", x, one).tolist() == [True, False, True, False, True]
    assert compare("nan", x, one).tolist() == [True, False, False, False, False]
    with np.errstate(all="ignore"):
        assert convert(["cvt", "rzi", "s32", "f32"], x).tolist() == [0, 2**31 - 1, -(2**31), 3, -3]
        assert convert(["cvt", "rni", "u32", "f32"], x).tolist() == [0, 2**32 - 1, 0, 4, 0]
        assert convert(["cvt", "rn", "bf16", "f32"], x).tolist() == [0x7FFF, 0x7F80, 0xFF80, 0x4060, 0xC060]
        assert convert(["cvt", "rn", "bf16", "f32"], np.float32([1 + 2**-8, 1 + 3 * 2**-8])).tolist() == [
            0x3F80,
            0x3F82,
        ]

"""What `make cuda` checks: the report on CUDA kernels, read from cuobjdump's text, and the list of ops."""

import re
from pathlib import Path

import pytest

from tools import check_cuda, kernel_report, sass

ROOT = Path(__file__).resolve().parents[2]

USAGE = """
Fatbin elf code:
================
arch = sm_75
Resource usage:
 Common:
  GLOBAL:0
 Function _Zfirst:
  REG:36 STACK:0 SHARED:68 LOCAL:0 CONSTANT[0]:392 TEXTURE:0 SURFACE:0 SAMPLER:0
 Function _Zsecond:
  REG:255 STACK:16 SHARED:0 LOCAL:0 CONSTANT[0]:392 TEXTURE:0 SURFACE:0 SAMPLER:0

Fatbin elf code:
================
arch = sm_100
Resource usage:
 Function _Zfirst:
  REG:40 STACK:0 SHARED:1092 LOCAL:0 CONSTANT[0]:392 TEXTURE:0 SURFACE:0 SAMPLER:0
"""

ELF = """
.nv.info
	<0x1>
	Attribute:	EIATTR_REGCOUNT
	Format:	EIFMT_SVAL
	Value:	function: _Zfirst(0x9)	register count: 36(0x24)
.nv.info._Zfirst
	<0x11>
	Attribute:	EIATTR_MAX_THREADS
	Format:	EIFMT_SVAL
	Value:	0x80 0x2 0x1
	<0x12>
.nv.info._Zsecond
	<0x1>
	Attribute:	EIATTR_CBANK_PARAM_SIZE
"""

# A setup, a loop that holds a small loop and a tensor-core loop, a jump back that closes no loop, and padding.
SASS = """
	code for sm_90
		Function : _Zfirst
	.headerflags	@"EF_CUDA_SM90"
        /*0000*/                   LDC R1, c[0x0][0x28] ;            /* 0x00000a00ff017b82 */
                                                                     /* 0x000ff00000000800 */
        /*0010*/                   LDG.E.U16.CONSTANT R4, desc[UR4][R2.64] ;  /* 0x00 */
        /*0020*/              @!P2 BRA 0xd0 ;                        /* 0x00 */
        /*0030*/                   LDG.E.128.CONSTANT R4, desc[UR4][R2.64] ;  /* 0x00 */
        /*0040*/                   LDG.E.64 R8, desc[UR4][R2.64] ;   /* 0x00 */
        /*0050*/               @P1 BRA 0x40 ;                        /* 0x00 */
        /*0060*/                   LDGSTS.E.BYPASS.128 [R3], desc[UR4][R2.64], P0 ;  /* 0x00 */
        /*0070*/                   HFMA2.MMA R5, -RZ, RZ, 0, 0 ;     /* 0x00 */
        /*0080*/                   HMMA.1688.F32.TF32 R4, R4, R6, R4 ;  /* 0x00 */
        /*0090*/                   LDG.E R8, desc[UR4][R2.64] ;      /* 0x00 */
        /*00a0*/                   BRA.U UP0, 0x60 ;                 /* 0x00 */
        /*00b0*/               @P0 BRA 0x30 ;                        /* 0x00 */
        /*00c0*/                   EXIT ;                            /* 0x00 */
        /*00d0*/                   STL [R1], R4 ;                    /* 0x00 */
        /*00e0*/                   BRA 0xc0 ;                        /* 0x00 */
        /*00f0*/                   BRA 0xf0;                         /* 0x00 */
		Function : _Zsecond
        /*0000*/                   LDG.E.U8 R4, desc[UR4][R2.64] ;   /* 0x00 */
        /*0010*/                   EXIT ;                            /* 0x00 */
"""


def kernel(name="gram_tiles<float, 0, 1, false, false>", architecture=90, **changes):
    values = {"registers": 100, "threads": 128, "loads": {128: 4}, "loop": 50, "tensor": 20}
    return kernel_report.Kernel(name, architecture, **(values | changes))


def test_resource_usage_is_read_per_architecture():
    usage = kernel_report.parse_usage(USAGE)
    assert sorted(usage) == [(75, "_Zfirst"), (75, "_Zsecond"), (100, "_Zfirst")]
    assert (usage[75, "_Zsecond"]["REG"], usage[75, "_Zsecond"]["STACK"]) == (255, 16)
    assert usage[100, "_Zfirst"]["SHARED"] == 1092
    assert kernel_report.own_shared(100, 1092) == kernel_report.own_shared(75, 68) == 68


def test_threads_are_those_of_the_launch_bounds():
    assert kernel_report.parse_threads(ELF) == {"_Zfirst": 256}


def test_machine_code_is_read_and_an_addition_named_mma_is_no_tensor_core():
    code = sass.parse(SASS)
    assert sorted(code) == ["_Zfirst", "_Zsecond"]
    assert len(code["_Zfirst"]) == 16
    assert [i.address for i in code["_Zfirst"] if i.tensor] == [0x80]
    assert sass.load_widths(code["_Zfirst"]) == {128: 2, 64: 1, 32: 1, 16: 1}
    assert sass.load_widths(code["_Zsecond"]) == {8: 1}


def test_loops_are_distinguished_from_other_backward_branches():
    parts, following = sass.blocks(sass.parse(SASS)["_Zfirst"])
    found = {tuple(i.address for block in sorted(loop) for i in parts[block]) for loop in sass.loops(following)}
    # The last branch, to itself, is padding that nothing reaches; the one before goes back to the common exit.
    assert found == {(0x40, 0x50), tuple(range(0x60, 0xB0, 0x10)), tuple(range(0x30, 0xC0, 0x10))}


def test_the_main_loop_is_the_innermost_with_tensor_cores():
    code = sass.parse(SASS)
    assert [i.address for i in sass.main_loop(code["_Zfirst"])] == [0x60, 0x70, 0x80, 0x90, 0xA0]
    without = [i for i in code["_Zfirst"] if not i.tensor]
    assert [i.address for i in sass.main_loop(without)] == [0x60, 0x70, 0x90, 0xA0], "the one with the most loads"
    assert sass.main_loop(code["_Zsecond"]) == []


def test_the_sum_after_an_atomic_is_not_the_main_loop():
    text = """
		Function : _Zsum
        /*0000*/                   LDG.E.U16 R4, desc[UR4][R2.64] ;     /* 0x00 */
        /*0010*/               @P0 BRA 0x0 ;                            /* 0x00 */
        /*0020*/                   ATOMG.E.ADD.STRONG.GPU PT, R3, [R2] ; /* 0x00 */
        /*0030*/                   LDG.E.64 R8, desc[UR4][R2.64] ;      /* 0x00 */
        /*0040*/               @P1 BRA 0x30 ;                           /* 0x00 */
        /*0050*/                   EXIT ;                               /* 0x00 */
"""
    code = sass.parse(text)["_Zsum"]
    assert [i.address for i in sass.main_loop(code)] == [0x0, 0x10]
    assert [i.address for i in sass.main_loop(code[2:])] == [0x30, 0x40]


def test_names_are_short():
    long = (
        "void fastnst::kernels::gram_tiles<float, (fastnst::kernels::Load)0, (fastnst::kernels::Multiply)1, true, "
        "false>(fastnst::kernels::FeatureMap<float>, fastnst::kernels::GramPlan, float const*)"
    )
    assert kernel_report.short(long) == "gram_tiles<float, 0, 1, true, false>"


@pytest.mark.parametrize(
    ("changes", "defect"),
    [
        ({"spills": 3}, "3 loads and stores of local memory"),
        ({"stack": 16}, "16 bytes of local memory a thread"),
        ({"threads": 0}, "has no launch bounds"),
        ({"tensor": 0}, "no tensor-core instruction in the main loop"),
        ({"loads": {32: 4, 64: 1}}, "no 128-bit load, only {32: 4, 64: 1}"),
        ({"name": "squared_difference<float, 4>", "tensor": 0, "loads": {32: 1}}, "no 128-bit load, only {32: 1}"),
        ({"launches": [{"threads": 256, "dynamic_shared": 1 << 20, "occupancy": 0}]}, "does not fit"),
    ],
)
def test_a_bad_kernel_is_refused(changes, defect):
    assert kernel_report.defects(kernel()) == []
    (found,) = kernel_report.defects(kernel(**changes))
    assert found.startswith(defect)


def test_what_turing_lacks_is_no_defect_but_spills_are():
    lacking = {"architecture": 75, "tensor": 0, "loads": {}}
    assert kernel_report.defects(kernel(**lacking)) == []
    assert kernel_report.defects(kernel(**lacking, spills=1)) != []
    half = kernel("gram_tiles<__half, 0, 0, false, false>", **lacking)
    assert kernel_report.defects(half) == [
        "no tensor-core instruction in the main loop",
        "no 128-bit load, only {}",
    ]
    assert kernel_report.defects(kernel("squared_difference<float, 1>", tensor=0, loads={32: 8})) == []


def test_the_check_of_cuda_kernels_knows_every_op():
    assert {*check_cuda.OPS, *check_cuda.CPU_OPS} == check_cuda.registered_ops()


def test_kernels_with_dynamic_shared_memory_are_in_the_report():
    users = set()
    for header in (ROOT / "csrc" / "kernels").glob("*.cuh"):
        for part in header.read_text().split("__global__")[1:]:
            if "FASTNST_DYNAMIC_SHARED(" in part:
                users.add(re.search(r"(\w+)\((?!kSimtThreads|kGramThreads|\d)", part.partition(")")[2])[1])
    assert users == set(kernel_report.DYNAMIC)


def test_every_kernel_is_instantiated_without_torch():
    """A header that launches kernels has a file in tests/kernels, which instantiates each of its launches."""
    headers = {path.stem: path.read_text() for path in (ROOT / "csrc" / "kernels").glob("*.cuh")}
    units = {path.stem: path.read_text() for path in (ROOT / "tests" / "kernels").glob("*.cu")}
    included = "".join(f'#include "{name}.cuh"\n' for name in units)
    pending = set(units)
    covered = set()
    while pending:
        covered |= pending
        texts = "".join(headers.get(name, "") for name in pending)
        pending = set(re.findall(r'#include "(\w+)\.cuh"', texts)) - covered
    assert included
    assert {name for name, text in headers.items() if "__global__" in text} <= covered
    for name, text in units.items():
        assert f'#include "{name}.cuh"' in text
    bound = "".join(path.read_text() for path in (ROOT / "csrc" / "cuda").glob("*.cu"))
    launched = set(re.findall(r"kernels::(launch_\w+)", bound))
    assert launched
    for launch in launched:
        assert any(f"{launch}<" in text for text in units.values()), f"{launch} is in no file of tests/kernels"

"""The command for the first GPU, with stand-ins for the device, its tools and the index of packages."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

import fastnst
from bench.gpu import roofline
from tools.gpu_day import install, machine, options, parts, programs, summary
from tools.gpu_day.machine import Machine
from tools.gpu_day.options import DayError, Places
from tools.gpu_day.programs import Deadline, Outcome

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "tools" / "gpu_day.sh"
if not (ROOT / "setup.py").exists():
    pytest.skip("needs a checkout", allow_module_level=True)

H200 = Machine("3.12.3", "2.11.0", "13.0", "NVIDIA H200", "9.0", 140 << 30, Path("/cuda/bin/nvcc"), "13.0", [], [])


def gpu_day(*arguments: str | Path, prefix: tuple[str, ...] = (), **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHON": sys.executable, **variables}
    command = [*prefix, "bash", str(SCRIPT), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=600, check=False)


def make_wheel(folder: Path) -> Path:
    """A wheel of the package that is being tested, with its compiled module for the CPU."""
    source, name = Path(fastnst.__file__).parent, f"fastnst-{fastnst.__version__}"
    folder.mkdir()
    with zipfile.ZipFile(folder / f"{name}-py3-none-any.whl", "w") as wheel:
        for path in sorted(source.rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts and "_C_cuda" not in path.name:
                wheel.write(path, path.relative_to(source.parent))
        info = f"{name}.dist-info"
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: fastnst\nVersion: {fastnst.__version__}\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        record = "".join(f"{item},,\n" for item in [*wheel.namelist(), f"{info}/RECORD"])
        wheel.writestr(f"{info}/RECORD", record)
    return folder


# Wrong uses.


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--fast"], "unrecognized arguments: --fast; see bash tools/gpu_day.sh --help"),
        (["prfile"], "argument command: invalid choice: 'prfile'"),
        (["--minutes", "0"], "--minutes: expected a number from 0.1 to 600, got 0"),
        (["--parts", "tests,bnch"], "--parts: expected some of tests,sanitizer,micro,bench, got bnch"),
        (["--wheels", "nowhere"], "--wheels: there is no folder"),
        (["--rehearse", "--out", "/dev/null/out"], "cannot write to /dev/null/out: Not a directory"),
    ],
    ids=lambda value: "" if isinstance(value, str) else value[0],
)
def test_a_wrong_use_is_one_line(arguments: list[str], said: str, tmp_path: Path) -> None:
    done = gpu_day(*arguments, "--run", tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("gpu_day: ")
    assert said in done.stderr


def test_an_interpreter_that_is_missing_is_one_line() -> None:
    done = gpu_day(PYTHON="/nowhere/python3")
    assert done.returncode == 2
    assert done.stderr == "gpu_day: there is no /nowhere/python3; set PYTHON to an interpreter that has torch\n"


@pytest.mark.parametrize(
    ("changes", "wheel", "said"),
    [
        ({"cuda": None}, True, "is not a CUDA build"),
        ({"card": None, "arch": None}, True, "sees no CUDA device"),
        ({"nvcc": None}, False, "there is no nvcc and no wheel of fastnst"),
        ({"release": "12.8"}, False, "nvcc is of CUDA 12.8, torch 2.11.0 of CUDA 13.0"),
        ({"missing": ["pip"]}, True, "has no pip"),
    ],
    ids=["cpu torch", "no device", "no nvcc", "another CUDA", "no pip"],
)
def test_a_machine_that_lacks_something_is_refused(changes: dict[str, object], wheel: bool, said: str) -> None:
    machine.check(H200, rehearse=False, wheel=False)
    with pytest.raises(DayError, match=said) as raised:
        machine.check(replace(H200, **changes), rehearse=False, wheel=wheel)
    assert "\n" not in str(raised.value)


def test_without_nvcc_a_wheel_is_enough() -> None:
    machine.check(replace(H200, nvcc=None, release=None), rehearse=False, wheel=True)


def test_an_interpreter_without_torch_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bare = tmp_path / "python"
    bare.write_text(f'#!/bin/sh\nexec "{sys.executable}" -I -S "$@"\n')
    bare.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(bare))
    with pytest.raises(DayError, match=r"has no torch .*; set PYTHON to one that has"):
        machine.probe(os.environ, tmp_path)


def test_a_full_disk_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(2**40, 2**40, 7 << 20))
    with pytest.raises(DayError, match="out has 7 MB free, 512 are needed"):
        Places(tmp_path / "out", tmp_path / "run").make()


# Programs.


def test_a_program_that_takes_too_long_ends_with_all_that_it_started(tmp_path: Path) -> None:
    source = (
        "import subprocess, sys, time, pathlib\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        "pathlib.Path('pid').write_text(str(child.pid)); print('started', flush=True); time.sleep(60)"
    )
    done = programs.run([sys.executable, "-c", source], tmp_path / "log.txt", 2, folder=tmp_path)
    assert (done.code, done.state) == (None, "out of time")
    assert "started" in done.log
    pid = Path("/proc", (tmp_path / "pid").read_text(), "stat")
    for _ in range(50):  # a process that was killed stays listed until its parent has noticed
        if not pid.exists() or pid.read_text().rpartition(")")[2].split()[0] == "Z":
            return
        time.sleep(0.1)
    raise AssertionError("the child still runs")


def test_a_program_that_is_missing_is_a_failure(tmp_path: Path) -> None:
    done = programs.run([tmp_path / "nothing"], tmp_path / "log.txt", 5, folder=tmp_path)
    assert (done.state, done.last()) == ("failed", f"{tmp_path / 'nothing'}: No such file or directory")


def test_a_part_that_raises_does_not_stop_the_others() -> None:
    def fail() -> Outcome:
        raise KeyError("seconds")

    def skip() -> Outcome:
        raise DayError("there is no ncu")

    assert programs.guarded("bench", fail).state == "failed"
    assert (programs.guarded("profile", skip).state, programs.guarded("profile", skip).note) == (
        "skipped",
        "there is no ncu",
    )


def test_no_part_gets_more_time_than_is_left() -> None:
    now = [0.0]
    deadline = Deadline(100, clock=lambda: now[0])
    assert (deadline.left(30), deadline.left()) == (30, 100)
    now[0] = 90
    assert deadline.left(30) == 10
    now[0] = 200
    assert deadline.left(30) == 0


def test_long_logs_keep_their_ends(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.txt").write_text(f"{name} first\n" + "x" * 10_000 + f"\n{name} last\n")
    text = programs.joined_logs(sorted(tmp_path.glob("*.txt")), 1000)
    assert len(text) < 2300
    for word in ("===== a", "a first", "a last", "===== b", "b last"):
        assert word in text


CASES = """
import pytest
def test_right(): pass
@pytest.mark.parametrize("x", ["a b", 2])
def test_wrong(x): assert x == 2
def test_skipped(): pytest.skip("needs a CUDA device")
@pytest.fixture
def broken(): raise ValueError
def test_broken(broken): pass
"""


@pytest.mark.parametrize("parallel", [[], ["-n", "1"]], ids=["alone", "xdist"])
def test_results_are_read_from_the_output_of_pytest(parallel: list[str], tmp_path: Path) -> None:
    (tmp_path / "test_cases.py").write_text(CASES)
    command = [sys.executable, "-m", "pytest", "-v", "--tb=short", "-p", "no:cacheprovider", *parallel, "test_cases.py"]
    log = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False).stdout
    for text in (log, log.partition("==== FAILURES")[0].partition("==== ERRORS")[0]):  # the second was interrupted
        counts, failed = parts.count_tests(text)
        assert counts == {"passed": 2, "skipped": 1, "failed": 2}
        assert sorted(failed) == ["test_cases.py::test_broken", "test_cases.py::test_wrong[a b]"]


def test_the_device_tests_are_found() -> None:
    found = parts.device_tests(ROOT)
    assert {"tests/ops/test_cuda.py", "tests/optim/test_cuda_loop.py", "tests/ops/test_cuda_results.py"} <= set(found)
    assert "tests/packaging/test_build.py" not in found


def test_a_line_of_json_that_was_cut_is_left_out() -> None:
    assert parts.json_lines('$ micro\n{"op": "pool"}\nmicro: error\n{"op": "po') == [{"op": "pool"}]


@pytest.mark.parametrize(
    ("built", "arch", "right"),
    [
        ("9.0", "9.0", True),
        ("8.0", "8.6", True),
        ("8.6", "8.0", False),
        ("8.0", "9.0", False),
        ("7.5,8.0+PTX", "9.0", True),
        ("9.0a", "9.0", True),
        ("None", "9.0", False),
    ],
)
def test_a_package_for_other_cards_is_refused(built: str, arch: str, right: bool) -> None:
    assert install.serves(built, arch) is right


# The summary.


def micro_row(
    op: str, layer: str, side: int, precision: str, variant: str, time: float, **more: float
) -> dict[str, object]:
    row = {"op": op, "layer": layer, "side": side, "precision": precision, "layout": "channels_last"}
    return {**row, "variant": variant, "microseconds": time, "bytes": 4e6, "operations": 6e9, **more}


def every_row() -> list[dict[str, object]]:
    rows = [
        micro_row("copy", "image", 0, "bfloat16", "default", 250.0, bytes=1e9, operations=0),
        micro_row("product", "image", 0, "bfloat16", "cublas", 1000.0, bytes=0, operations=6e11),
    ]
    for side in (512, 1024):
        for op in parts_of_work():
            for layer in ("image",) if op.startswith("total") else roofline.LAYERS:
                for precision in roofline.PRECISIONS:
                    rows.append(micro_row(op, layer, side, precision, "default", 20.0))
                    if op.startswith("style"):
                        rows.append(micro_row(op, layer, side, precision, "cublas", 35.0))
    return rows


def parts_of_work() -> tuple[str, ...]:
    return ("style_loss", "style_loss backward", "bias_relu_style_loss", *roofline.OPS, "total_variation")


def step(side: int, precision: str, contender: str, seconds: float | None) -> dict[str, object]:
    spread = None if seconds is None else {"median": seconds, "least": seconds, "most": seconds}
    return {"side": side, "precision": precision, "contender": contender, "seconds": spread}


FACTS = {
    "card": "NVIDIA H200",
    "arch": "9.0",
    "torch": "2.11.0",
    "python": "3.12.3",
    "commit": "abc",
    "rehearsal": False,
}


def test_the_summary_fits_sixty_lines_and_ends_with_the_table_of_ops() -> None:
    done = [Outcome(name, "ok", 10, "fine") for name in ("install", *options.PARTS)]
    done[1] = Outcome("tests", "failed", 100, "90 passed, 90 failed", [f"tests/test_x.py::test_{i}" for i in range(90)])
    loops = [
        step(side, p, name, 0.004)
        for side in (512, 1024)
        for p in roofline.PRECISIONS
        for name in ("eager", "fused", "fused + graph")
    ]
    model = [
        {"op": "style_loss", "layer": layer, "side": 512, "precision": "bfloat16", "card": "H200", "microseconds": 7.0}
        for layer in roofline.LAYERS
    ]
    text = summary.summary(FACTS, done, {"micro": every_row(), "bench": {"loop": loops, "ops": []}}, model)
    lines = text.splitlines()
    assert len(lines) <= 60
    assert max(map(len, lines)) <= 120
    assert "and " in text
    assert "more in day.json" in text
    order = [lines.index(next(line for line in lines if line.startswith(word))) for word in ("tests", "step ", "op ")]
    assert order == sorted(order)
    # 6e9 operations at 6e8 a microsecond take 10 us, 4e6 bytes at 4e6 a microsecond 1 us.
    first = next(line for line in lines if line.startswith("style_loss ")).split()
    assert first == ["style_loss", "relu1_1", "512", "bfloat16", "20.0", "35.0", "10.0", "7.0", "2.0"]
    total = next(line for line in lines if "sum of 5   512" in line.replace("sum of 5  512", "sum of 5   512")).split()
    assert total[-6:] == ["bfloat16", "100.0", "175.0", "50.0", "35.0", "2.0"]


def test_steps_are_compared_with_eager() -> None:
    rows = [
        step(512, "half", "eager", 0.006),
        step(512, "half", "fused", 0.003),
        step(512, "half", "fused + graph", None),
    ]
    assert summary.steps_table(rows)[1].split() == ["512^2", "half", "6.00", "3.00", "-", "2.00"]


def test_predictions_are_read_with_tolerance() -> None:
    row = {"op": "layer_backward_", "layer": "relu1_1", "side": "512", "precision": "half", "layout": "nchw"}
    rows = [
        {**row, "card": "H200", "microseconds": 3},
        {**row, "card": "A100", "microseconds": 4},
        {**row, "card": "H200", "side": "wide", "microseconds": 5},
        {**row, "layer": "relu2_1", "card": "H200", "seconds": 2e-6},
        {"note": "no prediction"},
    ]
    found = summary.model_of(rows, "NVIDIA H200")
    assert found == {
        ("style_loss backward", "relu1_1", 512, "half", "contiguous"): 3.0,
        ("style_loss backward", "relu2_1", 512, "half", "contiguous"): 2.0,
    }


def test_nothing_measured_is_still_a_summary() -> None:
    done = [Outcome("install", "failed", 1, "pip could not install the checkout")]
    text = summary.summary({**FACTS, "card": None, "rehearsal": True}, done, {}, [])
    assert "REHEARSAL" in text
    assert "no times of ops" in text


# The command.


def test_it_installs_a_wheel_beside_the_checkout_and_refuses_another_package(tmp_path: Path) -> None:
    wheels = make_wheel(tmp_path / "wheels")
    common = ("install", "--rehearse", "--wheels", wheels, "--run", tmp_path / "run", "--out", tmp_path / "out")
    done = gpu_day(*common)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "install    ok" in done.stdout
    assert (tmp_path / "run" / "site" / "fastnst" / "__init__.py").exists()
    assert not (tmp_path / "run" / "checkout" / "fastnst").exists()
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"summary.txt", "log.txt", "day.json"}
    (tmp_path / "sitecustomize.py").write_text(f"import sys\nsys.path.insert(0, {str(ROOT)!r})\n")
    done = gpu_day(*common, PYTHONPATH=str(tmp_path))
    assert done.returncode == 1
    assert f"fastnst was imported from {ROOT}" in (tmp_path / "out" / "log.txt").read_text() + done.stdout
    assert json.loads((tmp_path / "out" / "day.json").read_text())["parts"][0]["state"] == "failed"


FAKE = {
    # As the real one prints it, after the program that it runs.
    "compute-sanitizer": """while [ "${1#--}" != "$1" ]; do shift 2; done
"$@" && echo "========= ERROR SUMMARY: 0 errors"
""",
    "ncu": """echo "  void gram_tiles<float>(X) (256, 1, 1)x(128, 1, 1), Context 1, Stream 7, Device 0, CC 9.0"
""",
}


def fakes(folder: Path) -> str:
    """A path with stand-ins for the tools of the toolkit."""
    folder.mkdir()
    for name, body in FAKE.items():
        (folder / name).write_text(f"#!/bin/bash\n{body}")
        (folder / name).chmod(0o755)
    return f"{folder}{os.pathsep}{os.environ['PATH']}"


def isolated() -> tuple[str, ...]:
    """A command that runs another without a network, where that is allowed."""
    allowed = shutil.which("unshare") and subprocess.run(["unshare", "-n", "true"], capture_output=True).returncode == 0
    return ("unshare", "-n") if allowed else ()


@pytest.mark.slow
def test_every_part_runs_without_a_network_and_a_device(tmp_path: Path) -> None:
    wheels, path = make_wheel(tmp_path / "wheels"), fakes(tmp_path / "bin")
    common = ("--rehearse", "--wheels", wheels, "--run", tmp_path / "run", "--out", tmp_path / "out", "--sides", "32")
    done = gpu_day(*common, "--minutes", "8", prefix=isolated(), PATH=path)
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((tmp_path / "out" / "day.json").read_text())
    states = {part["part"]: part["state"] for part in report["parts"]}
    micro = "ok" if machine.find_nvcc() else "skipped"
    assert states == {"install": "ok", "tests": "ok", "sanitizer": "ok", "micro": micro, "bench": "ok"}
    assert len(done.stdout.splitlines()) <= 60
    assert len(list((tmp_path / "out").iterdir())) <= 8
    bench = (tmp_path / "run" / "logs" / "bench.txt").read_text().splitlines()
    assert bench[-1].startswith("| 32 | float32 | fused + graph | refused: ")  # the table of steps comes last
    if micro == "skipped":
        return
    done = gpu_day("profile", *common, prefix=isolated(), PATH=path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "gram_tiles" in (tmp_path / "out" / "profile.txt").read_text()


# The micro-benchmark.


def listed(program: Path) -> list[dict[str, object]]:
    done = subprocess.run([str(program), "--list"], capture_output=True, text=True, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture
def emulated(tmp_path: Path) -> Callable[[str], Path]:
    """The micro-benchmark as a program for the emulator of tests/emulator."""
    compiler = shutil.which("g++") or pytest.skip("needs g++")
    emulator, home = ROOT / "tests" / "emulator", ROOT / "bench" / "gpu"
    names = ("counters", "fiber", "hooks", "memory", "mma", "order", "symbols")
    flags = ["-std=c++17", "-O2", "-DFASTNST_EMULATED", "-w", "-I", emulator]

    def build(kind: str) -> Path:
        program, bench = tmp_path / f"micro-{kind}", [home / "micro.cu", "-x", "none"]
        folders = [
            "-I",
            ROOT / "csrc" / "kernels",
            "-I",
            home / "micro",
            "-include",
            ROOT / "tests/kernels/micro_on_cpu.h",
        ]
        sources = [emulator / f"{name}.cpp" for name in names]
        command = [
            compiler,
            *flags,
            *folders,
            f"-DMICRO_TYPE={kind}",
            "-x",
            "c++",
            *bench,
            *sources,
            "-ldl",
            "-o",
            program,
        ]
        subprocess.run(list(map(str, command)), check=True)
        return program

    return build


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["__nv_bfloat16"])  # others take minutes, and all compile below
def test_the_micro_benchmark_finds_every_kernel_right_on_the_emulator(
    emulated: Callable[[str], Path], kind: str
) -> None:
    program = emulated(kind)
    for row in listed(program):
        channels, reduction = roofline.LAYERS.get(str(row["layer"]), (3, 1))
        positions = (int(str(row["side"])) // reduction) ** 2
        work = roofline.work(str(row["op"]), channels, positions, str(row["precision"]))
        assert (row["bytes"], row["operations"]) == (work.bytes, work.operations), row
    command = [str(program), "--sides", "32", "--seconds", "500"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    rows = parts.json_lines(done.stdout)
    assert rows[-1] == {"op": "end", "left_out": 0}
    assert [row for row in rows if row.get("refused")] == []
    ops = {row["op"] for row in rows}
    assert ops >= {*parts_of_work(), "total_variation backward"}
    assert {row["layout"] for row in rows[:-1]} == {"channels_last", "contiguous"}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["float", "__half", "__nv_bfloat16"])
def test_the_micro_benchmark_compiles_for_a_device(kind: str, tmp_path: Path) -> None:
    nvcc = machine.find_nvcc()
    if nvcc is None:
        pytest.skip("needs nvcc")
    flags = ["-std=c++17", "-O3", "--extended-lambda", "-arch=sm_90", "-Werror=all-warnings"]
    folders = ["-I", "csrc/kernels", "-I", "bench/gpu/micro"]
    command = [nvcc, *flags, f"-DMICRO_TYPE={kind}", *folders, "bench/gpu/micro.cu", "-o", tmp_path / "micro"]
    subprocess.run(list(map(str, command)), cwd=ROOT, check=True)
    assert len(listed(tmp_path / "micro")) > 100
    for wrong in (["--sides", "31"], ["--fast"]):
        done = subprocess.run([str(tmp_path / "micro"), *wrong], capture_output=True, text=True)
        assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)

"""The GPU benchmark without a GPU: everything but the clock, on the CPU and on pictures of a few pixels."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import types
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch

from bench.common.contest import Contender, Spread, check
from bench.common.machine import ROOT
from bench.gpu import problems, report, tasks, whole_loop
from bench.gpu import run as bench
from bench.gpu.ceilings import measure_card
from bench.gpu.measure import measure
from bench.gpu.problems import Problem
from bench.gpu.roofline import CARDS, PRECISIONS
from bench.gpu.tasks import Task
from bench.gpu.timing import Budget, EventTimer

CPU = torch.device("cpu")
CARD = CARDS[0]


class CountingTimer:
    """Runs contenders in turn, and returns 1, 2, 3 ... seconds for the first, second, third one."""

    def __init__(self) -> None:
        self.order: list[int] = []

    def seconds(self, contenders: Sequence[Contender], rounds: int) -> list[list[float]]:
        for _ in range(rounds):
            for i, contender in enumerate(contenders):
                contender.prepare()
                contender.run()
                self.order.append(i)
        return [[float(i + 1)] * rounds for i in range(len(contenders))]


@pytest.fixture(autouse=True)
def _not_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "compiled", lambda function: function)


def problem(layer: str = "relu2_1", side: int = 16, precision: str = "float32") -> Problem:
    return Problem(layer, side, precision, torch.channels_last, CPU)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("op", tasks.TASKS)
def test_every_op_is_right_on_the_cpu_in_every_precision(op: str, precision: str) -> None:
    task = tasks.TASKS[op](problem("image" if op in tasks.IMAGE_OPS else "relu2_1", precision=precision))
    rows = {row.contender: row for row in measure(task, CountingTimer(), CARD, repeats=2)}
    names = {"eager", "compile", "fastnst"} | ({"cublas"} if "style" in op else set())
    assert set(rows) == names
    for name in names - {"cublas"}:
        assert rows[name].refused is None, rows[name]
        assert rows[name].seconds is not None
    if "cublas" in names and precision in ("float32", "tf32"):  # half types get float32 results on CUDA only
        assert rows["cublas"].refused is None


def replaced(task: Task, name: str, spoil: Callable[[torch.Tensor], torch.Tensor]) -> Task:
    def wrong(contender: Contender) -> Contender:
        run = contender.run
        return Contender(name, lambda: tuple(spoil(y) for y in run()), contender.prepare)

    return Task(task.op, task.problem, tuple(wrong(c) if c.name == name else c for c in task.contenders), task.exact)


@pytest.mark.parametrize(
    "spoil",
    [lambda y: y * 1.001, lambda y: y[..., None], lambda y: y * float("nan"), lambda y: y + float("inf")],
    ids=["factor", "shape", "nan", "infinity"],
)
def test_a_wrong_result_has_no_time_and_says_why(spoil: Callable[[torch.Tensor], torch.Tensor]) -> None:
    timer = CountingTimer()
    task = replaced(tasks.TASKS["style_loss backward"](problem()), "fastnst", spoil)
    rows = {row.contender: row for row in measure(task, timer, CARD, repeats=2)}
    assert rows["fastnst"].seconds is None
    assert "error" in (rows["fastnst"].refused or "")
    assert rows["fastnst"].bytes_per_second is None
    assert len(set(timer.order)) == 3  # the others were timed
    assert all(rows[name].seconds for name in ("eager", "compile", "cublas"))


def test_a_contender_that_fails_is_a_row_that_says_so() -> None:
    def fail() -> tuple[torch.Tensor, ...]:
        raise RuntimeError("no kernel for this card\nand more lines")

    assert check(Contender("cublas", fail), (), 1.0) == (None, "RuntimeError: no kernel for this card")


def test_too_few_results_are_refused() -> None:
    one = torch.ones(1)
    assert check(Contender("fastnst", lambda: (one,)), (one.double(), one.double()), 1.0)[1] is not None


def test_contenders_alternate_and_warming_up_does_not_count() -> None:
    timer = CountingTimer()
    rows = measure(tasks.TASKS["content_loss"](problem()), timer, CARD, repeats=2, warm_up=1)
    assert timer.order == [0, 1, 2] * 3
    assert [row.seconds for row in rows] == [Spread(s, s, s) for s in (1.0, 2.0, 3.0)]
    size = 128 * 8 * 8 * 4
    assert rows[2].bytes_per_second == pytest.approx(2 * size / 3.0)


def tiny(**changes: object) -> bench.Plan:
    settings = {"sides": (16,), "precisions": ("float32", "bfloat16"), "layers": ("relu1_1", "relu3_1"), "repeats": 2}
    return bench.Plan(**{**settings, "loop_sides": (32,), "steps": 2, **changes})


def test_a_run_leaves_a_table_a_complete_json_file_and_a_plot(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    card = measure_card("a card", CPU, CountingTimer(), size=2**10, side=32)
    plan = tiny(precisions=("float32",))
    path = bench.run(plan, CPU, CountingTimer(), card, Budget(600), out=tmp_path / "results", log=lambda line: None)
    printed, found = capsys.readouterr().out, json.loads(path.read_text())
    assert path.name == "a-card.json"
    assert path.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    assert set(found) == {"machine", "ceilings", "published", "ops", "loop", "dropped"}
    assert set(found["machine"]) >= {"card", "driver", "torch", "commit"}
    assert found["ceilings"]["bandwidth"] == 2**11
    wanted = {(op, layer) for op, p in plan.problems(CPU) for layer in [p.layer]}
    assert {(row["op"], row["layer"]) for row in found["ops"]} == wanted
    assert {row["contender"] for row in found["loop"]} == set(whole_loop.CONTENDERS)
    for row in found["ops"]:
        assert (row["seconds"] is None) == (row["refused"] is not None), row
        assert row["predicted"] is not None or row["contender"] != "fastnst"
    assert found["dropped"] == []
    for heading in ("| peak |", "| side | precision | loop |", "| op | layer |"):
        assert heading in printed


def test_problems_beyond_the_time_limit_are_left_out_and_listed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ticks = itertools.count()
    plan = tiny(ops=("content_loss",))
    budget = Budget(5, clock=lambda: float(next(ticks)))  # a second passes between calls
    path = bench.run(plan, CPU, CountingTimer(), CARD, budget, out=tmp_path, log=lambda line: None)
    dropped = json.loads(path.read_text())["dropped"]
    late = [f"content_loss {layer} 16^2 bfloat16" for layer in ("relu1_1", "relu3_1")]
    assert dropped == ["loop 32^2 bfloat16", *late]
    assert f"Left out, for lack of time: {', '.join(dropped)}" in capsys.readouterr().out


def test_torch_compile_can_be_left_out(tmp_path: Path) -> None:
    plan = tiny(ops=("pool",), loop_sides=(), compiles=False)
    path = bench.run(plan, CPU, CountingTimer(), CARD, Budget(600), out=tmp_path, log=lambda line: None)
    assert {row["contender"] for row in json.loads(path.read_text())["ops"]} == {"eager", "fastnst"}


def test_options_choose_what_is_measured(capsys: pytest.CaptureFixture[str]) -> None:
    words = [
        "--precisions",
        "bfloat16,tf32",
        "--sides",
        "256,512",
        "--layers",
        "relu4_1",
        "--no-compile",
        "--minutes",
        "2",
    ]
    options = bench.options_parser().parse_args(words)
    plan = bench.plan_of(options)
    assert (list(plan.precisions), list(plan.layers), plan.compiles) == (["bfloat16", "tf32"], ["relu4_1"], False)
    assert list(plan.sides) == list(plan.loop_sides) == [256, 512]
    assert options.minutes == 2
    assert bench.plan_of(bench.options_parser().parse_args([])) == bench.Plan()
    with pytest.raises(SystemExit):
        bench.options_parser().parse_args(["--precisions", "bf16"])
    assert "expected some of float32,tf32,half,bfloat16, got 'bf16'" in capsys.readouterr().err


def test_a_size_that_fails_is_a_row_and_not_the_end(tmp_path: Path) -> None:
    def fail(problem: Problem) -> Task:
        raise torch.OutOfMemoryError("the card is too small")

    plan = tiny(ops=("content_loss", "pool"), tasks={**tasks.TASKS, "content_loss": fail}, loop_sides=())
    path = bench.run(plan, CPU, CountingTimer(), CARD, Budget(600), out=tmp_path, log=lambda line: None)
    rows = json.loads(path.read_text())["ops"]
    assert {row["refused"] for row in rows if row["op"] == "content_loss"} == {
        "OutOfMemoryError: the card is too small"
    }
    assert any(row["seconds"] for row in rows if row["op"] == "pool")


def test_the_loop_is_compared_with_autograd_before_it_is_timed() -> None:
    rows = {row.contender: row for row in whole_loop.race(32, "float32", CPU, steps=2, rounds=1)}
    for name in ("eager", "fused"):
        assert rows[name].refused is None, rows[name]
        assert rows[name].seconds is not None
    assert "no CUDA graphs" in (rows["fused + graph"].refused or "")
    assert rows["fused + graph"].seconds is None


def test_a_loop_with_a_wrong_gradient_is_refused() -> None:
    class Spoilt:
        def __init__(self, right: object) -> None:
            self.right = right

        def value_and_grad(self, image: torch.Tensor) -> tuple[object, torch.Tensor]:
            losses, gradient = self.right.value_and_grad(image)
            return losses, 1.01 * gradient

    def spoilt(contest: whole_loop.Contest, name: str) -> object:
        return Spoilt(contest.objective(name)) if name == "fused" else contest.objective(name)

    rows = {r.contender: r for r in whole_loop.race(32, "float32", CPU, steps=2, rounds=1, make_objective=spoilt)}
    assert rows["eager"].refused is None
    assert rows["fused"].seconds is None
    assert "error" in (rows["fused"].refused or "")


def test_precision_is_put_back() -> None:
    before = torch.get_float32_matmul_precision()
    with problems.matmul_precision("tf32"):
        assert torch.get_float32_matmul_precision() == "high"
    assert torch.get_float32_matmul_precision() == before


def test_tables_say_what_was_refused() -> None:
    row = bench.Row("pool", "relu1_1", 16, "half", "fastnst", 1.0, "error 1.0e+00 above 2e-03", None, 1e-6, None, None)
    assert "refused: error 1.0e+00 above 2e-03" in str(report.ops_table([row.to_dict()], CARD))


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a CUDA device")
def test_without_a_device_the_script_says_so_in_one_line() -> None:
    done = subprocess.run([sys.executable, "-m", "bench.gpu.run"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "bench.gpu.run needs a CUDA device and a CUDA build of torch; bench.gpu.roofline runs anywhere"
    ]


def test_the_device_timer_flushes_the_cache_and_lets_the_host_run_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    """With substitutes for the functions of a device."""
    log: list[str] = []

    class Event:
        def __init__(self, enable_timing: bool) -> None:
            assert enable_timing

        def record(self) -> None:
            log.append("event")

        def elapsed_time(self, end: Event) -> float:
            return 2.0

    properties = types.SimpleNamespace(L2_cache_size=2**20)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "_sleep", lambda cycles: log.append("sleep"))
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: log.append("wait"))
    timer = EventTimer(CPU)
    assert timer.junk.numel() > 4 * 2**20
    timer.junk.fill_(1)
    flushed: list[bool] = []

    def run() -> None:
        flushed.append(not timer.junk.any())
        timer.junk.fill_(1)
        log.append("run")

    contender = Contender("fastnst", run, lambda: log.append("prepare"))
    assert timer.seconds([contender, contender], 2) == [[0.002, 0.002]] * 2
    assert log == (["prepare", "sleep", "event", "run", "event"] * 2 + ["wait"]) * 2
    assert flushed == [True] * 4

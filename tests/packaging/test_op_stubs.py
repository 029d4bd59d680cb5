"""The types of `torch.ops.fastnst` are those of the registered schemas, and a type checker reads them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from fastnst.ops import raw
from tools import op_stubs

ROOT = Path(__file__).resolve().parents[2]


def test_the_stub_file_has_the_registered_schemas() -> None:
    assert op_stubs.STUB.read_text(encoding="utf-8") == op_stubs.stub(), "run: python -m tools.op_stubs"


def test_a_schema_as_a_function() -> None:
    schema = torch._C.parse_schema("fastnst::f(Tensor(a!) x, Tensor? y, int[] sizes) -> (Tensor, Tensor)")
    with pytest.raises(KeyError, match=r"List\[int\]"):
        op_stubs.signature(schema)
    schema = torch._C.parse_schema("fastnst::f(Tensor(a!) x, Tensor? y, str kind) -> (Tensor, Tensor)")
    expected = "def f(x: Tensor, y: Tensor | None, kind: str) -> tuple[Tensor, Tensor]: ..."
    assert op_stubs.signature(schema) == expected
    assert op_stubs.signature(torch._C.parse_schema("fastnst::f() -> ()")) == "def f() -> None: ..."


def test_the_module_gives_the_ops_of_torch() -> None:
    assert raw.gram.default is torch.ops.fastnst.gram.default
    for schema in op_stubs.schemas():
        assert getattr(raw, schema.name.removeprefix("fastnst::")).default._schema == schema
    untyped: Any = raw
    with pytest.raises(AttributeError, match="gramm"):
        untyped.gramm  # noqa: B018


USE = """
import torch
from fastnst.ops import raw

x = torch.ones(1, 2, 4)
reveal_type(raw.gram(x, None, 0.25))
reveal_type(raw.gram.default)
loss, residual = raw.style_loss(x, x, weight=None, scale=1.0)
raw.gram(x, 0.25)
raw.gram(x, None, "0.25")
raw.gramm(x)
"""


def test_a_type_checker_reads_them(tmp_path: Path) -> None:
    pytest.importorskip("mypy")
    (tmp_path / "use.py").write_text(USE)
    options = ("--follow-imports=silent", "--cache-dir", str(tmp_path / "cache"))
    command = [sys.executable, "-m", "mypy", *options, "use.py"]
    done = subprocess.run(
        command, cwd=tmp_path, env=os.environ | {"MYPYPATH": str(ROOT)}, capture_output=True, text=True
    )
    said = [line for line in done.stdout.splitlines() if line.startswith("use.py")]
    assert said[0] == 'use.py:6: note: Revealed type is "torch._tensor.Tensor"', done.stdout + done.stderr
    assert "OpOverload[[x: torch._tensor.Tensor, weight: torch._tensor.Tensor | None, scale: float]" in said[1]
    wrong = [(line.split(":")[1], line.rpartition("[")[2]) for line in said[2:]]
    assert wrong == [("9", "call-arg]"), ("10", "arg-type]"), ("11", "attr-defined]")], said

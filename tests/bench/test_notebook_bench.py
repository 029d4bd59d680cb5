"""The measurement of ``fastnst.watch`` runs in a kernel and prints its rows."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import pytest

from bench.notebook.__main__ import main

for module in ("ipykernel", "nbclient"):
    pytest.importorskip(module, reason=f"needs {module}: pip install 'fastnst[test]'")


def test_rows_of_a_small_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = Path(__file__).resolve().parents[2]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(root), *filter(None, sys.path)]))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert main(["--size", "64", "--steps", "2", "--scales", "1", "--rounds", "1"]) == 0
    cpu, wall, callback, displays = capsys.readouterr().out.splitlines()
    for kind, row in (("cpu", cpu), ("wall", wall)):
        assert re.fullmatch(rf"{kind} +without \d+\.\d\d s  with \d+\.\d\d s  ratio \d+\.\d{{4}}", row)
    assert callback.startswith("callback: ")
    assert displays.startswith("2.0 displays a run; ")  # the first step, and the last

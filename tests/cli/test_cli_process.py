"""What only a process of its own shows: imports, signals, closed streams, the exit code."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image
from support.picture_files import FAST, LAYERS, environment, python

posix = pytest.mark.skipif(os.name != "posix", reason="signals and /dev are those of POSIX")


@pytest.mark.parametrize("arguments", [["--help"], ["stylize", "--help"], ["gallery", "--help"], ["--version"]])
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    code = f"""
import json, sys
from fastnst.cli import main
try:
    main({arguments!r})
except SystemExit as ended:
    print(json.dumps([ended.code, sorted(name.partition(".")[0] for name in sys.modules)]))
"""
    ended = python("-c", code, capture_output=True)
    exit_code, modules = json.loads(ended.stdout.splitlines()[-1])
    assert exit_code == 0
    assert "fastnst" in modules
    assert not {"torch", "numpy", "PIL", "tqdm", "psutil", "safetensors"} & set(modules)


def test_python_m_runs_the_same_command_and_errors_set_the_exit_code(here: Path) -> None:
    version = python("-m", "fastnst", "--version", capture_output=True)
    assert (version.returncode, version.stderr) == (0, "")
    assert version.stdout.startswith("fastnst ")
    wrong = python("-m", "fastnst", "stylize", "missing.png", "--size", capture_output=True)
    assert (wrong.returncode, wrong.stdout) == (2, "")
    failed = python("-m", "fastnst", "stylize", "missing.png", "missing.png", capture_output=True)
    assert (failed.returncode, failed.stdout, failed.stderr.count("\n")) == (1, "", 1)


def start(*arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "fastnst", *map(str, arguments)]
    return subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    while not path.exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)


@posix
def test_ctrl_c_saves_the_result_so_far(here: Path, content: Path, style: Path) -> None:
    options = ("--size", "48", "--steps", "1000000", "--snapshot-every", "3", *LAYERS)
    process = start("stylize", content, style, "-o", "out.png", *options)
    wait_for(here / "out_0003.png", process)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert out.splitlines()[-1] == "out.png"
    assert err.endswith("fastnst: interrupted; the result so far has been saved\n")
    assert "Traceback" not in err
    with Image.open(here / "out.png") as image:
        assert image.size == (48, 36)
    assert not [path for path in here.iterdir() if path.name.startswith(".")]


@posix
def test_a_closed_pipe_does_not_stop_the_run(here: Path, content: Path, style: Path) -> None:
    process = start("stylize", content, style, "-o", "out.png", *FAST, "--snapshot-every", "1", "--quiet")
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == ""
    assert process.wait(timeout=60) == 0
    process.stderr.close()
    assert (here / "out.png").exists()


@posix
@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-", "2>&1 | true"])
@pytest.mark.sweep(2)
def test_closed_streams_do_no_harm(here: Path, content: Path, style: Path, closed: str) -> None:
    words = [sys.executable, "-m", "fastnst", "stylize", content, style, "-o", "out.png", *FAST]
    command = " ".join(f"'{word}'" for word in words)
    ended = subprocess.run(f"{command} {closed}", shell=True, env=environment(), capture_output=True, timeout=60)
    assert ended.returncode == 0
    assert b"Error" not in ended.stderr
    assert (here / "out.png").exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_under_stdout_is_one_line() -> None:
    with Path("/dev/full").open("w") as full:
        ended = python("-m", "fastnst", "weights", "list", stdout=full, stderr=subprocess.PIPE)
    assert ended.returncode == 1
    assert ended.stderr == "fastnst: error: stdout: cannot be written (No space left on device)\n"

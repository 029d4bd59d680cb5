"""The check of PyTorch's threads in a forked process, in programs that have used one thread only: nothing hangs there.

Forks of programs that have used several are in tests/packaging/test_situations.py.
"""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")

PROGRAM = """
import os, signal, sys, torch
from fastnst import process
torch.set_num_threads(2)
{before}
child = os.fork()
if child:
    try:
        status = os.waitpid(child, 0)[1]
    except ChildProcessError:  # SIGCHLD is ignored
        status = 0
    sys.exit(os.waitstatus_to_exitcode(status))
try:
    {inside}
finally:
    print("left")
"""


def run(before: str = "", inside: str = "process.check_threads_after_fork()") -> str:
    program = PROGRAM.format(before=before, inside=inside)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.mark.parametrize("before", ["", "signal.signal(signal.SIGCHLD, signal.SIG_IGN)"])
def test_it_passes_also_where_nothing_can_be_awaited(before: str) -> None:
    assert run(before).count("left") == 1


def test_an_exception_in_the_trial_runs_no_handler_of_the_caller() -> None:
    raises = "def ones(*args, **options): raise KeyboardInterrupt\ntorch.ones = ones"
    assert run(raises).count("left") == 1


def test_threads_that_are_added_later_are_tried() -> None:
    inside = "torch.set_num_threads(1); process.check_threads_after_fork(); print(process._Fork.untried); "
    inside += "torch.set_num_threads(2); process.check_threads_after_fork(); print(process._Fork.untried)"
    assert run(inside=inside).split() == ["True", "False", "left"]

"""Threads that wait do not spin: OpenMP reads how when torch is loaded, and what the user has set stands."""

from __future__ import annotations

import subprocess
import sys

import pytest
from support.picture_files import environment

CODE = """
import os, sys

class Finder:
    def find_spec(self, name, *rest):
        if name == "torch":
            print("torch is loaded with", os.environ.get("OMP_WAIT_POLICY"))

sys.meta_path.insert(0, Finder())
from fastnst.cli import main
sys.exit(main(["weights", "show", "vgg19", "-q"]))
"""


@pytest.mark.parametrize(("given", "policy"), [(None, "passive"), ("active", "active")])
def test_the_wait_policy_is_passive_before_torch_is_loaded_unless_the_user_says_otherwise(
    given: str | None, policy: str
) -> None:
    own = {name: value for name, value in environment().items() if name != "OMP_WAIT_POLICY"}
    own |= {"OMP_WAIT_POLICY": given} if given else {}
    done = subprocess.run([sys.executable, "-c", CODE], env=own, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == f"torch is loaded with {policy}"

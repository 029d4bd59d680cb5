"""CPUs and memory by affinity and control groups, read from files as the kernel writes them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from fastnst import limits
from fastnst.cli.threads import limited_threads
from fastnst.errors import UsageError

Groups = Callable[..., None]


@pytest.fixture
def groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Groups:
    """Writes the membership of the process, and files below the mount."""

    def write(membership: str, **files: str) -> None:
        (tmp_path / "self").write_text(membership)
        for name, text in files.items():
            path = tmp_path / "mount" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text + "\n")

    (tmp_path / "mount").mkdir()
    monkeypatch.setattr(limits, "MOUNT", tmp_path / "mount")
    monkeypatch.setattr(limits, "MEMBERSHIP", tmp_path / "self")
    return write


V1 = "12:cpu,cpuacct:/docker/f00\n9:memory:/docker/f00\n1:name=systemd:/\n0::/\n"


@pytest.mark.parametrize(
    ("membership", "files", "quota"),
    [
        ("0::/\n", {"cpu.max": "150000 100000"}, 1.5),  # a container with a namespace of its own
        ("0::/\n", {"cpu.max": "max 100000"}, None),
        ("0::/\n", {}, None),
        ("0::/a/b\n", {"a/b/cpu.max": "max 100000", "a/cpu.max": "50000 100000"}, 0.5),  # a limit of the parent
        ("0::/a/b\n", {"a/b/cpu.max": "20000 100000", "a/cpu.max": "50000 100000"}, 0.2),
        ("0::/not/here\n", {"cpu.max": "200000 100000"}, 2.0),  # the path is that on the machine
        ("0::/../../outside\n", {"cpu.max": "200000 100000"}, 2.0),
        (V1, {"cpu,cpuacct/cpu.cfs_quota_us": "250000", "cpu,cpuacct/cpu.cfs_period_us": "100000"}, 2.5),
        (
            V1,
            {"cpu,cpuacct/docker/f00/cpu.cfs_quota_us": "7000", "cpu,cpuacct/docker/f00/cpu.cfs_period_us": "10000"},
            0.7,
        ),
        (V1, {"cpu/cpu.cfs_quota_us": "100000", "cpu/cpu.cfs_period_us": "100000"}, 1.0),
        (V1, {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None),
        ("0::/\n", {"cpu.max": "1e5 ?"}, None),  # not what a kernel writes
        ("0::/\n", {"cpu.max": "100 0"}, None),
    ],
)
def test_the_quota_of_the_cpu(groups: Groups, membership: str, files: dict[str, str], quota: float | None) -> None:
    groups(membership, **files)
    assert limits.cpu_quota() == quota


@pytest.mark.parametrize(
    ("quota", "affinity", "cpus"), [(0.5, 8, 1), (2.5, 8, 3), (2.0, 8, 2), (16.0, 8, 8), (None, 8, 8)]
)
def test_cpus_are_those_of_the_affinity_and_the_quota(
    monkeypatch: pytest.MonkeyPatch, quota: float | None, affinity: int, cpus: int
) -> None:
    monkeypatch.setattr(limits, "cpu_quota", lambda: quota)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(affinity)), raising=False)
    assert limits.cpus() == cpus


MB = 2**20
STAT2, STAT1 = f"anon 5\ninactive_file {10 * MB}", f"inactive_file 1\ntotal_inactive_file {10 * MB}"


@pytest.mark.parametrize(
    ("membership", "files", "left"),
    [
        ("0::/\n", {"memory.max": f"{100 * MB}", "memory.current": f"{70 * MB}", "memory.stat": STAT2}, 40 * MB),
        ("0::/\n", {"memory.max": "max", "memory.current": "5", "memory.stat": STAT2}, None),
        (
            "0::/a\n",
            {
                "a/memory.max": "max",
                "a/memory.current": "5",
                "memory.max": f"{9 * MB}",
                "memory.current": "0",
                "memory.stat": "",
            },
            9 * MB,
        ),
        (
            V1,
            {
                "memory/memory.limit_in_bytes": f"{100 * MB}",
                "memory/memory.usage_in_bytes": f"{70 * MB}",
                "memory/memory.stat": STAT1,
            },
            40 * MB,
        ),
        (
            V1,
            {
                "memory/memory.limit_in_bytes": "9223372036854771712",
                "memory/memory.usage_in_bytes": "5",
                "memory/memory.stat": STAT1,
            },
            None,
        ),
        ("0::/\n", {"memory.max": "lots", "memory.current": "5", "memory.stat": STAT2}, None),
        ("0::/\n", {}, None),
    ],
)
def test_the_memory_that_is_left(groups: Groups, membership: str, files: dict[str, str], left: int | None) -> None:
    groups(membership, **files)
    assert limits.memory_left() == left


def test_a_system_without_control_groups_has_no_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MEMBERSHIP", tmp_path / "missing")
    assert limits.cpu_quota() is None
    assert limits.memory_left() is None
    assert limits.cpus() >= 1


# The command line.


@pytest.fixture(autouse=True)
def threads() -> object:
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(("given", "cpus", "used"), [(None, 2, 2), (None, 9, 4), ("7", 2, 7), ("1", 2, 1)])
def test_a_command_uses_the_cpus_it_has_or_the_threads_it_is_given(
    monkeypatch: pytest.MonkeyPatch, given: str | None, cpus: int, used: int
) -> None:
    monkeypatch.setattr(limits, "cpus", lambda: cpus)
    with limited_threads(given):
        assert torch.get_num_threads() == used
    assert torch.get_num_threads() == 4


@pytest.mark.parametrize("given", ["0", "-1", "two", "1.5", "4097", ""])
def test_other_numbers_of_threads_are_refused(given: str) -> None:
    with (
        pytest.raises(UsageError, match="--threads: expected a whole number of at least 1 and at most 4096"),
        limited_threads(given),
    ):
        pass


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs the affinity of Linux")
def test_the_command_follows_the_affinity_of_the_process() -> None:
    one_cpu = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})"
    code = f"{one_cpu}; from fastnst.cli import main; main(['info'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "1 threads on 1 CPUs" in done.stdout

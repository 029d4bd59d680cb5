"""Several ranks under torchrun: the same results for 1, 2 and 3, and the errors when a rank dies or hangs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from support.pictures import as_tensor, samples

from fastnst import images
from fastnst.distributed import TIMEOUT_VARIABLE, from_torchrun
from fastnst.errors import UsageError

RANK_RUN = Path(__file__).parents[1] / "support" / "rank_run.py"


def torchrun(count: int, *arguments: str | Path, restarts: int = 0, **environment: str) -> subprocess.Popen[str]:
    launcher = (sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}")
    command = [*launcher, f"--max-restarts={restarts}", *map(str, arguments)]
    settings = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)} | environment
    return subprocess.Popen(
        command, env=settings, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def finish(process: subprocess.Popen[str]) -> str:
    out, errors = process.communicate(timeout=240)
    assert process.returncode == 0, errors[-3000:]
    return out


@pytest.fixture(scope="module")
def gradients(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ranks")
    for count in (1, 2, 3):
        finish(torchrun(count, RANK_RUN, "gradients", folder))
    return folder


@pytest.mark.parametrize(
    ("name", "within"),
    [("float64", 1e-13), ("float32", 1e-6), ("sliced", 1e-13), ("normalized", 1e-13), ("deep", 1e-13)],
)
@pytest.mark.slow
def test_loss_and_gradient_are_those_of_one_rank(gradients: Path, name: str, within: float) -> None:
    alone = torch.load(gradients / f"{name}_1_0.pt")
    for count in (2, 3):
        found = [torch.load(gradients / f"{name}_{count}_{rank}.pt") for rank in range(count)]
        for one in found:
            assert one["total"] == pytest.approx(alone["total"], rel=within)
            assert float((one["gradient"] - alone["gradient"]).norm() / alone["gradient"].norm()) <= within
            assert torch.equal(one["gradient"], found[0]["gradient"])  # otherwise the images of the ranks would diverge


@pytest.mark.slow
def test_a_rank_that_hangs_is_named(tmp_path: Path) -> None:
    process = torchrun(3, RANK_RUN, "hangs", tmp_path, FASTNST_RANK_TIMEOUT="3")
    deadline = time.monotonic() + 60
    while not (tmp_path / "0.txt").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    process.kill()
    process.communicate()
    assert (tmp_path / "0.txt").read_text() == "rank 0: no answer from rank 1 within 3 s; it hangs or has died"


@pytest.mark.parametrize("what", ["late", "gone"])
@pytest.mark.sweep(2)
def test_a_rank_that_does_not_send_is_named(tmp_path: Path, what: str) -> None:
    process = torchrun(2, RANK_RUN, what, tmp_path, FASTNST_RANK_TIMEOUT="3")
    process.communicate(timeout=60)
    said = "rank 0: no answer from rank 1 within 3 s; it hangs or has died ("
    assert (tmp_path / "0.txt").read_text().startswith(said)


def test_ranks_with_different_files_are_refused(tmp_path: Path) -> None:
    finish(torchrun(2, RANK_RUN, "differs", tmp_path))
    said = 'ranks differ in content: rank 1 has "sha256 1" where rank 0 has "sha256 0"; give all the same files'
    assert [(tmp_path / f"{rank}.txt").read_text().startswith(said) for rank in (0, 1)] == [True, True]


RUN = (
    "--scales",
    "1",
    "--steps",
    "4",
    "--precision",
    "float64",
    "--optimizer",
    "adam",
    "--crop",
    "288",
    "--tiles",
    "64",
)
SHALLOW = ("--content-layers", "relu2_1", "--style-layers", "relu1_1,relu2_1", "--style-size", "64")


@pytest.fixture
def pictures(tmp_path: Path) -> tuple[Path, Path]:
    paths = tmp_path / "content.png", tmp_path / "style.png"
    for path, size in zip(paths, ((60, 60), (48, 48)), strict=True):
        images.save(path, as_tensor(samples(*size)))
    return paths


@pytest.mark.slow
def test_a_run_whose_rank_is_killed_resumes_to_the_same_bits(tmp_path: Path, pictures: tuple[Path, Path]) -> None:
    command = ("-m", "fastnst", "stylize", *pictures, *RUN, *SHALLOW)
    finish(torchrun(2, *command, "-o", tmp_path / "whole.tif"))
    kept = ("--checkpoint", tmp_path / "run.ckpt", "--checkpoint-every", "1")
    process = torchrun(2, *command, *kept, "-o", tmp_path / "killed.tif", restarts=1)
    victim = None
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and victim is None:
        time.sleep(0.02)
        if (tmp_path / "run.ckpt").exists():
            victim = _last_child(process.pid)
    assert victim is not None
    os.kill(victim, signal.SIGKILL)
    finish(process)
    whole, killed = (images.load(tmp_path / name).pixels for name in ("whole.tif", "killed.tif"))
    assert torch.equal(whole, killed)
    assert sorted(path.name for path in tmp_path.iterdir() if not path.name.startswith(".")) == [
        "content.png",
        "killed.tif",
        "run.ckpt",
        "style.png",
        "whole.tif",
    ]


def _last_child(parent: int) -> int | None:
    """The last rank to be started."""
    found = subprocess.run(["pgrep", "-P", str(parent)], capture_output=True, text=True, check=False).stdout.split()
    return max(map(int, found), default=None)


@pytest.mark.parametrize("given", ["soon", "0", "-3"])
def test_an_invalid_timeout_is_refused(monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv(TIMEOUT_VARIABLE, given)
    said = f"{TIMEOUT_VARIABLE}: expected seconds above zero, got '{given}'"
    with pytest.raises(UsageError, match=said), from_torchrun():
        pass

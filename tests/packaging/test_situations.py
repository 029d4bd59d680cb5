"""What users of other tools ran into, tried here: docs/situations.md."""

from __future__ import annotations

import io
import os
import random
import re
import shutil
import stat
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import fastnst
from fastnst import cli, weights
from fastnst.losses.style import style_losses

ROOT = Path(__file__).resolve().parents[2]
LAYERS = {"content_layers": (("relu2_1", 1.0),), "style_layers": (("relu1_1", 1.0), ("relu2_1", 1.0))}
FEW: dict[str, Any] = {"size": 48, "steps": 3, "scales": 1, **LAYERS}
OPTIONS = ["--size", "48", "--steps", "2", "--scales", "1", "--content-layers", "relu2_1", "--style-layers", "relu1_1"]


@pytest.fixture(autouse=True)
def _pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    ramp = np.linspace(0, 255, 48 * 64 * 3).reshape(48, 64, 3).astype(np.uint8)
    Image.fromarray(ramp).save("photo.png")
    Image.fromarray(np.roll(ramp, 7, (0, 2))[::-1].copy()).save("painting.png")


def styled(**changes: Any) -> torch.Tensor:
    return fastnst.stylize("photo.png", "painting.png", **{**FEW, **changes}).image


def test_runs_in_threads_give_the_same_pixels() -> None:
    found: dict[int, torch.Tensor] = {}

    def work(number: int) -> None:
        found[number] = styled(checkpoint=f"{number}.ckpt")

    threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    expected = styled()
    assert [torch.equal(found[number], expected) for number in range(3)] == [True] * 3


def test_the_command_line_runs_in_a_thread() -> None:
    codes: list[int] = []
    arguments = ["stylize", "photo.png", "painting.png", "-o", "out.png", "-q", *OPTIONS]
    thread = threading.Thread(target=lambda: codes.append(cli.main(arguments)))
    thread.start()
    thread.join()
    assert codes == [0]
    assert Path("out.png").exists()


def test_the_state_of_the_process_is_left_alone() -> None:
    def state() -> list[Any]:
        numpy = np.random.get_state(legacy=False)["state"]["key"].tolist()
        kept = [torch.get_rng_state().tolist(), numpy, random.getstate(), torch.get_num_threads()]
        return [*kept, torch.get_default_dtype(), torch.is_grad_enabled(), list(warnings.filters)]

    styled()  # imports first
    before = state()
    styled(init="noise", style_loss="sliced")
    assert state() == before


@pytest.fixture
def _deterministic() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("loss", style_losses())
@pytest.mark.usefixtures("_deterministic")
def test_deterministic_algorithms_may_be_asked_for(loss: str) -> None:
    found = styled(style_loss=loss)
    torch.use_deterministic_algorithms(False)
    assert torch.equal(found, styled(style_loss=loss))


@pytest.mark.parametrize("how", ["cholesky", "pca", "monge-kantorovich", "histogram"])
def test_a_gray_content_can_be_matched(how: str) -> None:
    Image.open("photo.png").convert("L").save("photo.png")
    with np.errstate(all="raise"):
        assert torch.isfinite(styled(match_color=how)).all()


def test_a_very_small_picture_is_not_black() -> None:
    assert float(styled(size=50, steps=20).std()) > 0.05


def test_names_need_not_be_ascii(tmp_path: Path) -> None:
    shutil.copy("photo.png", "é ♥.png")
    arguments = ["é ♥.png", "painting.png", "-o", "ü.png", "--save-settings", "ß.toml", "--checkpoint", "ñ.ckpt", "-q"]
    assert cli.main(["stylize", *arguments, *OPTIONS]) == 0
    assert cli.main(["stylize", "--like", "ü.png", "-o", "ø.png", "-q"]) == 0
    kernel, bias = torch.ones(64, 3, 3, 3), torch.zeros(64)
    torch.save({"conv1_1.weight": kernel, "conv1_1.bias": bias}, "ж.pth")
    np.savez("ж.npz", conv1_1_W=kernel.permute(2, 3, 1, 0).numpy(), conv1_1_b=bias.numpy())
    h5py = pytest.importorskip("h5py")
    with h5py.File("ж.h5", "w") as file:
        file["block1_conv1/kernel:0"], file["block1_conv1/bias:0"] = kernel.permute(2, 3, 1, 0).numpy(), bias.numpy()
    for suffix in ("pth", "npz", "h5"):
        assert weights.load(tmp_path / f"ж.{suffix}", arch="vgg19").convs["conv1_1"][0].shape == (64, 3, 3, 3)


@pytest.mark.skipif(os.name != "posix", reason="names of 255 bytes are those of POSIX systems")
def test_a_long_name_is_written_and_one_too_long_is_refused_in_a_line(capfd: pytest.CaptureFixture[str]) -> None:
    name = "x" * 246 + ".png"
    assert cli.main(["stylize", "photo.png", "painting.png", "-o", name, "-q", *OPTIONS]) == 0
    assert Path(name).exists()
    capfd.readouterr()
    arguments = ["-o", "out.png", "--checkpoint", "y" * 250, "-q"]
    assert cli.main(["stylize", "photo.png", "painting.png", *arguments, *OPTIONS]) == 1
    assert capfd.readouterr().err.count("\n") == 1
    assert not Path("out.png").exists()


@pytest.mark.skipif(os.name != "posix", reason="permissions are those of POSIX systems")
def test_files_have_the_permissions_of_new_files() -> None:
    before = os.umask(0o027)
    try:
        files = ["out.png", "--save-settings", "run.toml", "--checkpoint", "run.ckpt"]
        assert cli.main(["stylize", "photo.png", "painting.png", "-q", *OPTIONS, "-o", *files]) == 0
    finally:
        os.umask(before)
    modes = {name: stat.S_IMODE(Path(name).stat().st_mode) for name in ("out.png", "run.toml", "run.ckpt")}
    assert set(modes.values()) == {0o640}, modes


class NotebookStream(io.StringIO):
    def fileno(self) -> int:
        raise io.UnsupportedOperation("fileno")


def test_streams_need_no_file_number(monkeypatch: pytest.MonkeyPatch) -> None:
    out, err = NotebookStream(), NotebookStream()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    assert cli.main(["stylize", "photo.png", "painting.png", "-o", "out.png", *OPTIONS]) == 0
    assert out.getvalue() == "out.png\n"
    assert "step 2/2" in err.getvalue()


@pytest.mark.skipif(not (ROOT / "pyproject.toml").exists(), reason="needs a checkout")
def test_a_build_requires_torch() -> None:
    required = re.search(r"^requires = \[(.*)\]", (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert required
    assert '"torch>=' in required[1]


FORKED = """
import multiprocessing, os, sys, torch, fastnst
from fastnst import process

def styled():
    return fastnst.stylize("photo.png", "painting.png", size=48, steps=2, scales=1)

def one_thread():
    torch.set_num_threads(1)
    styled().save("out.png")

def threads():
    styled().save("out.png")

def refused():
    process.FORK_SECONDS = 2
    for attempt in (styled, lambda: stylizer.run(scene)):
        try:
            attempt()
        except fastnst.FastnstError as error:
            print(error, flush=True)

def both():  # what PyTorch does itself
    torch.ones(2**20).sum()

torch.set_num_threads(2)
parent, child, method = sys.argv[1:]
if parent == "used":
    stylizer = fastnst.Stylizer(fastnst.Settings(size=48, steps=2, scales=1))
    scene = stylizer.load_scene("photo.png", "painting.png")
    torch.ones(2**22).sum()
if __name__ == "__main__":
    child = multiprocessing.get_context(method).Process(target=globals()[child])
    child.start()
    child.join(5 if sys.argv[2] == "both" else 60)
    hangs = child.is_alive()
    child.kill()
    sys.exit(99 if hangs else child.exitcode)
"""


def forked(parent: str, child: str, method: str = "fork") -> subprocess.CompletedProcess[str]:
    """Run a function in a child of a process that has used several threads, or has not."""
    Path("forked.py").write_text(FORKED)
    environment = {**os.environ, "PYTHONPATH": str(Path(fastnst.__file__).parents[1])}
    command = [sys.executable, "forked.py", parent, child, method]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


@needs_fork
@pytest.mark.parametrize(
    ("parent", "child", "method"),
    [("used", "one_thread", "fork"), ("unused", "threads", "fork"), ("used", "threads", "spawn")],
)
def test_a_child_process_makes_a_picture(parent: str, child: str, method: str) -> None:
    done = forked(parent, child, method)
    assert done.returncode == 0, done.stderr
    assert Path("out.png").exists()


@needs_fork
@pytest.mark.skipif(torch.__config__.parallel_info().find("OpenMP") < 0, reason="threads are not those of OpenMP")
def test_a_forked_child_whose_threads_hang_gets_an_error_in_one_line() -> None:
    if forked("used", "both").returncode != 99:
        pytest.skip("PyTorch's own operations do not hang here")
    done = forked("used", "refused")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 2
    for line in lines:
        assert line.startswith("this process is a fork of one that has used PyTorch's threads, in which PyTorch's oper")
        assert line.endswith("call torch.set_num_threads(1) in it first, or start it with the method spawn")

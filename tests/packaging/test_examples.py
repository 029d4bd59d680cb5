"""The programs of examples/, run with small pictures on the CPU."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"
NOTEBOOK = EXAMPLES / "picture.ipynb"

if not EXAMPLES.exists():
    pytest.skip("needs a checkout", allow_module_level=True)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with photographs in photos/ and a painting."""
    from fastnst import images

    monkeypatch.chdir(tmp_path)
    small = {
        name: images.load(ROOT / "fastnst" / "assets" / f"demo_{name}.jpg", crop=(64, 80))
        for name in ("photo", "painting")
    }
    (tmp_path / "photos").mkdir()
    for name in ("a.png", "b.png"):
        images.save(tmp_path / "photos" / name, small["photo"].pixels)
    images.save(tmp_path / "painting.png", small["painting"].pixels)
    return tmp_path


def run(folder: Path, *words: str) -> str:
    """Run a Python program in the folder and return what it printed."""
    done = subprocess.run(
        [sys.executable, *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_example_has_a_test() -> None:
    tested = {"picture.ipynb", "ops_in_training.py", "custom_style_loss.py", "several_gpus.py", "folder_job.py"}
    tested.add("train_network.py")
    tested.add("comfyui")  # tests/packaging/test_comfyui.py
    assert {path.name for path in EXAMPLES.iterdir() if path.suffix in (".py", ".ipynb") or path.is_dir()} == tested


def test_training_lowers_the_loss(folder: Path) -> None:
    small = ("photos/a.png", "painting.png", "--size", "64", "--steps", "21")
    printed = run(folder, str(EXAMPLES / "ops_in_training.py"), *small)
    losses = [float(line.rpartition(" ")[2]) for line in printed.splitlines()]
    assert losses[-1] < losses[0]
    assert (folder / "trained.png").exists()


TINY = ("--photos", "photos", "--style", "painting.png", "--paint", "photos/a.png", "--side", "32", "--channels", "4")


@pytest.mark.parametrize("ranks", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_network_is_trained_saved_and_paints_again(folder: Path, ranks: int) -> None:
    launch = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2") if ranks == 2 else ()
    program = (*launch, str(EXAMPLES / "train_network.py"), *TINY, "--style-size", "48", "--size", "50")
    printed = run(folder, *program, "--steps", "40", "--rate", "5e-3")
    values = [float(line.rpartition(" ")[2]) for line in printed.splitlines() if line.startswith("step")]
    assert values[-1] < values[0]
    assert (folder / "painter.pt").exists()
    run(folder, str(EXAMPLES / "train_network.py"), *TINY, "--size", "50", "--trained", "--output", "again.png")
    from fastnst import images

    first, again, photo = (
        images.load(folder / name, size=50).pixels for name in ("painted.png", "again.png", "photos/a.png")
    )
    assert first.shape == photo.shape
    assert (first - again).abs().max() <= 1 / 255 + 1e-6
    assert (first - photo).abs().mean() > 0.005  # it changed the photograph


def test_custom_style_loss_runs(folder: Path) -> None:
    small = ("photos/a.png", "painting.png", "--size", "64", "--steps", "2")
    assert run(folder, str(EXAMPLES / "custom_style_loss.py"), *small).strip() == "skewed.png"
    assert (folder / "skewed.png").exists()


def test_folder_job_makes_each_picture_once(folder: Path) -> None:
    (folder / "photos" / "broken.png").write_bytes(b"no picture")
    job = [str(EXAMPLES / "folder_job.py"), "photos", "painting.png", "--size", "64", "--steps", "2"]
    done = subprocess.run(
        [sys.executable, *job], cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "broken.png" in done.stderr
    assert sorted(path.name for path in (folder / "styled").glob("*.png")) == ["a.png", "b.png"]
    assert not list((folder / "styled").glob("*.ckpt"))
    (folder / "photos" / "broken.png").unlink()
    assert run(folder, *job).count("done before") == 2


@pytest.mark.parametrize("ranks", [1, 2])
def test_several_gpus_runs_on_the_cpu(folder: Path, ranks: int) -> None:
    small = ("photos/a.png", "painting.png", "--size", "64", "--steps", "1", "--output", "large.png", "--device", "cpu")
    launch = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2") if ranks == 2 else ()
    assert "large.png" in run(folder, *launch, str(EXAMPLES / "several_gpus.py"), *small)
    assert (folder / "large.png").exists()


def cells() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(NOTEBOOK.read_text())["cells"]
    return found


def test_the_notebook_has_no_outputs() -> None:
    for cell in cells():
        if cell["cell_type"] == "code":
            assert cell["outputs"] == []
            assert cell["execution_count"] is None


def test_the_notebook_runs_and_shows_its_pictures(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a kernel, with the outputs that a notebook keeps."""
    nbformat = pytest.importorskip("nbformat", reason="needs nbformat: pip install 'fastnst[test]'")
    nbclient = pytest.importorskip("nbclient", reason="needs nbclient: pip install 'fastnst[test]'")
    pytest.importorskip("ipykernel", reason="needs ipykernel: pip install 'fastnst[test]'")
    monkeypatch.setenv("FASTNST_EXAMPLE_SIZE", "64")
    monkeypatch.setenv("FASTNST_EXAMPLE_STEPS", "2")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), *filter(None, sys.path)]))
    monkeypatch.setenv("IPYTHONDIR", str(folder / "ipython"))
    notebook = nbformat.read(NOTEBOOK, 4)
    nbclient.NotebookClient(
        notebook, timeout=120, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
    ).execute()
    outputs = [cell.outputs for cell in notebook.cells if cell.cell_type == "code"]
    assert [[output.output_type for output in of_cell] for of_cell in outputs] == [
        [],
        ["stream"],
        ["display_data", "execute_result"],
        ["stream"],
        ["execute_result"],
        ["execute_result"],
    ]
    live, result = outputs[2]
    assert live.data["text/plain"].startswith("step 2/2, loss ")
    pictures = [result, outputs[4][0]]
    assert all(base64.b64decode(output.data["image/jpeg"])[:3] == b"\xff\xd8\xff" for output in pictures)
    assert "demo_photo.jpg in the style of demo_painting.jpg" in result.data["text/html"]
    assert outputs[5][0].data["text/plain"] == "1000.0"
    assert (folder / "picture.png").exists()

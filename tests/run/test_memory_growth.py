"""The memory of a run in strips: the images that grow with the picture, and the files that hold the others."""

from __future__ import annotations

import gc
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from support.checkpoints import same, settings_of, stopping, styled
from support.pictures import as_tensor, samples, tiny
from torch import Tensor

from fastnst import spill
from fastnst.run import colors
from fastnst.run.stylizer import stylize
from fastnst.strips.sweep import StripSweep

pytestmark = pytest.mark.usefixtures("weights_read_once")


@pytest.fixture
def in_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Images of any size are kept in files."""
    monkeypatch.setattr(spill, "IN_MEMORY", 0)


def images_in_memory(size: tuple[int, int]) -> int:
    """The tensors of the image's size that are not in files."""
    gc.collect()
    found = [x for x in gc.get_objects() if type(x) is Tensor and x.shape == (1, 3, *size) and x.device.type == "cpu"]
    text = Path("/proc/self/maps").read_text().splitlines()
    ranges = [line.split()[0].split("-") for line in text if "(deleted)" in line]
    mapped = [range(int(first, 16), int(end, 16)) for first, end in ranges]
    return len({x.data_ptr() for x in found if not any(x.data_ptr() in one for one in mapped)})


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="reads the memory of the process from /proc")
@pytest.mark.parametrize(("optimizer", "count"), [("adam", 4), ("lbfgs", 2)])
@pytest.mark.usefixtures("in_files")
def test_a_step_holds_the_image_its_gradient_and_the_moments_alone(
    monkeypatch: pytest.MonkeyPatch, optimizer: str, count: int
) -> None:
    """The content and the last good image are in files; the state of L-BFGS is flat."""
    seen: list[int] = []
    backward = StripSweep.backward

    def watched(self: StripSweep, *arguments: Any) -> None:
        backward(self, *arguments)
        seen.append(images_in_memory((48, 64)))

    monkeypatch.setattr(StripSweep, "backward", watched)
    stylize(samples(), samples(50, 40, seed=2), settings=tiny(size=64, optimizer=optimizer, tiles=32))
    # At the first step Adam has no moments yet; the last call is the evaluation of the result.
    assert seen == [2, *[count] * 3]


GROWTH = """
import sys, torch, fastnst
from pathlib import Path
from fastnst import spill
spill.IN_MEMORY = 2**16
torch.set_num_threads(1)
fastnst.process.limit_kept_memory()
side = int(sys.argv[1])

def watch(step):
    if step.step == 1:  # reading the weights is behind
        Path("/proc/self/clear_refs").write_text("5")

generator = torch.Generator().manual_seed(0)
picture = torch.randint(0, 256, (3, side, side), dtype=torch.uint8, generator=generator)
layers = {"content_layers": (("relu1_1", 1.0),), "style_layers": (("relu1_1", 1.0),)}
changes = {"size": side, "style_size": 64, "steps": 2, "scales": 1, "optimizer": "adam", "tiles": 2**16 // side}
fastnst.stylize(picture, picture[:, :64, :64], device="cpu", precision="float32", callback=watch, **changes, **layers)
status = Path("/proc/self/status").read_text()
print(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1])
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="reads the memory of the process from /proc")
def test_memory_grows_by_48_bytes_a_pixel() -> None:
    """Image, gradient and two moments of Adam, of three float32 each."""
    small, large = 512, 1536

    def peak(side: int) -> int:
        command = [sys.executable, "-c", GROWTH, str(side)]
        return 1024 * int(subprocess.run(command, capture_output=True, text=True, timeout=300, check=True).stdout)

    growth = (peak(large) - peak(small) - 3 * (large**2 - small**2)) / (large**2 - small**2)  # `picture` has 3 bytes
    assert 40 < growth < 54


@pytest.mark.usefixtures("in_files")
@pytest.mark.parametrize("optimizer", ["adam", "lbfgs"])
def test_a_run_with_its_images_in_files_is_the_same_and_resumes(optimizer: str, tmp_path: Path) -> None:
    settings = settings_of(optimizer)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spill, "IN_MEMORY", 2**30)
        whole = styled(settings)
    assert same(styled(settings), whole)
    file = tmp_path / "run.ckpt"
    first = styled(settings, callback=stopping(3, KeyboardInterrupt()), checkpoint=file)
    assert first.stopped == "interrupt"
    assert same(styled(settings, checkpoint=file, resume=True), whole)


@pytest.mark.parametrize("how", ["yiq", "lab"])
def test_colors_are_restored_in_parts(monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    image, content = as_tensor(samples()), as_tensor(samples(seed=3))
    whole = colors.restore(image, content, how)
    monkeypatch.setattr(colors, "ROWS", 7)
    assert torch.allclose(colors.restore(image, content, how), whole, rtol=0, atol=1e-6)
    assert not torch.equal(whole, image)

"""The processes that the tests of several ranks start under torchrun: ``rank_run.py WHAT FOLDER``."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from fastnst import Settings, weights
from fastnst.distributed import Ranks, from_torchrun
from fastnst.errors import FastnstError, UsageError
from fastnst.network.vgg import VGG
from fastnst.objective.targets import style_targets
from fastnst.strips.objective import StripObjective
from support.oracles import pixels

SIZE, LOW = (620, 24), (390, 32)
LAYERS = {
    "content_layers": (("relu2_2", 1.0),),
    "style_layers": (("relu1_1", 0.2), ("relu2_1", 0.2), ("relu3_1", 0.2)),
}


def gradients(world: Ranks, folder: Path) -> None:
    """Loss and gradient in float64 and float32, for a style loss of the features themselves, with normalized gradients,
    and with layers so deep that the lowest band has no row of them."""
    given = weights.load()
    for name, dtype, size, change in (
        ("float64", torch.float64, SIZE, LAYERS),
        ("float32", torch.float32, SIZE, LAYERS),
        ("sliced", torch.float64, SIZE, LAYERS | {"style_loss": "sliced"}),
        ("normalized", torch.float64, SIZE, LAYERS | {"normalize_gradients": True}),
        ("deep", torch.float64, LOW, {}),
    ):
        settings = Settings.from_preset(**change)
        network = VGG(given, settings.layer_names(), dtype=dtype, winograd=dtype == torch.float32)
        targets = style_targets(network, pixels(41, 32, seed=1, dtype=dtype), settings)
        content, image = pixels(*size, seed=0, dtype=dtype), pixels(*size, seed=2, dtype=dtype)
        objective = StripObjective(network, content, targets, settings, 64, ranks=world)
        losses, gradient = objective.value_and_grad(image)
        torch.save({"total": losses.total, "gradient": gradient}, folder / f"{name}_{world.count}_{world.rank}.pt")


def hangs(world: Ranks, folder: Path) -> None:
    """Rank 1 does not reach the barrier."""
    if world.rank == 1:
        time.sleep(12)
        os._exit(0)
    try:
        world.all_reduce([torch.zeros(1, dtype=torch.float64)])
    except FastnstError as error:
        (folder / f"{world.rank}.txt").write_text(str(error))
    os._exit(0)  # without a shutdown that waits for the other ranks


def late(world: Ranks, folder: Path) -> None:
    """Rank 1 sends nothing."""
    _receive(world, folder, lambda: time.sleep(12))


def gone(world: Ranks, folder: Path) -> None:
    """Rank 1 dies."""
    _receive(world, folder, lambda: None)


def _receive(world: Ranks, folder: Path, otherwise: Callable[[], None]) -> None:
    world.barrier()
    if world.rank == 1:
        otherwise()
        os._exit(0)
    try:
        world.receive(torch.zeros(5), 1)
    except FastnstError as error:
        (folder / f"{world.rank}.txt").write_text(str(error))
    os._exit(0)


def differs(world: Ranks, folder: Path) -> None:
    """Rank 1 has another picture."""
    try:
        world.check_same({"content": f"sha256 {world.rank // 1}", "version of fastnst": "1"})
    except UsageError as error:
        (folder / f"{world.rank}.txt").write_text(str(error))


if __name__ == "__main__":
    torch.set_num_threads(1)
    with from_torchrun() as here:
        parts = {"gradients": gradients, "hangs": hangs, "late": late, "gone": gone, "differs": differs}
        parts[sys.argv[1]](here, Path(sys.argv[2]))

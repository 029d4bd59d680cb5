"""How many steps plain L-BFGS needs for the loss that conditioned L-BFGS reaches: counts, not seconds.

    python -m bench.e2e.conditioning [--size 128] [--steps 60]

Both start from the content picture and minimize the loss of the preset johnson in float32, on three pairs: the shipped
photograph with the shipped painting, the painting with the photograph, and the photograph's lower right quarter with
the painting's. Prints, for some steps of the conditioned run, the step at which the plain one reaches the same loss.
"""

from __future__ import annotations

import torch
from torch import Tensor

from bench.common.options import parser
from bench.common.pictures import PAINTING, PHOTO
from bench.common.results import Table
from fastnst import images, weights
from fastnst.config.settings import Settings
from fastnst.network.vgg import VGG
from fastnst.objective.targets import style_targets
from fastnst.objective.whole import Objective
from fastnst.optim.conditioning import ConditionedLBFGS
from fastnst.optim.lbfgs import LBFGS

COMPARED = (10, 20, 30, 40, 50, 60, 80, 100)
LONGER = 2  # the plain run may take this many times as many steps


def pictures(size: int) -> dict[str, tuple[Tensor, Tensor]]:
    both = [images.load(path, crop=2 * size).pixels for path in (PHOTO, PAINTING)]
    photo, painting = (images.resize(x, size, size) * 255 for x in both)
    quarters = [x[..., size:, size:] * 255 for x in both]
    return {
        "photo, painting": (photo, painting),
        "painting, photo": (painting, photo),
        "quarters": (quarters[0], quarters[1]),
    }


def losses(optimizer: LBFGS | ConditionedLBFGS, objective: Objective, image: Tensor, steps: int) -> list[float]:
    found = []
    for _ in range(steps):
        value, gradient = objective.value_and_grad(image)
        found.append(value.total)
        optimizer.step(image, gradient)
    return found


def cells(conditioned: list[float], plain: list[float], steps: list[int]) -> list[str]:
    """For each step of the conditioned run the first step of the plain one whose loss is no higher."""
    shown = []
    for step in steps:
        reached = next((i for i, loss in enumerate(plain, 1) if loss <= conditioned[step - 1]), None)
        shown.append(f"{reached} ({reached / step:.2f})" if reached else f"over {len(plain)}")
    return shown


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--size", type=int, default=128, help="side of the square pictures (default 128)")
    arguments.add_argument("--steps", type=int, default=60, help="of the conditioned run (default 60)")
    options = arguments.parse_args()
    settings = Settings.from_preset("johnson")
    network = VGG(weights.load(), settings.layer_names(), winograd=True)
    steps = [step for step in COMPARED if step <= options.steps]
    rows = []
    for name, (content, style) in pictures(options.size).items():
        objective = Objective(network, content, style_targets(network, style, settings), settings)
        runs = []
        for make, count in ((ConditionedLBFGS, options.steps), (LBFGS, LONGER * options.steps)):
            image = content.clone()
            runs.append(losses(make(image, 1.0, settings.history), objective, image, count))
        rows.append((name, *cells(*runs, steps)))
    print(f"{options.size} x {options.size}, torch {torch.__version__}\n")
    print(Table(("pair", *(f"loss of step {step}" for step in steps)), rows))


if __name__ == "__main__":
    main()

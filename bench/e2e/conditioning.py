"""How many steps plain L-BFGS needs for the loss that conditioned L-BFGS reaches in fewer: counts, not seconds.

    python bench/e2e/conditioning.py [--size 128] [--steps 60]

Both start from the content picture and minimise the loss of the preset johnson in float32, on three pairs: the shipped
photograph with the shipped painting, the painting with the photograph, and the photograph's lower right quarter with
the painting's. Prints, for some steps of the conditioned run, the step at which the plain one is as far.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import Tensor

from fastnst import images, weights
from fastnst.conditioning import ConditionedLBFGS
from fastnst.lbfgs import LBFGS
from fastnst.objective import Objective, style_targets
from fastnst.settings import Settings
from fastnst.vgg import VGG

ASSETS = Path(__file__).resolve().parents[2] / "fastnst" / "assets"
ASKED = (10, 20, 30, 40, 50, 60, 80, 100)
LONGER = 2  # the plain run may take this many times as many steps


def pictures(size: int) -> dict[str, tuple[Tensor, Tensor]]:
    photo, painting = (images.load(ASSETS / f"demo_{name}.jpg", crop=2 * size).pixels for name in ("photo", "painting"))
    small = [images.resize(x, size, size) * 255 for x in (photo, painting)]
    quarters = [x[..., size:, size:] * 255 for x in (photo, painting)]
    return {
        "photo, painting": (small[0], small[1]),
        "painting, photo": (small[1], small[0]),
        "quarters": (quarters[0], quarters[1]),
    }


def losses(optimizer: LBFGS | ConditionedLBFGS, objective: Objective, image: Tensor, steps: int) -> list[float]:
    found = []
    for _ in range(steps):
        value, gradient = objective.value_and_grad(image)
        found.append(value.total)
        optimizer.step(image, gradient)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--size", type=int, default=128, help="side of the square pictures (default 128)")
    parser.add_argument("--steps", type=int, default=60, help="of the conditioned run (default 60)")
    options = parser.parse_args()
    settings = Settings.of("johnson")
    network = VGG(weights.load(), settings.layer_names(), winograd=True)
    asked = [step for step in ASKED if step <= options.steps]
    print(f"{options.size} x {options.size}, torch {torch.__version__}\n")
    print(f"| pair | {' | '.join(f'as far as step {step}' for step in asked)} |\n|---|{'---|' * len(asked)}")
    for name, (content, style) in pictures(options.size).items():
        objective = Objective(network, content, style_targets(network, style, settings), settings)
        runs = []
        for make, steps in ((ConditionedLBFGS, options.steps), (LBFGS, LONGER * options.steps)):
            image = content.clone()
            runs.append(losses(make(image, 1.0, settings.history), objective, image, steps))
        conditioned, plain = runs
        cells = []
        for step in asked:
            as_far = [i for i, loss in enumerate(plain, 1) if loss <= conditioned[step - 1]]
            cells.append(f"{as_far[0]} ({as_far[0] / step:.2f})" if as_far else f"over {len(plain)}")
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()

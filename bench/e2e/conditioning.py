"""How many steps L-BFGS needs with other constants for the loss that it reaches with its own: counts, not seconds.

    python -m bench.e2e.conditioning [--size 128] [--steps 60] [--variants 'POWER=0,LONG=0;LONG=0']

All runs start from the content picture and minimize the loss of the preset johnson in float32, on three pairs: the
shipped photograph with the shipped painting, the painting with the photograph, and the photograph's lower right quarter
with the painting's. A variant sets constants of fastnst/optim/lbfgs.py and conditioning.py, or HISTORY;
``POWER=0,LONG=0`` is plain L-BFGS. Prints, for some steps of the run with the constants as they are, the step at which
each variant reaches the same loss.
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
from fastnst.optim import conditioning, lbfgs
from fastnst.optim.conditioning import ConditionedLBFGS

COMPARED = (10, 20, 30, 40, 50, 60, 80, 100)
LONGER = 2  # a variant may take this many times as many steps


def pictures(size: int) -> dict[str, tuple[Tensor, Tensor]]:
    both = [images.load(path, crop=2 * size).pixels for path in (PHOTO, PAINTING)]
    photo, painting = (images.resize(x, size, size) * 255 for x in both)
    quarters = [x[..., size:, size:] * 255 for x in both]
    return {
        "photo, painting": (photo, painting),
        "painting, photo": (painting, photo),
        "quarters": (quarters[0], quarters[1]),
    }


def losses(objective: Objective, image: Tensor, history: int, steps: int, until: float = 0.0) -> list[float]:
    """The loss of each step, up to the first one of at most ``until``."""
    optimizer, found = ConditionedLBFGS(image, 1.0, history), []
    for _ in range(steps):
        value, gradient = objective.value_and_grad(image)
        found.append(value.total)
        if value.total <= until:
            break
        optimizer.step(image, gradient)
    return found


def with_constants(
    variant: str, objective: Objective, image: Tensor, history: int, steps: int, until: float
) -> list[float]:
    """:func:`losses` with the constants of a variant."""
    changes = {name: float(value) for name, _, value in (one.partition("=") for one in variant.split(","))}
    history = int(changes.pop("HISTORY", history))
    homes = {name: next(home for home in (lbfgs, conditioning) if hasattr(home, name)) for name in changes}
    before = {name: getattr(home, name) for name, home in homes.items()}
    try:
        for name, home in homes.items():
            setattr(home, name, changes[name])
        return losses(objective, image, history, steps, until)
    finally:
        for name, home in homes.items():
            setattr(home, name, before[name])


def cells(reference: list[float], other: list[float], steps: list[int]) -> list[str]:
    """For each step of the reference the first step of the other run whose loss is no higher."""
    shown = []
    for step in steps:
        reached = next((i for i, loss in enumerate(other, 1) if loss <= reference[step - 1]), None)
        shown.append(f"{reached} ({reached / step:.2f})" if reached else f"over {len(other)}")
    return shown


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--size", type=int, default=128, help="side of the square pictures (default 128)")
    arguments.add_argument("--steps", type=int, default=60, help="of the run with fastnst's constants (default 60)")
    arguments.add_argument("--variants", default="POWER=0,LONG=0", help="constants, ';' between variants")
    options = arguments.parse_args()
    settings = Settings.from_preset("johnson")
    network = VGG(weights.load(), settings.layer_names(), winograd=True)
    steps = [step for step in COMPARED if step <= options.steps]
    rows = []
    for name, (content, style) in pictures(options.size).items():
        objective = Objective(network, content, style_targets(network, style, settings), settings)
        assert isinstance(settings.history, int)
        reference = losses(objective, content.clone(), settings.history, options.steps)
        for variant in options.variants.split(";"):
            most, until = LONGER * options.steps, reference[-1]
            run = with_constants(variant, objective, content.clone(), settings.history, most, until)
            rows.append((name, variant, *cells(reference, run, steps)))
    print(f"{options.size} x {options.size}, torch {torch.__version__}\n")
    print(Table(("pair", "variant", *(f"loss of step {step}" for step in steps)), rows))


if __name__ == "__main__":
    main()

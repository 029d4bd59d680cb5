"""Style loss and gradient at the five style layers of a 512 x 512 picture: fused ops against eager PyTorch.

    python -m bench.ops.layer_losses [--repeats 15] [--dtype float32]

Times what the loop does at a layer with losses: the loss, its gradient with respect to the features, and adding it to
the gradient from the layers above, in place. Results are compared with float64 before any time is printed. Prints
medians in milliseconds with their spread, and the median of the rounds' ratios eager / fastnst.
"""

from __future__ import annotations

import sys
from functools import partial

import torch
from torch import Tensor

from bench.common import exact
from bench.common.contest import Contender, Results, Spread, measure, ratios
from bench.common.machine import headline, machine
from bench.common.options import parser
from bench.common.results import Table
from bench.ops.contests import LAYERS
from fastnst import ops

LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
BOUNDS = {torch.float32: 1e-5, torch.bfloat16: 1e-2}
Arguments = tuple[Tensor, Tensor, Tensor, float]


def eager(x: Tensor, target: Tensor, above: Tensor, scale: float) -> Tensor:
    """Autograd over matrix products, as most implementations write it."""
    x = x.detach().requires_grad_(True)
    features = x.flatten(2).float()
    loss = (scale * (features @ features.mT) - target).square().sum()
    loss.backward()
    assert x.grad is not None
    return above.add_(x.grad)


def fused(x: Tensor, target: Tensor, above: Tensor, scale: float) -> Tensor:
    """One pass for the loss and the residual, one pass for the gradient, in place."""
    with torch.no_grad():
        _, residual = ops.style_loss_and_residual(x, target, scale=scale)
        return ops.layer_backward_(above, x, residual=residual, style=4 * scale, relu=False)


FUNCTIONS = {"eager": eager, "fused": fused}


def contenders(given: Arguments) -> list[Contender]:
    """Both functions. They are checked on a copy of ``above`` and timed in place."""
    x, target, above, scale = given

    def checked(name: str) -> Results:
        return (FUNCTIONS[name](x, target, above.clone(), scale),)

    return [
        Contender(name, partial(function, *given), results=partial(checked, name))
        for name, function in FUNCTIONS.items()
    ]


def expected(given: Arguments) -> Results:
    """The gradient in float64."""
    x, target, above, scale = given
    return exact.style_backward(above, x, exact.style_loss(x, target, scale)[1], 4 * scale)


def row(channels: int, side: int, layout: str, dtype: torch.dtype, repeats: int) -> tuple[str, ...]:
    x = torch.randn(1, channels, side, side).relu().to(dtype).to(memory_format=LAYOUTS[layout])
    target = ops.gram(torch.randn_like(x).relu(), scale=1 / side**2)
    given = (x, target, torch.randn_like(x) * 1e-2, 1 / side**2)
    found = measure(contenders(given), lambda: expected(given), BOUNDS[dtype], rounds=repeats, warm_up=0)
    for name, outcome in found.items():
        if outcome.refused:
            sys.exit(f"({channels}, {side}): {name}: {outcome.refused}")
    times = [found[name].seconds for name in FUNCTIONS]
    ratio = Spread.of(ratios(*times)).median
    return (f"{channels}, {side}", layout, *(Spread.of(t).text(".1f", 1e3) for t in times), f"{ratio:.2f}")


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--repeats", type=int, default=15, help="rounds (default 15)")
    arguments.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    options = arguments.parse_args()
    dtype = getattr(torch, options.dtype)
    torch.manual_seed(0)
    rows = [row(*layer, layout, dtype, options.repeats) for layer in LAYERS for layout in LAYOUTS]
    print(f"{headline(machine())}, {options.dtype}\n")
    print(Table(("C, side", "layout", "eager ms (min-max)", "fastnst ms (min-max)", "ratio"), rows))


if __name__ == "__main__":
    main()

"""A style loss of your own: the mean and the skewness of each channel.

    python examples/custom_style_loss.py photo.jpg painting.jpg --output skewed.png

``FeatureLoss`` receives the features of a layer; autograd computes the gradient. The name given to ``register`` is then
valid for ``style_loss`` in every setting of this process.
"""

from __future__ import annotations

import argparse

import torch
from torch import Tensor

import fastnst
from fastnst.losses import style


class MeanAndSkewness(style.FeatureLoss):
    """Squared distance of the channels' means and third central moments."""

    def target(self, x: Tensor, weight: Tensor | None = None) -> tuple[Tensor, ...]:
        features = x.flatten(2).float()
        positions = features.shape[2]
        shares = torch.full((1, 1, positions), 1 / positions) if weight is None else weight.flatten(1)[:, None]
        shares = shares.to(features)
        mean = (features * shares).sum(2, keepdim=True)
        third = ((features - mean) ** 3 * shares).sum(2)
        return mean[:, :, 0], third.sign() * (third.abs() + 1e-8) ** (1 / 3)

    def loss(self, x: Tensor, target: tuple[Tensor, ...], weight: Tensor | None = None) -> Tensor:
        found = self.target(x, weight)
        return torch.stack([(a - b).square().mean() for a, b in zip(found, target, strict=True)]).sum()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("content")
    parser.add_argument("style")
    parser.add_argument("--output", default="skewed.png")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--steps", type=int, default=100)
    options = parser.parse_args()

    style.register("mean_and_skewness", MeanAndSkewness)
    result = fastnst.stylize(
        options.content,
        options.style,
        size=options.size,
        steps=options.steps,
        style_loss="mean_and_skewness",
    )
    print(result.save(options.output))


if __name__ == "__main__":
    main()

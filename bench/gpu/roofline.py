"""The least time each op can take on a card: bytes over bandwidth or operations over peak, whichever is larger.

    python -m bench.gpu.roofline [--side 1024] [--precision tf32]

Needs no GPU. "fused" moves each tensor once. "eager" is autograd over matrix products: the forward reads the features
and computes the whole square matrix instead of its triangle; the backward multiplies twice, from the left and from the
right, adds the two and adds the sum to the gradient of the layers above.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from bench.common.options import parser
from bench.common.results import Table

LAYERS = {"relu1_1": (64, 1), "relu2_1": (128, 2), "relu3_1": (256, 4), "relu4_1": (512, 8), "relu5_1": (512, 16)}
"""Channels, and the picture's side over the layer's."""

PRECISIONS = ("float32", "tf32", "half", "bfloat16")
SIZE_OF = {"float32": 4, "tf32": 4, "half": 2, "bfloat16": 2}


@dataclass(frozen=True)
class Card:
    """Bytes per second of the memory, and operations per second of a dense matrix product by its kind.

    ``fp32`` is the rate of the ordinary units, the others of tensor cores with float32 accumulation.
    """

    name: str
    bandwidth: float
    fp32: float
    tf32: float
    half: float
    bfloat16: float

    def products(self, precision: str) -> float:
        """The best rate for features of ``precision``; float32 by tensor cores is three tf32 products (3xTF32)."""
        rates = {"float32": max(self.fp32, self.tf32 / 3), "tf32": self.tf32}
        return rates.get(precision) or {"half": self.half, "bfloat16": self.bfloat16}[precision]

    def library_products(self, precision: str) -> float:
        """The rate of a library's product: float32 runs on the ordinary units."""
        return self.fp32 if precision == "float32" else self.products(precision)


# Published: H100 SXM5, A100, H200 and L4 datasheets without sparsity; Ada whitepaper, float32 accumulation.
CARDS = (
    Card("H100", 3.35e12, 67e12, 495e12, 989e12, 989e12),
    Card("A100-80", 2.039e12, 19.5e12, 156e12, 312e12, 312e12),
    Card("RTX 4090", 1.008e12, 82.6e12, 82.6e12, 165.2e12, 165.2e12),
    Card("H200", 4.8e12, 67e12, 495e12, 989e12, 989e12),
    Card("L4", 0.3e12, 30.3e12, 60.5e12, 121e12, 121e12),
)


@dataclass(frozen=True)
class Work:
    """Bytes to and from memory, and operations (a multiply-add is two) of matrix products."""

    bytes: float
    operations: float = 0.0

    def seconds(self, bandwidth: float, rate: float) -> float:
        return max(self.bytes / bandwidth, self.operations / rate)


def _features(channels: int, positions: int, precision: str) -> float:
    return float(channels * positions * SIZE_OF[precision])


def work(op: str, channels: int, positions: int, precision: str) -> Work:
    """The least work of an op. Matrices of C^2 values and sums are not counted: they are small beside features.

    Positions are those of the features; for pools, of their input.
    """
    one = _features(channels, positions, precision)
    square = 2.0 * channels**2 * positions
    argmax_bytes = channels * positions / 4  # one for each window
    return {
        "style_loss": Work(one, square / 2),  # the lower triangle
        "style_loss backward": Work(3 * one, square),  # reads features and gradient, writes the gradient
        "content_loss": Work(2 * one),
        "content_loss backward": Work(3 * one),
        "total_variation": Work(one),
        "total_variation backward": Work(2 * one),
        "bias_relu_": Work(2 * one),
        "bias_relu_style_loss": Work(2 * one, square / 2),
        "pool": Work(1.25 * one + argmax_bytes),
        "pool backward": Work(1.25 * one + argmax_bytes),
    }[op]


def fused(op: str, card: Card, channels: int, positions: int, precision: str) -> float:
    """Seconds of one pass."""
    return work(op, channels, positions, precision).seconds(card.bandwidth, card.products(precision))


def eager_style(card: Card, channels: int, positions: int, precision: str) -> tuple[float, float]:
    """Seconds of forward and backward of the style loss by autograd over the library's matrix products."""
    one = _features(channels, positions, precision)
    product, rate = 2.0 * channels**2 * positions, card.library_products(precision)
    forward = Work(one, product).seconds(card.bandwidth, rate)
    multiplied = Work(2 * one, product).seconds(card.bandwidth, rate)  # reads features, writes as much
    return forward, 2 * multiplied + 6 * one / card.bandwidth


def positions_of(layer: str, side: int) -> int:
    return (side // LAYERS[layer][1]) ** 2


def named(card: str) -> Card | None:
    """The published card whose name is part of the driver's name for it; None for others."""
    words = card.lower().replace("-", " ").split()
    names: Mapping[str, Card] = dict(zip(("h100", "a100", "4090", "h200", "l4"), CARDS, strict=True))
    return next((found for name, found in names.items() if name in words), None)


def table(side: int, precision: str) -> Table:
    """Microseconds of the style loss by layer and card: fused forward, eager forward, fused and eager backward.

    Eager is float32 on the ordinary units where ``precision`` is tf32, which is PyTorch's default.
    """
    rows = []
    for layer, (channels, _) in LAYERS.items():
        n, cells = positions_of(layer, side), []
        for card in CARDS:
            forward = fused("style_loss", card, channels, n, precision)
            backward = fused("style_loss backward", card, channels, n, precision)
            eager = eager_style(card, channels, n, "float32" if precision == "tf32" else precision)
            cells.append(" / ".join(f"{1e6 * s:.0f}" for s in (forward, eager[0], backward, eager[1])))
        rows.append((layer, *cells))
    return Table(("layer", *(card.name for card in CARDS)), rows)


OPS = (
    "content_loss",
    "content_loss backward",
    "bias_relu_",
    "bias_relu_style_loss",
    "pool",
    "pool backward",
)


def ops_table(side: int, precision: str, card: Card) -> Table:
    rows = []
    for layer, (channels, _) in LAYERS.items():
        n = positions_of(layer, side)
        cells = [f"{1e6 * fused(op, card, channels, n, precision):.1f}" for op in OPS]
        rows.append((layer, *cells))
    return Table((f"{card.name}, us", *OPS), rows)


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--side", type=int, default=1024, help="side of the square picture (default 1024)")
    arguments.add_argument("--precision", default="tf32", choices=PRECISIONS)
    options = arguments.parse_args()
    print(f"Style loss at {options.side}x{options.side}, {options.precision}, microseconds:")
    print("fused forward / eager forward / fused backward / eager backward\n")
    print(table(options.side, options.precision))
    for card in CARDS:
        print(f"\n{ops_table(options.side, options.precision, card)}")


if __name__ == "__main__":
    main()

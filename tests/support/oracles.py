"""VGG and the published losses, written in plain torch.nn for float64 and autograd: the reference for the library.

Nothing is imported from fastnst. The caller passes the tensors of the weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Columns D and E of Simonyan and Zisserman's table 1; M is a pool.
CONFIGURATIONS: dict[str, tuple[int | str, ...]] = {
    "vgg16": (64, 64, "M", 128, 128, "M", 256, 256, 256, "M", 512, 512, 512, "M", 512, 512, 512, "M"),
    "vgg19": (64, 64, "M", 128, 128, "M", 256, 256, 256, 256, "M", 512, 512, 512, 512, "M", 512, 512, 512, 512, "M"),
}
CAFFE_MEAN = (123.68, 116.779, 103.939)  # RGB
TUTORIAL_STYLE = ("relu1_1", "relu1_2", "pool1", "relu2_1", "relu2_2", "pool2", "relu3_1", "relu3_2", "relu3_3")
GATYS_STYLE = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1")


def pixels(height: int, width: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    """A random picture [1, 3, H, W] in 0..255."""
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(1, 3, height, width, generator=generator, dtype=torch.float64) * 255).to(dtype)


def table(arch: str) -> list[tuple[str, str, int, int]]:
    """Name, kind, channels and stride of every layer, in order."""
    rows: list[tuple[str, str, int, int]] = []
    block, number, channels, stride = 1, 1, 3, 1
    for entry in CONFIGURATIONS[arch]:
        if isinstance(entry, int):
            channels = entry
            rows += [(f"{kind}{block}_{number}", kind, channels, stride) for kind in ("conv", "relu")]
            number += 1
        else:
            stride *= 2
            rows.append((f"pool{block}", "pool", channels, stride))
            block, number = block + 1, 1
    return rows


class RootMeanSquare(nn.Module):
    """L2 pooling; the small number keeps the derivative at zero finite and is part of the library's definition."""

    def forward(self, x: Tensor) -> Tensor:
        return (F.avg_pool2d(x * x, 2) + 1e-8).sqrt()


def plain_network(
    convs: Mapping[str, tuple[Tensor, Tensor]], arch: str, deepest: str, pooling: str = "max", padding: str = "zeros"
) -> nn.Sequential:
    """A trainable float64 network from ordinary modules, up to ``deepest``."""
    pools: dict[str, Callable[[], nn.Module]] = {
        "max": lambda: nn.MaxPool2d(2),
        "average": lambda: nn.AvgPool2d(2),
        "l2": RootMeanSquare,
    }
    network, inputs = nn.Sequential(), 3
    for name, kind, channels, _ in table(arch):
        if kind == "conv":
            border = padding if padding != "replicate_first" else "replicate" if inputs == 3 else "zeros"
            like = {"padding": 1, "padding_mode": border, "dtype": torch.float64}
            module: nn.Module = nn.utils.skip_init(nn.Conv2d, inputs, channels, 3, **like)
            module.load_state_dict(dict(zip(("weight", "bias"), convs[name], strict=True)))
            inputs = channels
        else:
            module = nn.ReLU() if kind == "relu" else pools[pooling]()
        network.add_module(name, module)
        if name == deepest:
            break
    return network


def plain_features(
    network: nn.Sequential, image: Tensor, mean: Any = CAFFE_MEAN, scale: Any = (1.0, 1.0, 1.0)
) -> dict[str, Tensor]:
    """Every layer's output for pixels in 0..255."""
    mean, scale = (torch.tensor(value, dtype=image.dtype).view(1, 3, 1, 1) for value in (mean, scale))
    x = (image - mean) * scale
    found = {}
    for name, module in network.named_children():
        x = module(x)
        found[name] = x
    return found


def matrix(features: Tensor) -> Tensor:
    """[1, C, H, W] to the paper's F, [C, N]."""
    return features.flatten(2)[0]


def raw_gram(features: Tensor) -> Tensor:
    return matrix(features) @ matrix(features).T


def gatys_style(x: Tensor, style: Tensor) -> Tensor:
    """Gatys et al. 2015, eqs. 3 and 4: 1 / (4 C^2 N^2) sum (G - A)^2, each Gram matrix divided by its own N."""
    (c, n), m = matrix(x).shape, matrix(style).shape[1]
    return (raw_gram(x) / n - raw_gram(style) / m).square().sum() / (4 * c**2)


def channels_style(x: Tensor, style: Tensor) -> Tensor:
    """Mean squared error of F F^T / N, times 1 / C^2."""
    (c, n), m = matrix(x).shape, matrix(style).shape[1]
    return F.mse_loss(raw_gram(x) / n, raw_gram(style) / m) / c**2


def johnson_style(x: Tensor, style: Tensor) -> Tensor:
    """neural-style: nn.MSELoss of Gram matrices divided by the features' number of elements."""
    return F.mse_loss(raw_gram(x) / x.numel(), raw_gram(style) / style.numel())


def raw_style(x: Tensor, style: Tensor) -> Tensor:
    """The tutorial: mean((Gs - Gg)^2), raw Gram matrices."""
    return ((raw_gram(style) - raw_gram(x)) ** 2).mean()


def half_sum_content(x: Tensor, content: Tensor) -> Tensor:
    """Gatys et al. 2015, eq. 1."""
    return 0.5 * (x - content).square().sum()


def mean_content(x: Tensor, content: Tensor) -> Tensor:
    """neural-style: nn.MSELoss."""
    return F.mse_loss(x, content)


def half_mean_content(x: Tensor, content: Tensor) -> Tensor:
    """The tutorial: mean(1/2 d^2)."""
    return (0.5 * (x - content) ** 2).mean()


def moments(features: Tensor) -> tuple[Tensor, Tensor]:
    """Mean [C] and F F^T / N."""
    f = matrix(features)
    return f.mean(1), f @ f.T / f.shape[1]


def gram_mean_std(x: Tensor, style: Tensor) -> Tensor:
    """spst.py's weights over its 1000: mean squared errors of Gram / N times 1 / C^2, of means and deviations times 10;
    deviations are roots of diag(G) - mean^2."""
    (mean, moment), (wanted_mean, wanted) = moments(x), moments(style)
    deviations = [
        (m.diagonal() - a.square()).clamp_min(1e-300).sqrt() for m, a in ((moment, mean), (wanted, wanted_mean))
    ]
    return (
        F.mse_loss(moment, wanted) / len(mean) ** 2 + 10 * F.mse_loss(mean, wanted_mean) + 10 * F.mse_loss(*deviations)
    )


def wasserstein(x: Tensor, style: Tensor) -> Tensor:
    """Mean over channels of (m - m')^2 and of diag(K + K' - 2 (K'^1/2 K K'^1/2)^1/2), 1e-4 on both diagonals."""
    (mean, moment), (wanted_mean, wanted) = moments(x), moments(style)
    ridge = 1e-4 * torch.eye(len(mean), dtype=mean.dtype)
    k, target = moment - mean.outer(mean) + ridge, wanted - wanted_mean.outer(wanted_mean) + ridge
    values, vectors = torch.linalg.eigh(target)
    root = vectors @ values.sqrt().diag() @ vectors.T
    between = torch.linalg.eigvalsh(root @ k @ root).clamp_min(1e-8).sqrt().sum()  # none is below 1e-4 squared
    return F.mse_loss(mean, wanted_mean) + ((k + target).trace() - 2 * between) / len(mean)


Term = Callable[[Tensor, Tensor], Tensor]
STYLE: dict[str, Term] = {
    "gatys": gatys_style,
    "channels": channels_style,
    "johnson": johnson_style,
    "raw": raw_style,
}
STYLED = (*STYLE.values(), gram_mean_std, wasserstein)
CONTENT: dict[str, Term] = {"half_sum": half_sum_content, "mean": mean_content, "half_mean": half_mean_content}


def variation(x: Tensor, kind: str) -> Tensor:
    """Sum over neighbors of |d|, of d^2, or over pixels of the length of the difference; or means of squares over a
    stencil of nine points, straight neighbors by 2/3 and diagonal ones by 1/6, the border repeated."""
    if kind == "nine_point":
        y = F.pad(x, (1, 1, 1, 1), mode="replicate")
        height, width = x.shape[2:]
        straight = [y[..., 1 + i : 1 + i + height, 1 + j : 1 + j + width] - x for i, j in ((0, 1), (1, 0))]
        diagonal = y.unfold(2, 2, 1).unfold(3, 2, 1)
        slanted = [diagonal[..., 1, 1] - diagonal[..., 0, 0], diagonal[..., 1, 0] - diagonal[..., 0, 1]]
        return 2 / 3 * sum(d.square().mean() for d in straight) + sum(d.square().mean() for d in slanted) / 6
    right, down = x[..., :, 1:] - x[..., :, :-1], x[..., 1:, :] - x[..., :-1, :]
    if kind == "isotropic":
        return (F.pad(right, (0, 1)).square() + F.pad(down, (0, 0, 0, 1)).square()).sqrt().sum()
    return sum(d.abs().sum() if kind == "anisotropic" else d.square().sum() for d in (right, down))  # type: ignore[return-value]


def evaluate(
    features: Callable[[Tensor], dict[str, Tensor]],
    image: Tensor,
    content: Tensor,
    style: Tensor,
    terms: Iterable[tuple[float, str, Term]],
    variations: Iterable[tuple[float, str]] = (),
) -> tuple[float, dict[tuple[str, str], float], Tensor]:
    """Total, parts and autograd's gradient of a sum of (factor, layer, term) and (factor, kind of total variation)."""
    image = image.detach().clone().requires_grad_(True)
    x = features(image)
    with torch.no_grad():
        targets = {True: features(style), False: features(content)}
    parts = {}
    for factor, layer, term in terms:
        styled = term in STYLED
        parts["style" if styled else "content", layer] = factor * term(x[layer], targets[styled][layer])
    for factor, kind in variations:
        parts["tv", ""] = factor * variation(image, kind)
    total = torch.stack(list(parts.values())).sum()
    (gradient,) = torch.autograd.grad(total, image)
    return total.item(), {key: part.item() for key, part in parts.items()}, gradient

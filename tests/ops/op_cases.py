"""Every op as a case: inputs, the call of the public function, and a float64 definition that is not from the package.

Shared by the tests of this folder; runs on its own as well (see test_ops_kernel_tables.py).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from fastnst import ops

Tensors = dict[str, Tensor]
Shape = tuple[int, ...]

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
HALVES = (torch.bfloat16, torch.float16)

# Error bounds. Half precision is float32 arithmetic with one rounding.
BOUNDS = {
    torch.float32: 1e-6,
    torch.float64: 1e-13,
    torch.bfloat16: 2**-8 + 1e-6,
    torch.float16: 2**-11 + 1e-6,
}

# Batches, channels and positions around the sizes where tiles, strips (64 to 256) and blocks (64, 256) begin and end.
SHAPES: tuple[Shape, ...] = (
    (1, 1, 1, 1),
    (2, 5),
    (3, 17, 1),
    (2, 3, 7),
    (1, 5, 8, 8),
    (2, 64, 9, 11),
    (1, 130, 5, 3),
    (1, 257, 3, 3),
    (2, 300, 9, 9),
    (2, 3, 2, 3, 4),
    (1, 3, 15, 17),
    (1, 33, 16, 16),
    (1, 5, 1, 257),
    (3, 17, 33, 31),
    (1, 3, 64, 145),
    (0, 3, 4, 4),
    (2, 0, 4, 4),
    (2, 3, 0, 5),
    (2, 3, 4, 0),
)


def accumulated(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def relative_error(got: Tensor, exact: Tensor) -> float:
    """Norm of the difference over the norm of ``exact``; infinite where shapes differ or ``got`` is not finite."""
    if got.shape != exact.shape or not bool(got.isfinite().all()):
        return float("inf")
    difference = float((got.detach().double().cpu() - exact.detach().cpu()).norm())
    size = float(exact.detach().norm())
    return difference / size if size else (0.0 if difference == 0 else float("inf"))


def features(shape: Shape, seed: int = 0) -> Tensor:
    """The output of a ReLU in float64: half of the values are zero."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, dtype=torch.float64, generator=generator).relu()


def noise(shape: Shape, seed: int = 1) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


# The independent definitions, on float64 tensors.


def scale_for(x: Tensor) -> float:
    return 1 / max(x.shape[2:].numel(), 1)


def flat(x: Tensor) -> Tensor:
    return x.reshape(x.shape[0], x.shape[1], x.shape[2:].numel())


def exact_gram(x: Tensor, weight: Tensor | None = None, scale: float = 1.0) -> Tensor:
    f = flat(x)
    left = f if weight is None else f * weight.reshape(f.shape[0], 1, f.shape[2])
    return scale * torch.einsum("bin,bjn->bij", left, f)


def exact_variation(x: Tensor, kind: str) -> Tensor:
    right, down = torch.zeros_like(x), torch.zeros_like(x)
    right[..., :-1] = x.diff(dim=3)
    down[..., :-1, :] = x.diff(dim=2)
    if kind == "anisotropic":
        return right.abs().sum() + down.abs().sum()
    if kind == "squared":
        return right.pow(2).sum() + down.pow(2).sum()
    length2 = right.pow(2) + down.pow(2)
    return length2[length2 > 0].sqrt().sum()


def exact_layer_backward(t: Tensors, style: float, content: float, relu: bool) -> Tensor:
    x = t["x"]
    out = t["grad"]
    if "residual" in t:
        pull = torch.einsum("bij,bjn->bin", t["residual"], flat(x)).reshape(x.shape)
        pull = style * pull
        if "shift" in t:
            pull = pull + t["shift"].reshape(*x.shape[:2], *(1,) * (x.dim() - 2))
        out = out + (pull * t["weight"][:, None] if "weight" in t else pull)
    if "target" in t:
        out = out + content * (x - t["target"])
    return out * (x > 0) if relu else out


@dataclass(frozen=True)
class Case:
    """One way to call one op. ``inputs`` gives float64 tensors for a shape of x, ``call`` runs the op on them in any
    dtype and ``exact`` the definition in float64; ``matrices`` are the inputs in the accumulate dtype; ``copies`` says
    how often the call copies x, and ``lower`` that a value of minus infinity is lower than what the op puts out."""

    name: str
    inputs: Callable[[Shape], Tensors]
    call: Callable[[Tensors], tuple[Tensor, ...]]
    exact: Callable[[Tensors], tuple[Tensor, ...]]
    differentiable: tuple[str, ...] = ("x",)
    matrices: tuple[str, ...] = ("weight", "residual", "shift")
    image: bool = False
    copies: int = 0
    lower: bool = False

    def __str__(self) -> str:
        return self.name

    def takes(self, shape: Shape) -> bool:
        return len(shape) == 4 or not self.image

    def tensors(self, shape: Shape, dtype: torch.dtype = torch.float64, device: str = "cpu") -> Tensors:
        def cast(name: str, value: Tensor) -> Tensor:
            return value.to(device, accumulated(dtype) if name in self.matrices else dtype)

        return {name: cast(name, value) for name, value in self.inputs(shape).items()}


def doubles(t: Tensors) -> Tensors:
    """Copies in float64 on the CPU, detached."""
    return {name: value.detach().to("cpu", torch.float64, copy=True) for name, value in t.items()}


def _weight(shape: Shape) -> Tensor:
    return noise((shape[0], *shape[2:]), 3).abs()


def _matrix(shape: Shape) -> Tensor:
    """The Gram matrix of other features of larger norm, like those of a different style."""
    other = 2 * features(shape, 4)
    return exact_gram(other, scale=scale_for(other))


def _gram_case(weighted: bool) -> Case:
    def inputs(shape: Shape) -> Tensors:
        return {"x": features(shape), **({"weight": _weight(shape)} if weighted else {})}

    return Case(
        "gram weighted" if weighted else "gram",
        inputs,
        lambda t: (ops.gram(t["x"], t.get("weight"), scale_for(t["x"])),),
        lambda t: (exact_gram(t["x"], t.get("weight"), scale_for(t["x"])),),
    )


def _style_case(weighted: bool) -> Case:
    def inputs(shape: Shape) -> Tensors:
        return {"x": features(shape), "target": _matrix(shape), **({"weight": _weight(shape)} if weighted else {})}

    def exact(t: Tensors) -> tuple[Tensor, ...]:
        residual = exact_gram(t["x"], t.get("weight"), scale_for(t["x"])) - t["target"]
        return residual.pow(2).sum(), residual

    return Case(
        "style_loss weighted" if weighted else "style_loss",
        inputs,
        lambda t: ops.style_loss_and_residual(t["x"], t["target"], t.get("weight"), scale_for(t["x"])),
        exact,
        ("x", "target"),
        ("weight", "target"),
    )


def _variation_case(kind: str) -> Case:
    return Case(
        f"total_variation {kind}",
        lambda shape: {"x": noise(shape)},
        lambda t: (ops.total_variation(t["x"], kind),),
        lambda t: (exact_variation(t["x"], kind),),
        image=True,
    )


def _layer_case(name: str, extras: tuple[str, ...], relu: bool = True) -> Case:
    def inputs(shape: Shape) -> Tensors:
        every = {"residual": _matrix(shape), "weight": _weight(shape), "target": features(shape, 5)}
        every["shift"] = noise(shape[:2], 7)
        return {"grad": noise(shape, 6), "x": features(shape), **{key: every[key] for key in extras}}

    def call(t: Tensors) -> tuple[Tensor, ...]:
        grad = torch.empty_like(t["x"]).copy_(t["grad"])
        given = {key: t[key] for key in extras}
        return (ops.layer_backward_(grad, t["x"], **given, style=0.7, content=0.3, relu=relu),)

    # The only copy is of the tensor that the op overwrites.
    return Case(name, inputs, call, lambda t: (exact_layer_backward(t, 0.7, 0.3, relu),), (), copies=1)


def exact_bias_relu(t: Tensors) -> Tensor:
    return (t["x"].movedim(1, -1) + t["bias"]).clamp(min=0).movedim(-1, 1)


def exact_bias_relu_style_loss(t: Tensors) -> tuple[Tensor, ...]:
    y = exact_bias_relu(t)
    residual = exact_gram(y, scale=scale_for(y)) - t["target"]
    return y, residual.pow(2).sum(), residual


def eighths(x: Tensor) -> Tensor:
    """Values whose sums are exact in every dtype."""
    return (8 * x).round().clamp(-32, 32) / 8


def windows(x: Tensor) -> Tensor:
    """[B, C, H, W] -> [B, C, H // 2, W // 2, 4]."""
    b, c, h, w = x.shape
    whole = x[..., : h // 2 * 2, : w // 2 * 2].reshape(b, c, h // 2, 2, w // 2, 2)
    return whole.transpose(3, 4).reshape(b, c, h // 2, w // 2, 4)


def exact_pool(x: Tensor, kind: str) -> Tensor:
    four = windows(x)
    if kind == "average":
        return four.sum(-1) / 4
    if kind == "l2":
        return (four.pow(2).sum(-1) / 4 + 1e-8).sqrt()
    return four.gather(-1, four.argmax(-1, keepdim=True)).squeeze(-1)


def _pool_case(kind: str) -> Case:
    return Case(
        f"pool {kind}",
        lambda shape: {"x": noise(shape)},
        lambda t: (ops.pool(t["x"], kind),),
        lambda t: (exact_pool(t["x"], kind),),
        image=True,
        lower=kind == "max",
    )


def _bias_relu_pool_case(kind: str, keep: bool) -> Case:
    """With ``keep`` the activated map is an output too."""

    def call(t: Tensors) -> tuple[Tensor, ...]:
        x = t["x"].clone()
        y, _ = torch.ops.fastnst.bias_relu_pool_(x, t["bias"], kind, keep)
        return (x, y) if keep else (y,)

    def exact(t: Tensors) -> tuple[Tensor, ...]:
        activated = exact_bias_relu(t)
        return (activated, exact_pool(activated, kind)) if keep else (exact_pool(activated, kind),)

    return Case(
        f"bias_relu_pool_ {kind}{' keep' if keep else ''}",
        lambda shape: {"x": eighths(noise(shape)), "bias": eighths(noise(shape[1:2], 2))},
        call,
        exact,
        (),
        image=True,
        copies=1,
        lower=True,
    )


CASES = (
    _gram_case(False),
    _gram_case(True),
    Case(
        "moments",
        lambda shape: {"x": features(shape)},
        lambda t: ops.moments(t["x"], scale_for(t["x"])),
        lambda t: (flat(t["x"]).sum(2) * scale_for(t["x"]), exact_gram(t["x"], scale=scale_for(t["x"]))),
    ),
    Case(
        "moments weighted",
        lambda shape: {"x": features(shape), "weight": _weight(shape)},
        lambda t: ops.moments(t["x"], scale_for(t["x"]), weight=t["weight"]),
        lambda t: (
            torch.einsum("bcn,bn->bc", flat(t["x"]), t["weight"].reshape(flat(t["x"]).shape[::2])),
            exact_gram(t["x"], t["weight"], scale_for(t["x"])),
        ),
        ("x", "weight"),
    ),
    _style_case(False),
    _style_case(True),
    Case(
        "content_loss",
        lambda shape: {"x": features(shape), "target": features(shape, 5)},
        lambda t: (ops.content_loss(t["x"], t["target"]),),
        lambda t: ((t["x"] - t["target"]).pow(2).sum(),),
        ("x", "target"),
        (),
    ),
    *(_variation_case(kind) for kind in ("anisotropic", "isotropic", "squared")),
    _layer_case("layer_backward_ mask", ()),
    _layer_case("layer_backward_ style", ("residual",)),
    _layer_case("layer_backward_ content", ("target",)),
    _layer_case("layer_backward_ everything", ("residual", "weight", "target")),
    _layer_case("layer_backward_ shift", ("residual", "shift")),
    _layer_case("layer_backward_ shift, everything", ("residual", "weight", "shift", "target")),
    _layer_case("layer_backward_ without relu", ("residual", "weight", "target"), relu=False),
    Case(
        "bias_relu_",
        lambda shape: {"x": noise(shape), "bias": noise(shape[1:2], 2)},
        lambda t: (ops.bias_relu_(t["x"].clone(), t["bias"]),),
        lambda t: (exact_bias_relu(t),),
        (),
        copies=1,
        lower=True,
    ),
    Case(
        "bias_relu_style_loss",
        lambda shape: {"x": eighths(noise(shape)), "bias": eighths(noise(shape[1:2], 2)), "target": _matrix(shape)},
        lambda t: ops.bias_relu_style_loss(t["x"], t["bias"], t["target"], scale_for(t["x"])),
        exact_bias_relu_style_loss,
        (),
        ("target",),
        copies=1,
        lower=True,
    ),
    *(_pool_case(kind) for kind in ("max", "average", "l2")),
    *(_bias_relu_pool_case(*given) for given in (("max", False), ("max", True), ("average", True), ("l2", True))),
)
DIFFERENTIABLE = tuple(case for case in CASES if case.differentiable)


def gradients(call: Callable[[Tensors], tuple[Tensor, ...]], t: Tensors, wanted: tuple[str, ...]) -> tuple[Tensor, ...]:
    """Derivatives of a fixed random combination of all outputs with respect to the inputs ``wanted``."""
    leaves = {name: value.detach().requires_grad_(name in wanted) for name, value in t.items()}
    outputs = call(leaves)
    cotangents = [noise(tuple(y.shape), 7 + i).to(y) for i, y in enumerate(outputs)]
    return torch.autograd.grad(outputs, [leaves[name] for name in wanted], cotangents)


# Layouts: the same values in other memory layouts. Gaps are NaN, so that reading one is detected.


def _in(larger: Shape, index: tuple[slice, ...], x: Tensor) -> Tensor:
    view = torch.full(larger, float("nan"), dtype=x.dtype, device=x.device)[index]
    return view.copy_(x)


def contiguous(x: Tensor) -> Tensor:
    return x.contiguous()


def channels_last(x: Tensor) -> Tensor:
    return x.movedim(1, -1).contiguous().movedim(-1, 1)


def offset(x: Tensor) -> Tensor:
    """Contiguous, with a storage offset that is not aligned to a vector."""
    return _in((x.numel() + 3,), (slice(3, None),), x.flatten()).view(x.shape)


def cropped(x: Tensor) -> Tensor:
    return _in(tuple(n + 2 for n in x.shape), tuple(slice(1, n + 1) for n in x.shape), x)


def every_second(x: Tensor) -> Tensor:
    return _in(tuple(2 * n for n in x.shape), tuple(slice(0, 2 * n, 2) for n in x.shape), x)


def channels_of_channels_last(x: Tensor) -> Tensor:
    """Some channels of a channels_last map: one stride along the positions, with gaps."""
    last = x.movedim(1, -1)
    larger = (*last.shape[:-1], last.shape[-1] + 3)
    return _in(larger, (..., slice(1, -2)), last).movedim(-1, 1)  # type: ignore[arg-type]


def cropped_channels_last(x: Tensor) -> Tensor:
    return cropped(x.movedim(1, -1)).movedim(-1, 1)


def reversed_axes(x: Tensor) -> Tensor:
    axes = tuple(reversed(range(x.dim())))
    return x.permute(axes).contiguous().permute(axes)


LAYOUTS: tuple[Callable[[Tensor], Tensor], ...] = (
    contiguous,
    channels_last,
    offset,
    cropped,
    every_second,
    channels_of_channels_last,
    cropped_channels_last,
    reversed_axes,
)

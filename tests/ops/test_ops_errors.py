"""Errors for invalid arguments: one line with the op, the argument, what was expected and what was passed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from fastnst import ops

F = torch.ones(2, 3, 4, 5)
G = torch.ones(2, 3, 3)
META = torch.device("meta")

# The errors of every op with features for x, and for the optional arguments that several ops have.
FEATURES: list[tuple[str, Any, type[Exception], str]] = [
    ("no tensor", [[1.0]], TypeError, "expected x to be a torch.Tensor, got list"),
    ("None", None, TypeError, "expected x to be a torch.Tensor, got NoneType"),
    ("one axis", torch.ones(64), ValueError, "expected x of shape (B, C, ...), got (64,)"),
    ("no axis", torch.tensor(1.0), ValueError, "expected x of shape (B, C, ...), got ()"),
    (
        "integers",
        torch.ones(1, 2, 3, dtype=torch.int64),
        TypeError,
        "expected x of dtype float32, float64, bfloat16 or float16, got torch.int64",
    ),
    (
        "complex",
        torch.ones(1, 2, 3, 3, dtype=torch.complex64),
        TypeError,
        "expected x of dtype float32, float64, bfloat16 or float16, got torch.complex64",
    ),
    (
        "float8",
        torch.ones(1, 2, 3, 3).to(torch.float8_e4m3fn),
        TypeError,
        "expected x of dtype float32, float64, bfloat16 or float16, got torch.float8_e4m3fn",
    ),
]
WEIGHTED = ("gram", "moments", "style_loss", "layer_backward_")
WEIGHTS: list[tuple[str, Any, type[Exception], str]] = [
    ("no tensor", 2.0, TypeError, "expected weight to be a torch.Tensor or None, got float"),
    (
        "too few",
        torch.ones(2, 4, 4),
        ValueError,
        "expected weight to broadcast to (2, 4, 5), one value per position, got (2, 4, 4)",
    ),
    (
        "too many axes",
        torch.ones(1, 2, 4, 5),
        ValueError,
        "expected weight to broadcast to (2, 4, 5), one value per position, got (1, 2, 4, 5)",
    ),
    (
        "complex",
        torch.ones(4, 5, dtype=torch.complex64),
        TypeError,
        "expected weight of a real dtype, got torch.complex64",
    ),
    ("device", torch.ones(4, 5, device=META), ValueError, "expected weight on cpu like x, got meta"),
]
BIASES: list[tuple[str, Any, type[Exception], str]] = [
    ("no tensor", 2.0, TypeError, "expected bias to be a torch.Tensor, got float"),
    ("None", None, TypeError, "expected bias to be a torch.Tensor, got NoneType"),
    ("C", torch.ones(4), ValueError, "expected bias of shape (3,), got (4,)"),
    ("axes", torch.ones(3, 1, 1), ValueError, "expected bias of shape (3,), got (3, 1, 1)"),
    ("dtype", torch.ones(3).half(), TypeError, "expected bias of dtype torch.float32 like x, got torch.float16"),
    ("device", torch.ones(3, device=META), ValueError, "expected bias on cpu like x, got meta"),
]
SCALES: list[tuple[Any, str]] = [("1", "str"), (None, "NoneType"), (True, "bool"), (torch.tensor(1.0), "Tensor")]


def matrices(name: str) -> list[tuple[str, Any, type[Exception], str]]:
    return [
        ("no tensor", 3, TypeError, f"expected {name} to be a torch.Tensor, got int"),
        ("C", torch.ones(4, 4), ValueError, f"expected {name} of shape (2, 3, 3) or (3, 3), got (4, 4)"),
        ("B", torch.ones(3, 3, 3), ValueError, f"expected {name} of shape (2, 3, 3) or (3, 3), got (3, 3, 3)"),
        ("row", torch.ones(1, 3), ValueError, f"expected {name} of shape (2, 3, 3) or (3, 3), got (1, 3)"),
        ("axes", torch.ones(1, 2, 3, 3), ValueError, f"expected {name} of shape (2, 3, 3) or (3, 3), got (1, 2, 3, 3)"),
        (
            "integers",
            torch.ones(3, 3, dtype=torch.int64),
            TypeError,
            f"expected {name} of a floating dtype, got torch.int64",
        ),
        ("device", torch.ones(3, 3, device=META), ValueError, f"expected {name} on cpu like x, got meta"),
    ]


def pairs(name: str) -> list[tuple[str, Any, type[Exception], str]]:
    return [
        ("no tensor", "P", TypeError, f"expected {name} to be a torch.Tensor, got str"),
        ("shape", F[:, :2], ValueError, f"expected {name} of shape (2, 3, 4, 5) like x, got (2, 2, 4, 5)"),
        ("axes", F[0], ValueError, f"expected {name} of shape (2, 3, 4, 5) like x, got (3, 4, 5)"),
        ("dtype", F.half(), TypeError, f"expected {name} of dtype torch.float32 like x, got torch.float16"),
        ("device", F.to(META), ValueError, f"expected {name} on cpu like x, got meta"),
    ]


def with_argument(op: str, argument: str, rows: list[tuple[str, Any, type[Exception], str]]) -> list[Any]:
    """Calls of ``op`` with one invalid argument."""
    right: dict[str, dict[str, Any]] = {
        "gram": {"x": F},
        "moments": {"x": F},
        "style_loss": {"x": F, "target": G},
        "content_loss": {"x": F, "target": F},
        "total_variation": {"x": F},
        "layer_backward_": {"grad": F.clone(), "x": F},
        "bias_relu_": {"x": F.clone(), "bias": F[0, :, 0, 0]},
        "bias_relu_style_loss": {"x": F, "bias": F[0, :, 0, 0], "target": G},
        "pool": {"x": F},
    }
    function: Callable[..., object] = getattr(ops, op)
    return [
        pytest.param(op, function, {**right[op], argument: value}, error, message, id=f"{op}-{argument}-{what}")
        for what, value, error, message in rows
    ]


TABLE = [
    *(row for op in ("gram", "moments", "style_loss", "total_variation") for row in with_argument(op, "x", FEATURES)),
    *with_argument("layer_backward_", "x", FEATURES),
    *(row for op in ("bias_relu_", "bias_relu_style_loss", "pool") for row in with_argument(op, "x", FEATURES)),
    *(row for op in ("bias_relu_", "bias_relu_style_loss") for row in with_argument(op, "bias", BIASES)),
    *with_argument("bias_relu_style_loss", "target", matrices("target")),
    *with_argument("content_loss", "x", [row for row in FEATURES if "axis" not in row[0]]),
    *(row for op in WEIGHTED for row in with_argument(op, "weight", WEIGHTS)),
    *with_argument("style_loss", "target", matrices("target")),
    *with_argument("layer_backward_", "residual", matrices("residual")),
    *with_argument("content_loss", "target", pairs("target")),
    *with_argument("layer_backward_", "target", pairs("target")),
    *with_argument("layer_backward_", "grad", pairs("grad")),
    *(
        row
        for op, argument in (
            ("gram", "scale"),
            ("moments", "scale"),
            ("style_loss", "scale"),
            ("bias_relu_style_loss", "scale"),
            ("layer_backward_", "style"),
            ("layer_backward_", "content"),
        )
        for row in with_argument(
            op,
            argument,
            [(kind, value, TypeError, f"expected {argument} to be a number, got {kind}") for value, kind in SCALES],
        )
    ),
    *with_argument(
        "layer_backward_",
        "grad",
        [
            ("None", None, TypeError, "expected grad to be a torch.Tensor, got NoneType"),
            (
                "strides",
                F.to(memory_format=torch.channels_last),
                ValueError,
                "expected grad with strides (60, 20, 5, 1) like x, got (60, 1, 15, 3)",
            ),
        ],
    ),
    *with_argument(
        "layer_backward_",
        "x",
        [
            (
                "holes",
                torch.ones(2, 3, 4, 10)[..., ::2],
                ValueError,
                "expected x contiguous or channels_last, got strides (120, 40, 10, 2)",
            )
        ],
    ),
    *with_argument("pool", "x", [("three axes", F[0], ValueError, "expected x of shape (B, C, H, W), got (3, 4, 5)")]),
    *with_argument(
        "pool",
        "kind",
        [
            ("near", "averag", ValueError, "unknown kind 'averag', did you mean average? (known: max, average, l2)"),
            ("None", None, ValueError, "unknown kind None (known: max, average, l2)"),
        ],
    ),
    *with_argument(
        "total_variation",
        "x",
        [("three axes", F[0], ValueError, "expected x of shape (B, C, H, W), got (3, 4, 5)")],
    ),
    *with_argument(
        "total_variation",
        "kind",
        [
            (
                "near",
                "isotropc",
                ValueError,
                "unknown kind 'isotropc', did you mean isotropic? (known: anisotropic, isotropic, squared)",
            ),
            ("far", "huber", ValueError, "unknown kind 'huber' (known: anisotropic, isotropic, squared)"),
            ("None", None, ValueError, "unknown kind None (known: anisotropic, isotropic, squared)"),
        ],
    ),
]


@pytest.mark.parametrize(("op", "function", "arguments", "error", "message"), TABLE)
def test_the_error_names_the_invalid_argument(
    op: str, function: Callable[..., object], arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error) as raised:
        function(**arguments)
    assert str(raised.value) == f"{op}: {message}"


def _sparse(x: Tensor) -> Tensor:
    return x.to_sparse()


def _csr(x: Tensor) -> Tensor:
    return x.reshape(len(x), -1).to_sparse_csr()


def _mkldnn(x: Tensor) -> Tensor:
    return x.to_mkldnn()


def _nested(x: Tensor) -> Tensor:
    return torch.nested.nested_tensor(list(x))


def _jagged(x: Tensor) -> Tensor:
    return torch.nested.nested_tensor(list(x), layout=torch.jagged)


W, BIAS = torch.ones(4, 5), torch.ones(3)
WITH_EVERY_TENSOR: dict[str, dict[str, Tensor]] = {
    "gram": {"x": F, "weight": W},
    "moments": {"x": F, "weight": W},
    "style_loss": {"x": F, "target": G, "weight": W},
    "content_loss": {"x": F, "target": F},
    "total_variation": {"x": F},
    "layer_backward_": {"grad": F, "x": F.clone(), "residual": G, "weight": W, "shift": G[:, 0], "target": F.clone()},
    "bias_relu_": {"x": F, "bias": BIAS},
    "bias_relu_style_loss": {"x": F, "bias": BIAS, "target": G},
    "pool": {"x": F},
    "conv3x3": {"x": F, "weight": torch.ones(2, 3, 3, 3), "bias": torch.ones(2)},
}


@pytest.mark.filterwarnings("ignore:.*(Sparse CSR|nested tensors)")
@pytest.mark.parametrize("make", [_sparse, _csr, _mkldnn, _nested, _jagged], ids=lambda make: make.__name__[1:])
@pytest.mark.parametrize(
    ("op", "argument"), [(op, argument) for op, given in WITH_EVERY_TENSOR.items() for argument in given]
)
def test_the_error_for_a_tensor_that_is_not_strided_names_its_layout(
    op: str, argument: str, make: Callable[[Tensor], Tensor]
) -> None:
    given = WITH_EVERY_TENSOR[op]
    if given[argument].dim() < 2 and make in (_csr, _nested, _jagged):
        pytest.skip("has no such layout")
    other = make(given[argument])
    layout = "a nested tensor; pass" if other.is_nested else f"{other.layout}; pass {argument}.to_dense()"
    with pytest.raises(TypeError) as raised:
        getattr(ops, op)(**{**given, argument: other})
    assert str(raised.value).startswith(f"{op}: expected {argument} of layout torch.strided, got {layout}")


OVERLAPPING = {
    "expanded rows": lambda: torch.ones(1, 3, 1, 5).expand(1, 3, 4, 5),
    "expanded batch": lambda: torch.ones(1, 3, 4, 5).expand(2, 3, 4, 5),
    "as_strided": lambda: torch.ones(60).as_strided((1, 3, 4, 5), (20, 5, 2, 1)),
    "one place": lambda: torch.ones(1).as_strided((1, 3, 4, 5), (0, 0, 0, 0)),
}


@pytest.mark.parametrize("make", OVERLAPPING.values(), ids=OVERLAPPING)
def test_a_written_tensor_with_internal_overlap_is_an_error(make: Callable[[], Tensor]) -> None:
    x = make()
    before = x.clone()
    with pytest.raises(ValueError, match=r"^bias_relu_: expected x, which is written in place, without elements that "):
        ops.bias_relu_(x, torch.ones(3))
    for features in (torch.ones(x.shape), x):
        with pytest.raises(ValueError, match=r"^layer_backward_: expected (grad with|x contiguous)"):
            ops.layer_backward_(x, features)
    assert torch.equal(x, before)


@pytest.mark.parametrize(
    "x",
    [
        torch.ones(1, 3, 8, 10)[..., ::2, ::2],
        torch.ones(4, 5, 3, 1).permute(3, 2, 0, 1),
        torch.ones(3, 1, 1).as_strided((1, 3, 1, 1), (0, 1, 0, 0)),
        torch.ones(1).as_strided((1, 3, 0, 4), (0, 0, 0, 0)),
    ],
    ids=["every second", "channels_last", "no stride where there is one", "empty"],
)
def test_gaps_and_unused_strides_are_not_an_overlap(x: Tensor) -> None:
    assert bool((ops.bias_relu_(x, torch.ones(3)) == 2).all())


def test_the_error_names_an_input_that_overlaps_the_written_tensor() -> None:
    memory = torch.ones(2 * 60 + 1)
    grad, shifted = memory[:60].view(1, 3, 4, 5), memory[1:61].view(1, 3, 4, 5)
    x, beside = torch.ones(1, 3, 4, 5), memory[60:120].view(1, 3, 4, 5)
    for arguments in (
        {"x": grad},
        {"x": shifted},
        {"x": x, "target": grad},
        {"x": x, "residual": memory[50:59].view(3, 3)},
        {"x": x, "weight": grad[0, 0]},
    ):
        name = list(arguments)[-1]
        said = f"^layer_backward_: expected {name} that does not share memory with grad$"
        with pytest.raises(ValueError, match=said):
            ops.layer_backward_(grad, **arguments)
    ops.layer_backward_(grad, beside)
    with pytest.raises(ValueError, match=r"^bias_relu_: expected bias that does not share memory with x$"):
        ops.bias_relu_(grad, grad[0, :, 0, 0])


P = torch.zeros(2, 3, 2, 2, dtype=torch.uint8)
RIGHT_RAW: dict[str, tuple[Any, ...]] = {
    "gram": (F, None, 1.0),
    "gram_backward": (G, F, None, 1.0, None),
    "moments": (F, None, 1.0),
    "style_loss": (F, G, None, 1.0),
    "content_loss": (F, F),
    "content_loss_backward": (torch.tensor(1.0), F, F),
    "total_variation": (F, "isotropic"),
    "total_variation_backward": (torch.tensor(1.0), F, "isotropic"),
    "layer_backward_": (F.clone(), F, G, None, 1.0, torch.ones(2, 3), F, 1.0, True),
    "pool": (F, "max"),
    "pool_backward": (F[..., :2, :2], F, F[..., :2, :2], P, "l2", 4, 5, False),
}
FEW = torch.ones(1)
WRONG_RAW: list[tuple[str, int, Tensor | str | int | None, str]] = [
    ("gram", 0, torch.ones(3), "gram: expected x of shape (B, C, ...), got (3,)"),
    ("gram", 0, torch.ones(2, 3, dtype=torch.int32), "gram: expected x of dtype"),
    ("gram", 1, FEW, "gram: expected weight of shape (2, 20), one value per position, got (1,)"),
    ("gram", 1, torch.ones(2, 20).half(), "gram: expected weight of dtype float32"),
    ("gram_backward", 0, FEW, "gram_backward: expected grad of shape (2, 3, 3), got (1,)"),
    ("gram_backward", 0, G.double(), "gram_backward: expected grad of dtype"),
    ("gram_backward", 1, FEW, "gram_backward: expected x of shape (B, C, ...), got (1,)"),
    ("gram_backward", 2, FEW, "gram_backward: expected weight of shape (2, 20)"),
    ("gram_backward", 4, FEW, "gram_backward: expected shift of shape (2, 3), got (1,)"),
    ("gram_backward", 4, torch.ones(2, 3).double(), "gram_backward: expected shift of dtype"),
    ("moments", 0, FEW, "moments: expected x of shape (B, C, ...), got (1,)"),
    ("moments", 1, FEW, "moments: expected weight of shape (2, 20)"),
    ("style_loss", 0, FEW, "style_loss: expected x of shape (B, C, ...), got (1,)"),
    ("style_loss", 1, G[0], "style_loss: expected target of shape (2, 3, 3), got (3, 3)"),
    ("style_loss", 1, G.half(), "style_loss: expected target of dtype"),
    ("style_loss", 2, FEW, "style_loss: expected weight of shape (2, 20)"),
    ("content_loss", 0, F.long(), "content_loss: expected x of dtype"),
    ("content_loss", 1, FEW, "content_loss: expected target of shape (2, 3, 4, 5) like x, got (1,)"),
    ("content_loss", 1, F.half(), "content_loss: expected target of the dtype of x"),
    ("content_loss_backward", 0, torch.ones(2), "content_loss_backward: expected grad to be one value"),
    ("content_loss_backward", 0, torch.tensor(1.0).double(), "content_loss_backward: expected grad to be one value"),
    ("content_loss_backward", 2, FEW, "content_loss_backward: expected target of shape"),
    ("total_variation", 0, F[0], "total_variation: expected x of shape (B, C, H, W), got (3, 4, 5)"),
    ("total_variation", 0, F.bool(), "total_variation: expected x of dtype"),
    ("total_variation", 1, "huber", "total_variation: expected kind anisotropic, isotropic or squared, got huber"),
    ("total_variation_backward", 0, torch.ones(0), "total_variation_backward: expected grad to be one value"),
    ("total_variation_backward", 1, FEW, "total_variation: expected x of shape (B, C, H, W), got (1,)"),
    ("layer_backward_", 0, FEW, "layer_backward_: expected grad of shape (2, 3, 4, 5) like x, got (1,)"),
    ("layer_backward_", 0, F.double(), "layer_backward_: expected grad of the dtype of x"),
    ("layer_backward_", 0, torch.ones(2, 3, 5, 4).mT, "layer_backward_: expected grad and x to be dense"),
    ("layer_backward_", 1, FEW, "layer_backward_: expected x of shape (B, C, ...), got (1,)"),
    ("layer_backward_", 2, G[:1], "layer_backward_: expected residual of shape (2, 3, 3), got (1, 3, 3)"),
    ("layer_backward_", 3, FEW, "layer_backward_: expected weight of shape (2, 20)"),
    ("layer_backward_", 5, FEW, "layer_backward_: expected shift of shape (2, 3), got (1,)"),
    ("layer_backward_", 5, torch.ones(2, 3).double(), "layer_backward_: expected shift of dtype"),
    ("layer_backward_", 2, None, "layer_backward_: expected a residual with shift"),
    ("layer_backward_", 6, F[:1], "layer_backward_: expected target of shape"),
    ("pool", 0, F[0], "pool: expected x of shape (B, C, H, W), got (3, 4, 5)"),
    ("pool", 0, F.long(), "pool: expected x of dtype"),
    ("pool", 1, "mean", "pool: expected kind max, average or l2, got mean"),
    ("pool_backward", 0, F, "pool_backward: expected grad of shape (B, C, 2, 2), got (2, 3, 4, 5)"),
    ("pool_backward", 1, FEW, "pool_backward: expected x of shape (2, 3, 4, 5), got (1,)"),
    ("pool_backward", 1, F.double(), "pool_backward: expected x of the dtype of grad"),
    ("pool_backward", 2, F, "pool_backward: expected y of shape (2, 3, 2, 2), got (2, 3, 4, 5)"),
    ("pool_backward", 4, "mean", "pool_backward: expected kind max, average or l2, got mean"),
    ("pool_backward", 5, 7, "pool_backward: expected grad of shape (B, C, 3, 2), got (2, 3, 2, 2)"),
    ("pool_backward", 7, True, "pool_backward: expected relu with kind max only, got l2"),
]


@pytest.mark.parametrize(("op", "position", "value", "message"), WRONG_RAW)
def test_invalid_arguments_of_a_registered_op_are_errors_and_not_reads_out_of_bounds(
    op: str, position: int, value: Tensor | str | int | None, message: str
) -> None:
    arguments = list(RIGHT_RAW[op])
    call = getattr(torch.ops.fastnst, op)
    call(*arguments)
    arguments[position] = value
    with pytest.raises(RuntimeError) as raised:
        call(*arguments)
    assert message in str(raised.value)


def test_a_result_that_does_not_fit_into_memory_is_a_readable_error() -> None:
    many = torch.ones(1, 1, 1).expand(1, 10**7, 1)
    with pytest.raises(RuntimeError, match="fastnst: out of memory: could not allocate a tensor of shape"):
        ops.gram(many)

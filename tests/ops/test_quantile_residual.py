"""Rows and quantiles: against numpy's interpolation and ranks counted by comparison, and torch.sort's order."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from fastnst.ops import reference

DTYPES = [torch.float32, torch.float64]
EPS = {torch.float32: 1e-6, torch.float64: 1e-13}
RESIDUAL = torch.ops.fastnst.quantile_residual_


def drawn(shape: tuple[int, ...], dtype: torch.dtype, seed: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).to(dtype)


def shares(n: int, dtype: torch.dtype, zeros: int = 0) -> Tensor:
    weight = drawn((n,), torch.float64, 7).abs()
    weight[:zeros] = 0
    return (weight / weight.sum()).to(dtype)


def by_definition(x: Tensor, quantiles: Tensor, weight: Tensor | None, factor: float) -> tuple[Tensor, Tensor]:
    """Each rank is the weight of all smaller values, and of equal ones before; quantiles are numpy's."""
    rows, sums = [], []
    n, m = x.shape[1], quantiles.shape[1]
    w = np.full(n, 1 / n) if weight is None else weight.double().numpy()
    for row, known in zip(x.double().numpy(), quantiles.double().numpy(), strict=True):
        below = (row[None, :] < row[:, None]) | ((row[None, :] == row[:, None]) & np.tri(n, k=-1, dtype=bool))
        wanted = np.interp(below @ w + w / 2, (np.arange(m) + 0.5) / m, known)
        rows.append(factor * w * (row - wanted))
        sums.append((w * (row - wanted) ** 2).sum())
    return torch.from_numpy(np.stack(rows)), torch.from_numpy(np.stack(sums))


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 2, 7), (5, 300, 300), (4, 301, 90), (18, 65, 200)], ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("form", ["plain", "ties", "columns"])
def test_the_definition(form: str, dtype: torch.dtype, shape: tuple[int, int, int], weighted: bool) -> None:
    lines, n, m = shape
    x, quantiles = drawn((lines, n), dtype, 0), (drawn((lines, m), dtype, 1) + 1).sort(1).values
    if form == "ties":
        x = x.mul(4).round_().relu_()  # many zeros, as in features
    if form == "columns":
        x = x.T.contiguous().T  # as channels_last features are
    weight = shares(n, dtype, zeros=n // 3) if weighted else None
    wanted, sums = by_definition(x, quantiles, weight, 1.5)
    for op in (RESIDUAL, reference.quantile_residual_):
        found = x.clone()
        value = op(found, quantiles, weight, 1.5)
        assert found.stride() == x.stride()
        assert value.dtype == torch.float64
        assert (found - wanted).abs().max() <= 4 * EPS[dtype] * wanted.abs().max()
        torch.testing.assert_close(value, sums, rtol=4 * EPS[dtype], atol=0)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("form", ["bits", "narrow", "equal", "sorted", "reversed", "columns"])
def test_ranks_are_those_of_a_stable_sort(form: str, dtype: torch.dtype) -> None:
    """The residual to quantiles that are multiples of a large number has the rank in it."""
    n, lines = 4099, 3
    if form == "bits":  # of all exponents and signs, subnormal too
        whole = torch.randint(-(2**63), 2**63 - 1, (lines, n), generator=torch.Generator().manual_seed(0))
        x = whole.view(torch.float64) if dtype == torch.float64 else whole.view(torch.float32)[:, :n].contiguous()
        x = x.nan_to_num(0, 0, 0)
    elif form == "narrow":
        x = 1 + drawn((lines, n), torch.float64, 0).mul(1e-6).to(dtype)
    elif form == "equal":
        x = torch.full((lines, n), -2.5, dtype=dtype)
    else:
        x = drawn((lines, n), dtype, 0).sort(1, descending=form == "reversed").values
        if form == "columns":
            x = x.T.contiguous().T
    ranks = torch.empty(lines, n, dtype=torch.int64)
    ranks.scatter_(1, x.sort(dim=1, stable=True).indices, torch.arange(n).expand(lines, n))
    # What x adds to these multiples is rounded away, except where x is large itself.
    scale = 2.0**100 if dtype == torch.float32 else 2.0**900
    kept = x.abs() < scale / 2**60
    quantiles = (torch.arange(1, n + 1, dtype=dtype) * scale).expand(lines, n)
    found = x.clone()
    RESIDUAL(found, quantiles, None, float(n))
    assert kept.any()
    assert torch.equal((found / -scale)[kept], (ranks + 1).to(dtype)[kept])


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_same_bits_with_any_number_of_threads(dtype: torch.dtype, weighted: bool) -> None:
    x, quantiles = drawn((19, 1500), dtype, 0), drawn((19, 700), dtype, 1).sort(1).values
    weight, before, found = shares(1500, dtype) if weighted else None, torch.get_num_threads(), []
    for layout in (x, x.T.contiguous().T):
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            result = layout.clone()
            found.append((RESIDUAL(result, quantiles, weight, 1.0), result))
    torch.set_num_threads(before)
    for value, result in found[1:]:
        assert torch.equal(value, found[0][0])
        assert torch.equal(result, found[0][1])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_not_finite_values_rank_as_in_torch(dtype: torch.dtype) -> None:
    x = torch.tensor([[math.inf, 1.0, -math.inf, -0.0, 0.0], [2.0, -math.nan, 1.0, math.nan, 0.0]], dtype=dtype)
    quantiles = torch.tensor([[1.0, 2.0, 3.0, 4.0, 5.0]], dtype=dtype).expand(2, 5)
    found, wanted = x.clone(), x.clone()
    value = RESIDUAL(found, quantiles, None, 5.0)
    assert value[0].item() == math.inf
    assert math.isnan(value[1].item())
    reference.quantile_residual_(wanted, quantiles, None, 5.0)
    torch.testing.assert_close(found, wanted, equal_nan=True, rtol=EPS[dtype], atol=0)
    torch.testing.assert_close(found[0, 3:], torch.tensor([-2.0, -3.0], dtype=dtype))  # -0 and 0 are equal


def test_nothing() -> None:
    assert RESIDUAL(torch.empty(3, 0), torch.ones(3, 2), None, 1.0).tolist() == [0, 0, 0]
    assert RESIDUAL(torch.empty(0, 3), torch.ones(0, 2), None, 1.0).shape == (0,)


def test_the_reference_sorts_rows_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    x, quantiles = drawn((7, 30), torch.float64, 0), drawn((7, 40), torch.float64, 1).sort(1).values
    whole, parts = x.clone(), x.clone()
    values = reference.quantile_residual_(whole, quantiles, None, 1.0)
    monkeypatch.setattr("fastnst.ops.reference.quantiles.CHUNK", 70)
    assert torch.equal(reference.quantile_residual_(parts, quantiles, None, 1.0), values)
    assert torch.equal(parts, whole)


def test_opcheck() -> None:
    x, quantiles = drawn((3, 20), torch.float32, 0), drawn((3, 9), torch.float32, 1).sort(1).values
    torch.library.opcheck(RESIDUAL, (x, quantiles, None, 1.0))
    torch.library.opcheck(RESIDUAL, (x.T.contiguous().T, quantiles, shares(20, torch.float32), 1.0))


@pytest.mark.parametrize(
    ("x", "quantiles", "weight", "message"),
    [
        (torch.rand(4), torch.rand(4, 2), None, "expected x of two dimensions, got 1"),
        (torch.rand(4, 5).bfloat16(), torch.rand(4, 2).bfloat16(), None, "expected x of dtype float32 or float64"),
        (torch.rand(4, 5), torch.rand(3, 5), None, r"expected quantiles of shape \(4, any positive number\), got"),
        (torch.rand(4, 5), torch.rand(4, 0), None, r"expected quantiles of shape \(4, any positive number\), got"),
        (torch.rand(4, 5), torch.rand(4, 5).double(), None, "expected quantiles of the dtype of x"),
        (torch.rand(4, 5), torch.rand(4, 5), torch.rand(4), r"expected weight of shape \(5,\), got \(4,\)"),
        (torch.rand(4, 5), torch.rand(4, 5), torch.rand(5).double(), "expected weight of the dtype of x"),
        (torch.rand(1, 5).expand(4, 5), torch.rand(4, 5), None, "expected x whose elements do not overlap"),
    ],
)
def test_wrong_arguments(x: Tensor, quantiles: Tensor, weight: Tensor | None, message: str) -> None:
    with pytest.raises(RuntimeError, match=f"quantile_residual_: {message}"):
        RESIDUAL(x, quantiles, weight, 1.0)


def test_quantile_residual_has_no_derivative() -> None:
    with pytest.raises(RuntimeError, match="quantile_residual_: has no derivative, but quantiles requires a gradient"):
        RESIDUAL(torch.rand(2, 3), torch.rand(2, 3, requires_grad=True), None, 1.0)

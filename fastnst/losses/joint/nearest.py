"""The nearest of many vectors by cosine similarity, without the matrix of all similarities."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from fastnst.ops.dtypes import accumulate_dtype

LIMIT = 2**22
"""Values of a block: of vectors, or of similarities."""

Rows = Callable[[slice], Tensor]
"""Returns some of many vectors, one per row."""


def nearest(queries: Tensor, keys: Tensor, *, center: bool = False, limit: int = LIMIT) -> tuple[Tensor, Tensor]:
    """Find for each query the key of the largest cosine similarity ``q k / (|q| |k|)``.

    The similarities are computed block by block, so that neither they nor copies of all vectors exist as a whole: the
    largest tensors created have ``limit`` values, the results aside. Sums are float32, or float64 for float64 vectors.

    A vector of length zero has similarity 0 to every other. Among keys of equal computed similarity the first is
    chosen. A key with a value that is not finite is chosen only if all are such. A query with one gets index 0 and
    similarity NaN.

    Args:
        queries: ``[N, C]``, floating point.
        keys: ``[M, C]`` of the same dtype, at least one.
        center: whether the mean of the queries is subtracted from each query, and that of the keys from each key.
        limit: values of the largest tensor that is created.

    Returns:
        The index of the nearest key ``[N]``, int64, and its similarity ``[N]``, float32 or float64.

    Raises:
        ValueError: queries and keys do not match, or there is no key.

    Example:
        >>> import torch
        >>> from fastnst.losses.joint import nearest
        >>> index, similarity = nearest(torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 1.0], [3.0, 4.0]]))
        >>> index.tolist(), round(similarity.item(), 6)
        ([1], 0.6)
    """
    if queries.dim() != 2 or keys.dim() != 2 or queries.shape[1] != keys.shape[1] or not len(keys):
        shapes = f"{tuple(queries.shape)} and {tuple(keys.shape)}"
        raise ValueError(f"nearest: expected queries [N, C] and at least one key [M, C], got {shapes}")
    dtype = accumulate_dtype(queries.dtype)

    def rows_of(x: Tensor) -> Rows:
        mean = mean_row(x, limit) if center else None
        return lambda rows: unit_rows(x[rows].to(dtype) if mean is None else x[rows].to(dtype) - mean)

    with torch.no_grad():
        counts, width = (len(queries), len(keys)), queries.shape[1]
        return best_matches(rows_of(queries), rows_of(keys), counts, width, limit=limit)


def best_matches(
    queries: Rows,
    keys: Rows,
    counts: tuple[int, int],
    width: int,
    score: Callable[[Tensor, Tensor], Tensor] | None = None,
    *,
    limit: int = LIMIT,
) -> tuple[Tensor, Tensor]:
    """As :func:`nearest`, for vectors that are computed when they are needed.

    Args:
        queries, keys: return rows; for cosine similarity of length 1 or 0.
        counts: the number of queries and of keys.
        width: values of a row.
        score: the similarities ``[n, m]`` of rows ``[n, C]`` and ``[m, C]``; None for their products.
        limit: values of a block.
    """
    count, total = counts
    most = max(limit // max(width, 1), 1)
    height = max(min(most, math.isqrt(limit), total), 1)
    step = max(min(most, limit // height, count), 1)
    indices, similarities = [], []
    for begin in range(0, count, step):
        some, bad = _finite_rows(queries(slice(begin, min(begin + step, count))))
        best = some.new_full((len(some),), -torch.inf)
        index = torch.zeros(len(some), dtype=torch.int64, device=some.device)
        for first in range(0, total, height):
            others, excluded = _finite_rows(keys(slice(first, min(first + height, total))))
            penalty = torch.where(excluded, -torch.inf, torch.zeros_like(others[:, 0]))
            found = torch.addmm(penalty, some, others.T) if score is None else score(some, others).add_(penalty)
            top, where = found.max(1)  # the first of equal ones, as PyTorch documents
            better = top > best
            best = torch.where(better, top, best)
            index = torch.where(better, where + first, index)
        unknown = bad | (best == -torch.inf)
        indices.append(torch.where(unknown, 0, index))
        similarities.append(torch.where(unknown, torch.nan, best))
    if not indices:
        empty = keys(slice(0, 0))
        return torch.zeros(0, dtype=torch.int64, device=empty.device), empty.new_zeros(0)
    return torch.cat(indices), torch.cat(similarities)


def mean_row(x: Tensor, limit: int = LIMIT) -> Tensor:
    """The mean ``[C]`` of rows ``[N, C]`` in the accumulate dtype, a block at a time."""
    dtype = accumulate_dtype(x.dtype)
    parts = x.split(max(limit // max(x.shape[1], 1), 1))
    total = torch.zeros(x.shape[1], dtype=dtype, device=x.device)
    for part in parts:
        total += part.sum(0, dtype=dtype)
    return total / max(len(x), 1)


def unit_rows(x: Tensor) -> Tensor:
    """Rows ``[N, C]`` divided by their lengths; rows of length zero stay zero. Differentiable."""
    length = torch.linalg.vector_norm(x, dim=1, keepdim=True)
    return x / torch.where(length == 0, 1.0, length)


def _finite_rows(x: Tensor) -> tuple[Tensor, Tensor]:
    """Rows with zeros in place of those that have a value that is not finite, and which these are ``[N]``."""
    bad = ~x.isfinite().all(1)
    return torch.where(bad[:, None], 0.0, x), bad

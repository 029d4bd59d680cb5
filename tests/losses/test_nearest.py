"""The nearest vector by cosine similarity, against the whole matrix of similarities."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from fastnst.losses.joint import nearest


def vectors(count: int, c: int = 5, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, c, generator=generator, dtype=torch.float64).to(dtype) + 0.5


class Largest(TorchDispatchMode):
    """The values of the largest tensor that an op creates, views of given ones aside."""

    def __init__(self, given: tuple[Tensor, ...]) -> None:
        super().__init__()
        self.given = {x.untyped_storage().data_ptr() for x in given}
        self.values = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        made = [x for x in tree_leaves(out) if isinstance(x, Tensor)]
        new = [x.numel() for x in made if x.untyped_storage().data_ptr() not in self.given]
        self.values = max(self.values, *new, 0)
        return out


@pytest.mark.parametrize("center", [False, True])
@pytest.mark.parametrize("limit", [1, 40, 1000, 2**22])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_it_is_the_largest_of_all_similarities(center: bool, limit: int, dtype: torch.dtype) -> None:
    queries, keys = vectors(37, dtype=dtype), vectors(53, seed=1, dtype=dtype)
    q, k = queries.double(), keys.double()
    if center:
        q, k = q - q.mean(0), k - k.mean(0)
    all_of_them = torch.nn.functional.cosine_similarity(q[:, None], k[None], dim=2)
    index, similarity = nearest(queries, keys, center=center, limit=limit)
    assert index.dtype == torch.int64
    assert similarity.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    error = 1e-12 if dtype == torch.float64 else 1e-5
    torch.testing.assert_close(similarity.double(), all_of_them.amax(1), rtol=0, atol=error)
    torch.testing.assert_close(all_of_them.gather(1, index[:, None])[:, 0], all_of_them.amax(1), rtol=0, atol=error)


@pytest.mark.parametrize("limit", [8, 2**22])
def test_of_equal_similarities_the_first_is_chosen(limit: int) -> None:
    # Of whole lengths, so that no similarity is rounded.
    keys = torch.tensor([[0.0, 5.0], [3.0, 4.0], [6.0, 8.0], [3.0, 4.0], [5.0, 0.0]])
    index, similarity = nearest(torch.tensor([[3.0, 4.0], [30.0, 40.0], [1.0, 0.0], [-1.0, -1.0]]), keys, limit=limit)
    assert index.tolist() == [1, 1, 4, 0]
    assert similarity[:3].tolist() == pytest.approx([1, 1, 1])


def test_vectors_of_length_zero_have_similarity_zero() -> None:
    keys = torch.tensor([[-1.0, 0.0], [0.0, 0.0], [0.0, -1.0]])
    index, similarity = nearest(torch.tensor([[1.0, 1.0], [0.0, 0.0]]), keys)
    assert index.tolist() == [1, 0]
    assert similarity.tolist() == [0, 0]


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("limit", [8, 2**22])
def test_values_that_are_not_finite_are_not_chosen(bad: float, limit: int) -> None:
    keys, queries = vectors(9), vectors(4, seed=1)
    expected, _ = nearest(queries, torch.cat([keys[:2], keys[3:]]), limit=limit)
    keys[2, 1] = bad
    index, similarity = nearest(queries, keys, limit=limit)
    assert index.tolist() == [i + (i >= 2) for i in expected.tolist()]
    assert bool(similarity.isfinite().all())
    queries[1, 0] = bad
    index, similarity = nearest(queries, keys, limit=limit)
    assert index[1] == 0
    assert similarity.isnan().tolist() == [False, True, False, False]
    index, similarity = nearest(queries, torch.full((3, 5), bad, dtype=torch.float64), limit=limit)
    assert index.tolist() == [0] * 4
    assert bool(similarity.isnan().all())


@pytest.mark.parametrize("center", [False, True])
def test_no_tensor_is_larger_than_the_limit(center: bool) -> None:
    queries, keys, limit = vectors(900, 16), vectors(700, 16, seed=1), 4000
    with Largest((queries, keys)) as largest:
        nearest(queries, keys, center=center, limit=limit)
    assert 900 <= largest.values <= limit < 900 * 16


def test_no_queries_have_no_neighbors() -> None:
    index, similarity = nearest(vectors(0), vectors(3))
    assert index.shape == similarity.shape == (0,)


@pytest.mark.parametrize(
    ("queries", "keys"), [(vectors(2), vectors(0)), (vectors(2), vectors(2, 4)), (vectors(2)[0], vectors(2))]
)
def test_shapes_that_do_not_match_are_refused(queries: Tensor, keys: Tensor) -> None:
    with pytest.raises(ValueError, match=r"nearest: expected queries \[N, C\] and at least one key"):
        nearest(queries, keys)

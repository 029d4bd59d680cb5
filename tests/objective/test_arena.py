"""Repeated evaluations reuse the offsets recorded by the first; maps alive at the same time never overlap."""

from __future__ import annotations

import random

import pytest
import torch

from fastnst.objective.arena import ALIGNMENT, Arena, Span, arrange


def evaluate(arena: Arena) -> list[int]:
    """The addresses of three maps. Each holds its number as long as it is alive."""
    with arena.evaluation():
        first = arena.empty(8, 64, 64, torch.float32).fill_(1)
        second = arena.empty(16, 32, 32, torch.bfloat16).fill_(2)
        assert (first == 1).all()
        addresses = [first.data_ptr(), second.data_ptr()]
        del first
        third = arena.empty(8, 60, 60, torch.float32).fill_(3)
        assert (second == 2).all()
        assert (third == 3).all()
        return [*addresses, third.data_ptr()]


def fail(arena: Arena, error: BaseException) -> None:
    """An evaluation that fails after its first map, which the traceback keeps alive."""
    with arena.evaluation():
        x = arena.empty(8, 64, 64, torch.float32)
        x.zero_()
        raise error


def test_maps_are_channels_last_of_any_dtype() -> None:
    arena = Arena()
    for _ in range(2):
        with arena.evaluation():
            for dtype in (torch.float32, torch.bfloat16, torch.uint8, torch.float64):
                x = arena.empty(5, 3, 4, dtype)
                assert (x.shape, x.dtype) == ((1, 5, 3, 4), dtype)
                assert x.stride() == (60, 1, 20, 5)


def test_later_evaluations_reuse_addresses_and_share_memory_between_maps_of_disjoint_lifetimes() -> None:
    arena = Arena()
    evaluate(arena)
    second = evaluate(arena)
    assert evaluate(arena) == second
    assert second[0] == second[2]
    assert arena._block is not None
    assert arena._block.numel() <= 8 * 64 * 64 * 4 + 16 * 32 * 32 * 2 + 2 * ALIGNMENT


def test_evaluations_of_two_kinds_share_the_block() -> None:
    arena, addresses = Arena(), {}
    for _ in range(3):
        for kind, height in (("low", 16), ("high", 64)):
            with arena.evaluation(kind):
                maps = [arena.empty(8, height, 64, torch.float32).fill_(i) for i in range(2)]
                assert all((x == i).all() for i, x in enumerate(maps))
                addresses[kind] = [x.data_ptr() for x in maps]
                del maps
    assert arena._block is not None
    assert arena._block.numel() == 2 * 8 * 64 * 64 * 4
    assert addresses["low"][0] == addresses["high"][0] == arena._block.data_ptr()
    arena.release()
    assert arena._block is None
    with arena.evaluation("low"):
        assert (arena.empty(8, 16, 64, torch.float32).fill_(1) == 1).all()


def test_a_map_lives_as_long_as_a_view_of_it() -> None:
    arena = Arena()
    for _ in range(2):
        with arena.evaluation():
            view = arena.empty(8, 64, 64, torch.float32).fill_(1)[:, :2, 5:]
            other = arena.empty(8, 64, 64, torch.float32).fill_(2)
            assert (view == 1).all()
            assert (other == 2).all()
            del view, other


@pytest.mark.parametrize("error", [KeyboardInterrupt("here"), RuntimeError("here")], ids=lambda e: type(e).__name__)
def test_a_first_evaluation_that_fails_is_not_recorded(error: BaseException) -> None:
    arena = Arena()
    with pytest.raises(type(error), match="here"):
        fail(arena, error)
    evaluate(arena)
    error.__traceback__ = None  # releases its map, which must not change the layout
    assert evaluate(arena) == evaluate(arena)


def test_a_later_evaluation_that_fails_keeps_the_layout() -> None:
    arena = Arena()
    evaluate(arena)
    addresses = evaluate(arena)
    with pytest.raises(RuntimeError, match="half way"):
        fail(arena, RuntimeError("half way"))
    assert evaluate(arena) == addresses


def test_maps_alive_at_the_same_time_never_overlap() -> None:
    chance = random.Random(0)
    for _ in range(200):
        spans = [Span(chance.randrange(1, 50000), i, i + chance.randrange(8)) for i in range(chance.randrange(1, 30))]
        offsets, size = arrange(spans)
        held = list(zip(offsets, spans, strict=True))
        for i, (at, span) in enumerate(held):
            assert at % ALIGNMENT == 0
            assert at + span.size <= size
            for other_at, other in held[:i]:
                apart = other.last < span.first or span.last < other.first
                assert apart or at + span.size <= other_at or other_at + other.size <= at

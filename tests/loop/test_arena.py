"""Maps of evaluations that repeat: places planned from the first, none shared by two maps alive at once."""

from __future__ import annotations

import random

import pytest
import torch

from fastnst.arena import ALIGNMENT, Arena, Span, plan


def evaluate(arena: Arena) -> list[int]:
    """Maps that come and go; where they lie. Each holds its own number until it goes."""
    with arena.evaluation():
        first = arena.empty(8, 64, 64, torch.float32).fill_(1)
        second = arena.empty(16, 32, 32, torch.bfloat16).fill_(2)
        assert (first == 1).all()
        places = [first.data_ptr(), second.data_ptr()]
        del first
        third = arena.empty(8, 60, 60, torch.float32).fill_(3)
        assert (second == 2).all()
        assert (third == 3).all()
        return [*places, third.data_ptr()]


def fail(arena: Arena, error: BaseException) -> None:
    """An evaluation that ends after its first map, which outlives it in the error's traceback."""
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


def test_from_the_second_evaluation_on_places_stay_and_are_shared_by_maps_that_never_meet() -> None:
    arena = Arena()
    evaluate(arena)
    second = evaluate(arena)
    assert evaluate(arena) == second
    assert second[0] == second[2]
    assert arena._block is not None
    assert arena._block.numel() <= 8 * 64 * 64 * 4 + 16 * 32 * 32 * 2 + 2 * ALIGNMENT


def test_evaluations_of_two_kinds_share_the_block() -> None:
    arena, places = Arena(), {}
    for _ in range(3):
        for kind, height in (("low", 16), ("high", 64)):
            with arena.evaluation(kind):
                maps = [arena.empty(8, height, 64, torch.float32).fill_(i) for i in range(2)]
                assert all((x == i).all() for i, x in enumerate(maps))
                places[kind] = [x.data_ptr() for x in maps]
                del maps
    assert arena._block is not None
    assert arena._block.numel() == 2 * 8 * 64 * 64 * 4
    assert places["low"][0] == places["high"][0] == arena._block.data_ptr()
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
def test_a_first_evaluation_that_fails_is_forgotten(error: BaseException) -> None:
    arena = Arena()
    with pytest.raises(type(error), match="here"):
        fail(arena, error)
    evaluate(arena)
    error.__traceback__ = None  # lets its map go, which is nobody's business any more
    assert evaluate(arena) == evaluate(arena)


def test_a_later_evaluation_that_fails_leaves_the_plan() -> None:
    arena = Arena()
    evaluate(arena)
    places = evaluate(arena)
    with pytest.raises(RuntimeError, match="half way"):
        fail(arena, RuntimeError("half way"))
    assert evaluate(arena) == places


def test_no_plan_lets_two_maps_meet() -> None:
    chance = random.Random(0)
    for _ in range(200):
        spans = [Span(chance.randrange(1, 50000), i, i + chance.randrange(8)) for i in range(chance.randrange(1, 30))]
        offsets, size = plan(spans)
        held = list(zip(offsets, spans, strict=True))
        for i, (at, span) in enumerate(held):
            assert at % ALIGNMENT == 0
            assert at + span.size <= size
            for other_at, other in held[:i]:
                apart = other.last < span.first or span.last < other.first
                assert apart or at + span.size <= other_at or other_at + other.size <= at

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from fastnst import memory, vgg
from fastnst.errors import OutOfMemoryError
from fastnst.images import fit
from fastnst.settings import Settings

CPU = torch.device("cpu")
DEEP = vgg.chain_to("vgg19", Settings().layer_names())
MiB = 2**20


def need(height: int, width: int, settings: Settings | None = None, dtype: torch.dtype = torch.float32) -> int:
    return memory.needed(DEEP, height, width, dtype, settings or Settings())


def test_needed_memory_grows_with_the_pixels() -> None:
    activations = [need(side, side) - memory.BASELINE for side in (256, 512, 1024)]
    assert activations[1] == 4 * activations[0]
    assert activations[2] == 4 * activations[1]


def test_half_precision_needs_half_the_activations() -> None:
    # With average pooling, which keeps no integers.
    single, half = (need(512, 512, Settings(pooling="average"), dtype) for dtype in (torch.float32, torch.bfloat16))
    images = single - memory.BASELINE - 2 * (single - half)
    assert images == (2 * Settings().history + 10) * 3 * 512 * 512 * 4


def test_history_costs_two_images_a_pair() -> None:
    more = need(64, 64, Settings(history=21)) - need(64, 64, Settings(history=20))
    assert more == 2 * 3 * 64 * 64 * 4
    halved = Settings(history=20, history_dtype="bfloat16")
    assert need(64, 64, Settings(history=20)) - need(64, 64, halved) == 20 * 3 * 64 * 64 * 4
    assert need(64, 64, Settings(optimizer="adam")) < need(64, 64, Settings(history=1)) + 3 * 64 * 64 * 4


def test_the_kept_activations_are_counted_once_each() -> None:
    """By hand, for relu1_1, the places of pool1's maxima and relu2_1 at 8 x 8, with relu2_1 the content."""
    settings = Settings(content_layers=(("relu2_1", 1.0),), style_layers=(("relu1_1", 1.0),), optimizer="adam")
    chain = vgg.chain_to("vgg19", settings.layer_names())
    maps = (64 * 64 + 128 * 16) * 4 + 64 * 16  # a byte for each window of the pool
    expected = memory.BASELINE + maps + 128 * 16 * 4 + memory.WORKING_MAPS * 64 * 64 * 4 + 10 * 3 * 64 * 4
    assert memory.needed(chain, 8, 8, torch.float32, settings) == expected


def test_with_our_convolutions_the_first_map_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """At 8 x 8 the two maps at the beginning are the most, where the targets are measured."""
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    settings = Settings(
        content_layers=(("relu2_1", 1.0),), style_layers=(("relu1_1", 1.0),), optimizer="adam", convolution="winograd"
    )
    chain = vgg.chain_to("vgg19", settings.layer_names())
    held = 2 * 64 * 64 * 4 + 128 * 16 * 4 + 10 * 3 * 64 * 4
    assert memory.needed(chain, 8, 8, torch.float32, settings) == memory.BASELINE + held + 3 * memory.WORKSPACE


def test_a_chain_without_a_relu_is_estimated_too() -> None:
    settings = Settings(content_layers=(("conv1_1", 1.0),), style_layers=(("conv1_1", 1.0),))
    chain = vgg.chain_to("vgg19", settings.layer_names())
    assert memory.needed(chain, 8, 8, torch.float32, settings) > memory.BASELINE + 2 * 64 * 64 * 4


def test_the_cpu_has_memory_available_and_the_process_holds_some() -> None:
    have = memory.available(CPU)
    assert have is not None
    assert have > memory.resident() > 10 * MiB


def test_devices_that_tell_nothing_are_not_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    assert memory.available(torch.device("mps")) is None
    memory.check_fits(DEEP, 10**6, 10**6, torch.float32, Settings(), torch.device("mps"))


def test_on_cuda_what_the_allocator_keeps_is_available(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (3 * MiB, 99 * MiB))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 5 * MiB)
    assert memory.available(torch.device("cuda")) == 8 * MiB + memory.BASELINE


@pytest.mark.parametrize(
    ("limit", "left"),
    [
        (str(500 * MiB), 500 - 300 + 120),  # cached files are given up when memory is asked for
        ("max", None),
        ("", None),
    ],
)
def test_the_limit_of_a_container_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, left: int | None
) -> None:
    monkeypatch.setattr(memory, "CGROUP", tmp_path)
    free_without = memory.available(CPU)
    (tmp_path / "memory.max").write_text(limit + "\n")
    (tmp_path / "memory.current").write_text(f"{300 * MiB}\n")
    (tmp_path / "memory.stat").write_text(f"anon {10 * MiB}\ninactive_file {120 * MiB}\nactive_file 5\n")
    have = memory.available(CPU)
    assert have is not None
    assert free_without is not None
    if left is None:
        assert abs(have - free_without) < 512 * MiB
    else:
        assert have == pytest.approx(left * MiB + memory.resident(), abs=4 * MiB)


def advised(error: OutOfMemoryError) -> int:
    found = re.search(r"--size (\d+) would fit$", str(error))
    assert found, str(error)
    return int(found[1])


@pytest.mark.parametrize(("height", "width"), [(1024, 1024), (768, 1024), (2000, 300)])
@pytest.mark.parametrize("fits_at", [200, 500])
def test_a_size_that_does_not_fit_is_refused_with_one_that_does(
    monkeypatch: pytest.MonkeyPatch, height: int, width: int, fits_at: int
) -> None:
    settings = Settings()
    have = need(*fit(height, width, fits_at), settings)
    monkeypatch.setattr(memory, "available", lambda device: have)
    with pytest.raises(OutOfMemoryError, match=f"^out of memory at {width}x{height}: needs about .* GB, ") as caught:
        memory.check_fits(DEEP, height, width, torch.float32, settings, CPU)
    size = advised(caught.value)
    assert 0.97 * fits_at <= size <= fits_at
    memory.check_fits(DEEP, *fit(height, width, size), torch.float32, settings, CPU)


def test_a_size_that_fits_is_let_pass_up_to_the_last_byte(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available", lambda device: need(300, 200))
    memory.check_fits(DEEP, 300, 200, torch.float32, Settings(), CPU)
    monkeypatch.setattr(memory, "available", lambda device: need(300, 200) - 1)
    with pytest.raises(OutOfMemoryError):
        memory.check_fits(DEEP, 300, 200, torch.float32, Settings(), CPU)


def test_where_no_size_fits_a_smaller_one_is_advised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available", lambda device: 10 * MiB)
    with pytest.raises(OutOfMemoryError, match=r"0\.0 GB is free; use a smaller --size$"):
        memory.check_fits(DEEP, 512, 512, torch.float32, Settings(), CPU)


@pytest.mark.parametrize("known", [True, False])
def test_after_a_failed_allocation_a_clearly_smaller_size_is_advised(
    monkeypatch: pytest.MonkeyPatch, known: bool
) -> None:
    monkeypatch.setattr(memory, "available", lambda device: 2**50 if known else None)
    error = memory.failed(DEEP, 1024, 1024, torch.float32, Settings(), CPU)
    assert str(error).startswith("out of memory at 1024x1024: an allocation failed; ")
    assert 700 < advised(error) < 900


def test_a_failed_allocation_is_recognised() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**58)
    assert memory.is_out_of_memory(caught.value)
    assert memory.is_out_of_memory(MemoryError())
    assert memory.is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
    assert memory.is_out_of_memory(RuntimeError("std::bad_alloc"))


@pytest.mark.parametrize("error", [RuntimeError("shapes differ"), ValueError("can't allocate memory"), KeyError("x")])
def test_other_errors_are_not_taken_for_it(error: Exception) -> None:
    assert not memory.is_out_of_memory(error)

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

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


def terms(height: int, width: int, dtype: torch.dtype = torch.float32, **changes: Any) -> memory.Terms:
    settings = Settings.of(**{"convolution": "direct", "optimizer": "adam", **changes})
    return memory.terms(vgg.chain_to("vgg19", settings.layer_names()), height, width, dtype, settings)


def test_what_is_counted_grows_with_the_pixels() -> None:
    one, four = terms(256, 256), terms(512, 512)
    assert (four.maps, four.images, four.exact) == (4 * one.maps, 4 * one.images, one.exact)


def test_half_precision_halves_the_maps_and_the_network_but_no_image() -> None:
    # With average pooling, which keeps no places.
    single, half = (terms(512, 512, dtype, pooling="average") for dtype in (torch.float32, torch.bfloat16))
    assert (single.maps, single.images, single.exact) == (2 * half.maps, half.images, 2 * half.exact)


def test_history_costs_two_images_a_pair_as_far_as_there_are_steps() -> None:
    image = 3 * 64 * 64 * 4

    def exact(**changes: Any) -> int:
        return terms(64, 64, optimizer="lbfgs", **changes).exact

    assert exact(history=21) - exact(history=20) == 2 * image
    assert exact(history=20) - exact(history=20, history_dtype="bfloat16") == 20 * image
    assert exact(history=20, steps=7) == exact(history=7)
    assert terms(64, 64).exact + 2 * image == exact(history=1)


def test_an_average_is_one_image_more() -> None:
    assert terms(64, 64, average=0.5).images - terms(64, 64).images == 3 * 64 * 64 * 4


def test_what_is_counted_takes_the_fitted_factors() -> None:
    model = {"loading": 1050.0, "base": 1000.0, "direct": 3.0, "maps": 2.0, "images": 0.5}
    assert memory.Terms(maps=10, images=100, exact=7, direct=1).bytes(model) == 1003 + 20 + 50 + 7
    assert memory.Terms(maps=1, images=1, exact=1, direct=0).bytes(model) == 1050  # what reading the weights takes


SMALL: dict[str, Any] = {"content_layers": (("relu2_1", 1.0),), "style_layers": (("relu1_1", 1.0),)}
FIRST, SECOND = 64 * 64 * 4, 128 * 16 * 4  # bytes of the maps of conv1 and conv2 at 8 x 8


def test_maps_that_are_there_at_once_are_counted_once_each() -> None:
    """By hand, at 8 x 8: on the way down through conv1_2 relu1_1 and two gradients of its size; the content target."""
    assert terms(8, 8, **SMALL).maps == FIRST + 2 * FIRST + SECOND


def test_with_our_convolutions_the_first_map_comes_in_thirds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    found = terms(8, 8, convolution="winograd", **SMALL)
    assert found.maps == FIRST // 4 + 2 * FIRST // 3 + SECOND  # the gradient of conv1_2 comes from above its pool
    assert found.exact == terms(8, 8, **SMALL).exact + 3 * memory.WORKSPACE
    whole = terms(8, 8, convolution="winograd", normalise_gradients=True, **SMALL)
    assert whole.maps > found.maps  # the first map is kept: its gradient's size is that of the whole


def test_a_chain_without_a_relu_is_estimated_too() -> None:
    only = (("conv1_1", 1.0),)
    assert terms(8, 8, content_layers=only, style_layers=only).maps >= 2 * FIRST


def test_the_cpu_has_memory_available_and_the_process_holds_some() -> None:
    have = memory.available(CPU)
    assert have is not None
    assert have > memory.resident() > 10 * MiB


def test_devices_that_tell_nothing_are_not_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    assert memory.available(torch.device("mps")) is None
    memory.choose_rows(DEEP, 10**6, 10**6, torch.float32, Settings(), torch.device("mps"))


def test_on_cuda_what_the_allocator_keeps_is_available(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (3 * MiB, 99 * MiB))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 5 * MiB)
    assert memory.available(torch.device("cuda")) == 8 * MiB + memory.MODEL["base"]


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
    found = re.search(r"; (?:--tiles on or )?--size (\d+)( or --.*)? would fit$", str(error))
    assert found, str(error)
    return int(found[1])


@pytest.mark.parametrize(("height", "width"), [(1024, 1024), (768, 1024), (2000, 300)])
@pytest.mark.parametrize("fits_at", [200, 500])
def test_a_size_that_does_not_fit_is_refused_with_one_that_does(
    monkeypatch: pytest.MonkeyPatch, height: int, width: int, fits_at: int
) -> None:
    settings = Settings(tiles="off")
    monkeypatch.setattr(memory, "MODEL", {**memory.MODEL, "loading": 0})  # which does not shrink with the size
    have = need(*fit(height, width, fits_at), settings)
    monkeypatch.setattr(memory, "available", lambda device: have)
    with pytest.raises(OutOfMemoryError, match=f"^out of memory at {width}x{height}: needs about .* GB, ") as caught:
        memory.choose_rows(DEEP, height, width, torch.float32, settings, CPU)
    size = advised(caught.value)
    assert 0.97 * fits_at <= size <= fits_at
    memory.choose_rows(DEEP, *fit(height, width, size), torch.float32, settings, CPU)


def test_a_size_that_fits_is_let_pass_up_to_the_last_byte(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available", lambda device: need(300, 200))
    memory.choose_rows(DEEP, 300, 200, torch.float32, Settings(), CPU)
    monkeypatch.setattr(memory, "available", lambda device: need(300, 200) - 1)
    with pytest.raises(OutOfMemoryError):
        memory.choose_rows(DEEP, 300, 200, torch.float32, Settings(tiles="off"), CPU)


def strips(rows: int, side: int = 3000, settings: Settings | None = None) -> int:
    return memory.strip_needed(DEEP, rows, side, side, torch.float32, settings or Settings())


def test_strips_are_as_high_as_memory_lets_them_be(monkeypatch: pytest.MonkeyPatch) -> None:
    for rows in (32, 64, 160):
        monkeypatch.setattr(memory, "available", lambda device, rows=rows: strips(rows))
        assert memory.choose_rows(DEEP, 3000, 3000, torch.float32, Settings(), CPU) == rows
    monkeypatch.setattr(memory, "available", lambda device: strips(32) - 1)
    least = memory.gigabytes(strips(32))
    with pytest.raises(OutOfMemoryError, match=rf"3000x3000: needs about {least} at least, .* GB is free; --size \d+"):
        memory.choose_rows(DEEP, 3000, 3000, torch.float32, Settings(), CPU)


def test_memory_may_be_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available", lambda device: 2**50)
    asked = Settings(memory=strips(96))
    assert memory.choose_rows(DEEP, 3000, 3000, torch.float32, asked, CPU) == 96
    with pytest.raises(OutOfMemoryError, match="GB is allowed; --tiles on or --size"):
        memory.choose_rows(DEEP, 3000, 3000, torch.float32, asked.but(tiles="off"), CPU)
    assert memory.choose_rows(DEEP, 3000, 3000, torch.float32, Settings(), CPU) is None
    assert memory.choose_rows(DEEP, 3000, 3000, torch.float32, Settings(tiles=200), CPU) == 200
    assert memory.choose_rows(DEEP, 200, 300, torch.float32, Settings(tiles=200), CPU) is None  # it is one strip


HISTORY, HALF, ADAM = {"history_dtype": "bfloat16"}, {"precision": "bfloat16"}, {"optimizer": "adam"}


@pytest.mark.parametrize(
    ("settled", "fits_with", "advice"),
    [
        ({}, HISTORY, "--history-dtype bfloat16"),
        (HISTORY, HALF, "--precision bfloat16"),
        ({}, HISTORY | HALF, "--history-dtype bfloat16 --precision bfloat16"),
        ({}, ADAM, "--optimizer adam"),
        ({}, HALF | ADAM, "--precision bfloat16 --optimizer adam"),
        (ADAM, HALF, "--precision bfloat16"),
    ],
)
def test_the_first_cheaper_settings_that_would_do_are_named(
    settled: dict[str, Any], fits_with: dict[str, Any], advice: str
) -> None:
    asked = Settings.of(history=60, tiles="off", **settled)
    dtype = torch.bfloat16 if "precision" in fits_with else torch.float32
    have = need(700, 700, asked.but(**fits_with), dtype)
    strips_fit = memory.strip_rows(DEEP, 700, 700, torch.float32, asked, have) is not None
    *tiles, size, other = memory.remedies(DEEP, 700, 700, torch.float32, asked, have)
    assert tiles == ["--tiles on"] * strips_fit
    assert size.startswith("--size ")
    assert other == advice


def test_float64_and_settings_that_are_cheap_are_left_alone() -> None:
    cheap = Settings.of(optimizer="adam")
    assert [*memory.remedies(DEEP, 700, 700, torch.bfloat16, cheap, 0)] == []
    lowest = need(700, 700, cheap, torch.bfloat16)
    assert all("precision" not in one for one in memory.remedies(DEEP, 700, 700, torch.float64, cheap, lowest))


def test_where_no_size_fits_a_smaller_one_is_advised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available", lambda device: 10 * MiB)
    with pytest.raises(OutOfMemoryError, match=r"0\.0 GB is free; use a smaller --size$"):
        memory.choose_rows(DEEP, 512, 512, torch.float32, Settings(), CPU)


@pytest.mark.parametrize("known", [True, False])
def test_after_a_failed_allocation_a_clearly_smaller_size_is_advised(
    monkeypatch: pytest.MonkeyPatch, known: bool
) -> None:
    monkeypatch.setattr(memory, "available", lambda device: 2**50 if known else None)
    error = memory.failed(DEEP, 1024, 1024, torch.float32, Settings(), CPU)
    assert str(error).startswith("out of memory at 1024x1024: an allocation failed; ")
    assert 700 < advised(error) < 900


def test_after_a_failure_by_strips_a_smaller_size_is_advised_and_no_strips(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available", lambda device: 2**50)
    error = memory.failed(DEEP, 3000, 3000, torch.float32, Settings(), CPU, 160)
    assert "--tiles" not in str(error)
    size = advised(error)
    assert strips(32, size) <= memory.AFTER_FAILURE * strips(160) < strips(32, round(size * 1.02))


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


GROWTH = """
import sys, torch, fastnst
from fastnst import memory
torch.set_num_threads(2)
held = []
def watch(step):
    if step.step in (50, 350):
        held.append(memory.resident())
picture = torch.rand(1, 3, 48, 48)
layers = {"content_layers": (("relu2_1", 1.0),), "style_layers": (("relu1_1", 1.0), ("relu2_1", 1.0))}
fastnst.stylize(picture, picture.flip(3), size=48, steps=350, scales=1, device="cpu", callback=watch, **layers)
print(held[1] - held[0])
"""


@pytest.mark.parametrize("optimizer", ["adam", "lbfgs"])
def test_a_run_holds_no_more_the_longer_it_takes(optimizer: str) -> None:
    """With scratch memory that the C library aligns, the heap grew with every step."""
    code = GROWTH.replace("device=", f"optimizer={optimizer!r}, device=")
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=True)
    assert int(child.stdout) < 32 * 2**20

"""The memory that runs are expected to need, the memory available, and advice where it does not suffice."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from fastnst import limits, process
from fastnst.config.settings import Settings
from fastnst.errors import OutOfMemoryError
from fastnst.images import fit
from fastnst.network import vgg
from fastnst.run import memory_limits, memory_model
from fastnst.run.memory_model import MemoryTerms, Workload

CPU = torch.device("cpu")
DEEP = vgg.chain_to("vgg19", Settings().layer_names())
MiB = 2**20


def need(height: int, width: int, settings: Settings | None = None, dtype: torch.dtype = torch.float32) -> int:
    return Workload(DEEP, height, width, dtype, settings or Settings()).bytes()


def terms(height: int, width: int, dtype: torch.dtype = torch.float32, **changes: Any) -> MemoryTerms:
    settings = Settings.from_preset(**{"convolution": "direct", "optimizer": "adam", **changes})
    return Workload(vgg.chain_to("vgg19", settings.layer_names()), height, width, dtype, settings).terms()


def test_terms_grow_with_the_pixels() -> None:
    one, four = terms(256, 256), terms(512, 512)
    assert (four.maps, four.images, four.exact) == (4 * one.maps, 4 * one.images, one.exact)


def test_half_precision_halves_the_maps_and_the_network_but_no_image() -> None:
    # With average pooling, which stores no argmax.
    single, half = (terms(512, 512, dtype, pooling="average") for dtype in (torch.float32, torch.bfloat16))
    assert (single.maps, single.images, single.exact) == (2 * half.maps, half.images, 2 * half.exact)


def test_history_costs_two_images_per_pair_up_to_the_number_of_steps() -> None:
    image = 3 * 64 * 64 * 4

    def exact(**changes: Any) -> int:
        return terms(64, 64, optimizer="lbfgs", **changes).exact

    assert exact(history=21) - exact(history=20) == 2 * image
    assert exact(history=20) - exact(history=20, history_dtype="bfloat16") == 20 * image
    assert exact(history=20, history_dtype="float32") == exact(history=20)
    assert exact(history=20, steps=7) == exact(history=7)
    assert terms(64, 64).exact + 2 * image == exact(history=1)


def test_an_average_costs_one_more_image() -> None:
    assert terms(64, 64, average=0.5).images - terms(64, 64).images == 3 * 64 * 64 * 4


def test_terms_are_multiplied_by_the_fitted_factors() -> None:
    model = {"loading": 1050.0, "base": 1000.0, "direct": 3.0, "maps": 2.0, "images": 0.5}
    assert MemoryTerms(maps=10, images=100, exact=7, direct=1).bytes(model) == 1003 + 20 + 50 + 7
    assert MemoryTerms(maps=1, images=1, exact=1, direct=0).bytes(model) == 1050  # the memory of reading the weights


SMALL: dict[str, Any] = {"content_layers": (("relu2_1", 1.0),), "style_layers": (("relu1_1", 1.0),)}
FIRST, SECOND = 64 * 64 * 4, 128 * 16 * 4  # bytes of the maps of conv1 and conv2 at 8 x 8


def test_maps_alive_at_the_same_time_are_counted_once_each() -> None:
    """By hand, at 8 x 8: relu1_1 and two gradients of its size in the backward pass of conv1_2; the content target."""
    assert terms(8, 8, **SMALL).maps == FIRST + 2 * FIRST + SECOND


def test_winograd_convolutions_hold_parts_of_the_first_map(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    found = terms(8, 8, convolution="winograd", **SMALL)
    assert found.maps == FIRST // 4 + 2 * FIRST // 3 + SECOND  # the gradient of conv1_2 comes from the pooled map
    shared = memory_model.SHARED + 3 * memory_model.WORKSPACE
    assert found.exact == terms(8, 8, **SMALL).exact + shared
    whole = terms(8, 8, convolution="winograd", normalize_gradients=True, **SMALL)
    assert whole.maps > found.maps  # the first map is stored: its gradient's norm needs all of it


def test_a_chain_without_a_relu_is_estimated() -> None:
    only = (("conv1_1", 1.0),)
    assert terms(8, 8, content_layers=only, style_layers=only).maps >= 2 * FIRST


def test_the_cpu_has_memory_available_and_the_process_holds_some() -> None:
    have = memory_limits.available(CPU)
    assert have is not None
    assert have > process.resident() > 10 * MiB


def test_devices_of_unknown_memory_are_not_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    assert memory_limits.available(torch.device("mps")) is None
    memory_limits.choose_rows(Workload(DEEP, 10**6, 10**6, torch.float32, Settings()), torch.device("mps"))


def test_memory_reserved_by_the_cuda_allocator_is_available(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (3 * MiB, 99 * MiB))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 5 * MiB)
    assert memory_limits.available(torch.device("cuda")) == 8 * MiB + memory_model.MODEL["base"]


@pytest.mark.parametrize(
    ("limit", "left"),
    [
        (str(500 * MiB), 500 - 300 + 120),  # cached files are reclaimed on demand
        ("max", None),
        ("", None),
    ],
)
def test_the_limit_of_a_container_is_respected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, left: int | None
) -> None:
    monkeypatch.setattr(limits, "MOUNT", tmp_path)
    free_without = memory_limits.available(CPU)
    monkeypatch.setattr(limits, "MEMBERSHIP", tmp_path / "self")
    (tmp_path / "self").write_text("0::/\n")
    (tmp_path / "memory.max").write_text(limit + "\n")
    (tmp_path / "memory.current").write_text(f"{300 * MiB}\n")
    (tmp_path / "memory.stat").write_text(f"anon {10 * MiB}\ninactive_file {120 * MiB}\nactive_file 5\n")
    have = memory_limits.available(CPU)
    assert have is not None
    assert free_without is not None
    if left is None:
        assert abs(have - free_without) < 512 * MiB
    else:
        assert have == pytest.approx(left * MiB + process.resident(), abs=4 * MiB)


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
    monkeypatch.setattr(
        memory_model, "MODEL", {**memory_model.MODEL, "loading": 0}
    )  # which does not depend on the size
    have = need(*fit(height, width, fits_at), settings)
    monkeypatch.setattr(memory_limits, "available", lambda device: have)
    with pytest.raises(OutOfMemoryError, match=f"^out of memory at {width}x{height}: needs about .* GB, ") as caught:
        memory_limits.choose_rows(Workload(DEEP, height, width, torch.float32, settings), CPU)
    size = advised(caught.value)
    assert 0.97 * fits_at <= size <= fits_at
    memory_limits.choose_rows(Workload(DEEP, *fit(height, width, size), torch.float32, settings), CPU)


def test_a_size_that_fits_exactly_is_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_limits, "available", lambda device: need(300, 200))
    memory_limits.choose_rows(Workload(DEEP, 300, 200, torch.float32, Settings()), CPU)
    monkeypatch.setattr(memory_limits, "available", lambda device: need(300, 200) - 1)
    with pytest.raises(OutOfMemoryError):
        memory_limits.choose_rows(Workload(DEEP, 300, 200, torch.float32, Settings(tiles="off")), CPU)


def strips(rows: int, side: int = 3000, settings: Settings | None = None) -> int:
    return Workload(DEEP, side, side, torch.float32, settings or Settings()).strip_bytes(rows)


def test_strips_are_as_high_as_memory_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    for rows in (32, 64, 160):
        monkeypatch.setattr(memory_limits, "available", lambda device, rows=rows: strips(rows))
        assert memory_limits.choose_rows(Workload(DEEP, 3000, 3000, torch.float32, Settings()), CPU) == rows
    monkeypatch.setattr(memory_limits, "available", lambda device: strips(32) - 1)
    least = memory_limits.gigabytes(strips(32))
    with pytest.raises(OutOfMemoryError, match=rf"3000x3000: needs about {least} at least, .* GB is free; --size \d+"):
        memory_limits.choose_rows(Workload(DEEP, 3000, 3000, torch.float32, Settings()), CPU)


def strip_bytes(height: int, width: int, rows: int = 64, **changes: Any) -> int:
    return Workload(DEEP, height, width, torch.float32, Settings.from_preset(**changes)).strip_bytes(rows)


def test_strips_lie_along_the_longer_side() -> None:
    tall, wide = (Workload(DEEP, *size, torch.float32, Settings(tiles=64)) for size in ((8000, 1000), (1000, 8000)))
    assert tall.strip_bytes(64) == wide.strip_bytes(64) < tall.strip_bytes(128)
    for have in (tall.strip_bytes(64), None):
        assert memory_limits.strip_rows(tall, have) == memory_limits.strip_rows(wide, have)
    for work in (tall, wide):
        assert memory_limits.choose_rows(work.replace(tiles=7999), CPU) == 7999
        assert memory_limits.choose_rows(work.replace(tiles=8000), CPU) is None


@pytest.mark.parametrize(("optimizer", "images"), [("adam", 4), ("lbfgs", 9 + 2 * 5)])
def test_with_strips_memory_grows_by_the_images_of_a_step(optimizer: str, images: int) -> None:
    def need(longer: int, **changes: Any) -> int:
        return strip_bytes(longer, 2000, optimizer=optimizer, history=5, **changes)

    image = 3 * 4 * 1000 * 2000
    assert need(5000) - need(4000) == images * image
    assert need(5000, average=0.5) - need(4000, average=0.5) == (images + 1) * image


def test_a_style_larger_than_the_picture_is_counted_twice() -> None:
    """Its pixels are read into a second copy before the first step."""
    image = 3 * 4 * 4000 * 2000
    plain = strip_bytes(4000, 2000, optimizer="adam")
    assert strip_bytes(4000, 2000, optimizer="adam", style_scale=1.4) == plain
    assert strip_bytes(4000, 2000, optimizer="adam", style_scale=2.0) == plain + 4 * image


def test_memory_can_be_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_limits, "available", lambda device: 2**50)
    asked = Settings(memory=strips(96))
    assert memory_limits.choose_rows(Workload(DEEP, 3000, 3000, torch.float32, asked), CPU) == 96
    with pytest.raises(OutOfMemoryError, match="GB is allowed; --tiles on or --size"):
        memory_limits.choose_rows(Workload(DEEP, 3000, 3000, torch.float32, asked.replace(tiles="off")), CPU)
    assert memory_limits.choose_rows(Workload(DEEP, 3000, 3000, torch.float32, Settings()), CPU) is None
    assert memory_limits.choose_rows(Workload(DEEP, 3000, 3000, torch.float32, Settings(tiles=200)), CPU) == 200
    assert (
        memory_limits.choose_rows(Workload(DEEP, 200, 300, torch.float32, Settings(tiles=300)), CPU) is None
    )  # it is one strip


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
def test_the_first_cheaper_settings_that_fit_are_named(
    settled: dict[str, Any], fits_with: dict[str, Any], advice: str
) -> None:
    asked = Settings.from_preset(history=60, tiles="off", **settled)
    dtype = torch.bfloat16 if "precision" in fits_with else torch.float32
    have = need(700, 700, asked.replace(**fits_with), dtype)
    strips_fit = memory_limits.strip_rows(Workload(DEEP, 700, 700, torch.float32, asked), have) is not None
    *tiles, size, other = memory_limits.remedies(Workload(DEEP, 700, 700, torch.float32, asked), have)
    assert tiles == ["--tiles on"] * strips_fit
    assert size.startswith("--size ")
    assert other == advice


def test_no_change_of_float64_or_of_cheap_settings_is_advised() -> None:
    cheap = Settings.from_preset(optimizer="adam")
    assert [*memory_limits.remedies(Workload(DEEP, 700, 700, torch.bfloat16, cheap), 0)] == []
    lowest = need(700, 700, cheap, torch.bfloat16)
    assert all(
        "precision" not in one for one in memory_limits.remedies(Workload(DEEP, 700, 700, torch.float64, cheap), lowest)
    )


def test_where_no_size_fits_a_smaller_one_is_advised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_limits, "available", lambda device: 10 * MiB)
    with pytest.raises(OutOfMemoryError, match=r"0\.0 GB is free; use a smaller --size$"):
        memory_limits.choose_rows(Workload(DEEP, 512, 512, torch.float32, Settings()), CPU)


@pytest.mark.parametrize("known", [True, False])
def test_after_a_failed_allocation_a_clearly_smaller_size_is_advised(
    monkeypatch: pytest.MonkeyPatch, known: bool
) -> None:
    monkeypatch.setattr(memory_limits, "available", lambda device: 2**50 if known else None)
    error = memory_limits.failed(Workload(DEEP, 1024, 1024, torch.float32, Settings()), CPU)
    assert str(error).startswith("out of memory at 1024x1024: an allocation failed; ")
    assert 700 < advised(error) < 900


def test_after_a_failure_by_strips_a_smaller_size_is_advised_and_no_strips(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_limits, "available", lambda device: 2**50)
    error = memory_limits.failed(Workload(DEEP, 3000, 3000, torch.float32, Settings()), CPU, 160)
    assert "--tiles" not in str(error)
    size = advised(error)
    assert strips(32, size) <= memory_limits.AFTER_FAILURE * strips(160) < strips(32, round(size * 1.02))


def test_a_failed_allocation_is_recognized() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**58)
    assert memory_limits.is_out_of_memory(caught.value)
    assert memory_limits.is_out_of_memory(MemoryError())
    assert memory_limits.is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
    assert memory_limits.is_out_of_memory(RuntimeError("std::bad_alloc"))


@pytest.mark.parametrize("error", [RuntimeError("shapes differ"), ValueError("can't allocate memory"), KeyError("x")])
def test_other_errors_are_not_out_of_memory(error: Exception) -> None:
    assert not memory_limits.is_out_of_memory(error)


GROWTH = """
import sys, torch, fastnst
from fastnst.process import resident
torch.set_num_threads(2)
held = []
def watch(step):
    if step.step in (50, 350):
        held.append(resident())
picture = torch.rand(1, 3, 48, 48)
layers = {"content_layers": (("relu2_1", 1.0),), "style_layers": (("relu1_1", 1.0), ("relu2_1", 1.0))}
fastnst.stylize(picture, picture.flip(3), size=48, steps=350, scales=1, device="cpu", callback=watch, **layers)
print(held[1] - held[0])
"""


@pytest.mark.parametrize("optimizer", ["adam", "lbfgs"])
@pytest.mark.sweep(2)
def test_memory_does_not_grow_with_the_number_of_steps(optimizer: str) -> None:
    """Scratch memory aligned by the C library made the heap grow with every step."""
    code = GROWTH.replace("device=", f"optimizer={optimizer!r}, device=")
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=True)
    assert int(child.stdout) < 32 * 2**20


def test_a_mirrored_image_exists_in_both_sizes() -> None:
    """The image and its gradient, of three float32 channels, whole and in strips."""
    settings = Settings.from_preset(**SMALL, edges="mirror")
    given = (DEEP, 64, 64, torch.float32, settings)
    plain, mirrored = Workload(*given), Workload(*given, mirrored=True)
    image = 3 * 64 * 64 * 4
    assert mirrored.terms().images - plain.terms().images == 2 * image
    assert mirrored.strip_terms(16).exact - plain.strip_terms(16).exact == 2 * image

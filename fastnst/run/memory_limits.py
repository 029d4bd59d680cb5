"""The memory that a run may use, and what fits: a size that is too large is refused with one that fits."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import replace

import psutil
import torch

from fastnst import devices, errors, limits, process
from fastnst.config.settings import Settings
from fastnst.images import fit
from fastnst.run.memory_model import MODEL, Workload

# If an allocation fails although the estimate fits, a size is suggested that needs this fraction of the estimate.
AFTER_FAILURE = 0.75
# Settings that need less memory, those that change the result least first.
CHEAPER: tuple[Mapping[str, str], ...] = (
    {"history_dtype": "bfloat16"},
    {"precision": "bfloat16"},
    {"optimizer": "adam"},
)
STYLE_COPIES = 3  # copies of a style picture at once while it is resized
LEAST_ROWS = 32  # the least rows of a strip that memory chooses; the rows are a multiple of these
MOST_PIXELS = 2**20  # the most pixels of a strip that memory chooses
UNIFIED = ("cpu", "mps")  # devices that use the memory of the machine


class OutOfMemoryError(errors.OutOfMemoryError, torch.OutOfMemoryError):
    """Also caught as PyTorch's error. Defined here because :mod:`fastnst.errors` does not import torch."""


def strip_rows(work: Workload, have: int | None) -> int | None:
    """The rows of a strip that fits into ``have`` bytes; None if ``LEAST_ROWS`` do not fit."""
    most = max(LEAST_ROWS, MOST_PIXELS // work.shorter // LEAST_ROWS * LEAST_ROWS)
    for rows in range(min(most, -(-work.longer // LEAST_ROWS) * LEAST_ROWS), 0, -LEAST_ROWS):
        if have is None or work.strip_bytes(rows) <= have:
            return rows
    return None


def choose_rows(work: Workload, device: torch.device) -> int | None:
    """The rows of a strip by the setting ``tiles`` and the memory; None if the image is evaluated whole.

    Raises OutOfMemoryError, with a size that would fit, if neither fits.
    """
    settings = work.settings.replace(tiles="off") if work.whole_only else work.settings
    if isinstance(settings.tiles, int):
        return settings.tiles if settings.tiles < work.longer else None
    have = budget(settings, device)
    need = work.bytes()
    if settings.tiles != "on" and (have is None or need <= have):
        return None
    if settings.tiles != "off":
        rows = strip_rows(work, have)
        if rows is not None:
            return rows
        need = work.strip_bytes(LEAST_ROWS)
    assert have is not None
    source = "is free" if settings.memory is None else "is allowed"
    least = " at least" if settings.tiles != "off" else ""
    raise _too_large(work, have, f"needs about {gigabytes(need)}{least}, {gigabytes(have)} {source}")


def fits(work: Workload, rows: int, device: torch.device) -> bool:
    """Whether strips of ``rows`` fit into the memory that a run may use."""
    have = budget(work.settings, device)
    return have is None or work.strip_bytes(rows) <= have


def check_style(height: int, width: int, settings: Settings, device: torch.device) -> None:
    """Raise OutOfMemoryError if a style picture of this size does not fit into memory while it is loaded."""
    need, have = STYLE_COPIES * 3 * 4 * height * width, budget(settings, device)
    if have is not None and need > have:
        reason = f"a style picture of {width}x{height} needs about {gigabytes(need)}, {gigabytes(have)} are available"
        raise OutOfMemoryError(f"out of memory: {reason}; use a smaller --style-scale or --style-size")


def budget(settings: Settings, device: torch.device) -> int | None:
    """Bytes that a run may use: ``settings.memory``, else what the device has available; None if unknown."""
    if settings.memory is not None:
        return settings.memory
    have = available(device)
    # Processes that torchrun has started on this machine share its memory.
    return have if have is None or device.type not in UNIFIED else have // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def available(device: torch.device) -> int | None:
    """Bytes that the device has available for this process, including what it already uses; None if unknown."""
    free = devices.free_memory(device)
    if device.type not in UNIFIED:
        return None if free is None else free + int(MODEL["base"])
    left = [int(psutil.virtual_memory().available), limits.memory_left()]
    system = min(each for each in left if each is not None) + process.resident()
    if device.type == "cpu":
        return system
    return None if free is None else min(system, free + int(MODEL["base"]))


def failed(work: Workload, device: torch.device, rows: int | None = None) -> OutOfMemoryError:
    """The error for a run, whole or with strips of ``rows``, in which an allocation failed although it should fit."""
    if rows is None:
        need = work.bytes()
        work = work.replace(tiles="off")  # so that strips are suggested too
    else:
        need = work.strip_bytes(rows)
    have, most = budget(work.settings, device), int(need * AFTER_FAILURE)
    return _too_large(work, most if have is None else min(have, most), "an allocation failed")


def _too_large(work: Workload, have: int, reason: str) -> OutOfMemoryError:
    """The error for a size that does not fit: the reason, and what would fit."""
    advice = " or ".join(remedies(work, have))
    remedy = f"{advice} would fit" if advice else "use a smaller --size"
    return OutOfMemoryError(f"out of memory at {work.width}x{work.height}: {reason}; {remedy}")


def remedies(work: Workload, have: int) -> Iterator[str]:
    """What fits into ``have`` bytes instead, as options: the largest size, and the first of CHEAPER settings."""
    if work.settings.tiles == "off" and not work.whole_only and strip_rows(work, have) is not None:
        yield "--tiles on"
    size = max(work.height, work.width) - 1
    while size >= 32:
        height, width = fit(work.height, work.width, size)
        if _least_bytes(replace(work, height=height, width=width)) <= have:
            yield f"--size {size}"
            break
        size = size * 99 // 100
    changes = [one for one in CHEAPER if _saves(one, work)]
    for chosen in range(1, 2 ** len(changes)):  # in binary: a later change only if no choice of earlier ones fits
        change = {name: to for i, one in enumerate(changes) if chosen >> i & 1 for name, to in one.items()}
        dtype = torch.bfloat16 if "precision" in change else work.dtype
        if _least_bytes(replace(work.replace(**change), dtype=dtype)) <= have:
            yield " ".join(f"--{name.replace('_', '-')} {value}" for name, value in change.items())
            return


def _least_bytes(work: Workload) -> int:
    """Bytes of a run, with strips if the settings allow them and they need less."""
    whole = work.bytes()
    return whole if work.settings.tiles == "off" or work.whole_only else min(whole, work.strip_bytes(LEAST_ROWS))


def _saves(change: Mapping[str, str], work: Workload) -> bool:
    """Whether a change of CHEAPER applies: float64 was asked for, so precision is not reduced."""
    if "precision" in change:
        return work.dtype == torch.float32
    settings = work.settings
    return settings.optimizer == "lbfgs" and settings.history_dtype != change.get("history_dtype")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception is a failed allocation; on the CPU and on MPS PyTorch has no class of its own for it."""
    if isinstance(error, errors.FastnstError):  # already has a remedy
        return False
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    known = ("not enough memory", "can't allocate memory", "bad_alloc", "out of memory")
    return isinstance(error, RuntimeError) and any(text in str(error).lower() for text in known)


def gigabytes(size: int) -> str:
    """A number of bytes as text."""
    return f"{max(size, 0) / 2**30:.1f} GB"

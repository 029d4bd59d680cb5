"""What a run needs and what the machine has: so that too large a size is refused with one that fits."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import psutil
import torch

from fastnst.errors import OutOfMemoryError
from fastnst.images import fit
from fastnst.settings import Settings
from fastnst.vgg import Layer

# Beside the kept activations: the gradient that comes down, the map it makes, and the convolution's workspace.
WORKING_MAPS = 2.5
# What a thread of a convolution of ours works in, at most: see csrc/cpu/winograd_impl.h.
WORKSPACE = 14 * 2**20
# Measured with bench/e2e/race.py: what torch, the weights and the pictures take before the first step.
BASELINE = 340 * 2**20
# Where an allocation failed although the estimate fitted, a size is advised that needs this much of the estimate.
AFTER_FAILURE = 0.75
CGROUP = Path("/sys/fs/cgroup")


def needed(chain: Sequence[Layer], height: int, width: int, dtype: torch.dtype, settings: Settings) -> int:
    """Bytes that a run at this size is expected to hold at its peak, the process itself included.

    ``settings.convolution`` is what was chosen; ``"auto"`` counts as ``"direct"``, which needs more.
    """
    tapped = settings.layer_names()

    def size(layer: Layer, itemsize: int) -> int:
        return layer.channels * (height // layer.stride) * (width // layer.stride) * itemsize

    kept = 0
    for i, layer in enumerate(chain):
        pooled = chain[i + 1] if i + 1 < len(chain) and chain[i + 1].kind == "pool" else None
        if layer.kind == "relu" and layer.name not in tapped and pooled is not None and settings.pooling == "max":
            kept += size(pooled, 1)  # the places of the maxima, see engine.py
        elif layer.kind == "relu" or layer.name in tapped:
            kept += size(layer, dtype.itemsize)
    targets = sum(size(layer, dtype.itemsize) for layer in chain if layer.name in dict(settings.content_layers))
    largest = max(size(layer, dtype.itemsize) for layer in chain)
    images = 10
    if settings.optimizer == "lbfgs":
        images += settings.history if settings.history_dtype == "bfloat16" else 2 * settings.history
    working = WORKING_MAPS * largest
    if settings.convolution == "winograd" and len(chain) > 2 and chain[0].name not in tapped:
        # The first map is let go, and made again on the way down (see engine.py). But it and the second are both there
        # where the targets are measured.
        first = size(chain[1], dtype.itemsize)
        kept, working = max(kept - first, 2 * first), WORKSPACE * torch.get_num_threads()
    held = kept + targets + working + images * 3 * height * width * 4
    return int(BASELINE + held)


def available(device: torch.device) -> int | None:
    """Bytes the device can still give this process, itself included; None where nobody can say."""
    if device.type == "cuda":
        # What PyTorch's allocator keeps from earlier work is still to be had.
        return int(torch.cuda.mem_get_info(device)[0]) + int(torch.cuda.memory_reserved(device)) + BASELINE
    if device.type != "cpu":
        return None
    own = int(psutil.Process().memory_info().rss)
    return min(int(psutil.virtual_memory().available), _container_limit()) + own


def _container_limit() -> int:
    """What the control group of a container leaves over; the machine's memory alone would overstate it."""
    try:
        limit = (CGROUP / "memory.max").read_text().strip()
        if limit == "max":
            return 2**62
        used = int((CGROUP / "memory.current").read_text())
        counts = dict(line.split() for line in (CGROUP / "memory.stat").read_text().splitlines())
        # Pages of files that nobody reads count as used, but are given up when memory is asked for.
        return int(limit) - used + int(counts.get("inactive_file", 0))
    except (OSError, ValueError):
        return 2**62


def check_fits(
    chain: Sequence[Layer], height: int, width: int, dtype: torch.dtype, settings: Settings, device: torch.device
) -> None:
    """Raise OutOfMemoryError, naming a size that fits, where the run would need more than the device has."""
    have = available(device)
    need = needed(chain, height, width, dtype, settings)
    if have is None or need <= have:
        return
    raise _too_large(chain, height, width, dtype, settings, have, f"needs about {_gb(need)}, {_gb(have)} is free")


def failed(
    chain: Sequence[Layer], height: int, width: int, dtype: torch.dtype, settings: Settings, device: torch.device
) -> OutOfMemoryError:
    """The error for a run in which an allocation failed although ``check_fits`` let it pass."""
    most = int(needed(chain, height, width, dtype, settings) * AFTER_FAILURE)
    have = available(device)
    have = most if have is None else min(have, most)
    return _too_large(chain, height, width, dtype, settings, have, "an allocation failed")


def _too_large(
    chain: Sequence[Layer],
    height: int,
    width: int,
    dtype: torch.dtype,
    settings: Settings,
    have: int,
    what: str,
) -> OutOfMemoryError:
    """The error for a size that does not fit: what happened, and the largest size that would."""
    advice = "use a smaller --size"
    size = max(height, width) - 1
    while size >= 32:
        if needed(chain, *fit(height, width, size), dtype, settings) <= have:
            advice = f"--size {size} would fit"
            break
        size = size * 99 // 100
    return OutOfMemoryError(f"out of memory at {width}x{height}: {what}; {advice}")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception is an allocation that failed; PyTorch has no class of its own for that on the CPU."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    known = ("not enough memory", "can't allocate memory", "bad_alloc", "out of memory: could not allocate")
    return isinstance(error, RuntimeError) and any(text in str(error) for text in known)


def resident() -> int:
    """Bytes this process holds now."""
    return int(psutil.Process(os.getpid()).memory_info().rss)


def _gb(size: int) -> str:
    return f"{max(size, 0) / 2**30:.1f} GB"

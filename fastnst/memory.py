"""What a run needs and what the machine has: so that too large a size is refused with one that fits."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch

from fastnst import errors
from fastnst.images import fit
from fastnst.settings import Settings
from fastnst.shelf import IN_MEMORY
from fastnst.vgg import Layer

# What a thread of a convolution of ours works in, at most: see csrc/cpu/winograd_impl.h.
WORKSPACE = 14 * 2**20
# Images beside L-BFGS's pairs: content, style, start, the image, the last good one, gradient, what an update works in.
IMAGES = {"adam": 10, "lbfgs": 13}
# Fitted to runs by bench/e2e/plan_fit.py, which writes the file.
FITTED = json.loads((Path(__file__).parent / "assets" / "plan.json").read_text())
MODEL: Mapping[str, float] = FITTED["memory"]
# Where an allocation failed although the estimate fitted, a size is advised that needs this much of the estimate.
AFTER_FAILURE = 0.75
# Settings that need less memory, those that change the result least first.
CHEAPER: tuple[Mapping[str, str], ...] = (
    {"history_dtype": "bfloat16"},
    {"precision": "bfloat16"},
    {"optimizer": "adam"},
)
# By strips, beside the style: content, image, the last good one, gradient, moments or what L-BFGS works in.
STRIP_IMAGES = {"adam": 6, "lbfgs": 11}
STYLE_COPIES = 3  # of a style picture at once, while it is brought to its size
CARRIED = 5  # rows that a layer may have beside its strip
LEAST_ROWS = 32  # of a strip, where memory decides; its rows are a multiple of these
MOST_PIXELS = 2**20  # of a strip that memory decides
CGROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Terms:
    """Bytes of a run that are counted: ``maps`` and ``images`` take a fitted factor, ``exact`` none.

    ``direct`` is 1 for PyTorch's convolutions, which hold something of their own, 0 for ours.
    """

    maps: int
    images: int
    exact: int
    direct: int

    def bytes(self, model: Mapping[str, float]) -> int:
        """The peak of the process: that of the run, or at small sizes that of reading the weights."""
        held = model["base"] + model["direct"] * self.direct + self.exact
        held += model["maps"] * self.maps + model["images"] * self.images
        return int(max(held, model["loading"]))


class OutOfMemoryError(errors.OutOfMemoryError, torch.OutOfMemoryError):
    """For those who expect PyTorch's. Here, since :mod:`fastnst.errors` does not import torch."""


def needed(chain: Sequence[Layer], height: int, width: int, dtype: torch.dtype, settings: Settings) -> int:
    """Bytes that a run at this size is expected to hold at its peak, the process itself included.

    ``settings.convolution`` is what was chosen; ``"auto"`` counts as ``"direct"``, which needs more.
    """
    return terms(chain, height, width, dtype, settings).bytes(MODEL)


def terms(chain: Sequence[Layer], height: int, width: int, dtype: torch.dtype, settings: Settings) -> Terms:
    """What is counted of a run: maps, images, and exactly the network, the workspace and L-BFGS's full history.

    Masks, further styles and their statistics are small beside these and not counted.
    """
    wide = 8 if dtype == torch.float64 else 4
    image = 3 * height * width * wide
    ins = [3, *(layer.channels for layer in chain)]
    ours = settings.convolution == "winograd"
    convs = [(c, layer) for c, layer in zip(ins, chain, strict=False) if layer.kind == "conv"]
    exact = sum(9 * c * layer.channels * dtype.itemsize for c, layer in convs)
    if ours:
        exact += WORKSPACE * torch.get_num_threads()
    if settings.optimizer == "lbfgs":
        pairs = min(_most(settings.history), _most(settings.steps))
        exact += pairs * (image // wide * 4 if settings.history_dtype == "bfloat16" else 2 * image)
    images = IMAGES[settings.optimizer] + (settings.average > 0)
    return Terms(_most_maps(chain, height, width, dtype.itemsize, settings), images * image, exact, int(not ours))


def _most(counts: int | tuple[int, ...]) -> int:
    return max(counts) if isinstance(counts, tuple) else counts


def strip_terms(
    chain: Sequence[Layer], rows: int, height: int, width: int, dtype: torch.dtype, settings: Settings
) -> Terms:
    """As :func:`terms`, for a run by :class:`fastnst.tiled.TiledObjective` with strips of ``rows``."""
    whole = terms(chain, height, width, dtype, settings)
    longest = max(height, width)
    style = (settings.style_scale if settings.style_size is None else settings.style_size / longest) ** 2
    images = STRIP_IMAGES[settings.optimizer] + style + (settings.average > 0)
    wide = 8 if dtype == torch.float64 else 4
    held = whole.exact + int(images * 3 * height * width * wide) + 2 * IN_MEMORY
    return dataclasses.replace(whole, maps=_strip_maps(chain, rows, width, dtype.itemsize), images=0, exact=held)


def strip_needed(
    chain: Sequence[Layer], rows: int, height: int, width: int, dtype: torch.dtype, settings: Settings
) -> int:
    """As :func:`needed`, for strips of ``rows``."""
    return strip_terms(chain, rows, height, width, dtype, settings).bytes(MODEL)


def _strip_maps(chain: Sequence[Layer], rows: int, width: int, itemsize: int) -> int:
    """Bytes of a strip's maps: the input of every convolution, and on the way down three maps of the largest layer.

    Each layer has some rows more than the strip, those that were carried over.
    """
    sizes = [layer.channels * (rows // layer.stride + CARRIED) * (width // layer.stride) * itemsize for layer in chain]
    return sum(size for size, layer in zip(sizes, chain, strict=True) if layer.kind == "relu") + 3 * max(sizes)


def strip_rows(
    chain: Sequence[Layer], height: int, width: int, dtype: torch.dtype, settings: Settings, have: int | None
) -> int | None:
    """The rows of a strip that fits into ``have`` bytes; None where not even one of ``LEAST_ROWS`` does."""
    most = max(LEAST_ROWS, MOST_PIXELS // width // LEAST_ROWS * LEAST_ROWS)
    for rows in range(min(most, -(-height // LEAST_ROWS) * LEAST_ROWS), 0, -LEAST_ROWS):
        if have is None or strip_needed(chain, rows, height, width, dtype, settings) <= have:
            return rows
    return None


def choose_rows(
    chain: Sequence[Layer], height: int, width: int, dtype: torch.dtype, settings: Settings, device: torch.device
) -> int | None:
    """The rows of a strip that the settings ask for or the memory demands; None for the picture whole.

    Raises OutOfMemoryError, saying what would fit, where neither does.
    """
    if isinstance(settings.tiles, int):
        return settings.tiles if settings.tiles < height else None
    have = budget(settings, device)
    need = needed(chain, height, width, dtype, settings)
    if settings.tiles != "on" and (have is None or need <= have):
        return None
    if settings.tiles != "off":
        rows = strip_rows(chain, height, width, dtype, settings, have)
        if rows is not None:
            return rows
        need = strip_needed(chain, LEAST_ROWS, height, width, dtype, settings)
    assert have is not None
    what = "is free" if settings.memory is None else "is allowed"
    told = f"needs about {gigabytes(need)}{' at least' * (settings.tiles != 'off')}, {gigabytes(have)} {what}"
    raise _too_large(chain, height, width, dtype, settings, have, told)


def fits(
    chain: Sequence[Layer],
    rows: int,
    height: int,
    width: int,
    dtype: torch.dtype,
    settings: Settings,
    device: torch.device,
) -> bool:
    """Whether strips of ``rows`` fit into the memory that a run may hold."""
    have = budget(settings, device)
    return have is None or strip_needed(chain, rows, height, width, dtype, settings) <= have


def check_style(height: int, width: int, settings: Settings, device: torch.device) -> None:
    """Raise OutOfMemoryError where a style picture of this size does not fit into memory, on its way to it included."""
    need, have = STYLE_COPIES * 3 * 4 * height * width, budget(settings, device)
    if have is not None and need > have:
        told = f"a style picture of {width}x{height} needs about {gigabytes(need)}, {gigabytes(have)} are to be had"
        raise OutOfMemoryError(f"out of memory: {told}; use a smaller --style-scale or --style-size")


def budget(settings: Settings, device: torch.device) -> int | None:
    """Bytes that a run may hold: what the settings say, else what the device has; None where nobody can say."""
    if settings.memory is not None:
        return settings.memory
    have = available(device)
    # Where torchrun has started several processes on this machine, each has its share.
    return have if have is None or device.type == "cuda" else have // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def _most_maps(chain: Sequence[Layer], height: int, width: int, itemsize: int, settings: Settings) -> int:
    """Bytes of the maps that are there at once: what is kept on the way up for the way down, the gradients above and
    below the layer that is passed, and the content targets. See :mod:`fastnst.engine`."""
    tapped, ours = settings.layer_names(), settings.convolution == "winograd"

    def size(layer: Layer, itemsize: int = itemsize) -> int:
        return layer.channels * (height // layer.stride) * (width // layer.stride) * itemsize

    def places(i: int) -> bool:
        """Whether the ReLU at ``i`` is let go for the places of the maxima of the pool above."""
        above = chain[i + 1 : i + 2]
        return bool(above) and above[0].kind == "pool" and settings.pooling == "max" and chain[i].name not in tapped

    again = ours and len(chain) > 2 and chain[0].name not in tapped
    again = again and not (settings.normalise_gradients and chain[1].name in tapped)
    kept = most = 0
    below = 3 * height * width * itemsize
    for i, layer in enumerate(chain):
        out = size(layer)
        if layer.kind == "relu" and places(i):
            kept += size(chain[i + 1], 1)
        elif (layer.name in tapped or layer.kind == "relu") and not (again and i == 1):
            kept += out
        if layer.kind == "conv":
            pooled = ours and layer.name not in tapped and i + 2 < len(chain) and places(i + 1)
            # The first map and its gradient come in thirds.
            sides = (size(chain[i + 2]) if pooled else out) + (2 * below // 3 if again and i == 2 else below)
            most = max(most, kept + (0 if again and i == 0 else sides))
        elif layer.kind == "pool" and not (ours and places(i - 1) and chain[i - 2].name not in tapped):
            most = max(most, kept + out + below)
        below = out
    return most + sum(size(layer) for layer in chain if layer.name in dict(settings.content_layers))


def available(device: torch.device) -> int | None:
    """Bytes the device can still give this process, itself included; None where nobody can say."""
    if device.type == "cuda":
        # What PyTorch's allocator keeps from earlier work is still to be had.
        return int(torch.cuda.mem_get_info(device)[0]) + int(torch.cuda.memory_reserved(device)) + int(MODEL["base"])
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


def failed(
    chain: Sequence[Layer],
    height: int,
    width: int,
    dtype: torch.dtype,
    settings: Settings,
    device: torch.device,
    rows: int | None = None,
) -> OutOfMemoryError:
    """The error for a run, whole or by strips of ``rows``, where an allocation failed although the estimate fitted."""
    if rows is None:
        need = needed(chain, height, width, dtype, settings)
        settings = settings.but(tiles="off")  # strips are advised as well
    else:
        need = strip_needed(chain, rows, height, width, dtype, settings)
    have, most = budget(settings, device), int(need * AFTER_FAILURE)
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
    """The error for a size that does not fit: what happened, and what would."""
    advice = " or ".join(remedies(chain, height, width, dtype, settings, have))
    said = f"{advice} would fit" if advice else "use a smaller --size"
    return OutOfMemoryError(f"out of memory at {width}x{height}: {what}; {said}")


def remedies(
    chain: Sequence[Layer], height: int, width: int, dtype: torch.dtype, settings: Settings, have: int
) -> Iterator[str]:
    """What fits into ``have`` bytes instead, as options: the largest size, the first of CHEAPER settings that do."""
    if settings.tiles == "off" and strip_rows(chain, height, width, dtype, settings, have) is not None:
        yield "--tiles on"
    size = max(height, width) - 1
    while size >= 32:
        if _least_needed(chain, *fit(height, width, size), dtype, settings) <= have:
            yield f"--size {size}"
            break
        size = size * 99 // 100
    changes = [one for one in CHEAPER if _saves(one, dtype, settings)]
    for chosen in range(1, 2 ** len(changes)):  # in binary: a later change only where no choice of those before will do
        change = {name: to for i, one in enumerate(changes) if chosen >> i & 1 for name, to in one.items()}
        halved = torch.bfloat16 if "precision" in change else dtype
        if _least_needed(chain, height, width, halved, settings.but(**change)) <= have:
            yield " ".join(f"--{name.replace('_', '-')} {value}" for name, value in change.items())
            return


def _least_needed(chain: Sequence[Layer], height: int, width: int, dtype: torch.dtype, settings: Settings) -> int:
    """Bytes of a run, by strips if the settings allow that and it needs less."""
    whole = needed(chain, height, width, dtype, settings)
    if settings.tiles == "off":
        return whole
    return min(whole, strip_needed(chain, LEAST_ROWS, height, width, dtype, settings))


def _saves(change: Mapping[str, str], dtype: torch.dtype, settings: Settings) -> bool:
    """Whether a change of CHEAPER is one for a run: float64 is asked for where exactness is."""
    if "precision" in change:
        return dtype == torch.float32
    return settings.optimizer == "lbfgs" and settings.history_dtype != change.get("history_dtype")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception is an allocation that failed; PyTorch has no class of its own for that on the CPU."""
    if isinstance(error, errors.FastnstError):  # which says already what would fit
        return False
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    known = ("not enough memory", "can't allocate memory", "bad_alloc", "out of memory: could not allocate")
    return isinstance(error, RuntimeError) and any(text in str(error) for text in known)


def resident() -> int:
    """Bytes this process holds now."""
    return int(psutil.Process(os.getpid()).memory_info().rss)


def gigabytes(size: int) -> str:
    """Bytes for a person."""
    return f"{max(size, 0) / 2**30:.1f} GB"

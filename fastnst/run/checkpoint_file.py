"""The file of a checkpoint: the state of a run as safetensors, with a header in JSON.

The tensors are the image, the last good image, the optimizer's state and the average, named ``owner.name``. The header
is in the metadata: settings, losses so far, SHA-256 of the pictures and weights, numbers of the state, and the SHA-256
of everything. Random state is not needed: only the start image is random, and the file holds the image.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from fastnst.config.ranges import AFTER_THE_RUN
from fastnst.config.settings import Settings, picture_settings
from fastnst.digests import digest
from fastnst.errors import CheckpointError, printable, shown
from fastnst.objective.protocol import Losses
from fastnst.optim.loop import LoopState
from fastnst.optim.stepper import all_finite
from fastnst.run import checkpoint_schema
from fastnst.run.scales import scale_sizes

FORMAT = 4  # 1 identified weights by name alone, 2 did not record strips, 3 did not nest the state by owner
_DTYPES = {"F64": torch.float64, "F32": torch.float32, "BF16": torch.bfloat16}  # the names of safetensors


@dataclass(frozen=True)
class Identity:
    """What a run is made of: runs of the same identity give the same picture.

    Attributes:
        settings: the settings.
        pictures: the pixels by part.
        weights: the name of the weights.
        weights_digest: the SHA-256 of the weights in use.
    """

    settings: Settings
    pictures: Mapping[str, Tensor | None]
    weights: str
    weights_digest: str

    def facts(self) -> dict[str, Any]:
        """The identity as JSON, with digests in place of pictures."""
        pictures = {name: digest([picture]) for name, picture in self.pictures.items() if picture is not None}
        weights = {"name": self.weights, "sha256": self.weights_digest}
        facts = {"settings": self.settings.to_dict(), "pictures": pictures, "weights": weights}
        plain: dict[str, Any] = json.loads(json.dumps(facts, default=os.fspath))
        return plain


@dataclass(frozen=True)
class SavedRun:
    """The state of a run. ``SavedRun()`` is the beginning.

    Attributes:
        scale: number of the current scale, from 1.
        before: the losses of the scales before it.
        loop: the state of the loop; in a finished run the last image alone.
        seconds: duration so far.
        finished: whether the run is complete.
        stopped: why it ended early, if it did.
        strips: rows of strips by width and height, as chosen by memory.
    """

    scale: int = 1
    before: Sequence[Sequence[Losses]] = ()
    loop: LoopState = field(default_factory=LoopState)
    seconds: float = 0.0
    finished: bool = False
    stopped: str | None = None
    strips: Mapping[str, int] = field(default_factory=dict)


def write(path: Path, facts: Mapping[str, Any], saved: SavedRun) -> bool:
    """Write a state of a run of the identity ``facts``. Returns False, without a file, if it is not finite.

    Raises OSError and SafetensorError.
    """
    tensors, numbers = _flatten(saved.loop.state)
    if not all(map(all_finite, tensors.values())):
        return False
    header = {
        **facts,
        "numbers": numbers,
        "trace": [[_plain(losses) for losses in scale] for scale in (*saved.before, saved.loop.trace)],
        **{name: getattr(saved, name) for name in ("scale", "seconds", "finished", "stopped")},
        "strips": dict(saved.strips),
    }
    text = json.dumps(header)
    save_file(tensors, path, {"fastnst checkpoint": str(FORMAT), "run": text, "sha256": _digest_all(text, tensors)})
    return True


def _plain(losses: Losses) -> dict[str, Any]:
    """Losses as plain values. Runs with a temporal loss have no checkpoint: see :class:`fastnst.run.scene_run`."""
    return {name: value for name, value in dataclasses.asdict(losses).items() if name != "temporal"}


def read(path: Path, identity: Identity, facts: Mapping[str, Any]) -> SavedRun:
    """The state in a file, if it is of a run of this identity, whose ``facts`` are given.

    Raises CheckpointError for anything else.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            _check_format(path, metadata)
            kinds = {name: _kind(path, name, file.get_slice(name)) for name in file.keys()}  # noqa: SIM118
        tensors = _read_tensors(path, kinds)
        text = metadata.get("run", "")
        if metadata.get("sha256") != _digest_all(text, tensors):
            raise CheckpointError(f"{path}: damaged: its SHA-256 is not the one stored in it")
        return _checked(path, identity, facts, text, kinds, tensors)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror})") from error
    except SafetensorError as error:
        raise CheckpointError(f"{path}: damaged, or not a checkpoint ({error})") from None


def _read_tensors(path: Path, kinds: checkpoint_schema.Tensors) -> dict[str, Tensor]:
    """The tensors of a file that safetensors has checked. It would map the file, and what is read of a mapped file
    counts as memory of the process beside the state made of it."""
    tensors = {}
    with path.open("rb") as file:
        start = 8 + int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(start - 8))
        for name, (shape, dtype) in kinds.items():
            file.seek(start + header[name]["data_offsets"][0])
            tensors[name] = torch.empty(shape, dtype=dtype, device="cpu")
            file.readinto(tensors[name].view(-1).view(torch.uint8).numpy().data)
    return tensors


def _flatten(state: Mapping[str, Mapping[str, Any]]) -> tuple[dict[str, Tensor], dict[str, dict[str, Any]]]:
    """A nested state as tensors named ``owner.name``, on the CPU, and the rest by owner."""
    tensors: dict[str, Tensor] = {}
    numbers: dict[str, dict[str, Any]] = {}
    for owner, values in state.items():
        for name, value in values.items():
            if isinstance(value, Tensor):
                tensors[f"{owner}.{name}"] = value.detach().cpu().contiguous()
            else:
                numbers.setdefault(owner, {})[name] = value
    return tensors, numbers


def _nest(tensors: Mapping[str, Tensor], numbers: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """The inverse of :func:`_flatten`."""
    state = {owner: dict(values) for owner, values in numbers.items()}
    for key, tensor in tensors.items():
        owner, name = key.split(".")
        state.setdefault(owner, {})[name] = tensor
    return state


def _check_format(path: Path, metadata: Mapping[str, str]) -> None:
    version = metadata.get("fastnst checkpoint")
    if version is None:
        raise CheckpointError(f"{path}: not a checkpoint of fastnst")
    if version != str(FORMAT):
        found = printable(version, 40)
        raise CheckpointError(f"{path}: a checkpoint of format {found}; this fastnst reads format {FORMAT}")


def _kind(path: Path, name: str, part: Any) -> tuple[tuple[int, ...], torch.dtype]:
    """Shape and dtype of a tensor by the header of the file."""
    dtype = part.get_dtype()
    if dtype not in _DTYPES:
        raise CheckpointError(f"{path}: not of a run: {shown(name)} is of type {shown(dtype)}")
    return tuple(part.get_shape()), _DTYPES[dtype]


def _checked(
    path: Path,
    identity: Identity,
    facts: Mapping[str, Any],
    text: str,
    kinds: checkpoint_schema.Tensors,
    tensors: Mapping[str, Tensor],
) -> SavedRun:
    """The state in the file, checked as :mod:`fastnst.run.checkpoint_schema` describes."""
    settings, content = identity.settings, identity.pictures["content"]
    assert content is not None
    try:
        header = checkpoint_schema.HEADER(json.loads(text), "header")
        _compare(path, header, facts)
        sizes, scale, finished = (
            scale_sizes(content.shape[-2], content.shape[-1], settings),
            header["scale"],
            header["finished"],
        )
        checkpoint_schema.number(len(sizes) if finished else 1, len(sizes), whole=True)(scale, "scale")
        trace = checkpoint_schema.trace(settings, scale)(header["trace"], "trace")
        taken, own = [len(losses) for losses in trace], settings.at(scale)
        numbers = checkpoint_schema.numbers(own, taken, finished)(header["numbers"], "numbers")
    except (ValueError, RecursionError) as error:  # UsageError among them
        raise CheckpointError(f"{path}: not of a run: {error}") from None
    expected = checkpoint_schema.tensors(own, sizes[scale - 1], numbers, kinds, finished)
    for name in sorted({*expected, *kinds}):
        if kinds.get(name) != expected.get(name):
            wanted, found = (
                f"{kind[1]} {list(kind[0])}" if kind else "not there" for kind in (expected.get(name), kinds.get(name))
            )
            raise CheckpointError(f"{path}: not of a run: {shown(name)}: expected {wanted}, is {found}")
        if not all_finite(tensors[name]):
            raise CheckpointError(f"{path}: not of a run: {name} is not finite")
    *before, last = ([Losses(**losses) for losses in one] for one in trace)
    loop = LoopState(last, _nest(tensors, numbers))
    return SavedRun(scale, before, loop, header["seconds"], finished, header["stopped"], header["strips"])


def _compare(path: Path, header: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
    """Raise CheckpointError, naming the first difference, if the file is of another run."""
    was, now = header["settings"], facts["settings"]
    # Settings that the writing version did not have had their default.
    was, now = (picture_settings({**json.loads(json.dumps(Settings().to_dict())), **values}) for values in (was, now))
    for name in dict.fromkeys((*now, *was)):
        if name not in AFTER_THE_RUN and (name not in now or was.get(name) != now[name]):
            old, new = _short(was.get(name)), _short(now.get(name))
            raise CheckpointError(f"{path}: of a run with other settings: {printable(name)} was {old}, is {new}")
    old, new = header["weights"], facts["weights"]
    if old["sha256"] != new["sha256"]:
        names = [f"{printable(weights['name'])} (SHA-256 {weights['sha256'][:12]}...)" for weights in (old, new)]
        raise CheckpointError(f"{path}: of a run with other weights: {names[0]}, not {names[1]}")
    for name in dict.fromkeys((*facts["pictures"], *header["pictures"])):
        if header["pictures"].get(name) != facts["pictures"].get(name):
            raise CheckpointError(f"{path}: of a run with another {printable(name)} picture")


def _digest_all(text: str, tensors: Mapping[str, Tensor]) -> str:
    return digest([tensors[name] for name in sorted(tensors)], text)


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."

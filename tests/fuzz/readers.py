"""The readers under test, by name: how an input is generated from a number, and how it is read.

A reader returns, or raises a FastnstError of one printable line. Anything else is a fault, and so is a result that
breaks a promise: these are checked here as well, by :class:`Broken`.
"""

from __future__ import annotations

import contextlib
import functools
import io
import json
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any
from unittest import mock

from . import films, mutations, seeds
from .mutations import Mutation

MAX_PIXELS = 1_000_000  # limit of an image that is read, so that excessive memory is a fault
OUTPUT = "out.png"


class Broken(AssertionError):
    """A result violates a documented property."""


@dataclass(frozen=True)
class Reader:
    """``make`` generates the bytes of an input from ``random``; ``read`` reads the file; ``seeds`` must load."""

    suffix: str
    make: Callable[[Random], bytes]
    read: Callable[[Path], None]
    seeds: Callable[[], Sequence[bytes]]


def _expect(kept: bool, promise: str) -> None:
    if not kept:
        raise Broken(promise)


def _one_line(text: str, what: str) -> None:
    _expect(bool(text) and text.isprintable(), f"{what} is not one printable line: {text!r:.300}")


def check_error(error: BaseException) -> None:
    _one_line(str(error), "the message")


# Pictures


def read_picture(path: Path) -> None:
    import torch

    from fastnst import images

    pixels = images.load(path, max_pixels=MAX_PIXELS).pixels
    _expect(pixels.dtype == torch.float32 and pixels.shape[:2] == (1, 3), "pixels are float32 [1, 3, H, W]")
    _expect(bool(((pixels >= 0) & (pixels <= 1)).all()), "pixels are in 0..1")
    images.read_settings(path)


# Films


def read_film(path: Path) -> None:
    films.read(path, _expect, MAX_PIXELS)


# Weights


def read_weights(path: Path) -> None:
    import torch

    from fastnst import weights

    loaded = weights.load(path, default_arch="vgg19")
    for name, (kernel, bias) in loaded.convs.items():
        _expect(kernel.dtype == bias.dtype == torch.float32, f"{name} is float32")
        _expect(kernel.device.type == "cpu" and kernel.shape[2:] == (3, 3), f"{name} is [out, in, 3, 3] on the CPU")
        _expect(kernel.shape[0] == len(bias), f"{name} has a bias for each channel")
    for number in (*loaded.mean, *loaded.scale):
        _expect(
            type(number) is float and math.isfinite(number) and abs(number) < 1e6,
            f"mean and scale are pixels': {number}",
        )
    _command("weights", "show", str(path), "--arch", loaded.arch)


def _command(*arguments: str) -> str:
    """Run a command; its output must be printable, and an error one line that is not an internal error."""
    from fastnst import cli

    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = 0
        try:
            code = cli.main(list(arguments))
        except SystemExit as left:  # --help
            code = int(left.code or 0)
    for line in out.getvalue().splitlines():
        _expect(line.isprintable() or not line, f"a line of stdout is not printable: {line!r:.300}")
    said = err.getvalue()
    if "again with --debug" in said:
        if "--debug" not in arguments:
            _command("--debug", *arguments)  # shows the traceback
        raise Broken(f"an internal error: {_innermost(said)}")
    for line in said.splitlines():
        _one_line(line, "a line of stderr")
    if code:
        errors = [line for line in said.split("\n") if line and not line.startswith("fastnst: warning: ")]
        _expect(len(errors) == 1, f"an error is one line, got {said!r:.300}")
        _expect("out of memory" not in said, "a command that allocates nothing is out of memory")
    return out.getvalue()


def _innermost(said: str) -> str:
    """The innermost line of fastnst and the error of a traceback."""
    places = re.findall(r"fastnst/(\S+)\", line (\d+), in (\w+)", said)
    return f"{places[-1] if places else ''} {said.strip().splitlines()[-1][:300]}"


# Settings


def read_toml(path: Path) -> None:
    from fastnst import load_settings

    _command("settings", str(path))
    _prepare("--settings", str(path))
    load_settings(path)


def read_picture_settings(path: Path) -> None:
    from fastnst import load_settings

    _command("settings", str(path))
    _command("settings", str(path), "--json")
    _run(["stylize", "--like", str(path)])
    load_settings(path)


def _prepare(*options: str) -> None:
    """Everything that `fastnst stylize` does with its options before it reads the first picture."""
    _run(["stylize", "photo.png", "painting.png", "-o", OUTPUT, *options])


def _run(arguments: list[str]) -> None:
    from fastnst import images
    from fastnst.errors import ImageError

    for name in ("photo.png", "painting.png", "photo.jpg", "painting.jpg"):
        if not Path(name).exists():
            Path(name).write_bytes(_painting())
    with mock.patch.object(images, "load", side_effect=ImageError("far enough")):
        _command(*arguments)


@functools.cache
def _painting() -> bytes:
    return seeds.png()[0]


def make_picture_settings(random: Random) -> bytes:
    known = json.loads(random.choice(seeds.settings_json()))
    kind = random.randrange(4)
    if kind == 0:
        text = mutations.token(random, json.dumps(known).encode())
    elif kind == 1:
        text = mutations.blind(random, json.dumps(known).encode())
    else:
        for _ in range(random.choice((1, 1, 2))):
            known = mutations.json_value(random, known)
        text = json.dumps(known).encode("utf-8", "replace")
    return seeds.with_json(text, random.choice(("PNG", "JPEG", "WEBP", "TIFF")))


# Options

_LAYERS = (
    "relu1_1",
    "relu?_1:1e300*1e300",
    "relu1_1:nan",
    "relu1_1:-1",
    "relu*:0",
    "[",
    "relu[",
    "*:1e400",
    "?",
    ":",
    "x:1",
)
_NUMBERS = (
    "content-weight",
    "style-weight",
    "tv-weight",
    "style-scale",
    "learning-rate",
    "average",
    "photoreal",
    "epsilon",
    "scale-factor",
)
_COUNTS = (
    "size",
    "crop",
    "min-scale",
    "seed",
    "snapshot-every",
    "style-size",
    "history",
    "max-pixels",
    "checkpoint-every",
)
_LISTS = ("steps", "scales", "style-weights", "betas", "tiles", "memory")
_NAMES = (
    "init",
    "keep-color",
    "match-color",
    "style-loss",
    "pooling",
    "padding",
    "weights",
    "optimizer",
    "history-dtype",
)
_NAMES += ("device", "precision", "convolution", "graph", "preset")
_FILES = ("settings", "mask", "style-mask", "content-mask", "checkpoint", "like", "save-settings", "output")
_TEXTS = (*mutations.TEXTS, ".", "/", "~", "photo.png", "painting.png/x", "gatys", "vgg19", "\uff4eone", "\u0663")
_DIGITS = (
    *mutations.NUMBERS,
    *map(str, mutations.INTEGERS),
    "9" * 5000,
    "1e400",
    "-0",
    "+5",
    " 5",
    "5 ",
    "1_000",
    "\u0663",
    "0x10",
)
_KINDS: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...] = (
    (("content-layers", "style-layers"), _LAYERS),
    ((*_NUMBERS, *_COUNTS), _DIGITS),
    (
        _LISTS,
        (
            *_DIGITS,
            "1,2,3",
            "1,,2",
            "-1,-1",
            "1e400,1",
            "4GB",
            "1e9GB",
            "9" * 400 + "TB",
            "-4GB",
            "auto",
            "0.9,1",
            "1," * 3000,
        ),
    ),
    (_NAMES, (*_TEXTS, "cuda:99999999999999999999", "cuda:-1", "meta", "auto", "off", "on")),
    (_FILES, _TEXTS),
)


def make_options(random: Random) -> bytes:
    """A command line as JSON."""
    start = random.choice((*[["stylize"]] * 5, ["gallery", "empty"], ["weights", "show"], ["settings"]))
    if start[0] in ("weights", "settings"):
        return json.dumps([*start, random.choice(_TEXTS)]).encode()
    given = []
    for _ in range(random.choice((1, 1, 2, 3))):
        names, values = random.choice(_KINDS)
        name, value = (
            random.choice(names),
            random.choice(values if random.random() < 0.85 else random.choice(_KINDS)[1]),
        )
        given += [f"--{name}={value}"] if random.random() < 0.5 else [f"--{name}", value]
    if random.random() < 0.1:
        given.append(
            random.choice((*_TEXTS, "--no-carry", "--clamp", "--tiles", "--resume", "--force", "-x", "--", "--plan=1"))
        )
    return json.dumps([*start, *given]).encode()


def read_options(path: Path) -> None:
    given = json.loads(path.read_bytes())
    if given[0] == "stylize":
        _prepare(*given[1:])
    else:
        _run(given)


# Checkpoints


@functools.cache
def _run_arguments() -> dict[str, Any]:
    from fastnst import Settings

    layers = {"content_layers": (("relu1_1", 1.0),), "style_layers": (("relu1_1", 1.0),)}
    small = {"size": 32, "scales": (24, 32), "steps": 2, "history": 3, "device": "cpu", "precision": "float32"}
    return {
        name: Settings.from_preset(**layers, **small, optimizer=name, **more)
        for name, more in (("lbfgs", {}), ("adam", {"average": 0.9}))
    }


@functools.cache
def _pixels(seed: int) -> Any:
    import torch

    return torch.linspace(0, 1, 3 * 24 * 32).roll(seed * 100).reshape(1, 3, 24, 32)


def _resume(path: Path, optimizer: str, callback: Any = None) -> Any:
    from fastnst import weights
    from fastnst.run import stylizer

    bundled = _bundled()
    with mock.patch.object(weights, "load", return_value=bundled):
        settings = _run_arguments()[optimizer]
        return stylizer.stylize(
            _pixels(0),
            _pixels(1),
            settings=settings,
            checkpoint=path,
            resume=True,
            checkpoint_every=1,
            callback=callback,
        )


@functools.cache
def _bundled() -> Any:
    from fastnst import weights

    return weights.load()


@functools.cache
def checkpoint_seeds() -> tuple[bytes, ...]:
    """Runs interrupted at both scales, and a finished one, for both optimizers."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # PyTorch's sums, and therefore the bytes, depend on it
    found = []
    for optimizer in ("lbfgs", "adam"):
        for stop in (1, 3, 99):
            path = Path("seed.ckpt")
            path.unlink(missing_ok=True)
            _resume(path, optimizer, lambda step, stop=stop: step.count == stop)
            tensors, header, version = _opened(path.read_bytes())
            found.append(seeds.signed(tensors, {**header, "seconds": 1.0}, version))
            path.unlink()
    torch.set_num_threads(threads)
    return tuple(found)


def _opened(data: bytes) -> tuple[dict[str, Any], dict[str, Any], str]:
    import struct

    from safetensors.torch import load

    (length,) = struct.unpack_from("<Q", data)
    metadata = json.loads(data[8 : 8 + length])["__metadata__"]
    tensors = dict(sorted(load(data).items()))
    return tensors, json.loads(metadata["run"]), metadata["fastnst checkpoint"]


def make_checkpoint(random: Random) -> bytes:
    """A checkpoint with a correct digest of invalid content, or with damaged bytes."""
    data = random.choice(checkpoint_seeds())
    if random.random() < 0.2:
        return mutations.blind(random, data)
    tensors, header, version = _opened(data)
    for _ in range(random.choice((1, 1, 2))):
        kind = random.randrange(3)
        if kind == 0 and tensors:
            _change_tensor(random, tensors)
        elif kind == 1:
            shallow = random.choice(
                ("scale", "seconds", "finished", "stopped", "numbers", "trace", "settings", "pictures")
            )
            header[shallow] = mutations.json_value(random, {"x": header.get(shallow)}).get("x")
        else:
            header = mutations.json_value(random, header)
    if not isinstance(header, dict) or random.random() < 0.03:
        header = random.choice(("", "{", "[]", "null", "[" * 5000, "9" * 400))
    return seeds.signed(
        tensors, header, version if random.random() < 0.95 else random.choice(("1", "", "x\n", "9" * 400))
    )


def _change_tensor(random: Random, tensors: dict[str, Any]) -> None:
    import torch

    name = random.choice(sorted(tensors))
    tensor = tensors.pop(name)
    kind = random.randrange(7)
    if kind == 1:
        tensors[random.choice((*(text for text in mutations.TEXTS if text.isascii() and text), "image"))] = tensor
    elif kind == 2:
        tensors[name] = tensor.to(random.choice((torch.float64, torch.float16, torch.int64, torch.bool, torch.uint8)))
    elif kind == 3:
        tensors[name] = tensor.flatten()[: random.choice((0, 1, 7))]
    elif kind == 4:
        tensors[name] = tensor[None].clone()
    elif kind >= 5 and tensor.is_floating_point():
        tensors[name] = torch.full_like(tensor, random.choice((math.nan, math.inf, 1e38, -1e38, 0.0)))


def read_checkpoint(path: Path) -> None:
    """Resume a run; the result must be a valid image."""
    import torch

    data = path.read_bytes()
    optimizer = "adam" if b'\\"optimizer\\": \\"adam\\"' in data else "lbfgs"
    given = path.with_name(f"copy_{path.name}")
    given.write_bytes(data)
    try:
        result = _resume(given, optimizer)
    finally:
        for left in given.parent.glob(f"*{given.name}*"):
            left.unlink()
    _expect(
        tuple(result.image.shape) == (1, 3, 24, 32), f"the result is of the run's size, got {tuple(result.image.shape)}"
    )
    _expect(bool(torch.isfinite(result.image).all()), "the result is finite")
    _expect(1 <= sum(map(len, result.trace)) <= 4, f"the run takes its four steps, got {list(map(len, result.trace))}")


# All of them


def _of_bytes(kind: Callable[[], Sequence[bytes]], *knowing: Mutation) -> dict[str, Any]:
    kept = functools.cache(kind)
    return {"make": lambda random: mutations.mutated(random, kept(), knowing), "seeds": kept}


def _readers() -> dict[str, Reader]:
    pictures = {
        "png": mutations.png, "jpeg": None, "webp": None, "tiff": mutations.tiff, "gif": None, "bmp": None,
        "ppm": mutations.token, "avif": None, "jpeg2000": None, "psd": None,
    }  # fmt: skip
    weights: dict[str, tuple[Mutation, ...]] = {
        "safetensors": (mutations.safetensors,), "pth": (mutations.archive,), "h5": (mutations.hdf5,),
        "mat": (mutations.mat,), "npz": (mutations.archive,),
    }  # fmt: skip
    found = {}
    for name, knowing in pictures.items():
        found[name] = Reader(
            f".{name}", read=read_picture, **_of_bytes(getattr(seeds, name), *filter(None, (knowing,)))
        )
    for name, ways in weights.items():
        found[name] = Reader(f".{name}", read=read_weights, **_of_bytes(getattr(seeds, name), *ways))
    for name, kind in films.makers().items():
        found[f"film-{name}"] = Reader(f".{name}", read=read_film, **_of_bytes(kind))
    found["toml"] = Reader(
        ".toml", read=read_toml, **_of_bytes(seeds.toml, mutations.token, mutations.token, mutations.line)
    )
    found["settings"] = Reader(
        ".png",
        make_picture_settings,
        read_picture_settings,
        lambda: [seeds.with_json(t, "PNG") for t in seeds.settings_json()],
    )
    found["checkpoint"] = Reader(".ckpt", make_checkpoint, read_checkpoint, checkpoint_seeds)
    found["options"] = Reader(".json", make_options, read_options, lambda: [b'["stylize", "--size=64"]'])
    return found


READERS = _readers()
SHARES = {
    "options": 8,
    "settings": 3,
    "checkpoint": 3,
    "toml": 2,
    "safetensors": 2,
    "mat": 2,
    "h5": 2,
}  # of inputs; others: 1


def make(name: str, seed: int) -> bytes:
    """Input ``seed`` of a reader; -1, -2, ... are the undamaged files."""
    if seed < 0:
        return reader(name).seeds()[-1 - seed]
    return reader(name).make(Random(f"{name} {seed}"))


def reader(name: str) -> Reader:
    from .trials import TRIAL_READERS

    return {**READERS, **TRIAL_READERS}[name]

"""Bad input: the right exit code, one line on stderr that names what was wrong, nothing left behind."""

from __future__ import annotations

import errno
import os
import pickle
import re
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import pytest
import torch
from support.picture_files import FAST, save_picture

import fastnst
from fastnst.cli import demo
from fastnst.images import saving
from fastnst.run import memory_limits, memory_model

Run = Callable[..., tuple[int, str, str]]


def refused(run: Run, code: int, *arguments: object) -> str:
    """Run, and return the one line that stderr must hold."""
    found, out, err = run(*arguments)
    assert (found, out) == (code, ""), err
    assert err.count("\n") == 1
    assert err.endswith("\n")
    assert err.startswith("fastnst: error: ")
    assert "Traceback" not in err
    return err


def not_an_image(path: Path) -> None:
    path.write_text("hello, this is no image\n")


def truncated(path: Path) -> None:
    save_picture(path, 40, 40)
    path.write_bytes(path.read_bytes()[:200])


def bomb(path: Path) -> None:
    """A PNG that says it has 3.6e9 pixels."""
    save_picture(path, 40, 40)
    data = bytearray(path.read_bytes())
    data[16:24] = struct.pack(">2I", 60_000, 60_000)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    path.write_bytes(data)


def no_pixels(path: Path) -> None:
    save_picture(path, 40, 40)
    data = bytearray(path.read_bytes())
    data[16:20] = struct.pack(">I", 0)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    path.write_bytes(data)


FILES: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (lambda path: None, "no such file"),
    "not an image": (not_an_image, "not an image"),
    "empty": (Path.touch, "empty"),
    "truncated": (truncated, "damaged or truncated"),
    "bomb": (bomb, "60000"),
    "no pixels": (no_pixels, r"0 (x|pixel)|damaged|2 x 2"),
    "one pixel wide": (lambda path: save_picture(path, 40, 1), "1 x 40"),
    "a folder": (Path.mkdir, "is a folder"),
    "a pipe": (os.mkfifo, "not a regular file"),
}


@pytest.mark.parametrize("role", ["content", "style", "start"])
@pytest.mark.parametrize("case", FILES)
def test_a_file_that_is_not_a_picture(
    run: Run, here: Path, tmp_path: Path, content: Path, style: Path, case: str, role: str
) -> None:
    make, words = FILES[case]
    bad = tmp_path / "bad.png"
    make(bad)
    first, second = bad if role == "content" else content, bad if role == "style" else style
    start = ("--init", bad) if role == "start" else ()
    code = 2 if role == "start" and case == "missing" else 1
    line = refused(run, code, "stylize", first, second, "-o", "out.png", *FAST, *start)
    assert "bad.png" in line
    if code == 1:
        assert re.search(words, line)
    assert list(here.iterdir()) == []


def forbidding(target: str) -> Callable[[pytest.MonkeyPatch], None]:
    """What the system says without permission. Simulated: the tests may run as a user who may do everything."""

    def forbid(monkeypatch: pytest.MonkeyPatch) -> None:
        if target == "read":

            def closed(self: Path, *_: object, **__: object) -> object:
                raise PermissionError(errno.EACCES, "Permission denied", str(self))

            monkeypatch.setattr(Path, "open", closed)
        else:
            access = os.access
            monkeypatch.setattr(os, "access", lambda path, mode: not mode & os.W_OK and access(path, mode))

    return forbid


@pytest.mark.parametrize(("target", "words"), [("read", "no permission to read"), ("write", "no permission to write")])
def test_no_permission(
    run: Run, here: Path, content: Path, style: Path, monkeypatch: pytest.MonkeyPatch, target: str, words: str
) -> None:
    forbidding(target)(monkeypatch)
    assert words in refused(run, 1, "stylize", content, style, "-o", "out.png", *FAST)
    assert list(here.iterdir()) == []


def test_no_permission_to_write_a_gallery(
    run: Run, here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_picture(tmp_path / "content_1.png", 40, 40)
    save_picture(tmp_path / "style_1.png", 40, 40)
    forbidding("write")(monkeypatch)
    assert "no permission to write" in refused(run, 1, "gallery", tmp_path, "-o", "out", *FAST)
    assert list(here.iterdir()) == []


@pytest.mark.parametrize(
    ("output", "code", "words"),
    [
        ("out.xyz", 2, r"expected a name ending in \.png"),
        ("out.jpgg", 2, "did you mean .jpe?g"),
        ("out", 2, "expected a name ending in"),
        ("", 2, "expected a name ending in"),
        ("no/such/folder/out.png", 1, "there is no folder"),
        ("folder.png", 1, "is a folder"),
        ("x" * 300 + ".png", 1, "File name too long"),
    ],
)
def test_an_invalid_output(
    run: Run, here: Path, content: Path, style: Path, output: str, code: int, words: str
) -> None:
    (here / "folder.png").mkdir()
    assert re.search(words, refused(run, code, "stylize", content, style, "-o", output, *FAST))
    assert [path.name for path in here.iterdir()] == ["folder.png"]


@pytest.mark.parametrize("command", ["stylize", "snapshot", "gallery", "demo"])
def test_a_full_disk(
    run: Run,
    here: Path,
    tmp_path: Path,
    content: Path,
    style: Path,
    monkeypatch: pytest.MonkeyPatch,
    command: str,
) -> None:
    save_picture(tmp_path / "content_1.png", 40, 40)
    save_picture(tmp_path / "style_1.png", 40, 40)

    def full(stream: BinaryIO, *_: object) -> None:
        stream.write(bytes(100))
        raise OSError(errno.ENOSPC, "No space left on device", stream.name)

    monkeypatch.setattr(saving, "_encode", full)
    monkeypatch.setattr(demo, "PHOTO", content)
    monkeypatch.setattr(demo, "PAINTING", style)
    arguments: dict[str, tuple[object, ...]] = {
        "stylize": ("stylize", content, style, "-o", "out.png", *FAST),
        "snapshot": ("stylize", content, style, "-o", "out.png", *FAST, "--snapshot-every", 1),
        "gallery": ("gallery", tmp_path, "-o", "out", *FAST, "--preset", "default"),
        "demo": ("demo", "--size", 32, "--steps", 1, "-o", here),
    }
    code, out, err = run(*arguments[command], "--quiet")
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert "no space left on the disk" in err
    assert list(here.iterdir()) == []


@pytest.mark.parametrize(
    "option",
    [
        *(f"--{name}={value}" for name in ("content-weight", "style-weight", "tv-weight") for value in ("nan", -1)),
        *(f"--{name}={value}" for name in ("learning-rate", "style-scale") for value in ("nan", 0, "inf", "-inf")),
        *(f"--{name}={value}" for name in ("steps", "scales", "history") for value in (0, -3, 2**64)),
        "--size=1",
        "--size=0",
        "--crop=-5",
        "--seed=-1",
        f"--seed={2**63}",
        "--snapshot-every=-1",
        "--steps=ten",
        "--steps=1.5",
        "--learning-rate=fast",
        "--style-layers=relu1_1:nan",
        "--style-layers=relu1_1:-2",
        "--style-layers=relu1_1:heavy",
        "--style-layers=",
        "--optimizer=sgd",
        "--precision=float8",
        "--graph=sometimes",
        "--pooling=median",
        "--padding=mirror",
        "--preset=gatis",
        "--init=contents",
        "--device=gpu",
        "--device=cuda:99",
        "--nonsense",
        "--steps",
    ],
)
def test_an_invalid_value(run: Run, here: Path, content: Path, style: Path, option: str) -> None:
    line = refused(run, 2, "stylize", content, style, "-o", "out.png", *FAST, option)
    name = option.partition("=")[0].removeprefix("--")
    assert name.replace("-", "") in re.sub("[-_]", "", line)
    assert list(here.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--content-weight", "0", "--style-weight", "0"), "nothing to optimize"),
        (("--size", "64", "--crop", "64"), "one of the two"),
        (("--style-layers", "relu1_9"), "'relu1_9'.*did you mean relu1_"),
        (("--content-layers", "rleu4_2"), "'rleu4_2'.*did you mean relu4_2"),
        (("--preset", "gatis"), "did you mean gatys"),
        (("--optimizer", "adm"), "did you mean adam"),
        (("--pooling", "avrage"), "did you mean average"),
        (("--init", "noize"), "did you mean noise"),
        (("--stlye-weight", "1"), "did you mean --style-weight"),
        (("--weights", "vgg19-torchvison"), "did you mean vgg19-torchvision"),
    ],
)
def test_a_mistyped_name_is_reported_with_the_nearest_valid_one(
    run: Run, here: Path, content: Path, style: Path, options: tuple[str, ...], words: str
) -> None:
    assert re.search(words, refused(run, 2, "stylize", content, style, "-o", "out.png", *FAST, *options))
    assert list(here.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "expected a command"),
        (("stylise", "a", "b"), "stylise"),
        (("stylize", "a"), "STYLE"),
        (("gallery", "a", "b"), "'b'"),
        (("gallery",), "DIR"),
        (("weights", "fetch"), "NAME"),
        (("weights", "fetch", "vgg91"), "did you mean vgg"),
        (("gallery", ".", "--pairs", "random"), "pairing|contains no"),
    ],
)
def test_an_invalid_command(run: Run, here: Path, arguments: tuple[str, ...], words: str) -> None:
    code = 1 if "random" in arguments else 2
    assert re.search(words, refused(run, code, *arguments))
    assert list(here.iterdir()) == []


def test_smaller_than_the_deepest_layer_needs(run: Run, here: Path, tmp_path: Path, style: Path) -> None:
    content = save_picture(tmp_path / "wide.png", 20, 200)
    options = ("--size", "48", "--steps", "1", "--content-layers", "relu4_2", "--style-layers", "relu1_1")
    line = refused(run, 2, "stylize", content, style, "-o", "out.png", *options)
    assert "wide.png: image of 48x5 pixels is too small for layer relu4_2: it needs at least 8" in line
    assert list(here.iterdir()) == []


def test_a_preset_whose_weights_are_not_available(run: Run, here: Path, content: Path, style: Path) -> None:
    options = ("--preset", "tutorial", "--content-layers", "relu4_2")
    line = refused(run, 1, "stylize", content, style, "-o", "out.png", *options)
    assert "VGG-16" in line
    assert "--weights" in line
    assert list(here.iterdir()) == []


@pytest.mark.parametrize("size", [1500, 10**5, 10**6])
@pytest.mark.sweep(3)
def test_out_of_memory_says_a_size_that_does_fit(
    run: Run, here: Path, content: Path, style: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    monkeypatch.setattr(memory_limits, "available", lambda device: int(memory_model.MODEL["loading"]) + 8 * 2**20)
    monkeypatch.setattr(memory_model, "WORKSPACE", 2**20)
    monkeypatch.setattr(memory_model, "SHARED", 0)
    line = refused(run, 1, "stylize", content, style, "-o", "out.png", *FAST, "--size", size, "--tiles", "off")
    assert "out of memory" in line
    fits = re.search(r"--size (\d+) would fit", line)
    assert fits is not None
    assert list(here.iterdir()) == []
    assert run("stylize", content, style, "-o", "out.png", *FAST, "--size", fits[1], "--tiles", "off")[0] == 0


def test_an_allocation_that_fails_says_so(
    run: Run, here: Path, content: Path, style: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr("fastnst.run.scene.SceneLoader.style", fails)
    assert "out of memory" in refused(run, 1, "stylize", content, style, "-o", "out.png", *FAST)


def empty_pickle(path: Path) -> None:
    torch.save({"a": 1}, path)


def code_in_a_pickle(path: Path) -> None:
    path.write_bytes(b"cos\nsystem\n(S'touch ran'\ntR.")


def few_layers(path: Path) -> None:
    torch.save({"features.0.weight": torch.zeros(64, 3, 3, 3), "features.0.bias": torch.zeros(64)}, path)


@pytest.mark.parametrize(
    ("name", "make", "words"),
    [
        ("missing.pth", lambda path: None, "missing.pth"),
        ("text.pth", not_an_image, "text.pth"),
        ("text.safetensors", not_an_image, "text.safetensors"),
        ("text.npz", not_an_image, "text.npz"),
        ("other.pth", empty_pickle, "other.pth"),
        ("code.pth", code_in_a_pickle, "code.pth"),
        ("few.pth", few_layers, "conv1_2"),
        ("what.xyz", not_an_image, "what.xyz"),
    ],
)
def test_a_wrong_weights_file(
    run: Run,
    here: Path,
    tmp_path: Path,
    content: Path,
    style: Path,
    name: str,
    make: Callable[[Path], object],
    words: str,
) -> None:
    make(tmp_path / name)
    arguments = ("stylize", content, style, "-o", "out.png", *FAST, "--weights", tmp_path / name)
    assert words in refused(run, 1, *arguments)
    assert list(here.iterdir()) == []


def test_an_unexpected_error_is_one_line(run: Run, content: Path, style: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise ZeroDivisionError("so\nsurprising")

    monkeypatch.setattr("fastnst.run.scene.SceneLoader.style", fails)
    arguments = ("stylize", content, style, "-o", "out.png", *FAST)
    line = refused(run, 1, *arguments)
    assert line == ("fastnst: error: ZeroDivisionError: so surprising; run again with --debug for the traceback\n")
    code, _, err = run(*arguments, "--debug")
    assert code == 1
    assert err.startswith("Traceback (most recent call last)")
    assert err.endswith(line)
    assert run("--debug", *arguments)[2].startswith("Traceback")


def test_debug_shows_the_traceback_of_an_expected_error_too(run: Run, style: Path) -> None:
    code, _, err = run("stylize", "missing.png", style, "-o", "out.png", "--debug")
    assert code == 1
    assert err.startswith("Traceback")
    assert "ImageError" in err


def test_running_out_of_memory_is_any_of_three_errors(content: Path, style: Path) -> None:
    kinds = (fastnst.OutOfMemoryError, MemoryError, torch.OutOfMemoryError)
    for kind in kinds:
        with pytest.raises(kind, match=r"out of memory at .* would fit") as caught:
            fastnst.stylize(content, style, size=4000, memory=2**29, tiles="off")
        assert all(isinstance(caught.value, one) for one in kinds)
        assert type(pickle.loads(pickle.dumps(caught.value))) is type(caught.value)


@pytest.mark.parametrize("change", [("--style-scale", "100"), ("--style-size", "1000000")])
def test_a_style_picture_too_large_is_refused_before_it_is_made(
    run: Run, here: Path, content: Path, style: Path, change: tuple[str, str]
) -> None:
    options = ("--size", "1000", "--memory", "4GB", "--steps", "1", *change)
    line = refused(run, 1, "stylize", content, style, "-o", "out.png", *options)
    assert "use a smaller --style-scale or --style-size" in line
    assert list(here.iterdir()) == []

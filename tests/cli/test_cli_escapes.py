"""Text from foreign files reaches the terminal and TOML files as printable characters in single lines."""

from __future__ import annotations

import io
import json
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, PngImagePlugin
from support.picture_files import FAST, save_picture

import fastnst
from fastnst.cli.output import Results, messages
from fastnst.cli.progress import GalleryBar
from fastnst.config import load_settings, save_settings
from fastnst.config.settings import Settings
from fastnst.errors import UsageError, printable, shown

Run = Callable[..., tuple[int, str, str]]
NASTY = "a\x1b[31mb\nc\rd\x9be\u202ef\u2028g\x07\x7f"
BAD = [char for char in NASTY if not char.isprintable()]
SHA = "0" * 64


def clean(text: str) -> bool:
    return not any(char in text.replace("\n", "") for char in BAD)


def carrying(path: Path, facts: dict[str, Any]) -> Path:
    """A picture whose settings were not written by fastnst."""
    text = PngImagePlugin.PngInfo()
    text.add_text("fastnst", json.dumps(facts))
    Image.new("RGB", (8, 8)).save(path, pnginfo=text)
    return path


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("plain é 漢 'x' \\", "plain é 漢 'x' \\"),
        ("\x1b[0m", "\\x1b[0m"),
        ("a\nb\tc", "a\\x0ab\\x09c"),
        ("\x9b\x85\u2028", "\\x9b\\x85\\u2028"),
        ("\u202eabc\u2066", "\\u202eabc\\u2066"),
        ("\udc9b\ud800", "\\udc9b\\ud800"),
        ("x" * 201, "x" * 197 + "..."),
        ("x" * 200, "x" * 200),
    ],
)
def test_text_is_made_printable(text: str, found: str) -> None:
    assert printable(text) == found
    found.encode()


def test_every_value_can_be_shown() -> None:
    nest: list[Any] = []
    for _ in range(100_000):
        nest = [nest]
    for value in (10**5000, {"a": 10**5000}, nest, NASTY, None):
        assert shown(value).isprintable()
        assert len(shown(value)) <= 80
    while nest:  # or its end would be as deep a recursion
        nest = nest.pop()


FACTS: list[dict[str, Any]] = [
    {NASTY: 1},
    {"init": NASTY},
    {"weights": f"{NASTY}.pth"},
    {"arch": NASTY},
    {"style_layers": [[NASTY, 1.0]]},
    {"style_layers": [[NASTY, -1.0]]},
    {"style_layers": {NASTY: NASTY}},
    {"optimizer": NASTY},
    {"preset": NASTY},
    {"device": NASTY},
    {"style_loss": NASTY},
    {"pooling": NASTY},
    {"fastnst": NASTY, "more": 1},
    {"fastnst": "9" + NASTY, "more": 1},
    {"files": {NASTY: {"name": "a.png", "sha256": SHA}}},
    {"files": {"content": {"name": NASTY, "sha256": SHA}}},
    {"files": {"content": {"name": "a.png", "sha256": SHA[:-1] + "\n"}}},
    {"files": {"content": {"name": "a.png", "sha256": NASTY}}},
    {"files": {"content": {"name": "a.png", "sha256": SHA.upper() + "\x1b"}}},
    {"files": NASTY},
    {"size": NASTY},
]


@pytest.mark.parametrize("number", range(len(FACTS)))
@pytest.mark.parametrize("debug", [False, True])
def test_no_picture_writes_to_the_terminal(
    run: Run, here: Path, content: Path, style: Path, number: int, debug: bool
) -> None:
    picture = carrying(here / "a.png", {"fastnst": fastnst.__version__, **FACTS[number]})
    more = ("--debug",) if debug else ()
    for words in (
        ("settings", picture),
        ("settings", picture, "--json"),
        ("stylize", "--like", picture, "-o", "b.png"),
        ("stylize", content, style, "--settings", picture, *FAST, "-o", "b.png"),
    ):
        code, out, err = run(*words, *more)
        assert clean(out), words
        assert clean(err.replace("\r", "")), words  # that of a bar
        if code and not debug:
            assert err.count("\n") == 1


def test_each_comment_of_the_settings_is_a_line_and_the_rest_is_toml(run: Run, here: Path) -> None:
    files = {"content": {"name": NASTY, "sha256": SHA}, "style": {"name": "é.png", "sha256": SHA}}
    carrying(here / "a.png", {"init": f"{NASTY}.png", "style_layers": [[NASTY, 1.0]], "files": files})
    code, out, _ = run("settings", "a.png")
    assert code == 0
    assert clean(out)
    comments = [line for line in out.splitlines() if line.startswith("#")]
    assert [line.partition(":")[0] for line in comments] == ["# content", "# style"]
    assert comments[1] == f'# style: "é.png", sha256 {SHA}'
    (here / "a.toml").write_text(out, encoding="utf-8")
    found = load_settings("a.toml")
    assert found.init == f"{NASTY}.png"
    assert found.style_layers == ((NASTY, 1.0),)


@pytest.mark.parametrize("text", [NASTY, "\x80\x9f", "\u200e\u2069", "\U000e0001", "plain"])
def test_toml_holds_the_text_without_control_characters(here: Path, text: str) -> None:
    settings = Settings.from_preset(init=text, style_layers=[(text, 1.0)])
    path = save_settings(here / "a.toml", settings)
    assert path.read_text(encoding="utf-8").replace("\n", "").isprintable()
    assert load_settings(path) == settings


def test_text_that_toml_cannot_represent_is_refused(run: Run, here: Path) -> None:
    with pytest.raises(UsageError, match=r"a\.toml: TOML cannot represent '\\udc9b' in a setting"):
        save_settings(here / "a.toml", Settings.from_preset(init="\udc9b"))
    carrying(here / "a.png", {"init": "\udc9b.png"})
    code, out, err = run("settings", "a.png")
    assert (code, out, err.count("\n")) == (2, "", 1)


def test_errors_and_messages_are_printable_whatever_raised_them(
    run: Run, content: Path, style: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        logging.getLogger("fastnst").warning("%s", NASTY)
        raise ZeroDivisionError(NASTY)

    monkeypatch.setattr("fastnst.run.scene.SceneLoader.style", fails)
    for more in ((), ("--debug",)):
        code, out, err = run("stylize", content, style, "-o", "out.png", *FAST, *more)
        assert (code, out) == (1, "")
        assert clean(err)
        assert "a\\x1b[31mb" in err


def test_names_of_files_are_printable_in_errors_and_bars(
    run: Run, here: Path, style: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    code, _, err = run("stylize", f"{NASTY}.png", style, "-o", "out.png")
    assert code == 1
    assert clean(err)
    bar = GalleryBar(quiet=False)
    bar.show(0.5, f"pair 1/2 {NASTY}")
    bar.close(NASTY)
    assert clean(capfd.readouterr().err.replace("\r", ""))


def test_paths_are_printable_on_a_terminal_and_exact_in_a_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    for stream, shows in ((Terminal(), printable(NASTY)), (io.StringIO(), NASTY)):
        monkeypatch.setattr(sys, "stdout", stream)
        Results(as_json=False).add(Path(NASTY))
        assert stream.getvalue() == f"{shows}\n"


def test_messages_are_cut(capfd: pytest.CaptureFixture[str]) -> None:
    with messages(quiet=False):
        logging.getLogger("fastnst").warning("x" * 10_000)
    assert len(capfd.readouterr().err) < 5000


def test_metadata_of_weights_is_escaped(run: Run, here: Path) -> None:
    import torch
    from safetensors.torch import save_file

    from fastnst.weights.layout import conv_shapes

    shapes = {name: shape for name, shape in conv_shapes("vgg19").items() if name <= "conv2_1"}
    tensors = {f"{name}.weight": torch.zeros(shape) for name, shape in shapes.items()}
    tensors |= {f"{name}.bias": torch.zeros(shape[0]) for name, shape in shapes.items()}
    nasty = dict.fromkeys(("name", "license", "source", "arch", "note"), NASTY)
    save_file({**tensors, f"more{NASTY}": torch.zeros(3)}, here / "w.safetensors", nasty)
    for more in ((), ("--json",)):
        _, out, err = run("weights", "show", "w.safetensors", *more)
        assert clean(out)
        assert clean(err)


def test_a_gallery_of_nasty_names_is_printable(run: Run, here: Path) -> None:
    folder = here / "in"
    folder.mkdir()
    save_picture(folder / "content_1\x1b[31m\n.png", 40, 40)
    save_picture(folder / "style_1.png", 40, 40)
    (folder / "content_2\x1b.png").write_text("none")
    _, out, err = run("gallery", folder, "-o", here / "out", "--preset", "default", *FAST)
    assert clean(out)
    assert clean(err.replace("\r", ""))

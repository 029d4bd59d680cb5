"""Numbers out of range are refused with the range: in options, settings files, pictures, and from Python."""

from __future__ import annotations

import json
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, PngImagePlugin
from support.commands import settings_from
from support.picture_files import FAST, save_picture

from fastnst.cli.arguments import parse_arguments
from fastnst.config import load_settings, toml
from fastnst.config.parsing import parse_layers
from fastnst.config.ranges import RANGES, Range
from fastnst.config.settings import Settings
from fastnst.errors import UsageError

Run = Callable[..., tuple[int, str, str]]
DIGITS = "9" * 5000
SINGLE = [name for name in RANGES if not name.endswith(("layers", "weights")) and name not in ("betas",)]


def option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def refused(run: Run, *words: object) -> str:
    code, out, err = run(*words)
    assert (code, out, err.count("\n")) == (2, "", 1), err
    assert err.startswith("fastnst: error: ")
    assert len(err) < 600
    return err


@pytest.mark.parametrize("value", [DIGITS, "-" + DIGITS, "1e300", "1e999", "nan", "0x10", "1_0_", ""])
@pytest.mark.parametrize("name", [name for name in SINGLE if name != "noise"])  # which has no option
def test_an_option_out_of_range_says_the_range(run: Run, here: Path, name: str, value: str) -> None:
    line = refused(run, "stylize", "a.png", "b.png", f"{option(name)}={value}")
    expected = "expected an amount" if name == "memory" and f"{RANGES[name]}" not in line else f"{RANGES[name]}"
    assert expected in line
    assert name in line
    assert list(here.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ("--style-layers", "relu?_1:1e300*1e300"),
            "weight of relu1_1: expected a finite number of at least 0 and at most",
        ),
        (("--style-layers", "relu?_1:1*1e300"), "weight of relu2_1: expected a finite number"),
        (("--style-layers", f"relu1_1:{DIGITS}"), "weight of relu1_1: expected a finite number"),
        (("--style-layers", "relu1_1," * 200 + "pool1"), "style_layers: expected at most 100 entries, got 201"),
        (("--style-weights", "1e31"), "style_weights: expected a finite number of at least 0 and at most 1e+30"),
        (("--betas", f"0,{DIGITS}"), "betas: expected a finite number of at least 0 and below 1"),
        (("--steps", f"5,{DIGITS}"), "steps: expected a whole number of at least 1 and at most 1000000"),
        (("--steps", ",".join(["5"] * 200)), "steps: expected at most 100 entries, got 200"),
        (("--scales", ",".join(map(str, range(2, 200)))), "scales: expected at most 100 entries, got 198"),
        (("--scales", "64,10000000"), "scales: expected a whole number of at least 2 and at most 1000000"),
        (("--memory", DIGITS + "GB"), "memory '9999"),
        (("--memory", "9" * 400 + "TB"), "expected a whole number of at least 1048576 and at most 1152921504606846976"),
        (("--memory", "0.1"), "memory: expected a whole number of at least 1048576"),
        (
            ("--checkpoint", "a", "--checkpoint-every", DIGITS),
            "checkpoint_every: expected a whole number of at least 1",
        ),
        (("--checkpoint", "."), "checkpoint '.': expected the name of a file"),
        (("--checkpoint", ""), "checkpoint '': expected the name of a file"),
        (("--checkpoint", "a\0b"), r"checkpoint 'a\x00b': expected the name of a file"),
        (("--checkpoint", "/"), "checkpoint '/': expected the name of a file"),
        (("--tiles=" + DIGITS,), "unknown tiles '999"),
        (("--plan", "--size", "999999999999999"), "size: expected a whole number of at least 2 and at most 1000000"),
    ],
)
def test_what_is_too_large_is_one_line(
    run: Run, here: Path, content: Path, style: Path, words: tuple[str, ...], said: str
) -> None:
    assert said in refused(run, "stylize", content, style, "-o", "out.png", *FAST, *words)
    assert list(here.iterdir()) == []


def test_a_checkpoint_with_too_long_a_name_is_one_line(run: Run, here: Path, content: Path, style: Path) -> None:
    code, _, err = run("stylize", content, style, "-o", "out.png", *FAST, "--checkpoint", "x" * 250)
    assert (code, err.count("\n"), list(here.iterdir())) == (1, 1, [])
    assert "cannot be written (File name too long)" in err


@pytest.mark.parametrize("words", [("--size", DIGITS), ("--steps", "0"), ("--size", "ten")])
def test_the_demo_has_the_same_ranges(run: Run, here: Path, words: tuple[str, ...]) -> None:
    assert f"{words[0][2:]}: expected a whole number of at least" in refused(run, "demo", *words)
    assert list(here.iterdir()) == []


@pytest.mark.parametrize("number", ["9" * 400, "-" + "9" * 400, DIGITS, "0x" + "f" * 9000, "1e400", "nan", "inf"])
@pytest.mark.parametrize("name", [*SINGLE, "betas", "style_weights", "style_layers"])
def test_a_number_too_large_in_a_file_is_one_line(tmp_path: Path, name: str, number: str) -> None:
    path = tmp_path / "a.toml"
    value = {"style_layers": f"{{ relu1_1 = {number} }}", "betas": f"[0.5, {number}]", "style_weights": f"[{number}]"}
    path.write_text(f"{name} = {value.get(name, number)}\n")
    with pytest.raises(UsageError) as caught:
        load_settings(path)
    said = str(caught.value)
    assert said.startswith(f"{path}: ")
    assert said.isprintable()
    assert len(said) < len(str(path)) + 400
    assert "expected" in said or "a number with too many digits" in said


@pytest.mark.parametrize("value", [10**400, -(10**400), 1e300, [[[10**400]]], {"a": 10**400}])
@pytest.mark.parametrize("name", ["seed", "steps", "style_weight", "style_layers", "size"])
def test_a_number_too_large_in_a_picture_is_one_line(tmp_path: Path, name: str, value: Any) -> None:
    path = tmp_path / "a.png"
    text = PngImagePlugin.PngInfo()
    text.add_text("fastnst", json.dumps({name: value}))
    Image.new("RGB", (8, 8)).save(path, pnginfo=text)
    with pytest.raises(UsageError, match=rf"a\.png: .*{name}: .*expected") as caught:
        load_settings(path)
    assert str(caught.value).isprintable()


def test_deeply_nested_values_in_files_are_one_line(tmp_path: Path) -> None:
    for depth in (50, 400, 900):
        path = tmp_path / "a.toml"
        path.write_text(f"style_layers = {'[' * depth}{']' * depth}\n")
        with pytest.raises(UsageError, match=r"a\.toml: "):
            load_settings(path)
    path.write_text("[style_layers]\n" + "".join(f"a{i} = 1\n" for i in range(60_000)))
    with pytest.raises(UsageError, match="expected at most 100 entries, got 60000"):
        load_settings(path)


@pytest.mark.parametrize("name", SINGLE)
def test_both_ends_of_a_range_are_accepted_and_nothing_beyond(name: str) -> None:
    allowed = RANGES[name]
    step = 1 if allowed.whole else 1e-9
    ends = [("least", allowed.least, -step), ("most", allowed.most, step)]
    for end, value, beyond in ends:
        inside = value if end not in allowed.open else (value - beyond)
        number = int(inside) if allowed.whole else inside
        changes: dict[str, Any] = {name: number}
        if name not in ("content_weight", "style_weight"):
            assert getattr(Settings.from_preset(**changes), name) == number
        outside = value if end in allowed.open else value + (beyond if allowed.whole else beyond * max(1.0, abs(value)))
        with pytest.raises(UsageError, match=f"{name}"):
            Settings.from_preset(**{name: int(outside) if allowed.whole else outside})


NUMPY = [np.int64(128), np.int8(64), np.uint16(128), 128]


@pytest.mark.parametrize("value", NUMPY)
def test_whole_numbers_of_other_types_are_stored_plain(value: Any) -> None:
    settings = Settings.from_preset(
        size=value, steps=[value, value], tiles=value, seed=value, style_layers=[("relu1_1", value)]
    )
    for found in (settings.size, *settings.steps, settings.tiles, settings.seed):  # type: ignore[misc]
        assert (type(found), found) == (int, int(value))
    assert settings.style_layers == (("relu1_1", float(value)),)
    assert json.loads(json.dumps(settings.to_dict()))["size"] == int(value)


@pytest.mark.parametrize("value", [np.float32(0.5), np.float64(0.5), np.float16(0.5), Fraction(1, 2), 0.5])
def test_numbers_of_other_types_are_stored_plain(value: Any) -> None:
    settings = Settings.from_preset(style_weight=value, betas=(value, value), average=value, style_weights=[value])
    for found in (settings.style_weight, *settings.betas, settings.average, *settings.style_weights):
        assert (type(found), found) == (float, 0.5)
    toml.to_toml(settings)


@pytest.mark.parametrize(
    "value",
    [True, np.bool_(True), 1j, Fraction(10**400, 3), "3", b"3", torch.tensor(3), np.array(3), np.float32("nan")],
)
def test_values_that_are_not_numbers_are_refused(value: Any) -> None:
    for name in ("seed", "steps", "style_weight", "tiles"):
        with pytest.raises(UsageError, match=name):
            Settings.from_preset(**{name: value})


def test_a_device_and_paths_are_stored_as_text(tmp_path: Path) -> None:
    settings = Settings.from_preset(device=torch.device("cuda", 1), init=tmp_path / "a.png", weights=tmp_path / "b.pth")
    assert (settings.device, settings.init, settings.weights) == (
        "cuda:1",
        str(tmp_path / "a.png"),
        str(tmp_path / "b.pth"),
    )
    assert Settings.from_preset(init=Path("noise")).init == "./noise"  # a file, not the start of that name
    assert Settings.from_preset(init="noise").init == "noise"
    assert type(Settings.from_preset(pooling=np.str_("max")).pooling) is str
    for name in ("init", "weights"):
        with pytest.raises(UsageError, match=f"{name}: expected a name"):
            Settings.from_preset(**{name: "a\0b"})


def test_a_range_as_text() -> None:
    assert str(Range(1, 1000)) == "a whole number of at least 1 and at most 1000"
    assert str(Range(0, 1, whole=False, open="most")) == "a finite number of at least 0 and below 1"
    assert str(Range(0, 1e6, whole=False, open="least")) == "a finite number above 0 and at most 1e+06"
    assert Range(1, 1000).short() == "1 to 1000"
    assert Range(0, 2**63 - 1).short() == "0 to 2^63 - 1"
    assert Range(0, 1, whole=False, open="most").short() == "at least 0 and below 1"
    assert Range(0, 1e6, whole=False, open="least").short() == "above 0 and at most 1e+06"


def test_none_asks_for_the_contents_own_size() -> None:
    assert settings_from("--size", "none") == Settings.from_preset(size=None)
    assert settings_from("--preset", "tutorial", "--size", "none").crop is None
    assert settings_from("--memory", "none", "--max-pixels", "none") == Settings()
    assert settings_from() == Settings()


def test_none_is_refused_for_numbers_that_are_required(run: Run) -> None:
    for name in ("--steps", "--seed", "--history"):
        assert "expected a whole number" in refused(run, "stylize", "a", "b", name, "none")


def test_size_none_gives_the_size_of_the_content(run: Run, here: Path, content: Path, style: Path) -> None:
    assert run("stylize", content, style, "-o", "a.png", *FAST, "--size", "none", "-q")[0] == 0
    with Image.open(here / "a.png") as image, Image.open(content) as whole:
        assert image.size == whole.size


@pytest.mark.parametrize(
    "words",
    [
        ("--preset", "tutorial"),
        ("--weights", "vgg16-torchvision"),
        ("--settings", "vgg16.toml"),
    ],
)
def test_patterns_name_layers_of_the_network_in_effect(here: Path, words: tuple[str, ...]) -> None:
    (here / "vgg16.toml").write_text('arch = "vgg16"\n')
    names = [name for name, _ in settings_from(*words, "--style-layers", "relu3_*").style_layers]
    assert names == ["relu3_1", "relu3_2", "relu3_3"]
    assert settings_from("--style-layers", "relu3_*").style_layers[-1][0] == "relu3_4"
    assert parse_layers("relu3_*", "vgg16")[-1][0] == "relu3_3"


def test_patterns_name_layers_of_the_network_in_a_file(here: Path) -> None:
    from safetensors.torch import save_file

    from fastnst.weights.layout import conv_shapes

    shapes = {name: shape for name, shape in conv_shapes("vgg16").items() if name <= "conv4_1"}
    tensors = {f"{name}.weight": torch.zeros(shape) for name, shape in shapes.items()}
    tensors |= {f"{name}.bias": torch.zeros(shape[0]) for name, shape in shapes.items()}
    save_file(tensors, here / "w.safetensors")
    found = settings_from("--weights", "w.safetensors", "--style-layers", "relu3_*").style_layers
    assert [name for name, _ in found] == ["relu3_1", "relu3_2", "relu3_3"]


def test_a_picture_after_tiles_is_not_its_value(run: Run, here: Path, content: Path, style: Path) -> None:
    assert run("stylize", "--tiles", content, style, "-o", "a.png", *FAST, "-q")[0] == 0
    assert dict(load_settings(here / "a.png").tiles)  # type: ignore[arg-type] # strips, of the rows that were used
    for words, tiles in (
        (("--tiles", "32"), 32),
        (("--tiles", "off"), "off"),
        (("--tiles", "-q"), "on"),
        (("--tiles",), "on"),
        (("--tiles=48",), 48),
    ):
        assert settings_from(*words).tiles == tiles
    assert "unrecognized argument 'large'" in refused(run, "stylize", content, style, "-o", "b.png", "--tiles", "large")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--mask", "m.png", "photo.png", "painting.png"), "required: CONTENT, STYLE; --mask took all names after it"),
        (
            ("photo.png", "--style-mask", "m.png", "painting.png"),
            "required: STYLE; --style-mask took all names after it",
        ),
        (("photo.png", "painting.png", "--mask", "m.png", "extra.png"), "2 masks for 1 style"),
    ],
)
def test_the_error_says_that_mask_options_took_the_pictures(
    run: Run, here: Path, words: tuple[str, ...], said: str
) -> None:
    for name in ("m.png", "photo.png", "painting.png", "extra.png"):
        save_picture(here / name, 40, 40)
    assert said in refused(run, "stylize", *words, "-o", "out.png", *FAST)


def test_masks_may_be_named_one_by_one(here: Path) -> None:
    words = ["stylize", "a", "b", "c", "--mask", "m1", "--style-mask", "s1", "--mask", "m2", "--style-mask", "s2"]
    options = parse_arguments(words)
    assert (options.mask, options.style_mask) == (["m1", "m2"], ["s1", "s2"])
    assert parse_arguments(["stylize", "a", "b"]).mask == []


@pytest.mark.parametrize("words", [("-x.png", "s.png"), ("s.png", "-x.png"), ("s.png", "s.png", "-o", "-x.png")])
def test_a_name_that_begins_with_a_dash_says_how_to_give_it(run: Run, words: tuple[str, ...]) -> None:
    line = refused(run, "stylize", *words)
    assert "for the file of this name write ./-x.png" in line
    assert "did you mean" not in line


def test_an_address_is_shown_as_it_was_given(run: Run, style: Path) -> None:
    line = refused(run, "stylize", "https://example.org/a.jpg", style)
    assert "https://example.org/a.jpg: expected a file for the content, got an address; download it first" in line
    assert "ftp://b/c.png: expected a file for the style" in refused(
        run, "stylize", style, "ftp://b/c.png", "-o", "a.png"
    )

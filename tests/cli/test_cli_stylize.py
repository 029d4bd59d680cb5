"""``fastnst stylize``: what is written, what is said and where."""

from __future__ import annotations

import dataclasses
import io
import json
import logging
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from PIL import Image
from support.commands import settings_from
from support.picture_files import FAST, LAYERS, save_picture
from tqdm import tqdm

from fastnst import cli, images
from fastnst.cli.output import messages
from fastnst.config.presets import PRESETS
from fastnst.config.ranges import RANGES
from fastnst.config.settings import Settings
from fastnst.images import saving
from fastnst.objective.whole import Objective

Run = Callable[..., tuple[int, str, str]]


def size(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        return image.width, image.height


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tif"])
def test_the_result_is_written_and_its_path_is_all_of_stdout(
    run: Run, here: Path, content: Path, style: Path, suffix: str
) -> None:
    code, out, err = run("stylize", content, style, "-o", f"out.{suffix}", *FAST)
    assert (code, out) == (0, f"out.{suffix}\n")
    assert images.load(here / f"out.{suffix}").pixels.shape == (1, 3, 36, 48)
    assert [path.name for path in here.iterdir()] == [f"out.{suffix}"]
    assert "step 2/2  loss" in err
    assert "left" in err


def test_a_missing_folder_is_created_with_parents(run: Run, here: Path, content: Path, style: Path) -> None:
    code, out, err = run("stylize", content, style, "-o", "one/two/out.png", *FAST)
    assert (code, out) == (1, "")
    assert "one/two/out.png: there is no folder one/two; make it first, or pass parents=True (--parents)" in err
    assert not (here / "one").exists()
    code, out, _ = run("stylize", content, style, "-o", "one/two/out.png", "--parents", "--snapshot-every", "1", *FAST)
    assert (code, out.splitlines()[-1]) == (0, "one/two/out.png")
    assert sorted(path.name for path in (here / "one" / "two").iterdir()) == ["out.png", "out_0001.png", "out_0002.png"]


def test_a_linked_output_is_written_at_its_target(run: Run, here: Path, content: Path, style: Path) -> None:
    (here / "link.png").symlink_to("real.png")
    code, out, _ = run("stylize", content, style, "-o", "link.png", *FAST)
    assert (code, out) == (0, "link.png\n")
    assert (here / "link.png").is_symlink()
    assert images.read_settings(here / "real.png") is not None


def test_quiet_says_nothing_but_the_path(run: Run, content: Path, style: Path) -> None:
    code, out, err = run("stylize", content, style, "-o", "out.png", "--preset", "tutorial", *FAST, "--quiet")
    assert (code, out, err) == (0, "out.png\n", "")


def test_a_preset_that_falls_back_on_other_weights_says_so(run: Run, content: Path, style: Path) -> None:
    code, _, err = run("stylize", content, style, "-o", "out.png", "--preset", "tutorial", *FAST)
    assert code == 0
    assert err.startswith("fastnst: warning: no VGG-16 weights given")


def test_json_is_one_object_with_the_facts_of_the_run(run: Run, content: Path, style: Path) -> None:
    code, out, _ = run("stylize", content, style, "-o", "out.png", *FAST, "--json", "--tv-weight", "0.5")
    facts = json.loads(out)
    assert code == 0
    assert facts["paths"] == ["out.png"]
    assert (facts["size"], facts["steps"], facts["stopped"]) == ([48, 36], 2, None)
    losses = facts["losses"]
    assert set(losses["style"]) == {"relu1_1", "relu2_1"}
    assert set(losses["content"]) == {"relu2_1"}
    parts = [*losses["style"].values(), *losses["content"].values(), losses["tv"]]
    assert losses["total"] == pytest.approx(sum(parts))
    assert losses["tv"] > 0
    assert facts["settings"]["tv_weight"] == 0.5
    assert facts["seconds"] > 0
    assert facts["peak_memory"] > 2**20


def test_the_settings_are_in_the_file(run: Run, here: Path, content: Path, style: Path) -> None:
    run("stylize", content, style, "-o", "out.png", *FAST, "--seed", "7")
    written = images.read_settings(here / "out.png")
    settings = json.loads(json.dumps(settings_from(*FAST, "--seed", "7").to_dict()))
    assert written is not None
    assert {name: written[name] for name in settings} == settings
    assert written.keys() - settings.keys() == {"fastnst", "files"}


def test_without_o_the_name_is_made_of_both_and_replaced_only_with_force(
    run: Run, here: Path, content: Path, style: Path
) -> None:
    assert run("stylize", content, style, *FAST)[:2] == (0, "photo_painting.png\n")
    before = (here / "photo_painting.png").read_bytes()
    code, out, err = run("stylize", content, style, *FAST, "--steps", "3")
    assert (code, out) == (2, "")
    assert "--force" in err
    assert (here / "photo_painting.png").read_bytes() == before
    assert run("stylize", content, style, *FAST, "--steps", "3", "--force")[0] == 0
    assert (here / "photo_painting.png").read_bytes() != before


def test_o_replaces_a_file(run: Run, here: Path, content: Path, style: Path) -> None:
    (here / "out.png").write_text("old")
    assert run("stylize", content, style, "-o", "out.png", *FAST)[0] == 0
    assert size(here / "out.png") == (48, 36)


def test_an_input_is_never_replaced(run: Run, content: Path, style: Path) -> None:
    for picture in (content, style):
        before = picture.read_bytes()
        code, _, err = run("stylize", content, style, "-o", picture, *FAST)
        assert code == 2
        assert "as well, and would replace it; name another file" in err
        assert picture.read_bytes() == before


def test_snapshots_count_steps_over_all_scales_and_have_the_final_size(
    run: Run, here: Path, content: Path, style: Path
) -> None:
    options = ("--crop", "128", "--scales", "2", "--steps", "2", "--snapshot-every", "1", *LAYERS)
    code, out, err = run("stylize", content, style, "-o", "out.jpg", *options)
    names = ["out_0001.jpg", "out_0002.jpg", "out_0003.jpg", "out_0004.jpg", "out.jpg"]
    assert (code, out.split()) == (0, names)
    assert {size(here / name) for name in names} == {(128, 128)}
    assert (here / "out_0002.jpg").read_bytes() != (here / "out_0003.jpg").read_bytes()
    assert "scale 2/2 step 2/2" in err


def test_transparency_is_restored(run: Run, tmp_path: Path, here: Path, style: Path) -> None:
    content = save_picture(tmp_path / "clear.png", 48, 48, channels=4)
    assert run("stylize", content, style, "-o", "out.png", *FAST, "--snapshot-every", "1")[0] == 0
    for name in ("out.png", "out_0001.png"):
        with Image.open(here / name) as image:
            assert image.getpixel((2, 2))[3] == 0
            assert image.getpixel((45, 2))[3] == 255


def test_a_start_picture_is_used_at_the_contents_size(run: Run, tmp_path: Path, content: Path, style: Path) -> None:
    start = save_picture(tmp_path / "start.png", 30, 90, seed=5)
    outcomes = [
        run("stylize", content, style, "-o", "out.png", *FAST, "--json", "--steps", "1", "--init", init)
        for init in (str(start), "content")
    ]
    totals = [json.loads(out)["losses"]["content"]["relu2_1"] for _, out, _ in outcomes]
    assert totals[0] > 0
    assert totals[1] == 0


@pytest.mark.parametrize(
    ("option", "text", "field", "value"),
    [
        ("--size", "300", "size", 300),
        ("--crop", "200", "crop", 200),
        ("--steps", "7", "steps", 7),
        ("--scales", "3", "scales", 3),
        ("--seed", "9", "seed", 9),
        ("--optimizer", "adam", "optimizer", "adam"),
        ("--learning-rate", "0.5", "learning_rate", 0.5),
        ("--history", "5", "history", 5),
        ("--history-dtype", "bfloat16", "history_dtype", "bfloat16"),
        ("--content-weight", "2", "content_weight", 2.0),
        ("--style-weight", "1e3", "style_weight", 1000.0),
        ("--tv-weight", "1e-3", "tv_weight", 1e-3),
        ("--content-layers", "relu3_1:2", "content_layers", (("relu3_1", 2.0),)),
        ("--style-layers", "relu1_1, pool2:0.5", "style_layers", (("relu1_1", 1.0), ("pool2", 0.5))),
        ("--style-scale", "1.5", "style_scale", 1.5),
        ("--init", "noise", "init", "noise"),
        ("--pooling", "l2", "pooling", "l2"),
        ("--padding", "replicate", "padding", "replicate"),
        ("--weights", "net.pth", "weights", "net.pth"),
        ("--device", "cpu", "device", "cpu"),
        ("--precision", "float32", "precision", "float32"),
        ("--graph", "off", "graph", "off"),
        ("--snapshot-every", "10", "snapshot_every", 10),
        ("--preset", "johnson", "style_form", "johnson"),
    ],
)
def test_an_option_becomes_a_setting(option: str, text: str, field: str, value: object) -> None:
    assert getattr(settings_from(option, text), field) == value


@pytest.mark.parametrize("preset", PRESETS)
def test_what_is_not_given_is_the_presets(preset: str) -> None:
    assert settings_from("--preset", preset) == Settings.from_preset(preset)
    assert settings_from("--preset", preset, "--seed", "3") == dataclasses.replace(Settings.from_preset(preset), seed=3)


@pytest.mark.parametrize(("command", "preset"), [("stylize", "default"), ("gallery", "tutorial")])
def test_the_help_shows_the_presets_defaults(command: str, preset: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main([command, "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert ended.value.code == 0
    for name in ("steps", "optimizer", "pooling", "learning_rate", "style_weight"):
        option = name.replace("_", "-")
        line = text[text.rindex(f" --{option} ") :]
        assert f"default: {getattr(Settings.from_preset(preset), name)})" in line[: line.index(")") + 1]
    for name in PRESETS:
        assert f" {name}: " in text


def test_the_help_shows_range_and_unit_of_every_setting_with_an_option(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["stylize", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    for name, allowed in RANGES.items():
        option = f" --{name.replace('_', '-')} "
        if option not in text or name.endswith("layers"):
            continue
        unit = Settings.__dataclass_fields__[name].metadata["unit"]
        line = text[text.rindex(option) :]
        assert f"({allowed.short()}{' ' * bool(unit)}{unit}; default: " in line[: line.index(")") + 1]


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith("fastnst 0.")


def test_messages_are_on_lines_of_their_own_beside_a_bar(capsys: pytest.CaptureFixture[str]) -> None:
    log = logging.getLogger("fastnst")
    with messages(quiet=False), tqdm(total=2, file=sys.stderr) as bar:
        bar.update()
        log.warning("first\nsecond")
        log.info("shown")
    with messages(quiet=True):
        log.warning("unheard")
    log.warning("unheard too")
    lines = capsys.readouterr().err.replace("\r", "\n").split("\n")
    assert "fastnst: warning: first second" in lines
    assert "fastnst: shown" in lines
    assert not any("unheard" in line for line in lines)


def test_ctrl_c_while_loading_writes_nothing(
    run: Run, here: Path, content: Path, style: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fastnst.run.scene.SceneLoader.style", lambda *_: signal.raise_signal(signal.SIGINT))
    assert run("stylize", content, style, "-o", "out.png", *FAST) == (130, "", "fastnst: interrupted\n")
    assert list(here.iterdir()) == []


def test_ctrl_c_before_the_first_step_keeps_the_old_result(
    run: Run, here: Path, content: Path, style: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any) -> Any:
        raise KeyboardInterrupt

    (here / "out.png").write_text("old")
    monkeypatch.setattr(Objective, "value_and_grad", interrupted)
    assert run("stylize", content, style, "-o", "out.png", *FAST) == (130, "", "fastnst: interrupted\n")
    assert (here / "out.png").read_text() == "old"


def test_ctrl_c_between_scales_saves_the_coarse_scale_at_full_size(
    run: Run, here: Path, content: Path, style: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = Objective, []

    def second_interrupts(*arguments: Any, **options: Any) -> Any:
        calls.append(arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*arguments, **options)

    monkeypatch.setattr("fastnst.run.scene_run.Objective", second_interrupts)
    options = ("--crop", "128", "--scales", "2", "--steps", "2", *LAYERS)
    code, out, err = run("stylize", content, style, "-o", "out.png", *options)
    assert (code, out) == (130, "out.png\n")
    assert err.endswith("fastnst: interrupted; the result so far has been saved\n")
    assert size(here / "out.png") == (128, 128)


def test_ctrl_c_while_saving_does_not_cost_the_result(
    run: Run, here: Path, content: Path, style: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode = saving._encode

    def interrupted(stream: BinaryIO, *rest: Any) -> None:
        whole = io.BytesIO()
        encode(whole, *rest)
        data = whole.getvalue()
        stream.write(data[: len(data) // 2])
        signal.raise_signal(signal.SIGINT)
        stream.write(data[len(data) // 2 :])

    monkeypatch.setattr(saving, "_encode", interrupted)
    code, out, _ = run("stylize", content, style, "-o", "out.png", *FAST)
    assert (code, out) == (130, "out.png\n")
    assert size(here / "out.png") == (48, 36)
    assert [path.name for path in here.iterdir()] == ["out.png"]

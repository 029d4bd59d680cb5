"""``fastnst.gallery``: folders in, folders out."""

from __future__ import annotations

import dataclasses
import errno
import json
import logging
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from PIL import Image
from support.picture_files import LAYERS, save_picture

from fastnst import __version__, gallery, images
from fastnst.config.parsing import parse_layers
from fastnst.config.settings import Settings
from fastnst.errors import ImageError, OutOfMemoryError, UsageError
from fastnst.gallery import contact_sheet, making
from fastnst.images import saving
from fastnst.objective.targets import style_targets
from fastnst.optim.loop import optimize
from fastnst.run.scene import SceneLoader
from fastnst.run.stylizer import Stylizer

SETTINGS = Settings.from_preset(
    "tutorial",
    crop=32,
    steps=2,
    snapshot_every=0,
    content_layers=parse_layers(LAYERS[1]),
    style_layers=parse_layers(LAYERS[3]),
)


def tree(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def names(report: gallery.Report) -> list[tuple[str, str, str]]:
    return [(made.pair.folder.name, made.pair.content.name, made.pair.style.name) for made in report.made]


def contents(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in tree(folder)}


def test_every_pair_gets_a_folder_with_its_pictures(pictures: Path, out: Path) -> None:
    report = gallery.run(pictures, out, dataclasses.replace(SETTINGS, steps=5, snapshot_every=2))
    files = ("content.jpg", "gen_2.jpg", "gen_4.jpg", "gen_5.jpg", "pair.json", "style.jpg")
    assert tree(out) == [*(f"gen_{i}/{name}" for i in range(4) for name in files), "sheet.jpg"]
    assert names(report) == [
        ("gen_0", "content_1.jpg", "style_1.webp"),
        ("gen_1", "content_1.jpg", "STYLE_2.TIF"),
        ("gen_2", "content_2.png", "style_1.webp"),
        ("gen_3", "content_2.png", "STYLE_2.TIF"),
    ]
    for picture in out.glob("gen_*/*.jpg"):
        with Image.open(picture) as image:
            assert image.size == (32, 32)
    assert report.made[3].picture == out / "gen_3" / "gen_5.jpg"
    assert (report.failed, report.stopped, report.sheet) == ({}, None, out / "sheet.jpg")


def test_the_record_says_what_a_pair_was_made_from(pictures: Path, out: Path) -> None:
    report = gallery.run(pictures, out, SETTINGS, pairing="order")
    record = json.loads((out / "gen_0" / "pair.json").read_text())
    assert (record["content"]["name"], record["style"]["name"]) == ("content_1.jpg", "style_1.webp")
    assert (record["result"], record["steps"]) == ("gen_2.jpg", 2)
    assert record["losses"]["total"] > 0
    assert record["settings"] == json.loads(json.dumps(SETTINGS.to_dict()))
    carried = images.read_settings(out / "gen_0" / "gen_2.jpg")
    assert carried is not None
    files = carried.pop("files")
    assert carried.pop("fastnst") == __version__
    assert carried == record["settings"]
    assert files == {
        part: {"name": f"../../pictures/{record[part]['name']}", "sha256": record[part]["sha256"]}
        for part in ("content", "style")
    }
    assert report.made[0].record == record


def test_the_first_snapshot_is_between_content_and_result(pictures: Path, out: Path) -> None:
    gallery.run(pictures, out, dataclasses.replace(SETTINGS, steps=6, snapshot_every=1), pairing="order")
    start = images.load(out / "gen_0" / "content.jpg").pixels
    away = [(images.load(out / "gen_0" / f"gen_{i}.jpg").pixels - start).square().mean().item() for i in range(1, 7)]
    assert 0 < away[0] < away[-1]


def test_snapshots_of_scales_count_on_and_have_the_final_size(pictures: Path, out: Path) -> None:
    settings = dataclasses.replace(SETTINGS, crop=128, scales=2, steps=2, snapshot_every=1)
    gallery.run(pictures, out, settings, pairing="order")
    for i in range(1, 5):
        with Image.open(out / "gen_0" / f"gen_{i}.jpg") as image:
            assert image.size == (128, 128)


def test_the_targets_of_a_style_are_computed_once(pictures: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, calls = style_targets, []

    def counted(*arguments: Any) -> Any:
        calls.append(arguments)
        return real(*arguments)

    monkeypatch.setattr("fastnst.run.targets.style_targets", counted)
    gallery.run(pictures, out, SETTINGS)
    assert len(calls) == 2


def test_square_pictures_of_the_crops_own_size_work(tmp_path: Path, out: Path) -> None:
    save_picture(tmp_path / "content_1.jpg", 32, 32)
    save_picture(tmp_path / "style_1.jpg", 32, 32, seed=1)
    assert len(gallery.run(tmp_path, out, SETTINGS).made) == 1


def test_size_keeps_the_shape_of_each_content(pictures: Path, out: Path) -> None:
    report = gallery.run(pictures, out, dataclasses.replace(SETTINGS, crop=None, size=48), pairing="order")
    shapes = [tuple(images.load(made.picture).pixels.shape[2:]) for made in report.made]
    assert shapes == [(32, 48), (48, 38)]


def paths(*names: str) -> list[Path]:
    return [Path(name) for name in names]


def test_names_are_sorted_by_their_numbers(tmp_path: Path) -> None:
    for name in ("content_10.jpg", "content_2.PNG", "Content_1.jpeg", "content_b.bmp", "style_1.tiff"):
        (tmp_path / name).touch()
    found = [path.name for path in gallery.find(tmp_path)[0]]
    assert found == ["Content_1.jpeg", "content_2.PNG", "content_10.jpg", "content_b.bmp"]


@pytest.mark.parametrize(
    ("pairing", "expected"),
    [
        ("product", ["ax", "ay", "bx", "by", "cx", "cy"]),
        ("order", ["ax", "by", "cx"]),
    ],
)
def test_pairings(pairing: str, expected: list[str]) -> None:
    pairs = gallery.pair_up(paths("a", "b", "c"), paths("x", "y"), pairing, seed=0)
    assert [f"{content}{style}" for content, style in pairs] == expected


def test_shuffled_pairs_follow_the_seed_and_use_every_picture() -> None:
    contents, styles = paths(*"abcdefgh"), paths(*"xyz")
    drawn = {seed: gallery.pair_up(contents, styles, "shuffle", seed) for seed in range(5)}
    assert len({tuple(pairs) for pairs in drawn.values()}) == 5
    for seed, pairs in drawn.items():
        assert pairs == gallery.pair_up(contents, styles, "shuffle", seed)
        assert sorted(content for content, _ in pairs) == contents
        assert {style for _, style in pairs} == set(styles)
    # Written down once: the same on every machine and in every version of Python.
    assert [f"{c}{s}" for c, s in gallery.pair_up(paths("a", "b", "c"), paths("x", "y", "z"), "shuffle", 0)] == SHUFFLED


SHUFFLED = ["cx", "bz", "ay"]


def test_an_unknown_pairing_suggests_the_nearest() -> None:
    with pytest.raises(UsageError, match="did you mean shuffle"):
        gallery.pair_up(paths("a"), paths("b"), "shuffel", 0)


def test_a_broken_picture_is_reported_once_and_skipped_with_its_pairs(
    pictures: Path, out: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (pictures / "content_0.png").write_text("no image")
    (pictures / "style_0.png").write_bytes((pictures / "content_2.png").read_bytes()[:100])
    with caplog.at_level(logging.WARNING, "fastnst"):
        report = gallery.run(pictures, out, SETTINGS)
    messages = [record.getMessage() for record in caplog.records if "skipped" in record.getMessage()]
    assert len(messages) == 2
    assert "content_0.png" in messages[0]
    assert "style_0.png" in messages[1]
    assert len(report.made) == 4
    assert len(report.failed) == 5
    assert {made.pair.folder.name for made in report.made} == {"gen_4", "gen_5", "gen_7", "gen_8"}
    assert not (out / "gen_0").exists()
    # Mended, its pairs get the numbers that were theirs.
    save_picture(pictures / "content_0.png", 40, 40, seed=9)
    again = gallery.run(pictures, out, SETTINGS)
    assert [made.pair.folder.name for made in again.made] == ["gen_1", "gen_2", "gen_4", "gen_5", "gen_7", "gen_8"]


def test_a_pair_whose_run_fails_is_skipped(
    pictures: Path, out: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Stylizer.run

    def fails(self: Any, scene: Any, **rest: Any) -> Any:
        if scene.content.path.name == "content_1.jpg" and scene.styles[0].picture.path.name == "style_1.webp":
            raise OutOfMemoryError("out of memory")
        return real(self, scene, **rest)

    monkeypatch.setattr(Stylizer, "run", fails)
    with caplog.at_level(logging.WARNING, "fastnst"):
        report = gallery.run(pictures, out, SETTINGS)
    assert "content_1 + style_1: out of memory; skipped" in caplog.text
    assert [made.pair.folder.name for made in report.made] == ["gen_1", "gen_2", "gen_3"]
    assert not (out / "gen_0").exists()


def forbid_making(monkeypatch: pytest.MonkeyPatch) -> None:
    def made_again(*_: Any) -> None:
        raise AssertionError("nothing is to be made")

    monkeypatch.setattr(making, "Stylizer", made_again)


def test_finished_pairs_are_not_made_again(pictures: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gallery.run(pictures, out, SETTINGS)
    before = contents(out)
    forbid_making(monkeypatch)
    for other in ({"device": "cpu"}, {"seed": 3}, {"preset": "default"}):  # which change nothing here
        report = gallery.run(pictures, out, dataclasses.replace(SETTINGS, **other))
        assert all(made.kept for made in report.made)
        assert len(report.made) == 4
        assert contents(out) == before


def test_pairs_older_than_a_setting_were_made_with_its_default(
    pictures: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gallery.run(pictures, out, SETTINGS)
    for file in out.glob("gen_*/pair.json"):
        record = json.loads(file.read_text())
        del record["settings"]["average"], record["settings"]["keep_color"]
        file.write_text(json.dumps(record))
    forbid_making(monkeypatch)
    assert all(made.kept for made in gallery.run(pictures, out, SETTINGS).made)
    with pytest.raises(
        UsageError, match=r"gen_0 and 3 more: .*made before with other files or settings \(average was 0.0, is 0.5\)"
    ):
        gallery.run(pictures, out, dataclasses.replace(SETTINGS, average=0.5))


@pytest.mark.parametrize("change", ["settings", "content", "style"])
def test_finished_pairs_with_other_settings_are_replaced_only_with_force(
    pictures: Path, out: Path, change: str
) -> None:
    gallery.run(pictures, out, SETTINGS)
    before = contents(out)
    settings = dataclasses.replace(SETTINGS, steps=3) if change == "settings" else SETTINGS
    if change == "content":
        save_picture(pictures / "content_1.jpg", 40, 40, seed=7)
    if change == "style":
        save_picture(pictures / "style_1.webp", 40, 40, seed=7)
    reason = "steps was 2, is 3" if change == "settings" else "has changed"
    more = {"settings": 3, "content": 1, "style": 1}[change]
    with pytest.raises(UsageError, match=rf"gen_0 and {more} more: .*{reason}.*--force"):
        gallery.run(pictures, out, settings)
    assert contents(out) == before
    report = gallery.run(pictures, out, settings, force=True)
    assert not any(made.kept for made in report.made)
    assert contents(out) != before
    assert not [path for path in out.iterdir() if path.name.startswith(".")]
    assert ("gen_0/gen_2.jpg" in tree(out)) == (change != "settings")


def test_a_pair_keeps_its_number_when_pictures_are_added(pictures: Path, out: Path) -> None:
    first = names(gallery.run(pictures, out, SETTINGS, pairing="order"))
    (out / "gen_3").mkdir()  # somebody else's
    save_picture(pictures / "content_0.png", 40, 40, seed=5)
    second = names(gallery.run(pictures, out, SETTINGS))
    assert set(first) < set(second)
    assert [folder for folder, *_ in second] == ["gen_2", "gen_4", "gen_0", "gen_5", "gen_6", "gen_1"]
    assert tree(out / "gen_3") == []


@pytest.mark.parametrize("damage", ["no record", "half a record", "no result"])
def test_an_incomplete_folder_is_not_a_finished_pair(pictures: Path, out: Path, damage: str) -> None:
    gallery.run(pictures, out, SETTINGS, pairing="order")
    if damage == "no result":
        (out / "gen_0" / "gen_2.jpg").unlink()
    else:
        (out / "gen_0" / "pair.json").write_text("{" if damage == "half a record" else "[]")
    report = gallery.run(pictures, out, SETTINGS, pairing="order")
    assert [(made.pair.folder.name, made.kept) for made in report.made] == [("gen_2", False), ("gen_1", True)]


@pytest.mark.parametrize("when", ["in a step", "while loading", "while saving"])
def test_ctrl_c_leaves_complete_pairs_and_their_sheet(
    pictures: Path, out: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    def interrupt(turn: gallery.PairProgress, step: Any) -> None:
        if when == "in a step" and turn.number == 3:
            raise KeyboardInterrupt

    real_load, real_save = SceneLoader.content, images.save

    def load(self: Any, source: Any) -> Any:
        if when == "while loading" and source.name == "content_2.png":
            raise KeyboardInterrupt
        return real_load(self, source)

    def save(path: Any, *arguments: Any, **options: Any) -> Any:
        if when == "while saving" and path.name == "gen_2.jpg" and ".gen_2." in path.parent.name:
            raise KeyboardInterrupt
        return real_save(path, *arguments, **options)

    monkeypatch.setattr(SceneLoader, "content", load)
    monkeypatch.setattr(images, "save", save)
    report = gallery.run(pictures, out, SETTINGS, callback=interrupt)
    assert report.stopped == "interrupt"
    assert [made.pair.folder.name for made in report.made] == ["gen_0", "gen_1"]
    assert sorted(path.name for path in out.iterdir()) == ["gen_0", "gen_1", "sheet.jpg"]
    monkeypatch.undo()
    again = gallery.run(pictures, out, SETTINGS)
    assert [(made.pair.folder.name, made.kept) for made in again.made] == [
        ("gen_0", True),
        ("gen_1", True),
        ("gen_2", False),
        ("gen_3", False),
    ]


def test_ctrl_c_still_shows_the_pairs_of_earlier_runs(
    pictures: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gallery.run(pictures, out, SETTINGS)
    save_picture(pictures / "content_0.png", 40, 40)

    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(making, "Stylizer", interrupted)
    finished: list[gallery.PairResult] = []
    report = gallery.run(pictures, out, SETTINGS, finished=finished.append)
    assert len(report.made) == 4
    assert finished == report.made


def test_a_callback_that_returns_true_ends_its_pair(pictures: Path, out: Path) -> None:
    settings = dataclasses.replace(SETTINGS, steps=50)
    report = gallery.run(pictures, out, settings, pairing="order", callback=lambda turn, step: step.step == 3)
    assert [made.picture.name for made in report.made] == ["gen_3.jpg", "gen_3.jpg"]


def test_the_result_has_the_highest_number_though_a_scale_stalled(
    pictures: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = optimize

    def stalls(*arguments: Any, **options: Any) -> Any:
        run = real(*arguments, **options)
        return run if arguments[3].scale == 2 else dataclasses.replace(run, trace=run.trace[:1], stopped="stalled")

    monkeypatch.setattr("fastnst.run.scene_run.optimize", stalls)
    settings = dataclasses.replace(SETTINGS, crop=128, scales=2, steps=3, snapshot_every=1)
    report = gallery.run(pictures, out, settings, pairing="order")
    assert [made.picture.name for made in report.made] == ["gen_6.jpg", "gen_6.jpg"]
    assert report.made[0].record["steps"] == 4


def test_a_disk_that_is_full_ends_the_run_with_the_finished_pairs_whole(
    pictures: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode = saving._encode

    def full(stream: BinaryIO, *rest: Any) -> None:
        path = Path(stream.name)
        if ".gen_1." in path.parent.name and "style" in path.name:
            raise OSError(errno.ENOSPC, "No space left on device", stream.name)
        encode(stream, *rest)

    monkeypatch.setattr(saving, "_encode", full)
    with pytest.raises(ImageError, match="no space left"):
        gallery.run(pictures, out, SETTINGS)
    assert [path.name for path in out.iterdir()] == ["gen_0"]


@pytest.mark.parametrize(("pairing", "rows"), [("product", 3), ("order", 2)])
def test_the_sheet_shows_every_pair(pictures: Path, out: Path, pairing: str, rows: int) -> None:
    gallery.run(pictures, out, SETTINGS, pairing=pairing)
    with Image.open(out / "sheet.jpg") as image:
        # three columns: contents and two styles, or content, style and result
        assert 3 * 320 < image.width < 3.3 * 320
        assert rows * 320 < image.height < (rows + 0.5) * 320


@pytest.mark.parametrize("grid", [True, False])
def test_the_sheet_of_very_many_pairs_stays_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, grid: bool) -> None:
    monkeypatch.setattr(contact_sheet, "PIXELS", 0.3e6)
    folder = tmp_path / "gen_0"
    folder.mkdir()
    for name in ("content.jpg", "style.jpg", "gen_1.jpg"):
        save_picture(folder / name, 16, 160)
    made = [
        gallery.PairResult(
            gallery.Pair(Path(f"content_{i}.jpg"), Path("style_1.jpg"), folder), folder / "gen_1.jpg", {}, False
        )
        for i in range(60)
    ]
    with Image.open(contact_sheet.write_sheet(tmp_path / "sheet.jpg", made, grid=grid)) as image:
        assert image.width * image.height < 3.5 * 0.3e6  # pictures three times as wide as high, and the gaps


def test_every_known_suffix_is_accepted_and_other_pictures_are_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    names = ["content_1.heic", "content_2.NEF", "content_3.avif", "content_4.gif", "style_1.jp2", "style_2.jpg"]
    left = ["content_5.svg", "style_3.JXL"]
    for name in [*names, *left, "content_notes.txt", "other.svg"]:
        (tmp_path / name).touch()
    contents, styles = gallery.find(tmp_path)
    assert [path.name for path in (*contents, *styles)] == names
    assert [record.getMessage() for record in caplog.records] == [
        f"{tmp_path}: skipped pictures of unsupported formats: content_5.svg, style_3.JXL"
    ]

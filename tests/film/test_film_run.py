"""Films from end to end: what is made, what remains after an end at any moment, and what is refused."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import signal
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from bench.film.films import FILMS
from fastnst import Settings, images
from fastnst.config.film import FilmSettings
from fastnst.errors import FastnstError, ImageError, UsageError
from fastnst.film import FilmInfo, FilmProgress, FilmRequest, FilmWriter, open_film, read_film_settings, stylize_film
from fastnst.film.making import ShotMaker
from fastnst.optim.progress import Step

SETTINGS = Settings.from_preset(
    size=64,
    steps=3,
    scales=1,
    content_layers=(("relu2_1", 1.0),),
    style_layers=(("relu1_1", 1.0), ("relu2_1", 1.0)),
)
FILM = FilmSettings(next_steps=2)
COUNT = 3  # frames of each shot


def shot(name: str, count: int = COUNT) -> list[Tensor]:
    return FILMS[name](count, 48, 64).frames


def write(path: Path, frames: list[Tensor], **info: Any) -> Path:
    height, width = frames[0].shape[-2:]
    codec = "ffv1" if path.suffix == ".mkv" else None
    with FilmWriter(path, FilmInfo(width, height, Fraction(12), **info), codec=codec) as writer:
        for i, frame in enumerate(frames):
            alpha = frame[:, :1] * 0 + 0.5 if info.get("has_alpha") else None
            writer.add(frame, alpha, time=Fraction(i, 12), duration=Fraction(1, 12))
    return path


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a film of two shots, two styles and masks, which is the current one."""
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "clip.mkv", [*shot("square"), *shot("pan")])
    for name, seed in (("style", 0), ("other", 1)):
        levels = np.random.default_rng(seed).integers(0, 255, (12, 16, 3), np.uint8)
        Image.fromarray(levels).resize((64, 48)).save(tmp_path / f"{name}.png")
    left = np.zeros((48, 64), np.uint8)
    left[:, :32] = 255
    Image.fromarray(left).save(tmp_path / "left.png")
    Image.fromarray(255 - left).save(tmp_path / "right.png")
    return tmp_path


def request(**changes: Any) -> FilmRequest:
    values = {"film": "clip.mkv", "styles": ("style.png",), "output": "out.mkv", "codec": "ffv1", "keep_frames": True}
    return FilmRequest(**{**values, **changes})


def frames(path: str | Path) -> list[Tensor]:
    with open_film(path) as film:
        return [frame.picture.pixels for frame in film]


def stored(folder: str, which: int = 1) -> list[bytes]:
    return [path.read_bytes() for path in sorted(Path(folder, f"pass_{which}").glob("*.png"))]


def test_a_film_is_styled_shot_by_shot(here: Path) -> None:
    seen: list[tuple[int, int, int, int]] = []

    def callback(progress: FilmProgress, step: Step) -> None:
        seen.append((progress.frame, progress.done, step.step, step.steps))
        assert progress.count == 2 * COUNT
        held = step.losses.temporal
        assert (held > 0) == (progress.frame % COUNT > 0 and step.step > 1) or progress.frame % COUNT > 0

    report = stylize_film(request(), SETTINGS, FILM, callback=callback)
    assert [(one.first, one.last) for one in report.shots] == [(0, COUNT), (COUNT, 2 * COUNT)]
    assert (report.frames, report.made, report.path) == (2 * COUNT, 2 * COUNT, Path("out.mkv"))
    # The first frame of a shot has the steps of a still, the others those of a film.
    assert [(frame, steps) for frame, _, step, steps in seen if step == 1] == [
        (i, 3 if i % COUNT == 0 else 2) for i in range(2 * COUNT)
    ]
    assert [done for frame, done, step, _ in seen if step == 1] == list(range(2 * COUNT))
    with open_film("clip.mkv") as before, open_film("out.mkv") as after:
        assert [frame.time for frame in before] == [frame.time for frame in after]
        assert before.info.frame_rate == after.info.frame_rate
        assert (after.info.width, after.info.height) == (64, 48)
    for frame, path in zip(frames("out.mkv"), sorted(Path("out.mkv.frames/pass_1").glob("*.png")), strict=True):
        assert torch.equal(frame, images.load(path).pixels)
    facts = read_film_settings("out.mkv")
    assert facts is not None
    assert facts["files"]["content"]["name"] == "clip.mkv"
    assert facts["steps"] == 3


def test_the_first_frame_is_that_of_a_still(here: Path) -> None:
    from fastnst import stylize

    stylize_film(request(), SETTINGS, FILM)
    still = stylize("out.mkv.frames/content/000000.png", "style.png", settings=SETTINGS)
    levels = (still.image * 255).round() / 255
    assert torch.equal(levels, frames("out.mkv")[0])


class Stop(Exception):
    pass


@pytest.mark.parametrize("at", [0, 1, 3, 5, 8, 12])
def test_a_film_that_was_ended_continues_with_the_same_bits(here: Path, at: int) -> None:
    film_settings = dataclasses.replace(FILM, lookback=(1, 2))
    stylize_film(request(output="whole.mkv"), SETTINGS, film_settings)
    left = at

    def stop(*_: object) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise Stop

    with pytest.raises(Stop):
        stylize_film(request(), SETTINGS, film_settings, callback=stop)
    assert not Path("out.mkv").exists()
    finished = len(stored("out.mkv.frames"))
    report = stylize_film(request(), SETTINGS, film_settings)
    assert report.made == 2 * COUNT - finished
    assert stored("out.mkv.frames") == stored("whole.mkv.frames")
    assert all(map(torch.equal, frames("out.mkv"), frames("whole.mkv")))


CHILD = """
import os, signal, sys
sys.path[:0] = {path!r}
import test_film_run as tests
left = {at}
def end(*_):
    global left
    left -= 1
    if left < 0: os.kill(os.getpid(), signal.SIGKILL)
tests.stylize_film(tests.request(), tests.SETTINGS, tests.FILM, callback=end)
"""


@pytest.mark.parametrize("at", [4, 9])
def test_a_film_that_was_killed_continues(here: Path, at: int) -> None:
    code = CHILD.format(path=[path for path in sys.path if path], at=at)
    child = subprocess.run([sys.executable, "-c", code], cwd=here, capture_output=True, timeout=300, check=False)
    assert child.returncode == -signal.SIGKILL, child.stderr.decode()
    assert not Path("out.mkv").exists()
    stylize_film(request(), SETTINGS, FILM)
    stylize_film(request(output="whole.mkv"), SETTINGS, FILM)
    assert stored("out.mkv.frames") == stored("whole.mkv.frames")


def test_the_folder_of_frames_is_removed_at_the_end(here: Path) -> None:
    stylize_film(request(keep_frames=False), SETTINGS, FILM)
    assert sorted(path.name for path in here.iterdir()) == [
        "clip.mkv", "left.png", "other.png", "out.mkv", "right.png", "style.png"
    ]  # fmt: skip


def test_frames_of_other_settings_are_refused(here: Path) -> None:
    stylize_film(request(), SETTINGS, FILM)
    before = stored("out.mkv.frames")
    for changed, reason in (
        ({"settings": SETTINGS.replace(style_weight=5.0)}, "style_weight"),
        ({"film_settings": dataclasses.replace(FILM, next_steps=1)}, "next_steps"),
        ({"request": request(styles=("other.png",))}, "style"),
    ):
        given: dict[str, Any] = {"request": request(), "settings": SETTINGS, "film_settings": FILM, **changed}
        with pytest.raises(UsageError, match=rf"out\.mkv\.frames: holds frames .* \({reason}\); .*--force"):
            stylize_film(**given)
        assert stored("out.mkv.frames") == before
    stylize_film(request(styles=("other.png",), force=True), SETTINGS, FILM)
    assert stored("out.mkv.frames") != before


def test_a_folder_of_something_else_is_left_alone(here: Path) -> None:
    Path("out.mkv.frames").mkdir()
    Path("out.mkv.frames/mine.txt").write_text("mine")
    for force in (False, True):
        with pytest.raises(UsageError, match=r"out\.mkv\.frames: exists and holds no frames of fastnst"):
            stylize_film(request(force=force), SETTINGS, FILM)
    assert Path("out.mkv.frames/mine.txt").read_text() == "mine"


def test_a_full_disk_loses_nothing(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("out.mkv").write_bytes(b"the film before")
    save, left = images.save, 8

    def full(path: Any, *arguments: Any, **options: Any) -> Path:
        nonlocal left
        left -= 1
        if left < 0:
            raise ImageError(f"{path}: cannot be written ({os.strerror(errno.ENOSPC)})")
        return save(path, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(images, "save", full)
        with pytest.raises(ImageError, match=r"pass_1/000002\.png: cannot be written \(No space left on device\)"):
            stylize_film(request(), SETTINGS, FILM)
    assert Path("out.mkv").read_bytes() == b"the film before"
    made = stored("out.mkv.frames")
    assert len(made) == 2
    assert stylize_film(request(), SETTINGS, FILM).made == 2 * COUNT - 2
    assert stored("out.mkv.frames")[:2] == made


def test_masks_may_be_films(here: Path) -> None:
    """The second mask is black in the last frame: that style has no weight there."""
    both, moving = ("style.png", "other.png"), []
    for i in range(2 * COUNT):
        mask = torch.zeros(1, 3, 48, 64)
        if i < 2 * COUNT - 1:
            mask[..., 8 * i : 8 * i + 24] = 1
        moving.append(mask)
    write(here / "mask.mkv", moving)
    stylize_film(request(styles=both, masks=("left.png", "mask.mkv")), SETTINGS, FILM)
    assert len(frames("out.mkv")) == 2 * COUNT
    alone = request(styles=both, masks=("left.png", "right.png"), output="still.mkv")
    stylize_film(alone, SETTINGS, FILM)
    assert stored("still.mkv.frames") != stored("out.mkv.frames")


@pytest.mark.parametrize("count", [2 * COUNT - 1, 2 * COUNT + 2])
def test_a_mask_film_of_another_length_is_refused(here: Path, count: int) -> None:
    write(here / "mask.mkv", [torch.ones(1, 3, 48, 64)] * count)
    with pytest.raises(UsageError, match=rf"mask mask\.mkv: has {count} frames, but the film has {2 * COUNT}"):
        stylize_film(request(masks=("mask.mkv",)), SETTINGS, FILM)
    assert not Path("out.mkv").exists()


def test_shots_from_a_file_have_their_own_styles_and_settings(here: Path) -> None:
    Path("shots.toml").write_text(
        '[[shot]]\nfirst = 0\n[[shot]]\nfirst = 4\nstyle = ["other.png"]\n[shot.settings]\nsteps = 1\n'
    )
    seen: dict[int, int] = {}
    report = stylize_film(
        request(shots="shots.toml"), SETTINGS, FILM, callback=lambda p, s: seen.update({p.frame: s.steps})
    )
    assert [one.first for one in report.shots] == [0, 4]
    assert seen == {0: 3, 1: 2, 2: 2, 3: 2, 4: 1, 5: 2}


@pytest.mark.parametrize("passes", [2, 3])
def test_several_passes_go_to_and_fro(here: Path, passes: int) -> None:
    order: list[tuple[int, int]] = []
    film_settings = dataclasses.replace(FILM, passes=passes, shots="off")
    stylize_film(
        request(),
        SETTINGS,
        film_settings,
        callback=lambda p, s: order.append((p.which, p.frame)) if s.step == 1 else None,
    )
    count = 2 * COUNT
    expected = [(which, i if which % 2 else count - 1 - i) for which in range(1, passes + 1) for i in range(count)]
    assert order == expected
    assert (torch.stack(frames("out.mkv")) * 255).round().byte().numpy().tobytes() == b"".join(
        (images.load(f"out.mkv.frames/pass_{passes}/{i:06d}.png").pixels * 255).round().byte().numpy().tobytes()
        for i in range(count)
    )


def test_a_part_of_a_film(here: Path) -> None:
    report = stylize_film(request(frames=(1, 5)), SETTINGS, FILM)
    assert report.frames == 4
    assert [(one.first, one.last) for one in report.shots] == [(0, 2), (2, 4)]
    with open_film("out.mkv") as film:
        assert [frame.time for frame in film] == [Fraction(i, 12) for i in range(4)]
    with pytest.raises(UsageError, match=r"clip\.mkv: has no frame 6, got frames 2:9"):
        stylize_film(request(frames=(2, 9), output="more.mkv"), SETTINGS, FILM)


def test_colors_of_the_film_are_kept(here: Path) -> None:
    stylize_film(request(), SETTINGS.replace(keep_color="yiq"), FILM)
    yiq = torch.tensor([[0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])
    for frame, path in zip(frames("out.mkv"), sorted(Path("out.mkv.frames/content").glob("*.png")), strict=True):
        chroma = [torch.einsum("kc,chw->khw", yiq, x[0]) for x in (frame, images.load(path).pixels)]
        assert (chroma[0] - chroma[1]).abs().median() < 0.01


def test_transparency_is_kept(here: Path) -> None:
    write(here / "alpha.apng", shot("square"), has_alpha=True)
    stylize_film(request(film="alpha.apng", output="out.apng", codec=None), SETTINGS, FILM)
    with open_film("out.apng") as film:
        alpha = [frame.picture.alpha for frame in film]
    assert all(one is not None and (one - 0.5).abs().max() < 0.01 for one in alpha)


def test_a_still_film_stands_still(here: Path) -> None:
    """Ten frames of nothing: the last differs from the first by less than a level, as its steps have nothing to do."""
    write(here / "still.mkv", shot("static", 6))
    stylize_film(request(film="still.mkv"), SETTINGS.replace(steps=12), FilmSettings(next_steps=6))
    first, *_, last = frames("out.mkv")
    assert (first - last).abs().mean() * 255 < 0.5
    assert (first.mean() - last.mean()).abs() * 255 < 0.2


def test_frames_follow_the_motion(here: Path) -> None:
    """The change beyond the motion is a fourth of that of frames styled one by one, at least."""
    from fastnst.film import warping_error

    film = FILMS["pan"](4, 48, 64)
    write(here / "pan.mkv", film.frames)
    settings = SETTINGS.replace(steps=15, init="content")
    stylize_film(request(film="pan.mkv"), settings, FilmSettings(next_steps=8))
    together = frames("out.mkv")
    for i in range(4):
        stylize_film(request(film="pan.mkv", output=f"{i}.mkv", frames=(i, i + 1)), settings, FilmSettings())
    apart = [frames(f"{i}.mkv")[0] for i in range(4)]
    errors = [warping_error(one, film.flows, film.weights) for one in (together, apart)]
    assert errors[0] < errors[1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"styles": ()}, "expected a style picture at least"),
        ({"masks": ("left.png", "right.png")}, "2 masks for 1 styles; give one for each"),
        ({"frames": (3, 3)}, "frames: expected the first and the one after the last, such as 0:50, got 3:3"),
        ({"output": "out.xyz"}, r"out\.xyz: expected a name ending in"),
        ({"output": "clip.mkv"}, r"clip\.mkv: is the film as well, and would replace it"),
        ({"codec": "vp9", "output": "out.mp4"}, "codec"),
        ({"film": "missing.mp4"}, r"missing\.mp4: "),
        ({"film": "shots.toml"}, r"shots\.toml: "),
        ({"styles": ("missing.png",)}, r"missing\.png: "),
        ({"shots": "missing.toml"}, r"missing\.toml: cannot be read"),
        ({"broken": "ignore"}, "broken: expected refuse or skip"),
    ],
)
def test_bad_requests_are_one_line(here: Path, changes: dict[str, Any], message: str) -> None:
    Path("shots.toml").write_text("[[shot]]\nfirst = 0\n")
    names = sorted(path.name for path in here.iterdir())
    with pytest.raises(FastnstError, match=message) as error:
        stylize_film(request(**changes), SETTINGS, FILM)
    assert "\n" not in str(error.value)
    left = sorted(path.name for path in here.iterdir())
    assert left == names


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("size = 32", r"shots\.toml: shot 2: size: all frames have one size"),
        ("steps = -1", r"shots\.toml: shot 2: steps: expected"),
        ('style_loss = "grom"', r"shots\.toml: shot 2: .*grom"),
    ],
)
def test_settings_of_shots_are_checked_before_the_film_begins(here: Path, settings: str, message: str) -> None:
    Path("shots.toml").write_text(f"[[shot]]\nfirst = 0\n[[shot]]\nfirst = 4\n[shot.settings]\n{settings}\n")
    with pytest.raises(UsageError, match=message):
        stylize_film(request(shots="shots.toml"), SETTINGS, FILM)
    assert not Path("out.mkv.frames").exists()


def test_transparency_that_the_output_cannot_hold_is_known_before(here: Path) -> None:
    write(here / "alpha.apng", shot("square"), has_alpha=True)
    for codec in (None, "h264"):
        with pytest.raises(UsageError, match="transparen"):
            stylize_film(request(film="alpha.apng", output="out.mp4", codec=codec), SETTINGS, FILM)
    assert not Path("out.mp4.frames").exists()


def test_a_damaged_record_says_what_to_do(here: Path) -> None:
    stylize_film(request(), SETTINGS, FILM)
    record = Path("out.mkv.frames/film.json")
    values = json.loads(record.read_text())
    record.write_text(record.read_text()[:-40])
    with pytest.raises(UsageError, match="exists and holds no frames of fastnst"):
        stylize_film(request(), SETTINGS, FILM)
    values["times"] = 3
    record.write_text(json.dumps(values))
    with pytest.raises(FastnstError, match="--force"):
        stylize_film(request(), SETTINGS, FILM)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"temporal_weight": -1.0}, "temporal_weight: expected a finite number of at least 0"),
        ({"temporal_weight": float("nan")}, "temporal_weight: expected a finite number"),
        ({"next_steps": 0}, "next_steps: expected a whole number of at least 1"),
        ({"next_steps": 1.5}, "next_steps: expected a whole number"),
        ({"passes": True}, "passes: expected a whole number"),
        ({"lookback": ()}, "lookback: expected 1 to 100 numbers of frames"),
        ({"lookback": (0, 1)}, "lookback: expected a whole number of at least 1"),
        ({"lookback": "1,x"}, "lookback: expected"),
        ({"flow": "diss"}, "flow: expected dis or raft, got 'diss', did you mean dis?"),
        ({"flow": "raft"}, "flow raft needs flow_weights"),
        ({"flow_weights": "raft.pth"}, "flow dis takes none"),
        ({"shots": "of"}, "shots: expected auto or off, got 'of', did you mean off?"),
    ],
)
def test_settings_of_films_are_checked(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as error:
        FilmSettings(**changes)
    assert message in str(error.value)


def test_lookback_is_sorted_and_may_be_one_number() -> None:
    assert FilmSettings(lookback=(10, 1, 10)).lookback == (1, 10)
    assert FilmSettings(lookback=3).lookback == (3,)  # type: ignore[arg-type]


def test_lookback_frames_that_do_not_exist_are_left_out(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, ...]] = []
    held = ShotMaker._with_temporal

    def spy(self: ShotMaker, scene: Any, content: Any, neighbors: Any, which: int) -> Any:
        seen.append(tuple(neighbors))
        return held(self, scene, content, neighbors, which)

    monkeypatch.setattr(ShotMaker, "_with_temporal", spy)
    stylize_film(request(), SETTINGS, dataclasses.replace(FILM, lookback=(1, 2), shots="off"))
    assert seen == [(0,), (1, 0), (2, 1), (3, 2), (4, 3)]


def test_a_film_that_was_ended_while_it_was_decoded_continues(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save, left = images.save, 4

    def killed(*arguments: Any, **options: Any) -> Path:
        nonlocal left
        left -= 1
        if left < 0:
            raise Stop
        return save(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(images, "save", killed)
        with pytest.raises(Stop):
            stylize_film(request(), SETTINGS, FILM)
    assert stylize_film(request(), SETTINGS, FILM).made == 2 * COUNT


def test_a_picture_is_a_film_of_one_frame(here: Path) -> None:
    stylize_film(request(film="style.png"), SETTINGS, FILM)
    assert len(frames("out.mkv")) == 1


def test_sound_is_kept(here: Path) -> None:
    from clips import bars
    from clips import write as write_clip

    write_clip(here / "loud.mp4", [bars(i) for i in range(4)], sound=0.2)
    stylize_film(request(film="loud.mp4", output="out.mp4", codec=None), SETTINGS, FILM)
    stylize_film(request(film="loud.mp4", output="part.mp4", codec=None, frames=(0, 2)), SETTINGS, FILM)
    with open_film("out.mp4") as film, open_film("part.mp4") as part:
        assert (film.info.has_audio, part.info.has_audio) == (True, False)


@pytest.mark.parametrize("kind", ["folder", "memory"])
def test_frames_of_another_source_are_refused(here: Path, kind: str) -> None:
    """A folder is known by its files, a picture in memory by its pixels."""
    Path("in").mkdir()
    for i, frame in enumerate(shot("pan")):
        images.save(f"in/{i}.png", frame)
    style = np.full((48, 64, 3), 90, np.uint8)
    given = request(film="in", styles=(style,))
    stylize_film(given, SETTINGS, FILM)
    if kind == "folder":
        images.save("in/1.png", shot("square")[0])
        part = "content"
    else:
        given = request(film="in", styles=(style + 1,))
        part = "style"
    with pytest.raises(UsageError, match=rf"holds frames of another film or other settings \({part}\)"):
        stylize_film(given, SETTINGS, FILM)

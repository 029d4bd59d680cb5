"""Films from end to end: what is made of them."""

from __future__ import annotations

import dataclasses
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch
from made import COUNT, FILM, SETTINGS, frames, request, shot, stored, write

from bench.film.films import FILMS
from fastnst import images
from fastnst.config.film import FilmSettings
from fastnst.errors import UsageError
from fastnst.film import FilmProgress, open_film, read_film_settings, stylize_film
from fastnst.film.making import ShotMaker
from fastnst.optim.progress import Step
from fastnst.run.photoreal import smooth


def test_a_film_is_styled_shot_by_shot(here: Path) -> None:
    seen: list[tuple[int, int, int, int]] = []
    held: dict[int, float] = {}

    def callback(progress: FilmProgress, step: Step) -> None:
        seen.append((progress.frame, progress.done, step.step, step.steps))
        assert progress.count == 2 * COUNT
        held[progress.frame] = step.losses.temporal

    report = stylize_film(request(), SETTINGS, FILM, callback=callback)
    assert [(one.first, one.last) for one in report.shots] == [(0, COUNT), (COUNT, 2 * COUNT)]
    assert (report.frames, report.made, report.path) == (2 * COUNT, 2 * COUNT, Path("out.mkv"))
    assert [number for number, loss in held.items() if loss == 0] == [0, COUNT]  # the first of a shot is held to none
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
    # As a file: the levels of a value half-way between two are those that the writer of pictures chooses.
    stylize("out.mkv.frames/content/000000.png", "style.png", settings=SETTINGS).save("still.png")
    assert torch.equal(images.load("still.png").pixels, frames("out.mkv")[0])


def test_masks_may_be_films(here: Path) -> None:
    """A film of one picture is as good as the picture, also with a crop; with a black mask a style has no weight."""
    both = ("style.png", "other.png")
    settings = SETTINGS.replace(crop=48)
    right = images.load("right.png").pixels
    write(here / "mask.mkv", [right] * 2 * COUNT)
    stylize_film(request(styles=both, masks=("left.png", "mask.mkv")), settings, FILM)
    stylize_film(request(styles=both, masks=("left.png", "right.png"), output="still.mkv"), settings, FILM)
    assert stored("still.mkv.frames") == stored("out.mkv.frames")
    write(here / "mask.mkv", [right] * (2 * COUNT - 1) + [0 * right])
    stylize_film(request(styles=both, masks=("left.png", "mask.mkv"), output="black.mkv"), settings, FILM)
    assert stored("black.mkv.frames")[:-1] == stored("out.mkv.frames")[:-1]
    assert stored("black.mkv.frames")[-1] != stored("out.mkv.frames")[-1]


def test_a_part_of_a_style_is_used(here: Path) -> None:
    for name in ("left", "right"):
        stylize_film(request(style_masks=(f"{name}.png",), output=f"{name}.mkv"), SETTINGS, FILM)
    assert stored("left.mkv.frames")[0] != stored("right.mkv.frames")[0]


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
    write(here / "still.mkv", shot("static", 6))
    stylize_film(request(film="still.mkv"), SETTINGS.replace(steps=12), FilmSettings(next_steps=6))
    first, *others = frames("out.mkv")
    assert len(others) == 5
    assert all(torch.equal(first, frame) for frame in others)


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
    assert 4 * errors[0] < errors[1]


def test_lookback_frames_that_do_not_exist_are_left_out(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, ...]] = []
    held = ShotMaker._with_temporal

    def spy(self: ShotMaker, scene: Any, content: Any, neighbors: Any, which: int) -> Any:
        seen.append(tuple(neighbors))
        return held(self, scene, content, neighbors, which)

    monkeypatch.setattr(ShotMaker, "_with_temporal", spy)
    stylize_film(request(), SETTINGS, dataclasses.replace(FILM, lookback=(1, 2), shots="off"))
    assert seen == [(0,), (1, 0), (2, 1), (3, 2), (4, 3)]


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


def test_the_photoreal_pass_is_for_what_is_shown(here: Path) -> None:
    """Frames start from those before the pass, and are kept when its strength changes."""
    stylize_film(request(), SETTINGS, FILM)
    plain, before = frames("out.mkv"), stored("out.mkv.frames")
    report = stylize_film(request(), SETTINGS.replace(photoreal=0.5), FILM)
    assert report.made == 0
    assert len(list(Path("out.mkv.frames/photoreal_0.5").iterdir())) == 2 * COUNT
    assert stored("out.mkv.frames") == before
    contents = [images.load(path).pixels for path in sorted(Path("out.mkv.frames/content").glob("*.png"))]
    for shown, made, content in zip(frames("out.mkv"), plain, contents, strict=True):
        torch.testing.assert_close(shown, smooth(made, content, 0.5), atol=0.51 / 255, rtol=0)
    settings = read_film_settings("out.mkv")
    assert settings is not None
    assert settings["photoreal"] == 0.5
    shown, again = frames("out.mkv"), request(output="again.mkv")
    stylize_film(again, SETTINGS.replace(photoreal=0.5), FILM)  # frame by frame
    assert all(map(torch.equal, frames("again.mkv"), shown))


def test_an_ended_film_continues_with_the_photoreal_passes_it_has(here: Path) -> None:
    settings, seen = SETTINGS.replace(photoreal=0.5), Path("out.mkv.frames/photoreal_0.5")

    def ends(progress: FilmProgress, step: Step) -> None:
        if progress.frame == 2:
            assert sorted(path.stem for path in seen.iterdir()) == ["000000", "000001"]
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stylize_film(request(), settings, FILM, callback=ends)
    kept = {path.name: path.stat().st_mtime_ns for path in seen.iterdir()}
    stylize_film(request(), settings, FILM)
    assert kept == {name: (seen / name).stat().st_mtime_ns for name in kept}
    stylize_film(request(output="whole.mkv"), settings, FILM)
    assert all(map(torch.equal, frames("out.mkv"), frames("whole.mkv")))

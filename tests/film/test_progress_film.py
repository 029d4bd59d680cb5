"""The film of a run: what is in it is read by PyAV and Pillow, and the run has the same bits without it."""

from __future__ import annotations

import logging
import threading
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from PIL import Image

import fastnst
from fastnst import images
from fastnst.errors import ImageError, UsageError
from fastnst.film import ProgressFilm, open_film, progress_film, read_film_settings

SETTINGS: dict[str, Any] = {
    **{"size": 64, "steps": (6, 7), "scales": (32, 64), "device": "cpu"},
    **{"content_layers": (("relu2_1", 1.0),), "style_layers": (("relu1_1", 1.0),)},
}


def pictures() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    photo = torch.nn.functional.interpolate(torch.rand(1, 3, 6, 8, generator=generator), (48, 64), mode="bicubic")
    return photo.clamp(0, 1), torch.rand(1, 3, 48, 64, generator=generator)


def run(callback: Any = None, **changes: Any) -> fastnst.Result:
    return fastnst.stylize(*pictures(), callback=callback, **{**SETTINGS, **changes})


def frames(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def test_the_film_shows_the_run(tmp_path: Path) -> None:
    """Steps 1, 3, 6 of the coarse scale, 9, 12 and 13, the last, of the fine one; the last stays for a second."""
    seen: dict[int, torch.Tensor] = {}
    film = ProgressFilm(tmp_path / "p.mp4", fps=5, every=3)

    def callback(step: fastnst.Step) -> None:
        film(step)
        assert step.size == (48, 64)
        if step.count in (1, 3, 6, 9, 12, 13):
            seen[step.count] = images.resize(step.image, 48, 64)

    result = run(callback)
    assert film.written
    assert film.count == 6
    found = frames(tmp_path / "p.mp4")
    assert len(found) == 6 + 4
    for frame, meant in zip(found, [*seen.values(), *[seen[13]] * 4], strict=True):
        assert frame.shape == (48, 64, 3)
        assert np.abs(frame / 255 - meant[0].permute(1, 2, 0).numpy()).mean() < 0.03
    assert torch.equal(seen[13], result.image)
    with open_film(tmp_path / "p.mp4") as made:
        assert (made.info.frame_rate, made.info.duration) == (5, 2.0)
    assert read_film_settings(tmp_path / "p.mp4") == {"film": {"every": 3, "fps": 5.0}}


def test_the_run_has_the_same_bits(tmp_path: Path) -> None:
    with ProgressFilm(tmp_path / "p.gif", every=1) as film:
        filmed = run(film)
    assert torch.equal(filmed.image, run().image)


@pytest.mark.parametrize("name", ["p.gif", "p.webp", "p.png"])
def test_animations(tmp_path: Path, name: str) -> None:
    with ProgressFilm(tmp_path / name, fps=20, every=5) as film:
        run(film)
    with Image.open(tmp_path / name) as image:
        durations = []
        for k in range(image.n_frames):
            image.seek(k)
            image.load()
            durations.append(image.info["duration"])
        assert image.size == (64, 48)
    assert sum(durations) == 50 * 4 + 950  # steps 1, 5, 10 and 13, of which the last stays for a second


def test_a_folder(tmp_path: Path) -> None:
    with ProgressFilm(tmp_path / "frames", fps=2, every=100) as film:
        run(film)
    assert len(list((tmp_path / "frames").iterdir())) == 2


def test_a_run_that_a_callback_stops_has_a_film(tmp_path: Path) -> None:
    with ProgressFilm(tmp_path / "p.mkv", every=2, fps=1) as film:
        result = run(lambda step: film(step) or step.count == 5)
        film.add(result.image)
    assert result.stopped == "callback"
    assert film.count == 4  # steps 1, 2, 4, and the result
    assert np.abs(frames(tmp_path / "p.mkv")[-1] / 255 - result.image[0].permute(1, 2, 0).numpy()).mean() < 0.03


def test_an_error_in_the_run_leaves_the_film_so_far(tmp_path: Path) -> None:
    film = ProgressFilm(tmp_path / "p.mkv", every=1, fps=1)

    def callback(step: fastnst.Step) -> None:
        film(step)
        if step.count == 3:
            raise KeyError("mine")

    def filmed() -> None:
        with film:
            run(callback)

    with pytest.raises(KeyError, match="mine"):
        filmed()
    assert len(frames(tmp_path / "p.mkv")) == 3


def test_without_a_step_there_is_no_film(tmp_path: Path) -> None:
    with ProgressFilm(tmp_path / "p.mp4"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_what_to_show_can_be_chosen(tmp_path: Path) -> None:
    with ProgressFilm(tmp_path / "frames", every=100, fps=1, show=lambda image: torch.ones(1, 3, 48, 64)) as film:
        run(film)
    found = np.asarray(Image.open(tmp_path / "frames" / "frame_000000.png"))
    assert (found == 255).all()


@pytest.mark.parametrize(("name", "stop"), [("p.mp4", 4), ("p.gif", 9)])
def test_a_resumed_run_continues_its_film(tmp_path: Path, name: str, stop: int) -> None:
    """The frames of the steps before are copied; together they are those of a run that was not interrupted."""
    whole = tmp_path / f"whole_{name}"
    with ProgressFilm(whole, every=2, fps=5) as film:
        run(film)
    path, checkpoint = tmp_path / name, tmp_path / "run.ckpt"
    with ProgressFilm(path, every=2, fps=5) as film:
        run(lambda step: film(step) or step.count == stop, checkpoint=checkpoint, checkpoint_every=1)
    with ProgressFilm(path, every=2, fps=5, resume=True) as film:
        run(film, checkpoint=checkpoint, checkpoint_every=1, resume=True)
    assert film.count == 8  # steps 1, 2, 4, 6, 8, 10, 12 and 13
    for made, meant in zip(frames(path), frames(whole), strict=True):
        assert np.abs(made.astype(int) - meant).mean() < 8


def test_a_resumed_run_does_not_continue_another_film(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path, checkpoint = tmp_path / "p.mp4", tmp_path / "run.ckpt"
    with ProgressFilm(path, every=2, fps=5) as film:
        film.add(torch.zeros(1, 3, 32, 32))
    run(lambda step: step.count == 4, checkpoint=checkpoint, checkpoint_every=1)
    with ProgressFilm(path, every=2, fps=5, resume=True) as film:
        run(film, checkpoint=checkpoint, checkpoint_every=1, resume=True)
    assert "p.mp4: is no film of this run; the new film starts at step 6" in caplog.text
    assert film.count == 5  # steps 6, 8, 10, 12 and 13


def test_a_film_that_cannot_be_written_does_not_end_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise ImageError("p.mp4: cannot be written (no space left on the disk; expected room for the film)")

    monkeypatch.setattr(progress_film.FilmWriter, "add", full)
    with ProgressFilm(tmp_path / "p.mp4", every=1) as film:
        result = run(film)
    assert result.stopped is None
    assert not film.written
    assert "no space left on the disk; expected room for the film); the run goes on without its film" in caplog.text
    assert list(tmp_path.iterdir()) == []


def test_frames_wait_in_a_queue_of_bounded_length(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However slow the encoder, a few images are held at most."""
    held, most = 0, 0
    lock = threading.Lock()
    shown = threading.Event()

    def show(image: torch.Tensor) -> torch.Tensor:
        nonlocal held
        shown.wait(5)
        with lock:
            held -= 1
        return images.resize(image, 48, 64)

    film = ProgressFilm(tmp_path / "p.mkv", every=1, show=show)
    original = film._put

    def put(image: torch.Tensor, step: int) -> None:
        nonlocal held, most
        with lock:
            held += 1
            most = max(most, held)
        if step == 4:
            threading.Timer(0.1, shown.set).start()
        original(image, step)
        time.sleep(0.01)

    monkeypatch.setattr(film, "_put", put)
    with film:
        run(film)
    assert film.count == 13
    assert most <= 6  # three in the queue, one being shown, one waiting for the queue, one counted before its turn


def test_arguments_are_checked_before_the_run(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"expected a name ending in \.mp4"):
        ProgressFilm(tmp_path / "p.mpg")
    with pytest.raises(ImageError, match="there is no folder"):
        ProgressFilm(tmp_path / "missing" / "p.mp4")
    for fps in (0, -1, 1000, "fast", float("nan"), True):
        with pytest.raises(UsageError, match=r"fps: expected a number from 0\.1 to 240"):
            ProgressFilm(tmp_path / "p.mp4", fps=fps)  # type: ignore[arg-type]
    for every in (0, 1.5, True):
        with pytest.raises(UsageError, match="every: expected a whole number from 1 to 1000000000"):
            ProgressFilm(tmp_path / "p.mp4", every=every)  # type: ignore[arg-type]
    assert ProgressFilm(tmp_path / "p.mp4", fps=29.97).fps == Fraction(2997, 100)


def test_which_step_a_frame_shows() -> None:
    assert [progress_film.step_of(k, 5) for k in range(4)] == [1, 5, 10, 15]
    assert [progress_film.step_of(k, 1) for k in range(4)] == [1, 2, 3, 4]


def test_logging_names_the_package() -> None:
    assert progress_film.log is logging.getLogger("fastnst")

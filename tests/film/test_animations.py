"""GIF, WebP and APNG in and out: oracles are Pillow's reader and writer, and FFmpeg's decoders."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from clips import HEIGHT, WIDTH, bars, refused
from PIL import Image

from fastnst import images
from fastnst.film import FilmInfo, FilmWriter, open_film

NAMES = ("a.gif", "a.webp", "a.png")


def pixels(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(array.copy()).permute(2, 0, 1)[None].float() / 255


def write(
    path: Path, frames: list[np.ndarray], rate: Fraction = Fraction(10), loop: int | None = 0, **rest: object
) -> Path:
    alpha = frames[0].shape[2] == 4
    info = FilmInfo(frames[0].shape[1], frames[0].shape[0], rate, has_alpha=alpha, loop=loop)
    with FilmWriter(path, info, **rest) as writer:  # type: ignore[arg-type]
        for k, frame in enumerate(frames):
            opacity = pixels(frame[..., 3:]) if alpha else None
            writer.add(pixels(frame[..., :3]), opacity, time=k / rate, duration=1 / rate)
    return path


def by_pillow(path: Path) -> tuple[list[np.ndarray], list[float], int | None]:
    with Image.open(path) as image:
        frames, durations = [], []
        for k in range(image.n_frames):
            image.seek(k)
            frames.append(np.array(image.convert("RGBA")))
            durations.append(image.info["duration"])
        return frames, durations, image.info.get("loop")


def by_ffmpeg(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgba") for frame in container.decode(video=0)]


def saved(path: Path, frames: list[np.ndarray], durations: list[int], **options: object) -> Path:
    """An animation by Pillow's writer."""
    first, *others = [Image.fromarray(frame) for frame in frames]
    first.save(path, save_all=True, append_images=others, duration=durations, **options)
    return path


@pytest.mark.parametrize("name", NAMES)
def test_written_animations_read_back_by_others(tmp_path: Path, name: str) -> None:
    frames = [bars(k) for k in range(6)]
    path = write(tmp_path / name, frames, quality=100)
    found, durations, loop = by_pillow(path)
    assert (len(found), durations, loop) == (6, [100] * 6, 0)
    for k in range(6):
        assert np.abs(found[k][..., :3].astype(int) - frames[k]).max() <= (4 if name == "a.gif" else 0)
        assert (found[k][..., 3] == 255).all()
    if name != "a.webp":  # which FFmpeg reads as a still
        for k, frame in enumerate(by_ffmpeg(path)):
            assert np.array_equal(frame[..., :3], found[k][..., :3])


@pytest.mark.parametrize("name", NAMES)
def test_frames_are_stored_as_what_changes(tmp_path: Path, name: str) -> None:
    """A square moves over a still ground: the file is far smaller than frames on their own, and the ground is exact."""
    rng = np.random.default_rng(0)
    ground = rng.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8) // 64 * 64
    frames = []
    for k in range(8):
        frame = ground.copy()
        frame[10:14, 4 * k : 4 * k + 4] = (255, 0, 0)
        frames.append(frame)
    path = write(tmp_path / name, frames, quality=100)
    single = write(tmp_path / f"one{path.suffix}", frames[:1], quality=100)
    assert path.stat().st_size < 2 * single.stat().st_size + 7 * 900  # a palette is 768 bytes
    found = by_pillow(path)[0]
    still = np.ones((HEIGHT, WIDTH), bool)
    still[10:14] = False
    for frame in found:
        assert np.array_equal(frame[still], found[0][still])


def test_a_gif_of_a_still_scene_does_not_boil(tmp_path: Path) -> None:
    """Smooth ground, which needs dithering, is the same in every frame although a square moves over it."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    ground = np.stack([x * 4, y * 5, 255 - x * 2 - y], axis=2).clip(0, 255).astype(np.uint8)
    frames = []
    for k in range(6):
        frame = ground.copy()
        frame[8:16, 8 * k : 8 * k + 8] = (250, 250, 40)
        frames.append(frame)
    found = by_pillow(write(tmp_path / "a.gif", frames))[0]
    for frame in found:
        assert np.array_equal(frame[20:], found[0][20:])
    # Dithering keeps the mean of small blocks closer than the palette alone could.
    means = [f[20:44, :, :3].astype(float).reshape(3, 8, 8, 8, 3).mean((1, 3)) for f in (found[0], ground)]
    assert np.abs(means[0] - means[1]).mean() < 2


def test_a_cut_gets_its_own_palette(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    red = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    red[..., 0] = rng.integers(0, 256, (HEIGHT, WIDTH))
    blue = red[..., ::-1].copy()
    found = by_pillow(write(tmp_path / "a.gif", [red, red, blue, blue]))[0]
    for seen, meant in zip(found, [red, red, blue, blue], strict=True):
        assert np.abs(seen[..., :3].astype(int) - meant).mean() < 3


@pytest.mark.parametrize("name", NAMES)
def test_alpha(tmp_path: Path, name: str) -> None:
    frames = [np.dstack([bars(k), np.full((HEIGHT, WIDTH), 255, np.uint8)]) for k in range(4)]
    for k in range(4):
        frames[k][:, 8 * k : 8 * k + 16, 3] = 0
    path = write(tmp_path / name, frames, quality=100)
    found = by_pillow(path)[0]
    for k in range(4):
        assert np.array_equal(found[k][..., 3], frames[k][..., 3])
    with open_film(path) as film:
        assert film.info.has_alpha
        for frame in film:
            assert frame.picture.alpha is not None
            assert np.array_equal(frame.picture.alpha[0, 0].numpy() * 255, frames[frame.number][..., 3])
            shown = frames[frame.number][..., 3] > 0
            error = frame.picture.pixels[0].permute(1, 2, 0).numpy()[shown] * 255 - frames[frame.number][shown][:, :3]
            assert np.abs(error).max() <= (4 if name == "a.gif" else 0.01)


@pytest.mark.parametrize(("name", "plays"), [(n, p) for n in NAMES for p in (0, 1, 3)])
def test_loops_survive(tmp_path: Path, name: str, plays: int) -> None:
    """A GIF stores repetitions after the first time, the others how often they are shown."""
    path = write(tmp_path / name, [bars(0), bars(1)], loop=plays)
    stored = by_pillow(path)[2]
    assert stored == ({0: 0, 1: None, 3: 2}[plays] if name == "a.gif" else plays)
    with open_film(path) as film:
        assert film.info.loop == plays


@pytest.mark.parametrize("name", NAMES)
def test_animations_of_pillow_are_read(tmp_path: Path, name: str) -> None:
    frames, durations = [bars(k) for k in range(5)], [40, 80, 200, 40, 120]
    options = {"a.webp": {"lossless": True}}.get(name, {})
    path = saved(tmp_path / name, frames, durations, loop=0, **options)
    with open_film(path) as film:
        info = film.info
        assert (info.width, info.height, info.count, info.variable, info.loop) == (WIDTH, HEIGHT, 5, True, 0)
        assert info.duration == pytest.approx(0.48)
        read = list(film)
    assert [frame.time * 1000 for frame in read] == [0, 40, 120, 320, 360]
    assert [frame.duration * 1000 for frame in read if frame.duration] == durations
    for frame in read:
        error = frame.picture.pixels[0].permute(1, 2, 0).numpy() * 255 - frames[frame.number]
        assert np.abs(error).max() <= (3 if name == "a.gif" else 0.01)
    with open_film(path) as film:
        tail = list(film.frames(3))
    assert [frame.number for frame in tail] == [3, 4]
    assert torch.equal(tail[0].picture.pixels, read[3].picture.pixels)


@pytest.mark.parametrize("disposal", [1, 2, 3])
def test_disposal(tmp_path: Path, disposal: int) -> None:
    """Against FFmpeg's decoder."""
    frames = []
    for k in range(4):
        frame = np.zeros((HEIGHT, WIDTH, 4), np.uint8)
        frame[8 : 8 + 8, 12 * k : 12 * k + 10] = (255, 40 * k, 0, 255)
        frames.append(frame)
    path = saved(tmp_path / "a.gif", frames, [100] * 4, disposal=disposal)
    with open_film(path) as film:
        for frame, other in zip(film, by_ffmpeg(path), strict=True):
            alpha = frame.picture.alpha
            assert alpha is not None
            assert np.array_equal(alpha[0, 0].numpy() * 255, other[..., 3])


def test_a_frame_that_is_fully_transparent(tmp_path: Path) -> None:
    empty, full = np.zeros((HEIGHT, WIDTH, 4), np.uint8), np.full((HEIGHT, WIDTH, 4), 255, np.uint8)
    path = saved(tmp_path / "a.png", [full, empty], [100, 100], blend=0)
    with open_film(path) as film:
        first, second = list(film)
    assert first.picture.alpha is None
    assert second.picture.alpha is not None
    assert not second.picture.alpha.any()


def test_a_gif_shows_at_most_fifty_frames_a_second(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write(tmp_path / "a.gif", [bars(k) for k in range(12)], rate=Fraction(120))
    durations = by_pillow(path)[1]
    assert min(durations) >= 20
    assert sum(durations) == pytest.approx(100, abs=10)
    assert "frames are left out: this format shows at most 50 a second" in caplog.text


def test_durations_do_not_drift(tmp_path: Path) -> None:
    """Thirty frames a second in hundredths of a second."""
    durations = by_pillow(write(tmp_path / "a.gif", [bars(k) for k in range(30)], rate=Fraction(30)))[1]
    assert set(durations) == {30, 40}
    assert sum(durations) == 1000


def test_durations_that_browsers_do_not_show(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.gif", [bars(0), bars(1)], [0, 10])
    with open_film(path) as film:
        assert [frame.duration for frame in film] == [Fraction(1, 10)] * 2


@pytest.mark.parametrize("name", NAMES)
def test_an_animation_that_ends_early(tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture) -> None:
    rng = np.random.default_rng(0)
    path = write(tmp_path / name, [rng.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8) for _ in range(4)], quality=100)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 5 // 8])
    assert "ends early; expected a whole film" in refused(path)
    if name == "a.webp":  # libwebp reads a whole file or nothing
        assert "ends early; expected a whole film" in refused(path, broken="skip")
        return
    with open_film(path, broken="skip") as film:
        assert len(list(film)) == film.info.count == 2
    assert "ends early; what is there is read" in caplog.text


@pytest.mark.parametrize("name", NAMES)
def test_settings_are_in_the_file(tmp_path: Path, name: str) -> None:
    from fastnst.film import read_film_settings

    path = write(tmp_path / name, [bars(0), bars(1)], settings={"steps": 300, "note": "ä"})
    assert read_film_settings(path) == {"steps": 300, "note": "ä"}
    if name != "a.gif":
        assert images.read_settings(path) == {"steps": 300, "note": "ä"}

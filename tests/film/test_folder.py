"""A folder of pictures as a film, in and out."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from clips import HEIGHT, WIDTH, bars, refused
from PIL import Image

from fastnst.errors import ImageError, UsageError
from fastnst.film import FilmInfo, FilmWriter, check_target, open_film, read_film_settings

INFO = FilmInfo(WIDTH, HEIGHT, Fraction(25))


def folder(path: Path, names: list[str]) -> Path:
    path.mkdir()
    for k, name in enumerate(names):
        Image.fromarray(bars(k)).save(path / name)
    return path


def order(path: Path, **arguments: str) -> list[int]:
    """Which pictures the frames are, by the gray level that counts them."""
    with open_film(path, **arguments) as film:
        return [round((float(frame.picture.pixels[0, 0, 0, 0]) * 255 - 20) / 10) for frame in film]


def write(path: Path, count: int = 3, **arguments: object) -> Path:
    with FilmWriter(path, INFO, **arguments) as writer:  # type: ignore[arg-type]
        for k in range(count):
            pixels = torch.from_numpy(bars(k)).permute(2, 0, 1)[None].float() / 255
            writer.add(pixels, time=k / INFO.frame_rate)
    return path


def test_natural_order(tmp_path: Path) -> None:
    path = folder(tmp_path / "in", ["f1.png", "f10.png", "f2.png", "f9.png", "f3.png", "f4.png", "f5.png"])
    (path / "notes.txt").write_text("no picture")
    (path / ".f0.png").write_bytes(b"hidden")
    for name in ("f6.png", "f7.png", "f8.png"):
        Image.fromarray(bars(7)).save(path / name)
    assert order(path) == [0, 2, 4, 5, 6, 7, 7, 7, 3, 1]
    with open_film(path) as film:
        assert (film.info.count, film.info.frame_rate, film.info.duration) == (10, 25, 0.4)
        assert [frame.number for frame in film.frames(8)] == [8, 9]
        assert [frame.time for frame in film.frames(8)] == [Fraction(8, 25), Fraction(9, 25)]


def test_gaps_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = folder(tmp_path / "in", ["f_001.png", "f_002.png", "f_004.png", "f_009.png"])
    assert "in: lacks the frames 3, 5 to 8; expected numbers without gaps" in refused(path)
    assert order(path, broken="skip") == [0, 1, 2, 3]
    assert "lacks the frames 3, 5 to 8" in caplog.text


def test_every_second_number_is_no_gap(tmp_path: Path) -> None:
    assert order(folder(tmp_path / "in", ["f_000.png", "f_002.png", "f_004.png"])) == [0, 1, 2]


def test_names_of_several_kinds_have_no_gaps(tmp_path: Path) -> None:
    assert order(folder(tmp_path / "in", ["a_1.png", "b_5.png", "c.png"])) == [0, 1, 2]


def test_bad_folders(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "empty").mkdir()
    assert "holds no pictures; expected numbered files" in refused(tmp_path / "empty")
    path = folder(tmp_path / "in", ["1.png", "2.png", "3.png"])
    (path / "2.png").write_bytes(b"no picture")
    with pytest.raises(ImageError, match=r"2\.png: is not an image"):
        open_film(path)
    assert order(path, broken="skip") == [0, 2]
    assert "frame 1 is skipped" in caplog.text
    Image.fromarray(bars(1)[:40]).save(path / "2.png")
    with pytest.raises(ImageError, match=r"2\.png: is 64 x 40 pixels, but the frames before it 64 x 48"):
        open_film(path)
    with pytest.raises(ImageError, match="above the limit of 100"):
        open_film(path, max_pixels=100)


@pytest.mark.parametrize(("codec", "bits"), [(None, 8), ("png", 8), ("png16", 16)])
def test_frames_are_written(tmp_path: Path, codec: str | None, bits: int) -> None:
    path = write(tmp_path / "out", codec=codec, settings={"steps": 5})
    assert sorted(file.name for file in path.iterdir()) == [f"frame_00000{k}.png" for k in range(3)]
    assert order(path) == [0, 1, 2]
    assert (path / "frame_000001.png").read_bytes()[24] == bits  # of the header (PNG specification, 11.2.1)
    assert read_film_settings(path) == {"steps": 5}
    found = np.asarray(Image.open(path / "frame_000002.png").convert("RGB"))
    if bits == 8:
        assert np.array_equal(found, bars(2))


def test_a_folder_of_frames_is_replaced_as_a_whole(tmp_path: Path) -> None:
    path = write(write(tmp_path / "out", 5), 2)
    assert order(path) == [0, 1]
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_with_other_files_is_left_alone(tmp_path: Path) -> None:
    path = folder(tmp_path / "out", ["holiday.png"])
    with pytest.raises(ImageError, match=r"is a folder that holds other files \(holiday\.png\); name a new folder"):
        check_target(path)
    (tmp_path / "file").touch()
    with pytest.raises(ImageError, match="is a file; expected a folder of frames"):
        check_target(tmp_path / "file")
    with pytest.raises(ImageError, match="there is no folder"):
        check_target(tmp_path / "missing" / "out")
    assert check_target(tmp_path / "missing" / "out", parents=True)
    with pytest.raises(UsageError, match=r"codec: expected png or png16 for a folder, got 'h264'"):
        check_target(tmp_path / "new", codec="h264")


def test_nothing_is_left_after_an_error(tmp_path: Path) -> None:
    path = write(tmp_path / "out", 2)

    def fail() -> None:
        with FilmWriter(path, INFO) as writer:
            writer.add(torch.zeros(1, 3, HEIGHT, WIDTH), time=Fraction(0))
            raise KeyError("stop")

    with pytest.raises(KeyError):
        fail()
    assert list(tmp_path.iterdir()) == [path]
    assert order(path) == [0, 1]

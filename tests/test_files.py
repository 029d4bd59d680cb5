"""Where results are written: symbolic links, mounted files, closed folders, and what can hold no file."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from fastnst import files, images
from fastnst.config.settings import Settings
from fastnst.config.toml import save_settings, to_toml
from fastnst.errors import FastnstError, ImageError
from fastnst.files import WrittenElsewhere, replacing

HERE = str(Path(__file__).parent)
PIXELS = torch.rand(1, 3, 8, 8)


def write(path: Path, text: str = "new") -> None:
    with replacing(path) as temporary:
        temporary.write_text(text)


def busy(self: Path, target: Path) -> None:
    raise OSError(errno.EBUSY, "Device or resource busy", str(target))


@pytest.fixture
def closed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder in which nothing can be made, and ``open.png`` in it that can be written."""
    folder = tmp_path / "closed"
    folder.mkdir()
    (folder / "open.png").write_text("old")
    access, rename = os.access, Path.replace

    def forbidden(self: Path, target: Path) -> Path:
        if folder in (self.parent, target.parent):
            raise PermissionError(errno.EACCES, "Permission denied", str(target))
        return rename(self, target)

    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != folder and access(path, mode))
    monkeypatch.setattr(Path, "replace", forbidden)
    return folder


@pytest.mark.parametrize("there", [True, False])
def test_a_link_stays_and_its_target_is_written(tmp_path: Path, there: bool) -> None:
    (tmp_path / "far").mkdir()
    target = tmp_path / "far" / "data"
    if there:
        target.write_text("old")
    (tmp_path / "between.png").symlink_to(Path("far") / "data")
    (tmp_path / "link.png").symlink_to("between.png")
    images.save(tmp_path / "link.png", PIXELS)
    assert (tmp_path / "link.png").is_symlink()
    assert (tmp_path / "between.png").is_symlink()
    assert images.load(target).pixels.shape == PIXELS.shape
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["between.png", "data", "far", "link.png"]


def test_settings_are_written_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "link.toml").symlink_to("real.toml")
    save_settings(tmp_path / "link.toml", Settings())
    assert (tmp_path / "link.toml").is_symlink()
    assert not (tmp_path / "real.toml").is_symlink()
    assert (tmp_path / "real.toml").read_text() == to_toml(Settings())


def test_a_file_that_cannot_be_renamed_over_is_written_in_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.png"
    path.write_text("old")
    number = path.stat().st_ino
    monkeypatch.setattr(Path, "replace", busy)
    images.save(path, PIXELS)
    assert images.load(path).pixels.shape == PIXELS.shape
    assert path.stat().st_ino == number
    assert list(tmp_path.iterdir()) == [path]


def test_what_cannot_be_written_in_place_is_left_whole_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(source: Path, target: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(target))

    (tmp_path / "a.txt").write_text("old")
    monkeypatch.setattr(Path, "replace", busy)
    monkeypatch.setattr(shutil, "copyfile", full)
    with pytest.raises(WrittenElsewhere, match=r"the whole file is .*\.part\.txt"):
        write(tmp_path / "a.txt")
    (left,) = tmp_path.glob(".a.*")
    assert left.read_text() == "new"
    (tmp_path / "a.png").write_text("old")
    with pytest.raises(ImageError, match=r"a\.png: cannot be written .*the whole file is .*\.part\.png") as caught:
        images.save(tmp_path / "a.png", PIXELS)
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(sys.platform != "linux" or shutil.which("unshare") is None, reason="needs unshare")
def test_a_mounted_file_is_written(tmp_path: Path) -> None:
    inside, outside = tmp_path / "inside.txt", tmp_path / "outside.txt"
    for path in (inside, outside):
        path.write_text("old")
    code = "import sys; from test_files import Path, write; write(Path(sys.argv[1]))"
    script = 'mount --bind "$1" "$2" && cd "$5" && exec "$3" -c "$4" "$2"'
    command = ["unshare", "-rm", "sh", "-c", script, "sh", str(outside), str(inside), sys.executable, code, HERE]
    made = subprocess.run(command, capture_output=True, text=True, timeout=120)
    if "unshare" in made.stderr or "mount" in made.stderr:
        pytest.skip("mounting is not allowed here")
    assert made.returncode == 0, made.stderr
    assert (inside.read_text(), outside.read_text()) == ("old", "new")
    assert sorted(tmp_path.iterdir()) == [inside, outside]


def test_an_open_file_in_a_closed_folder_is_written(closed: Path) -> None:
    images.save(closed / "open.png", PIXELS)
    assert images.load(closed / "open.png").pixels.shape == PIXELS.shape
    assert [path.name for path in closed.iterdir()] == ["open.png"]


def test_nothing_is_left_of_what_fails_beside_a_closed_folder(closed: Path) -> None:
    made: list[Path] = []

    def interrupted() -> None:
        with replacing(closed / "open.png") as temporary:
            made.append(temporary)
            temporary.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not made[0].parent.exists()
    assert (closed / "open.png").read_text() == "old"


def test_a_new_file_in_a_closed_folder_is_refused_beforehand(closed: Path) -> None:
    with pytest.raises(ImageError, match=r"new\.png: no permission to write in .*closed"):
        images.check_target(closed / "new.png")


def test_what_holds_no_file_is_refused_beforehand_and_left(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "null.png").symlink_to("/dev/null")
    (tmp_path / "round.png").symlink_to("round.png")
    (tmp_path / "nowhere.png").symlink_to(tmp_path / "missing" / "a.png")
    words = {
        "pipe.png": "is a pipe or a device; expected the name of a file",
        "null.png": "is a pipe or a device",
        "round.png": "leads nowhere",
        "nowhere.png": "there is no folder .*missing; make it first",
    }
    for name, reason in words.items():
        for act in (images.check_target, lambda path: images.save(path, PIXELS)):
            with pytest.raises(ImageError, match=reason):
                act(tmp_path / name)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(words)
    with pytest.raises(OSError, match="not a regular file"):
        write(tmp_path / "pipe.png")
    os.mkfifo(tmp_path / "pipe.toml")
    with pytest.raises(FastnstError):
        save_settings(tmp_path / "pipe.toml", Settings(), force=True)


def test_missing_folders_are_offered_and_made(tmp_path: Path) -> None:
    path = tmp_path / "one" / "two" / "a.png"
    with pytest.raises(
        ImageError, match=r"there is no folder .*two; make it first, or pass parents=True \(--parents\)"
    ):
        images.check_target(path)
    images.check_target(path, parents=True)
    assert list(tmp_path.iterdir()) == []
    assert images.save(path, PIXELS, parents=True).is_file()
    with pytest.raises(ImageError, match=r"there is no folder .*a\.png; it is a file"):
        images.check_target(path / "b" / "c.png", parents=True)


def test_missing_folders_are_not_made_where_they_cannot(closed: Path) -> None:
    with pytest.raises(ImageError, match=r"no permission to write in .*closed"):
        images.check_target(closed / "one" / "a.png", parents=True)


def test_obstacles_of_any_file_offer_nothing(tmp_path: Path) -> None:
    reason = files.obstacle(tmp_path / "missing" / "run.ckpt")
    assert reason == f"there is no folder {tmp_path / 'missing'}; make it first"

"""Checkpoints that cannot be resumed: each is refused in one line, and no file is damaged."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import random
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.checkpoints import header, same, settings_of, stopping, styled
from support.pictures import samples
from torch import Tensor

from fastnst import weights
from fastnst.config.settings import Settings
from fastnst.errors import CheckpointError, FastnstError, UsageError
from fastnst.run import checkpoint_file, stylizer
from fastnst.run.checkpoint import Checkpoint
from fastnst.run.stylizer import stylize
from fastnst.weights import Weights

pytestmark = pytest.mark.usefixtures("weights_read_once")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "run.ckpt"


# Refused checkpoints, which are not overwritten.


def refused(file: Path, settings: Settings, **more: Any) -> str:
    """The error's message, checked to be one line that names the file; the file is unchanged."""
    before = file.read_bytes()
    with pytest.raises(FastnstError) as caught:
        styled(settings, **{"checkpoint": file, "resume": True, **more})
    assert file.read_bytes() == before
    text = str(caught.value)
    assert text.startswith(str(file))
    assert "\n" not in text
    return text.removeprefix(f"{file}").removeprefix(": ")


@pytest.fixture
def begun(file: Path) -> Path:
    """A checkpoint in the middle of a run of ``settings_of("adam")``."""
    styled(settings_of("adam"), callback=stopping(3), checkpoint=file)
    return file


def test_an_existing_file_is_not_overwritten_unless_forced(begun: Path) -> None:
    settings = settings_of("adam")
    expected = " exists already; continue from it with --resume, or start over with --force"
    assert refused(begun, settings, resume=False) == expected
    seen: list[int] = []
    styled(settings, callback=lambda step: seen.append(step.count), checkpoint=begun, force=True)
    assert seen[0] == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 5}, "steps was 4, is 5"),
        ({"steps": (4, 4)}, "steps was 4, is [4, 4]"),
        ({"style_weight": 2.0, "tv_weight": 1.0}, "style_weight was 1000.0, is 2.0"),
        ({"optimizer": "lbfgs"}, 'optimizer was "adam", is "lbfgs"'),
        ({"average": 0.5}, "average was 0.0, is 0.5"),
        ({"weights": "other.pth"}, 'weights was null, is "other.pth"'),
    ],
)
def test_other_settings_are_refused_by_the_first_that_differs(
    begun: Path, changes: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = weights.load
    monkeypatch.setattr(weights, "load", lambda _, **rest: real(None, **rest))
    settings = dataclasses.replace(settings_of("adam"), **changes)
    assert refused(begun, settings) == f"of a run with other settings: {message}"


def test_a_setting_missing_from_the_file_has_its_default(begun: Path) -> None:
    """A file written before ``average`` existed."""

    def forget(header: dict[str, Any]) -> None:
        del header["settings"]["average"]

    settings = settings_of("adam")
    rewrite(begun, forget)
    assert refused(begun, dataclasses.replace(settings, average=0.5)).endswith("average was 0.0, is 0.5")
    assert same(styled(settings, checkpoint=begun, resume=True), styled(settings))


def test_other_pictures_are_refused(begun: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from PIL import Image

    settings = settings_of("adam")
    messages = []
    for content, style in ((5, 2), (0, 5)):
        with pytest.raises(CheckpointError) as caught:
            stylize(samples(seed=content), samples(seed=style), settings=settings, checkpoint=begun, resume=True)
        messages.append(str(caught.value))
    assert messages == [f"{begun}: of a run with another {part} picture" for part in ("content", "style")]
    start = tmp_path / "start.png"
    for seed in (7, 8):
        Image.fromarray(samples(seed=seed)).save(start)
        started = dataclasses.replace(settings, init=str(start))
        if seed == 7:
            styled(started, callback=stopping(1), checkpoint=begun, force=True)
    assert refused(begun, started) == "of a run with another start picture"


@pytest.fixture
def reload(bundled: Weights, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Make later reads of weights return the bundled ones, by the same name, with the given changes."""

    def change(convs: Mapping[str, tuple[Tensor, Tensor]] = MappingProxyType({}), **other: Any) -> None:
        read = dataclasses.replace(bundled, convs={**bundled.convs, **convs}, **other)
        monkeypatch.setattr(weights, "load", lambda *_, **rest: read)

    return change


def test_other_weights_of_the_same_name_are_refused(begun: Path, bundled: Weights, reload: Callable[..., None]) -> None:
    settings = settings_of("adam")
    weight, bias = bundled.convs["conv1_1"]
    other = weight.clone()
    other[0, 0, 0, 0] *= 1.01
    message = (
        f"of a run with other weights: {bundled.name} (SHA-256 {header(begun)['weights']['sha256'][:12]}...), not "
    )
    for changes in ({"convs": {"conv1_1": (other, bias)}}, {"convs": {"conv1_1": (weight, bias + 0.01)}}):
        reload(**changes)
        assert refused(begun, settings).startswith(f"{message}{bundled.name} (SHA-256 ")
    reload(mean=(0.0, 0.0, 0.0))
    assert refused(begun, settings).startswith(message)


def test_weights_equal_in_the_layers_used_are_accepted(
    begun: Path, bundled: Weights, reload: Callable[..., None]
) -> None:
    """Another name, and another value in a layer that the network does not use."""
    settings = settings_of("adam")
    weight, bias = bundled.convs["conv5_1"]
    reload({"conv5_1": (weight + 1, bias)}, name="the same")
    assert same(styled(settings, checkpoint=begun, resume=True), styled(settings))


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_digest_of_the_weights_is_the_same_for_any_precision(precision: str) -> None:
    digests = {
        stylizer.Stylizer(settings_of("adam", precision=one, convolution=convolution)).setup.weights_digest()
        for one, convolution in (("float64", "direct"), (precision, "direct"), (precision, "winograd"))
    }
    assert len(digests) == 1


def rewrite(file: Path, change: Callable[[dict[str, Any]], Any] = lambda facts: None, version: str = "4") -> None:
    """Change the header of a checkpoint and write the matching digest."""
    facts = header(file)
    change(facts)
    tensors, text = {name: x.clone() for name, x in load_file(file).items()}, json.dumps(facts)
    digest = checkpoint_file._digest_all(text, tensors)
    save_file(tensors, file, {"fastnst checkpoint": version, "run": text, "sha256": digest})


def test_a_checkpoint_of_another_format_is_refused(begun: Path) -> None:
    for version in ("3", "5"):
        rewrite(begun, version=version)
        message = f"a checkpoint of format {version}; this fastnst reads format 4"
        assert refused(begun, settings_of("adam")) == message


def test_a_truncated_file_is_refused_at_any_length(begun: Path) -> None:
    whole = begun.read_bytes()
    identity = checkpoint_file.Identity(settings_of("adam"), {}, "vgg19", "")
    header = int.from_bytes(whole[:8], "little")
    lengths = {*range(0, len(whole), len(whole) // 40), 1, 7, 8, 9, header, header + 7, header + 8, len(whole) - 1}
    assert len(lengths) >= 48
    for length in lengths:
        begun.write_bytes(whole[:length])
        with Checkpoint(begun, resume=True) as checkpoint, pytest.raises(CheckpointError) as caught:
            checkpoint.begin(identity)
        assert str(caught.value).startswith(f"{begun}: damaged, or not a checkpoint (")
        assert "\n" not in str(caught.value)
        assert begun.read_bytes() == whole[:length]


def test_a_damaged_file_is_refused_at_any_position(begun: Path) -> None:
    whole = begun.read_bytes()
    identity = checkpoint_file.Identity(settings_of("adam"), {}, "vgg19", "")
    generator = random.Random(0)
    positions = [generator.randrange(len(whole)) for _ in range(60)] + [whole.index(b'\\"seconds') + 12]
    for position in positions:
        begun.write_bytes(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])
        with Checkpoint(begun, resume=True) as checkpoint, pytest.raises(CheckpointError) as caught:
            checkpoint.begin(identity)
        assert "damaged" in str(caught.value) or "not a checkpoint" in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_foreign_file_is_refused_and_replaced_when_forced(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    settings = settings_of("adam")
    file.write_text("a letter\n" * 99)
    assert refused(file, settings).startswith("damaged, or not a checkpoint (")
    save_file({"x": torch.zeros(3)}, file)
    assert refused(file, settings) == "not a checkpoint of fastnst"
    assert same(styled(settings, checkpoint=file, resume=True, force=True), styled(settings))
    assert caplog.messages == [f"{file}: not a checkpoint of fastnst; starting over"]


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is a folder, expected the name of a file"):
        styled(settings_of("adam"), checkpoint=tmp_path)


def test_a_missing_folder_is_an_error_before_the_run(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"run\.ckpt: there is no folder .*nowhere; make it first$"):
        styled(settings_of("adam"), checkpoint=tmp_path / "nowhere" / "run.ckpt")
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_is_written_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    link, target = tmp_path / "link.ckpt", tmp_path / "far" / "run.ckpt"
    link.symlink_to(target)
    whole = styled(settings_of("adam"))
    styled(settings_of("adam"), callback=stopping(3), checkpoint=link)
    assert link.is_symlink()
    assert header(target)["finished"] is False
    with Checkpoint(target, resume=True), pytest.raises(CheckpointError, match="another run is using it"):
        styled(settings_of("adam"), checkpoint=link, resume=True)
    assert same(styled(settings_of("adam"), checkpoint=link, resume=True), whole)
    assert link.is_symlink()
    assert sorted(path.name for path in tmp_path.rglob("*")) == [".run.ckpt.lock", "far", "link.ckpt", "run.ckpt"]


def test_a_mounted_checkpoint_is_written_in_place(begun: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    number, rename = begun.stat().st_ino, Path.replace

    def busy(self: Path, target: Path) -> Path:
        if target == begun:
            raise OSError(errno.EBUSY, "Device or resource busy", str(target))
        return rename(self, target)

    monkeypatch.setattr(Path, "replace", busy)
    found = styled(settings_of("adam"), checkpoint=begun, resume=True, checkpoint_every=1)
    assert same(found, styled(settings_of("adam")))
    assert begun.stat().st_ino == number
    assert header(begun)["finished"] is True


def test_a_loaded_state_does_not_depend_on_the_file(begun: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings, real = settings_of("adam"), Checkpoint.begin
    before: list[str] = []

    def begin(self: Checkpoint, identity: Any) -> Any:
        saved = real(self, identity)
        before.extend(name for name, x in saved.loop.state["loop"].items() if isinstance(x, Tensor))
        begun.write_bytes(bytes(begun.stat().st_size))
        return saved

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoint, "begin", begin)
        result = styled(settings, checkpoint=begun, resume=True)
    assert "image" in before
    assert same(result, styled(settings))


def test_a_pipe_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.ckpt")
    with pytest.raises(CheckpointError, match="is a pipe or a device; expected the name of a file"):
        styled(settings_of("adam"), checkpoint=tmp_path / "pipe.ckpt", resume=True)
    assert [path.name for path in tmp_path.iterdir()] == ["pipe.ckpt"]


def test_partial_files_of_a_killed_run_are_removed(begun: Path) -> None:
    partial = begun.with_name(".run.ckpt.part")
    partial.mkdir()
    (partial / ".tmpX").write_text("half of it")
    styled(settings_of("adam"), checkpoint=begun, resume=True)
    assert sorted(path.name for path in begun.parent.iterdir()) == [".run.ckpt.lock", "run.ckpt"]


def test_a_checkpoint_has_the_permissions_of_any_new_file(begun: Path) -> None:
    begun.with_name("plain").touch()
    assert begun.stat().st_mode == begun.with_name("plain").stat().st_mode


def test_two_runs_cannot_share_a_checkpoint(begun: Path) -> None:
    message = "another run is using it; give each run a file of its own"
    with Checkpoint(begun, resume=True):
        assert refused(begun, settings_of("adam")) == message
        assert refused(begun, settings_of("adam"), resume=False, force=True) == message
    assert styled(settings_of("adam"), checkpoint=begun, resume=True).stopped is None


@pytest.mark.parametrize("every", [0, -1, 1.5, True, "3"])
def test_an_invalid_interval_is_refused(file: Path, every: Any) -> None:
    with pytest.raises(
        UsageError, match=r"^checkpoint_every: expected a whole number of at least 1 and at most 1000000000, got"
    ):
        styled(settings_of("adam"), checkpoint=file, checkpoint_every=every)


def test_resuming_requires_a_file() -> None:
    with pytest.raises(UsageError, match=r"^resume: expected the file to continue from as well"):
        styled(settings_of("adam"), resume=True)


def test_a_full_disk_does_not_end_the_run_and_the_last_state_is_kept(
    begun: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    settings = settings_of("adam")
    before = begun.read_bytes()

    def full(tensors: Any, path: Path, metadata: Any) -> None:
        path.write_bytes(b"the first half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint_file, "save_file", full)
        result = styled(settings, checkpoint=begun, resume=True)
    assert same(result, styled(settings))
    assert "cannot be written ([Errno 28] No space left on device); continuing, the file keeps its last state" in (
        caplog.text
    )
    assert begun.read_bytes() == before
    assert sorted(path.name for path in begun.parent.iterdir()) == [".run.ckpt.lock", "run.ckpt"]

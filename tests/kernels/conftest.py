import pytest
from emulated import Device
from emulator_build import load_emulator


@pytest.fixture(scope="session")
def module():
    """The emulator's Python module, built first."""
    return load_emulator()


@pytest.fixture
def device(module):
    """A device with the first schedule and without counters: see emulated.py."""
    return Device(module)

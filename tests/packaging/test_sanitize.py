"""Which reports of a sanitizer fail `make asan` and `make tsan`."""

from __future__ import annotations

import pytest

from tools.sanitize import is_fault

# Printed by GCC 12's sanitizers.
OUT_OF_MEMORY = "==18139==WARNING: AddressSanitizer failed to allocate 0x16bcc41e90000 bytes\n"
OVERFLOW = "=================\n==7==ERROR: AddressSanitizer: heap-buffer-overflow\n"
UNDEFINED = "a.cpp:3:7: runtime error: signed integer overflow: 2147483647 + 1 cannot be represented in type 'int'\n"
RACE = "==================\nWARNING: ThreadSanitizer: data race (pid=7)\n"


@pytest.mark.parametrize("report", [OVERFLOW, UNDEFINED, RACE, OUT_OF_MEMORY + OVERFLOW, "something new\n"])
def test_a_report_is_a_fault(report: str) -> None:
    assert is_fault(report)


@pytest.mark.parametrize("report", ["", OUT_OF_MEMORY, OUT_OF_MEMORY * 2 + "\n"])
def test_memory_that_ran_out_is_none(report: str) -> None:
    """The options of the run ask for it: a test requests more memory than exists, and expects torch's error."""
    assert not is_fault(report)

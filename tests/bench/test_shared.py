"""The benchmark beside busy processes: its table, and that the processes end."""

from __future__ import annotations

import psutil

from bench.e2e import shared


def test_the_table_relates_a_run_to_itself_alone_and_to_the_reference() -> None:
    seconds = {name: {"0": [factor], "1": [2 * factor]} for factor, name in enumerate(shared.NAMES, 1)}
    seconds[shared.NAMES[2]]["1"] = [9.0]
    (table,) = shared.tables({"seconds": seconds})
    rows = {(row[0], row[1]): row for row in table.rows}
    assert rows[shared.NAMES[2], "1"][3].startswith("3.00")
    assert rows[shared.NAMES[2], "1"][4] == "1.5"
    assert rows[shared.NAMES[2], "1"][5].startswith("4.50")
    assert rows[shared.NAMES[0], "1"][5].startswith("1.00")
    assert rows[shared.NAMES[1], "1"][4] == ""


def test_busy_processes_compute_until_the_context_ends() -> None:
    before = set(psutil.Process().children())
    with shared.busy_processes(2):
        started = set(psutil.Process().children()) - before
        assert len(started) == 2
    assert not any(process.is_running() for process in started)

"""`fastnst studio`: wrong options, what is missing, and what the process of the server loads."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from fastnst.cli import main


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--port", "http"], "--port: expected a whole number of at least 0 and at most 65535, got 'http'"),
        (["--port", "65536"], "--port: expected a whole number of at least 0 and at most 65535, got 65536"),
        (["--parallel", "0"], "--parallel: expected a whole number of at least 1"),
        (["--max-pixels", "-1"], "--max-pixels: expected a whole number of at least 2"),
        (["--host", "0.0.0.0"], "--host 0.0.0.0: other machines can reach it; expected a --token of at least 16"),
        (["--host", "nowhere.invalid"], "--host nowhere.invalid: other machines can reach it"),
        (["--token", "abc", "--host", "0.0.0.0"], "expected a --token of at least 16 characters"),
        (["picture.png"], "unrecognized argument 'picture.png'"),
    ],
)
def test_wrong_options(
    arguments: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["studio", *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert not Path("studio").exists()


def test_a_file_in_the_place_of_the_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "studio").write_text("mine")
    assert main(["studio", "--folder", str(tmp_path / "studio"), "--port", "0"]) == 2
    assert "studio: cannot be written (File exists)" in capsys.readouterr().err
    assert (tmp_path / "studio").read_text() == "mine"


def test_a_port_in_use(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert main(["studio", "--folder", str(tmp_path / "s"), "--port", str(port)]) == 2
    assert (
        f"--port {port}: cannot be used on 127.0.0.1 (Address already in use); expected another"
        in capsys.readouterr().err
    )


@pytest.mark.parametrize("missing", ["fastapi", "uvicorn"])
def test_without_the_extra(
    missing: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.startswith(("fastnst.studio.app", missing))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, missing, None)
    assert main(["studio", "--folder", str(tmp_path / "s")]) == 2
    assert "install them with pip install 'fastnst[studio]'" in capsys.readouterr().err
    assert not (tmp_path / "s").exists()


def test_ctrl_c_ends_it(tmp_path: Path) -> None:
    import signal

    command = [sys.executable, "-m", "fastnst", "studio", "--folder", str(tmp_path / "s"), "--port", "0", "--demo"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("studio: http://127.0.0.1:")
        assert line.strip().endswith("#demo")
        maps = Path(f"/proc/{process.pid}/maps")
        if maps.exists():
            assert "libtorch" not in maps.read_text()  # the server is small, and no picture is decoded in it
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode in (0, 130)
    assert "Traceback" not in errors

"""Runs inputs in child processes with limits, and reports crashes, hangs and excessive memory."""

from __future__ import annotations

import contextlib
import faulthandler
import json
import os
import resource
import selectors
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
KEPT = ROOT / "build" / "fuzz"
SECONDS = 20.0  # for one input
START = 120.0  # until torch is imported and every reader has read a whole file
MEMORY = 1 << 30  # bytes of address space beyond what the process has before its first input

Job = tuple[str, int]  # reader, seed


@dataclass(frozen=True)
class Outcome:
    """The outcome of an input: ``loaded``, ``refused``, or a fault and its location."""

    reader: str
    seed: int
    kind: str
    text: str = ""
    place: str = ""

    @property
    def failed(self) -> bool:
        return self.kind not in ("loaded", "refused")

    def __str__(self) -> str:
        again = f"python -m tests.fuzz --reader {self.reader} --seed {self.seed}"
        return f"{self.reader} {self.seed}: {self.kind} at {self.place or '?'}: {self.text[:300]!r} ({again})"


def run(
    jobs: Sequence[Job],
    workers: int = 2,
    watch: Callable[[Outcome], None] = lambda _: None,
    seconds: float = SECONDS,
) -> list[Outcome]:
    """Return outcomes in the order of the jobs; ``watch`` is called with each. The bytes of failures are kept.

    An input may take so many ``seconds``.
    """

    def work(first: int) -> list[Outcome]:
        found = []
        for outcome in _supervised(jobs[first::workers], seconds):
            watch(outcome)
            found.append(outcome)
        return found

    with ThreadPoolExecutor(workers) as pool:
        parts = list(pool.map(work, range(workers)))
    found = {(outcome.reader, outcome.seed): outcome for part in parts for outcome in part}
    return [found[job] for job in jobs]


def _supervised(jobs: Sequence[Job], seconds: float) -> Iterator[Outcome]:
    """Run the jobs in a child; after a crash or a hang, the rest in another child."""
    left = list(jobs)
    while left:
        done = 0
        for outcome in _one_child(left, seconds):
            done += 1
            yield outcome
        left = left[done:]


def _one_child(jobs: Sequence[Job], seconds: float) -> Iterator[Outcome]:
    with tempfile.TemporaryDirectory(prefix="fastnst-fuzz-") as folder, Path(folder, "stderr").open("w+b") as errors:
        child = subprocess.Popen(
            [sys.executable, "-m", "tests.fuzz", "--child", folder, "--kept", KEPT],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            cwd=folder,
            env=environment(),
        )
        assert child.stdin
        assert child.stdout
        with contextlib.suppress(BrokenPipeError):
            child.stdin.write(json.dumps(jobs).encode())
            child.stdin.close()
        try:
            ready = _line(child, START)
            if not ready:
                errors.seek(0)
                raise RuntimeError(f"the child did not start:\n{errors.read().decode(errors='replace')}")
            for job in jobs:
                line = _line(child, seconds)
                if line:
                    yield Outcome(*job, *json.loads(line))
                    continue
                hung = child.poll() is None
                child.kill()
                code = child.wait()
                yield _ended(job, folder, code, hung)
                return
        finally:
            child.kill()
            child.wait()
            child.stdout.close()


def environment() -> dict[str, str]:
    """The PYTHONPATH of a child: the fastnst of this process, and this package."""
    import fastnst

    source = str(Path(fastnst.__file__).resolve().parents[1])
    path = os.pathsep.join([source, str(ROOT)])
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "PYTHONFAULTHANDLER": "1"}


_buffers: dict[int, bytes] = {}


def _line(child: subprocess.Popen[bytes], seconds: float) -> bytes:
    """The next line of a child's answer; empty if it has ended or timed out."""
    assert child.stdout
    held = _buffers.pop(child.pid, b"")
    with selectors.DefaultSelector() as selector:
        selector.register(child.stdout, selectors.EVENT_READ)
        while b"\n" not in held:
            if not selector.select(seconds):
                return b""
            more = os.read(child.stdout.fileno(), 1 << 16)
            if not more:
                child.wait()
                return b""
            held += more
    line, _, rest = held.partition(b"\n")
    _buffers[child.pid] = rest
    return line


def _ended(job: Job, folder: str, code: int, hung: bool) -> Outcome:
    said = Path(folder, "stderr").read_bytes().decode(errors="replace")
    last = [line.strip() for line in said.partition("Fatal Python error")[2].splitlines() if "File " in line]
    made = Path(folder, "input")
    if made.exists():
        keep(*job, made.read_bytes())
    if hung:
        return Outcome(*job, "hang", "no end")
    name = signal.Signals(-code).name if code < 0 else f"exit {code}"
    return Outcome(*job, f"crash ({name})", said[:300] if last else said[-300:], last[0] if last else "")


def keep(name: str, seed: int, data: bytes, kept: Path | None = None) -> Path:
    """Write an input to build/fuzz, or to the folder for failures."""
    from .readers import reader

    folder = kept or KEPT
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}-{seed}{reader(name).suffix}"
    path.write_bytes(data)
    return path


def child(folder: Path, kept: Path) -> None:
    """Answer each job of stdin (JSON) with a line of JSON on stdout."""
    import torch

    from .readers import make

    faulthandler.enable()
    torch.set_num_threads(1)
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # so that output of libraries is not taken for an answer
    jobs = json.load(sys.stdin)
    for name in dict.fromkeys(name for name, _ in jobs):
        judge(name, _written(folder, name, make(name, -1)))  # imports the libraries of the reader
    held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (held + MEMORY,) * 2)
    print("ready", file=answers, flush=True)
    for name, seed in jobs:
        data = make(name, seed)
        (folder / "input").write_bytes(data)
        outcome = judge(name, _written(folder, name, data))
        if outcome[0] not in ("loaded", "refused"):
            keep(name, seed, data, kept)
        print(json.dumps(outcome), file=answers, flush=True)


def _written(folder: Path, name: str, data: bytes) -> Path:
    from .readers import reader

    path = folder / f"case{reader(name).suffix}"
    path.write_bytes(data)
    return path


def judge(name: str, path: Path) -> tuple[str, str, str]:
    """Read a file; return kind, text and location of the outcome."""
    from fastnst.errors import FastnstError

    from .readers import Broken, check_error, reader

    try:
        reader(name).read(path)
    except FastnstError as error:
        try:
            check_error(error)
        except Broken as broken:
            return "message", str(broken), _place(error)
        return "refused", str(error), ""
    except Exception as error:
        return type(error).__name__, str(error), _place(error)
    return "loaded", "", ""


def _place(error: BaseException) -> str:
    """The innermost line of fastnst in the traceback."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if f"{os.sep}fastnst{os.sep}" in frame.filename and "tests" not in frame.filename]
    frame = (own or frames)[-1]
    return f"{frame.filename.partition(f'{os.sep}fastnst{os.sep}')[2] or frame.filename}:{frame.lineno} in {frame.name}"


def jobs(count: int, names: Iterable[str], first: int = 0) -> list[Job]:
    """About ``count`` jobs, divided among the readers, at least one each."""
    from .readers import SHARES

    shares = {name: SHARES.get(name, 1) for name in names}
    each = count / sum(shares.values())
    return [(name, first + seed) for name, share in shares.items() for seed in range(max(round(each * share), 1))]

"""A valid digest does not prove the origin: contents that no run writes are refused in one line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from support.checkpoints import forge, same, settings_of, stopping, styled

from fastnst.errors import CheckpointError
from fastnst.run.checkpoint import Checkpoint
from fastnst.run.checkpoint_file import Identity

Change = Callable[[dict[str, Any], dict[str, Any]], Any]
RUNS: dict[str, tuple[str, dict[str, Any], int | None]] = {  # optimizer, settings, steps before it is stopped
    "adam": ("adam", {"average": 0.5}, 6),
    "lbfgs": ("lbfgs", {}, 7),
    "finished": ("adam", {}, None),
}
DIGITS = "9" * 5000


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[bytes, Identity]]:
    """The checkpoint and the identity of each run."""
    folder = tmp_path_factory.mktemp("runs")
    found = {}
    identities: list[Identity] = []
    begin = Checkpoint.begin

    def remember(self: Checkpoint, identity: Identity) -> Any:
        identities.append(identity)
        return begin(self, identity)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Checkpoint, "begin", remember)
        for name, (optimizer, changes, at) in RUNS.items():
            callback = None if at is None else stopping(at)
            styled(settings_of(optimizer, **changes), checkpoint=folder / name, callback=callback)
            found[name] = ((folder / name).read_bytes(), identities[-1])
    return found


def field(name: str, *values: Any) -> list[Change]:
    """Changes of a header field, ``a.b.0`` for a nested one, to each of the values; ``...`` removes it."""

    def setting(value: Any) -> Change:
        def change(facts: dict[str, Any], tensors: dict[str, Any]) -> None:
            *path, last = (int(part) if part.lstrip("-").isdigit() else part for part in name.split("."))
            parent: Any = facts
            for part in path:
                parent = parent[part]
            if value is ...:
                del parent[last]
            else:
                parent[last] = value

        change.__name__ = f"{name} {str(value)[:12]!r}"
        return change

    return [setting(value) for value in values]


def tensor(name: str, *values: Callable[[torch.Tensor], torch.Tensor] | None) -> list[Change]:
    def setting(value: Any) -> Change:
        def change(facts: dict[str, Any], tensors: dict[str, Any]) -> None:
            if value is None:
                del tensors[name]
            else:
                tensors[name] = value(tensors.get(name, torch.zeros(3))).contiguous()

        return change

    found = [setting(value) for value in values]
    for i, change in enumerate(found):
        change.__name__ = f"{name!r} {i}"
    return found


def with_last(value: float) -> Callable[[torch.Tensor], torch.Tensor]:
    def change(x: torch.Tensor) -> torch.Tensor:
        x.view(-1)[-1] = value
        return x

    return change


NAN, INF = float("nan"), float("inf")
SHAPES = (
    lambda x: x[..., :-1],
    lambda x: x[None],
    lambda x: x[:0],
    lambda x: x.double(),
    lambda x: x.to(torch.int8),
)
ANY: list[Change] = [
    *field("scale", 0, -1, 3, 1.5, True, "1", None, [], 10**30, NAN, ...),
    *field("seconds", -1, NAN, INF, "1", None, True, 10**400, {}, ...),
    *field("finished", 0, 1, "no", None, [], ...),
    *field("stopped", "", "interrupt", 3, False, {"a": 1}, ...),
    *field("trace", None, [], [[]], {}, [1, 2], [[], [], []], "ab", ...),
    *field("trace.0", None, 3, "abcd", {}, [[1]], [3], [{}] * 4),
    *field("trace.0.0.total", NAN, INF, "1", None, [], 10**400, ...),
    *field("trace.0.0.content", [], None, {"relu1_9": 1.0}, {"relu1_1\n": 1.0}, ...),
    *field("trace.0.0.style", {"relu1_1": NAN}, {"relu1_1": "1"}, 3),
    *field("trace.0.0.tv", None, -INF, {}),
    *field("trace.0.0.more", 1.0),
    *field("numbers", None, [], 3, ...),
    *field("numbers.more", 1),
    *field("settings", None, [], {"size": 48, "more": 1}, ...),
    *field("settings.more", 1, {"a": [1]}),
    *field("settings.steps", 10**400, NAN, ...),
    *field("pictures", None, [], {}, ...),
    *field("pictures.content", None, 3, "0" * 63, "0" * 64 + "\n", "\x1b" * 64, [], ...),
    *field("pictures.more", "0" * 64),
    *field("weights", None, [], "a", {}, ...),
    *field("weights.sha256", None, 3, "x" * 64, ...),
    *field("weights.name", None, 3, ...),
    *field("weights.more", 3),
    *field("more", 1, None),
    *tensor("loop.image", *SHAPES, with_last(NAN), with_last(-INF), None),
    *tensor("more", lambda x: x),
    *tensor("a\x1b[31m", lambda x: x),
]
TEXTS = ["", "{", "null", "[]", "3", '"a"', "[" * 100_000, f'{{"scale": {DIGITS}}}', "NaN", "\ufeff{}"]
OF_RUNS: dict[str, list[Change]] = {
    "adam": [
        *field("numbers.optimizer.count", -1, 7, 1.5, "6", None, True, 10**400, ...),
        *field("numbers.optimizer.learning_rate", 0, -1, NAN, INF, 2.0, "1", None, ...),
        *field("numbers.average.count", -1, 3, None, ...),
        *(
            change
            for name in ("loop.good", "optimizer.mean", "optimizer.square", "average.sum")
            for change in tensor(name, *SHAPES, None, with_last(NAN))
        ),
        *tensor("optimizer.pair0", lambda x: x),
        *field("scale", 1),
        *field("finished", True),
        *field("trace.1", [], [{}] * 5),
    ],
    "lbfgs": [
        *field(
            "numbers.optimizer.curvatures", None, [], [1.0] * 2, [1.0] * 4, [NAN] * 3, [-1.0] * 3, [0.0] * 3, "abc", ...
        ),
        *field("numbers.optimizer.count", -1, 4, 10**12, 0, None, 0.5, ...),
        *field("numbers.optimizer.scale", 0, -1.0, NAN, INF, None, ...),
        *(
            change
            for name in ("loop.good", "optimizer.pair0", "optimizer.gradient", "optimizer.direction")
            for change in tensor(name, *SHAPES, None, with_last(NAN))
        ),
        *tensor("pair7", lambda x: x),
        *tensor("optimizer.mean", lambda x: x),
    ],
    "finished": [
        *field("numbers.optimizer", {"count": 1}),
        *field("scale", 1),
        *field("finished", False),
        *tensor("loop.good", lambda x: x),
    ],
}
VARIANTS = [(run, change) for run in RUNS for change in [*ANY, *OF_RUNS[run]]]


def refusal(file: Path, identity: Identity) -> str:
    with Checkpoint(file, resume=True) as checkpoint, pytest.raises(CheckpointError) as caught:
        checkpoint.begin(identity)
    return str(caught.value)


def test_there_are_many_variants() -> None:
    assert len(VARIANTS) > 300


@pytest.mark.parametrize(("run", "change"), VARIANTS, ids=lambda one: one if isinstance(one, str) else one.__name__)
@pytest.mark.sweep(4)
def test_a_forged_checkpoint_is_refused(
    run: str, change: Change, runs: dict[str, tuple[bytes, Identity]], tmp_path: Path
) -> None:
    file, (data, identity) = tmp_path / "run.ckpt", runs[run]
    file.write_bytes(data)
    forge(file, change)
    before = file.read_bytes()
    message = refusal(file, identity)
    assert message.startswith(f"{file}: ")
    assert "damaged" not in message
    assert message.isprintable()
    assert len(message) < len(str(file)) + 600
    assert file.read_bytes() == before


@pytest.mark.parametrize("number", range(len(TEXTS)))
def test_a_header_that_is_not_a_record_is_refused(
    number: int, runs: dict[str, tuple[bytes, Identity]], tmp_path: Path
) -> None:
    file, (data, identity) = tmp_path / "run.ckpt", runs["adam"]
    file.write_bytes(data)
    forge(file, lambda facts, tensors: TEXTS[number])
    assert refusal(file, identity).startswith(f"{file}: not of a run: ")


@pytest.mark.usefixtures("weights_read_once")
@pytest.mark.parametrize("run", RUNS)
def test_an_unchanged_checkpoint_is_accepted(run: str, runs: dict[str, tuple[bytes, Identity]], tmp_path: Path) -> None:
    file, (optimizer, changes, _) = tmp_path / "run.ckpt", RUNS[run]
    file.write_bytes(runs[run][0])
    forge(file, lambda facts, tensors: None)
    settings = settings_of(optimizer, **changes)
    assert same(styled(settings, checkpoint=file, resume=True), styled(settings))


@pytest.mark.usefixtures("weights_read_once")
def test_a_forged_checkpoint_is_replaced_when_forced(
    runs: dict[str, tuple[bytes, Identity]], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file, settings = tmp_path / "run.ckpt", settings_of("adam", average=0.5)
    file.write_bytes(runs["adam"][0])
    forge(file, field("scale", 0)[0])
    assert same(styled(settings, checkpoint=file, resume=True, force=True), styled(settings))
    assert "starting over" in caplog.text


def test_a_tensor_of_an_unknown_dtype_is_refused_before_it_is_read(
    runs: dict[str, tuple[bytes, Identity]], tmp_path: Path
) -> None:
    """Written by hand: PyTorch has no such type."""
    file, (data, identity) = tmp_path / "run.ckpt", runs["adam"]
    length = int.from_bytes(data[:8], "little")
    head = json.loads(data[8 : 8 + length])
    end = max(part["data_offsets"][1] for name, part in head.items() if name != "__metadata__")
    head["more"] = {"dtype": "F8_E8M0", "shape": [8], "data_offsets": [end, end + 8]}
    text = json.dumps(head).encode()
    text += b" " * (-len(text) % 8)
    file.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + length :] + bytes(8))
    assert "not of a run: 'more' is of type 'F8_E8M0'" in refusal(file, identity)


def test_a_state_that_is_not_finite_is_not_written(tmp_path: Path) -> None:
    """A step that is too long is rejected at the next step: the file keeps the state of the step before."""
    from fastnst.optim.loop import LoopState
    from fastnst.run.checkpoint_file import SavedRun

    file = tmp_path / "run.ckpt"
    with Checkpoint(file) as checkpoint:
        checkpoint.save(SavedRun(loop=LoopState(state={"loop": {"image": torch.ones(1, 3, 4, 4)}})))
        before = file.read_bytes()
        checkpoint.save(SavedRun(loop=LoopState(state={"loop": {"image": torch.full((1, 3, 4, 4), NAN)}})))
        assert file.read_bytes() == before

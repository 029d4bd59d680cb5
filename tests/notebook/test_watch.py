"""``watch`` without a kernel: when it updates, what it sends, and what happens where there is no notebook."""

from __future__ import annotations

import base64
import io
import logging
import re
import sys
import types
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from support.pictures import samples, tiny

import fastnst
from fastnst.errors import UsageError
from fastnst.run.pacing import INTERVAL, SHARE, Budget
from fastnst.run.stylizer import stylize

pytestmark = pytest.mark.usefixtures("weights_read_once")


class Events:
    """IPython's events of cells."""

    def __init__(self) -> None:
        self.waiting: list[Callable[..., None]] = []

    def register(self, name: str, function: Callable[..., None]) -> None:
        assert name == "post_run_cell"
        self.waiting.append(function)

    def unregister(self, name: str, function: Callable[..., None]) -> None:
        self.waiting.remove(function)

    def end_cell(self) -> None:
        for function in list(self.waiting):
            function(object())


class Page:
    """IPython with a kernel, and the displays that it was sent: name, whether it was new, and the bundle."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.sent: list[tuple[str, bool, dict[str, str]]] = []
        self.events = Events()
        self.kernel: object | None = object()
        package, display = types.ModuleType("IPython"), types.ModuleType("IPython.display")
        package.get_ipython = lambda: self  # type: ignore[attr-defined]
        package.display = display  # type: ignore[attr-defined]
        display.display = lambda *a, **k: self._send(True, *a, **k)  # type: ignore[attr-defined]
        display.update_display = lambda *a, **k: self._send(False, *a, **k)  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "IPython", package)
        monkeypatch.setitem(sys.modules, "IPython.display", display)

    def _send(self, new: bool, bundle: dict[str, str], *, raw: bool, display_id: str) -> None:
        assert raw
        self.sent.append((display_id, new, bundle))

    def captions(self) -> list[str]:
        return [bundle["text/plain"] for _, _, bundle in self.sent]


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch) -> Page:
    return Page(monkeypatch)


@pytest.fixture
def every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Budget, "due", lambda *_: True)


def run(callback: Any, **changes: Any) -> fastnst.Result:
    return stylize(samples(), samples(seed=2), settings=tiny(**changes), callback=callback)


def picture(bundle: dict[str, str]) -> Image.Image:
    (data,) = re.findall('src="data:image/jpeg;base64,([^"]*)"', bundle["text/html"])
    return Image.open(io.BytesIO(base64.b64decode(data)))


def vector(bundle: dict[str, str]) -> bytes:
    (data,) = re.findall('src="data:image/svg\\+xml;base64,([^"]*)"', bundle["text/html"])
    return base64.b64decode(data)


def test_one_display_is_updated_and_ends_with_the_last_step(page: Page, every_step: None) -> None:
    result = run(fastnst.watch(), scales=(32, 64), steps=3)
    assert [new for _, new, _ in page.sent] == [True] + 5 * [False]
    assert len({name for name, _, _ in page.sent}) == 1
    captions = page.captions()
    assert captions[0].startswith("scale 1/2, step 1/3, loss ")
    assert all(caption.endswith(" left") for caption in captions[:-1])
    assert captions[-1].startswith(f"scale 2/2, step 3/3, loss {result.trace[1][2].total:.4g}, ")
    assert "left" not in captions[-1]
    assert "<img" not in page.sent[0][2]["text/html"]
    last = picture(page.sent[-1][2])
    assert last.size == (64, 48)
    pixels = torch.frombuffer(bytearray(last.tobytes()), dtype=torch.uint8).view(48, 64, 3).permute(2, 0, 1)[None]
    assert (pixels / 255 - result.image).abs().mean() < 0.02
    assert vector(page.sent[-1][2]).count(b"stroke-dasharray") == 1
    page.events.end_cell()
    assert len(page.sent) == 6
    assert page.events.waiting == []


def test_a_short_run_shows_its_first_and_its_last_step(page: Page) -> None:
    run(fastnst.watch(), steps=4)
    assert [caption.partition(",")[0] for caption in page.captions()] == ["step 1/4", "step 4/4"]


def test_a_run_of_one_step_shows_its_picture(page: Page) -> None:
    run(fastnst.watch(), steps=1)
    ((_, new, bundle),) = page.sent
    assert new
    assert picture(bundle).size == (64, 48)
    assert "image/svg+xml" not in bundle["text/html"]


def test_a_large_picture_is_shown_at_the_size_asked_for(page: Page, every_step: None) -> None:
    run(fastnst.watch(size=40))
    assert picture(page.sent[-1][2]).size == (40, 30)
    assert 'width="40" height="30"' in page.sent[-1][2]["text/html"]


def test_a_coarse_scale_is_shown_in_the_place_of_the_last(page: Page, every_step: None) -> None:
    run(fastnst.watch(), scales=(32, 64), steps=2)
    coarse = page.sent[1][2]
    assert picture(coarse).size == (32, 24)
    assert 'width="64" height="48"' in coarse["text/html"]


def test_two_runs_have_two_displays(page: Page, every_step: None) -> None:
    shown = fastnst.watch()
    run(shown)
    run(shown)
    assert [new for _, new, _ in page.sent] == [True, False, False] * 2
    assert len({name for name, _, _ in page.sent}) == 2


@pytest.mark.parametrize("how", ["callback", "interrupt"])
def test_a_run_that_was_stopped_shows_no_time_left_when_the_cell_ends(page: Page, every_step: None, how: str) -> None:
    shown = fastnst.watch()

    def callback(step: fastnst.Step) -> bool:
        shown(step)
        if step.step == 3 and how == "interrupt":
            raise KeyboardInterrupt
        return step.step == 3

    result = run(callback, steps=50)
    assert result.stopped == how
    assert page.captions()[-1].endswith(" left")
    page.events.end_cell()
    assert page.captions()[-1].startswith("step 3/50, loss ")
    assert not page.captions()[-1].endswith(" left")
    assert picture(page.sent[-1][2]).size == (64, 48)


def test_a_page_that_has_gone_does_not_end_the_run(
    page: Page, every_step: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def gone(*_: Any, **__: Any) -> None:
        raise OSError("the connection was lost")

    monkeypatch.setattr(page, "_send", gone)
    with caplog.at_level(logging.WARNING, "fastnst"):
        result = run(fastnst.watch())
    assert result.stopped is None
    assert [record.getMessage() for record in caplog.records] == [
        "watch: the connection was lost; nothing more is shown"
    ]


def test_watching_changes_no_bit(page: Page, every_step: None) -> None:
    assert torch.equal(run(fastnst.watch()).image, run(None).image)


def test_without_ipython_one_line_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "IPython", None)
    with pytest.raises(UsageError, match=r"^watch: needs IPython, .*; pip install 'fastnst\[notebook\]'$"):
        fastnst.watch()


def test_in_a_terminal_nothing_is_shown_and_one_line_says_so(page: Page, caplog: pytest.LogCaptureFixture) -> None:
    page.kernel = None
    with caplog.at_level(logging.WARNING, "fastnst"):
        run(fastnst.watch())
    assert page.sent == []
    assert [record.getMessage() for record in caplog.records] == [
        "watch: shows a run in a notebook, and this is none; nothing is shown"
    ]


@pytest.mark.parametrize("size", [0, 31, 2.5, "512", None])
def test_a_size_that_is_none_is_refused(page: Page, size: Any) -> None:
    with pytest.raises(UsageError, match="size: expected a whole number of at least 32"):
        fastnst.watch(size)


@given(
    st.lists(st.tuples(st.floats(1e-3, 5.0), st.floats(1e-4, 0.3)), min_size=1, max_size=200),
    st.integers(1, 10**8),
)
def test_updates_stay_within_their_share(steps: list[tuple[float, float]], pixels: int) -> None:
    """For any steps, of any duration, and updates of at most the time of the one before: at most twice a second, and
    never more than the share of the time so far, with one update more in reserve."""
    now, spent, last = 1000.0, 0.0, -INTERVAL
    budget, cost, shown = Budget(now, pixels), None, []
    for duration, update in steps:
        now += duration
        if not budget.due(now, 1):
            continue
        cost = min(update, cost if cost is not None else 0.005 + 2e-8 * pixels)
        assert now - last >= INTERVAL
        budget.add(now, now + cost, 1)
        now += cost
        spent, last = spent + cost, now
        shown.append(now)
        assert spent + cost <= SHARE * (now - 1000) * (1 + 1e-9)
    assert SHARE < 0.02

"""The page of the studio in Chromium: by mouse, keyboard and touch, on wide and narrow screens."""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from clients import Remote, picture, served
from PIL import Image

sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
QUIET = "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
QUIET += " --disable-component-update --disable-sync"
SIZE = {"width": 1280, "height": 800}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET.split())
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def remote(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Remote]:
    with served(tmp_path_factory.mktemp("studio")) as remote:
        yield remote


def until(page: Any, expression: str) -> None:
    """Wait until JavaScript is true. Playwright's own way evaluates text in the page, which its policy forbids."""
    for _ in range(900):
        if page.evaluate(expression):
            return
        page.wait_for_timeout(100)
    raise AssertionError(f"waited for {expression}")


class Visit:
    """A visitor's browser, which fails the test for errors in its console and for requests to elsewhere."""

    def __init__(self, browser: Any, remote: Remote, **options: Any) -> None:
        self.context = browser.new_context(**{"viewport": SIZE, "accept_downloads": True, **options})
        self.context.set_default_timeout(90_000)
        self.remote, self.problems = remote, []
        self.page = self.open()

    def open(self, address: str | None = None) -> Any:
        """A new tab."""
        page = self.context.new_page()
        page.on("console", lambda message: message.type in ("error", "warning") and self.problems.append(message.text))
        page.on("pageerror", lambda error: self.problems.append(str(error)))
        page.on("request", lambda request: self._check(request.url))
        page.on("dialog", lambda dialog: self.problems.append(f"dialog: {dialog.message}"))
        page.goto(address or self.remote.place)
        page.wait_for_selector("body[data-ready=yes]")
        return page

    def _check(self, url: str) -> None:
        if not url.startswith((self.remote.place, "data:", "blob:")):
            self.problems.append(f"asked {url}")

    def part(self, name: str, page: Any = None) -> Any:
        return (page or self.page).get_by_test_id(name)

    def upload(self, role: str, *files: tuple[str, bytes]) -> None:
        given = [{"name": name, "mimeType": "image/png", "buffer": data} for name, data in files]
        self.part(f"{role}-file").set_input_files(given)

    def pictures(self) -> None:
        """Give a photograph and a painting, and settings that take a second."""
        self.upload("content", ("photo.png", picture(1, 96, 64)))
        self.upload("styles", ("painting.png", picture(2)))
        self.part("content-slot").get_by_text("photo.png").wait_for()
        self.part("style-slots").get_by_text("painting.png").wait_for()

    def settings(self, **texts: str) -> None:
        if self.page.locator("#settings-more").get_attribute("aria-expanded") != "true":
            self.page.locator("#settings-more").click()
        for name, text in texts.items():
            self.part("settings-search").fill(name)  # opens its group
            box = self.part(f"setting-{name}")
            box.fill(text)
            box.press("Tab")

    def start(self, **texts: str) -> None:
        self.pictures()
        self.settings(**{"size": "64", "scales": "1", "steps": "6", **texts})
        self.part("start").click()
        self.says("step")

    def says(self, text: str, page: Any = None) -> None:
        """Wait until the line under the picture says something."""
        self.part("run-line", page).filter(has_text=text).wait_for()

    def shown(self) -> np.ndarray[Any, Any]:
        """What the stage shows."""
        return np.asarray(Image.open(io.BytesIO(self.part("stage").screenshot())).convert("RGB")).astype(int)


@pytest.fixture
def visit(browser: Any, remote: Remote) -> Iterator[Visit]:
    visit = Visit(browser, remote)
    yield visit
    visit.context.close()
    assert visit.problems == []


def key_of(visit: Visit) -> dict[str, str]:
    (cookie,) = visit.context.cookies()
    return {"authorization": f"Bearer {cookie['value']}"}


def jobs(visit: Visit) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = visit.remote.get("/api/jobs", headers=key_of(visit)).json()["jobs"]
    return found


def test_from_pictures_to_a_download(visit: Visit) -> None:
    visit.pictures()
    visit.settings(size="64", scales="1", steps="6")
    visit.part("plan-line").filter(has_text="GB").or_(visit.part("plan-line").filter(has_text="MB")).wait_for()
    visit.part("start").click()
    visit.says("Finished")
    (job,) = jobs(visit)
    assert job["settings"].items() >= {"size": "64", "scales": "1", "steps": "6"}.items()
    for name in ("png", "tiff", "jpeg", "settings"):
        with visit.page.expect_download() as download:
            visit.part(f"download-{name}").click()
        data = Path(download.value.path()).read_bytes()
        if name == "settings":
            assert b"size = 64" in data
        else:
            params = {"format": name}
            assert (
                data == visit.remote.get(f"/api/jobs/{job['id']}/result", params=params, headers=key_of(visit)).content
            )
            assert download.value.suggested_filename.startswith("photo in the style of painting.")


def test_reload_pause_change_and_stop(visit: Visit) -> None:
    visit.start(steps="100000", size="96")
    visit.says("Running")
    visit.page.reload()
    visit.page.wait_for_selector("body[data-ready=yes]")
    visit.says("Running")  # found again
    visit.part("pause").click()
    visit.says("Paused")
    step = jobs(visit)[0]["step"]
    visit.page.wait_for_timeout(700)
    assert jobs(visit)[0]["step"] == step
    visit.part("resume").click()
    visit.says("Running")
    visit.part("live-style_weight").fill("4000")
    visit.page.keyboard.press("Tab")
    visit.part("apply").click()
    until(visit.page, "document.querySelector('.facts')?.innerText.includes('style weight from step')")
    visit.says("Running")
    visit.part("stop").click()
    visit.says("Stopped")
    (job,) = jobs(visit)
    assert job["state"] == "stopped"
    assert [change["settings"] for change in job["changes"]] == [{"style_weight": "4000"}]


def test_a_second_tab_and_another_visitor(browser: Any, remote: Remote, visit: Visit) -> None:
    visit.start(steps="100000")
    tab = visit.open()
    assert visit.part("run-item", tab).count() == len(jobs(visit))
    visit.part("run-item", tab).first.click()
    visit.says("Running", tab)
    visit.part("stop", tab).click()
    visit.says("Stopped")  # in the first tab
    other = Visit(browser, remote)
    assert visit.part("run-item", other.page).count() == 0
    assert "Runs appear here" in other.page.inner_text("body")
    other.context.close()
    assert other.problems == []
    # The link of the first visitor opens its gallery.
    visit.page.locator("#open-link").click()
    field = visit.page.get_by_label("Link", exact=True)
    until(visit.page, "document.querySelector('input.link').value.includes('key=')")
    friend = Visit(browser, remote)
    page = friend.open(field.input_value())
    assert visit.part("run-item", page).count() == len(jobs(visit))
    assert "key=" not in page.url
    friend.context.close()


def test_a_painted_mask(visit: Visit) -> None:
    visit.pictures()
    visit.part("mask-area-to-paint").click()
    canvas = visit.part("mask-canvas")
    canvas.wait_for()
    box = canvas.bounding_box()
    visit.part("mask-size").fill("40")
    mouse = visit.page.mouse
    mouse.move(box["x"] + 0.1 * box["width"], box["y"] + 0.5 * box["height"])
    mouse.down()
    mouse.move(box["x"] + 0.4 * box["width"], box["y"] + 0.5 * box["height"], steps=8)
    mouse.up()
    with visit.page.expect_response(lambda answer: answer.url.endswith("/api/pictures")) as answer:
        visit.part("mask-use").click()
    made = answer.value.json()
    assert (made["kind"], made["width"], made["height"]) == ("mask", 96, 64)
    preview = visit.remote.get(f"/api/pictures/{made['id']}/preview", headers=key_of(visit)).content
    mask = np.asarray(Image.open(io.BytesIO(preview)).convert("L")).astype(int)
    painted, outside = mask[28:36, 12:36].mean(), mask[:, 80:].mean()
    assert abs(painted - outside) > 200  # one is white, the other black, by what the dialog paints on
    visit.settings(size="64", scales="1", steps="4")
    visit.part("start").click()
    visit.says("Finished")
    assert jobs(visit)[0]["masks"] == [made["id"]]


def test_keyboard_alone(visit: Visit) -> None:
    press = visit.page.keyboard.press

    def walk_to(name: str) -> None:
        for _ in range(80):
            press("Tab")
            focused = visit.page.evaluate("document.activeElement.dataset.testid ?? ''")
            ring = visit.page.evaluate(
                "(() => { const s = getComputedStyle(document.activeElement); "
                "return s.outlineStyle !== 'none' || s.boxShadow !== 'none' })()"
            )
            assert ring, f"no visible focus at {focused}"
            if focused == name:
                return
        raise AssertionError(f"Tab does not reach {name}")

    walk_to("demo")
    press("Enter")
    visit.part("style-slots").get_by_text("demo_painting.jpg").wait_for()
    press("/")  # the search of settings
    assert visit.page.evaluate("document.activeElement.type") == "search"
    visit.settings(size="64", scales="1", steps="3")
    visit.page.evaluate("document.activeElement.blur()")
    press("Control+Enter")
    visit.says("Finished")
    press("c")  # before and after
    handle = visit.part("compare-handle")
    handle.focus()
    before = visit.shown()
    for _ in range(5):
        press("ArrowLeft")
    assert int(handle.get_attribute("aria-valuenow")) < 50
    assert np.abs(visit.shown() - before).mean() > 0.5
    press("?")
    assert visit.page.locator("#keys-dialog").is_visible()
    press("Escape")
    assert not visit.page.locator("#keys-dialog").is_visible()


def test_before_and_after_a_and_b_and_zoom(visit: Visit) -> None:
    visit.start(seed="1")
    visit.says("Finished")
    visit.page.get_by_role("button", name="Before and after").click()
    handle = visit.part("compare-handle").bounding_box()
    stage = visit.part("stage").bounding_box()
    mouse = visit.page.mouse
    mouse.move(handle["x"] + handle["width"] / 2, handle["y"] + handle["height"] / 2)
    mouse.down()
    mouse.move(stage["x"] + 0.75 * stage["width"], handle["y"] + handle["height"] / 2, steps=5)
    mouse.up()
    assert int(visit.part("compare-handle").get_attribute("aria-valuenow")) > 60
    visit.part("zoom-pixels").click()
    assert "100" in visit.part("zoom").inner_text()
    visit.part("stage").hover()
    for _ in range(6):
        mouse.wheel(0, -240)
    until(visit.page, "parseInt(document.querySelector('[data-testid=zoom]').innerText) > 200")
    rendering = visit.page.evaluate(
        "[...document.querySelectorAll('#stage img')].map(i => getComputedStyle(i).imageRendering)"
    )
    assert "pixelated" in rendering
    visit.part("zoom-fit").click()
    visit.part("again-run").click()
    until(visit.page, "document.querySelectorAll('[data-testid=run-item]').length === 2")
    visit.says("Finished")
    visit.page.get_by_role("button", name="A and B").click()
    assert visit.part("side-a").locator("option").count() == 1


def test_like_this_one_and_delete(visit: Visit) -> None:
    visit.start(seed="77", style_weight="123")
    visit.says("Finished")
    fresh = visit.open()
    visit.part("run-item", fresh).first.click()
    visit.part("like", fresh).click()
    until(fresh, "document.querySelector('[data-testid=\"setting-style_weight\"]').value === '123'")
    visit.part("style-slots", fresh).get_by_text("painting.png").wait_for()
    visit.part("delete", fresh).click()
    visit.part("confirm", fresh).click()
    until(fresh, "document.querySelectorAll('[data-testid=run-item]').length === 0")
    assert jobs(visit) == []


def test_wrong_settings_are_shown_where_they_are(visit: Visit) -> None:
    visit.pictures()
    visit.settings(style_layers="relu9_9")
    error = visit.page.locator(".field", has=visit.part("setting-style_layers")).locator("[role=alert], .error").first
    error.filter(has_text="relu9_9").wait_for()
    assert jobs(visit) == []
    # The browser reports the refusal of the plan in its console.
    visit.problems = [text for text in visit.problems if "422" not in text]


def test_names_of_files_are_text(visit: Visit) -> None:
    name = '"><img src=x onerror=alert(1)>.png'
    visit.upload("content", (name, picture(1)))
    visit.part("content-slot").get_by_text("onerror").wait_for()
    assert visit.page.locator("img[src=x]").count() == 0


def test_what_is_no_picture_is_said(visit: Visit) -> None:
    visit.upload("content", ("notes.txt", b"no picture"))
    visit.page.get_by_text("notes.txt: ").first.wait_for()
    visit.problems = [text for text in visit.problems if "422" not in text]


def faults(page: Any) -> list[Any]:
    """What axe-core finds by the rules of WCAG 2.1, A and AA."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs axe-playwright-python")
    rules = {"runOnly": {"type": "tag", "values": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]}}
    found = axe.Axe().run(page, options=rules).response
    assert len(found["passes"]) > 5
    return [(one["id"], [node["target"] for node in one["nodes"]][:3]) for one in found["violations"]]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 1280])
@pytest.mark.sweep(3)
def test_accessible_in_each_scheme_and_width(browser: Any, remote: Remote, scheme: str, width: int) -> None:
    """The empty page, one with pictures, and each view of a finished run."""
    options = {"viewport": {"width": width, "height": 740}, "color_scheme": scheme, "has_touch": width < 500}
    visit = Visit(browser, remote, **options, bypass_csp=True)  # axe is a script from elsewhere
    page = visit.page

    def check() -> None:
        assert faults(page) == []
        assert not page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth")

    check()
    visit.pictures()
    check()
    visit.settings(size="64", scales="1", steps="3")
    check()
    visit.part("start").click()
    visit.says("Finished")
    check()
    for tab in page.locator(".views button:visible").all():
        tab.click()
        check()
    corner = page.screenshot(clip={"x": 0, "y": 0, "width": 8, "height": 8})
    level = np.asarray(Image.open(io.BytesIO(corner)).convert("L")).mean()
    assert level < 100 if scheme == "dark" else level > 200
    visit.context.close()


def test_a_run_on_a_narrow_touch_screen(browser: Any, remote: Remote) -> None:
    visit = Visit(browser, remote, viewport={"width": 320, "height": 640}, has_touch=True, is_mobile=True)
    visit.pictures()
    visit.settings(size="64", scales="1", steps="3")
    visit.part("start").tap()
    visit.says("Finished")
    for node in visit.page.locator("button:visible").all():
        box = node.bounding_box()
        assert min(box["width"], box["height"]) >= 24, node.inner_text()  # WCAG 2.2, 2.5.8
    assert not visit.page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth")
    visit.context.close()
    assert visit.problems == []


def test_a_lost_connection_recovers(tmp_path: Path, browser: Any) -> None:
    with served(tmp_path) as remote:
        visit = Visit(browser, remote)
        visit.context.set_offline(True)
        visit.page.locator("#connection").filter(has_text=" ").wait_for()
        visit.context.set_offline(False)
        until(visit.page, "document.getElementById('connection').innerText === ''")
        visit.context.close()

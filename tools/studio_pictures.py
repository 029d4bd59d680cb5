"""Pictures of the studio for the documents: ``python -m tools.studio_pictures``.

Starts a studio in an empty folder, makes two runs of the demo's pictures in Chromium, and takes pictures of the page in
docs/images/. Needs playwright and Chromium.
"""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import Page, sync_playwright

IMAGES = Path(__file__).resolve().parents[1] / "docs" / "images"
QUIET = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking", "--disable-sync")
MINUTES = 10 * 60 * 1000


@contextmanager
def studio(folder: str) -> Iterator[str]:
    """The address of a studio, which ends with the block."""
    command = [sys.executable, "-m", "fastnst", "studio", "--folder", folder, "--port", "0", "--demo"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().split()[1]
        finally:
            process.terminate()


def run(page: Page, number: int, **settings: str) -> None:
    """Start a run, the ``number``-th, and wait for its result."""
    for name, text in settings.items():
        page.get_by_test_id("settings-search").fill(name)
        page.get_by_test_id(f"setting-{name}").fill(text)
        page.get_by_test_id("settings-search").fill("")
    page.get_by_test_id("start").click()
    page.locator("[data-testid=run-item][data-state=done]").nth(number - 1).wait_for(timeout=MINUTES)
    page.get_by_test_id("run-line").filter(has_text="Finished").wait_for()


def paint(page: Page) -> None:
    """Open the dialog for masks and paint two strokes."""
    page.get_by_test_id("mask-area-to-paint").click()
    box = page.get_by_test_id("mask-canvas").bounding_box()
    assert box is not None
    for height in (0.12, 0.25):
        page.mouse.move(box["x"] + 0.05 * box["width"], box["y"] + height * box["height"])
        page.mouse.down()
        page.mouse.move(box["x"] + 0.95 * box["width"], box["y"] + height * box["height"], steps=12)
        page.mouse.up()


def save(page: Page, name: str) -> None:
    image = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    image.save(IMAGES / f"{name}.jpg", quality=88, optimize=True)
    print(IMAGES / f"{name}.jpg")


def main() -> None:
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    with tempfile.TemporaryDirectory() as folder, studio(folder) as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=list(QUIET))
        options: dict[str, Any] = {"viewport": {"width": 1280, "height": 800}}
        page = browser.new_context(**options).new_page()
        page.goto(address)
        page.wait_for_selector("body[data-ready=yes]")
        page.locator("#settings-more").click()
        run(page, 1, style_weight="60")
        run(page, 2, style_weight="1000")
        page.locator("#settings-more").click()
        page.locator("#setup .panel-body").evaluate("node => node.scrollTo(0, 0)")
        save(page, "studio")
        page.get_by_role("button", name="Before and after").click()
        for _ in range(2):  # from the system's to light to dark
            page.locator("#theme-switch").click()
        save(page, "studio_dark")
        paint(page)
        save(page, "studio_mask")
        browser.close()


if __name__ == "__main__":
    main()

"""Check every internal link of the built documentation: python docs/check_links.py build/docs [--external]

A link must lead to a file that was built, and its fragment to an element there. External links are not fetched;
``--external`` lists them.
"""

from __future__ import annotations

import argparse
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit


class Page(HTMLParser):
    """The links and the ids of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.ids: set[str] = set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in ("href", "src") and value is not None:
                self.links.append(value)
            elif (name == "id" or (tag == "a" and name == "name")) and value:
                self.ids.add(value)


def broken(pages: dict[Path, Page], root: Path) -> list[str]:
    """What is wrong, a line for each link."""
    found = []
    for path, page in pages.items():
        for link in dict.fromkeys(page.links):
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            target = target / "index.html" if target.is_dir() else target
            here = f"{path.relative_to(root)}: {link}"
            if not target.exists():
                found.append(f"{here}: no such file")
            elif parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].ids:
                found.append(f"{here}: no such anchor")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description="Check the internal links of the built documentation.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--external", action="store_true", help="list the external links")
    options = parser.parse_args()
    root = options.folder.resolve()
    pages = {path: Page(path) for path in sorted(root.rglob("*.html"))}
    if not pages:
        print(f"{root}: no pages", file=sys.stderr)
        return 1
    problems = broken(pages, root)
    external = sorted({link for page in pages.values() for link in page.links if urlsplit(link).netloc})
    links = sum(len(page.links) for page in pages.values())
    print(f"{len(pages)} pages, {links} links, {len(external)} addresses elsewhere")
    for line in external if options.external else ():
        print(f"  not fetched: {line}")
    for line in problems:
        print(f"broken: {line}", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())

"""The files of the page, read without a browser: they fit the Content-Security-Policy, each other and WCAG 2.2."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

import fastnst

PAGE = Path(fastnst.__file__).parent / "studio" / "page"
SCRIPTS = sorted(PAGE.glob("*.js"))
STYLES = sorted(PAGE.glob("*.css"))
INDEX = (PAGE / "index.html").read_text(encoding="utf-8")
MOST_LINES = 300
SVG = "http://www.w3.org/2000/svg"  # a name, which is not fetched


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.inline = 0  # characters inside scripts and styles

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.found and self.found[-1][0] in ("script", "style"):
            self.inline += len(data.strip())


@pytest.fixture(scope="module")
def tags() -> Tags:
    parser = Tags()
    parser.feed(INDEX)
    return parser


def text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def test_nothing_comes_from_elsewhere(tags: Tags) -> None:
    for path in (*SCRIPTS, *STYLES, *PAGE.glob("*.svg"), PAGE / "index.html"):
        text = text_of(path).replace(SVG, "")
        assert not re.search(r"(https?:)?//[a-z0-9-]+\.[a-z]{2,}|@import|@font-face|url\(", text), path.name
    addresses = [found for _, attributes in tags.found for name in ("src", "href") if (found := attributes.get(name))]
    assert len(addresses) > 10
    assert {address for address in addresses if not address.startswith(("/static/", "#"))} == set()


def test_the_policy_forbids_nothing_that_the_page_has(tags: Tags) -> None:
    """``script-src 'self'; style-src 'self'``: no inline script, style or handler."""
    assert tags.inline == 0
    names = {name for _, attributes in tags.found for name in attributes}
    assert not [name for name in names if name == "style" or name.startswith("on")]


def test_text_never_becomes_markup_or_code() -> None:
    """File names and titles are hostile: no script makes elements or code of text."""
    sinks = r"innerHTML|outerHTML|insertAdjacentHTML|createContextualFragment|document\.write|\beval\(|new Function"
    for path in SCRIPTS:
        assert not re.search(sinks, text_of(path)), path.name
        assert 'setAttribute("style"' not in text_of(path), path.name


def test_files_that_the_page_names_exist(tags: Tags) -> None:
    named = {address for _, attributes in tags.found for address in (attributes.get("src"), attributes.get("href"))}
    named = {Path(address).name for address in named if address and address.startswith("/static/")}
    assert named >= {"main.js", "base.css"}
    assert named - {path.name for path in PAGE.iterdir()} == set()
    assert {path.name for path in STYLES} - named == set()


def test_imports_find_what_they_name() -> None:
    exports = {
        path.name: set(re.findall(r"^export (?:async )?(?:function|const|let|class) (\w+)", text_of(path), re.M))
        for path in SCRIPTS
    }
    imported: set[str] = {"main.js", "theme.js"}
    for path in SCRIPTS:
        for names, target in re.findall(r'^import (.+?) from "\./([\w.]+)";', text_of(path), re.M):
            imported.add(target)
            assert target in exports, f"{path.name} imports {target}"
            if names.startswith("{"):
                wanted = {name.strip() for name in names.strip("{} ").split(",")}
                assert wanted - exports[target] == set(), f"{path.name} from {target}"
    assert set(exports) - imported == set(), "modules that nothing imports"


def test_elements_and_icons_that_scripts_name_exist(tags: Tags) -> None:
    made = "\n".join(map(text_of, SCRIPTS))
    ids = {str(attributes["id"]) for _, attributes in tags.found if "id" in attributes}
    wanted = set(re.findall(r'getElementById\("([\w-]+)"\)', made))
    assert len(wanted) > 10
    assert wanted - ids - set(re.findall(r'\bid: "([\w-]+)"', made)) == set()
    icons = set(re.findall(r'\bicon: "([\w-]+)"|\bicon\("([\w-]+)"\)', made))
    assert {f"i-{name or other}" for name, other in icons} - ids == set()
    assert {str(attributes["href"])[1:] for tag, attributes in tags.found if tag == "use"} - ids == set()


def test_modules_are_short() -> None:
    lengths = {path.name: len(text_of(path).splitlines()) for path in (*SCRIPTS, *STYLES, PAGE / "index.html")}
    assert {name: count for name, count in lengths.items() if count > MOST_LINES} == {}


def palettes() -> list[dict[str, str]]:
    """The colors of the light page, of the dark system and of the dark switch."""
    blocks = re.findall(r":root[^{]*\{([^{}]*--page[^{}]*)\}", text_of(PAGE / "base.css"))
    return [dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", block)) for block in blocks]


def test_dark_is_the_same_by_system_and_by_switch() -> None:
    light, system, switch = palettes()
    assert system == switch
    assert set(system) == set(light)


def luminance(color: str) -> float:
    """Relative luminance as WCAG 2.2 defines it."""
    channels = [int(color[index : index + 2], 16) / 255 for index in (1, 3, 5)]
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("palette", palettes()[:2], ids=["light", "dark"])
def test_contrast_is_aa(palette: dict[str, str]) -> None:
    """4.5 for text (WCAG 1.4.3), 3 for edges of controls and lines of the curve (1.4.11)."""
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    texts = [(name, ground) for name in ("text", "muted", "accent", "error") for ground in ("panel", "raised")]
    texts += [("text", "soft"), ("text", "page"), ("on-accent", "accent"), ("stage-text", "stage")]
    edges = [(name, ground) for name in ("edge", "accent") for ground in ("panel", "raised")]
    edges += [(f"line-{name}", "panel") for name in ("total", "style", "content", "tv")]
    low = {pair: found for pair in texts if (found := contrast(palette[pair[0]], palette[pair[1]])) < 4.5}
    low |= {pair: found for pair in edges if (found := contrast(palette[pair[0]], palette[pair[1]])) < 3}
    assert low == {}


def test_gray_around_pictures_is_neutral() -> None:
    """No cast around a picture whose colors are judged."""
    for palette in palettes():
        for name in ("page", "panel", "raised", "stage", "check-a", "check-b"):
            assert len({palette[name][index : index + 2] for index in (1, 3, 5)}) == 1, name

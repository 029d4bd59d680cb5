"""The code blocks and inline commands of the documents.

A block that cannot run has ``<!-- not run: REASON -->`` on the line above it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md")])

_BLOCK = re.compile(
    r"(?:^ *<!-- not run: (?P<reason>[^\n]+?) -->\n)?"
    r"^(?P<indent> *)```(?P<kind>[^\n`]*)\n(?P<text>.*?)^(?P=indent)```$",
    re.MULTILINE | re.DOTALL,
)
_ROLE = re.compile(r"\{[\w:]+\}`[^`]+`")  # {py:obj}`~fastnst.stylize`: Sphinx checks these
_INLINE = re.compile(r"`([^`]+)`(?!\s+at\s+revision)")  # of an earlier revision: not there any more


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, text, first line, and the reason why it is not run, if it is not."""

    kind: str
    text: str
    line: int
    reason: str | None

    @property
    def directive(self) -> bool:
        """Whether Sphinx reads it, as ``{toctree}`` and ``{eval-rst}``."""
        return self.kind.startswith("{")

    def commands(self) -> list[str]:
        """The commands of a shell block, without comments; a backslash joins lines."""
        lines = [re.sub(r"(^|\s)#.*", "", line).strip() for line in self.text.replace("\\\n", " ").splitlines()]
        return [line for line in lines if line]


def blocks(page: Path) -> list[Block]:
    text = page.read_text()
    return [
        Block(found["kind"].strip(), found["text"], text.count("\n", 0, found.start("kind")) + 1, found["reason"])
        for found in _BLOCK.finditer(text)
    ]


def inline(page: Path) -> list[str]:
    """The text between single backquotes, lines joined; blocks and roles are left out."""
    text = _ROLE.sub("", _BLOCK.sub("", page.read_text()))
    return [" ".join(found.split()) for found in _INLINE.findall(text)]

"""The directive ``module-table``: the rooms of the package with their modules, from the docstrings of the sources."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

from cli_reference import escaped
from docutils import nodes
from docutils.parsers.rst import Directive
from docutils.statemachine import StringList
from sphinx.application import Sphinx

PACKAGE = Path(__file__).resolve().parents[2] / "fastnst"


def first_line(path: Path) -> str:
    """The first paragraph of a module's docstring, its roles as plain literals."""
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    paragraph = " ".join(text.partition("\n\n")[0].split())
    return escaped(_plain(paragraph))


def _plain(text: str) -> str:
    return re.sub(r":\w+:`~?([^`]+)`", r"`\1`", text).replace("``", "`")


class ModuleTable(Directive):
    """``.. module-table:: ops losses``: the modules of these packages; with no argument those outside packages."""

    optional_arguments = 1
    final_argument_whitespace = True

    def run(self) -> list[nodes.Node]:
        folders = [PACKAGE / name for name in (self.arguments or [""])[0].split()]
        found = [path for folder in folders for path in sorted(folder.rglob("*.py"))] or sorted(PACKAGE.glob("*.py"))
        lines = [".. list-table::", "   :widths: 32 68", ""]
        for path in found:
            if path.name not in ("__init__.py", "__main__.py"):
                name = path.relative_to(PACKAGE.parent).as_posix()
                lines += [f"   * - ``{name}``", f"     - {first_line(path) or '..'}"]
        parent = nodes.Element()
        self.state.nested_parse(StringList(lines, source="<module-table>"), self.content_offset, parent)
        return parent.children


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("module-table", ModuleTable)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

"""The directive ``public-api``: every name in a module's ``__all__``, as a table of summaries and then in full.

The names are read from the package when the documentation is built, so that a page cannot miss one. A name that
several modules export is described once, on the page of the first module of ``PAGES`` that exports it.

References in docstrings point to where a name is defined. ``resolve`` redirects them to where it is described; one to
an internal name becomes plain code, and one to a name that does not exist stays a warning.
"""

from __future__ import annotations

import builtins
import importlib
import inspect
import re
import sys
from types import ModuleType
from typing import Any

from docutils import nodes
from docutils.parsers.rst import Directive
from docutils.statemachine import StringList
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.pycode import ModuleAnalyzer

PAGES = {
    "fastnst": "reference/fastnst",
    "fastnst.ops": "reference/ops",
    "fastnst.losses": "reference/losses",
    "fastnst.losses.style": "reference/style_losses",
    "fastnst.losses.joint": "reference/joint_losses",
    "fastnst.network": "reference/network",
    "fastnst.objective": "reference/objective",
    "fastnst.optim": "reference/optim",
    "fastnst.weights": "reference/weights",
    "fastnst.images": "reference/images",
    "fastnst.gallery": "reference/gallery",
    "fastnst.config": "reference/config",
}


def exported(module: str) -> dict[str, Any]:
    """The public names of a module and their objects."""
    loaded = importlib.import_module(module)
    return {name: getattr(loaded, name) for name in getattr(loaded, "__all__", ())}


def described() -> dict[int, str]:
    """The name under which each public class and function is described, by the object's id."""
    found: dict[int, str] = {}
    for module in PAGES:
        for name, value in exported(module).items():
            if inspect.isclass(value) or inspect.isfunction(value):
                found.setdefault(id(value), f"{module}.{name}")
    return found


def order(value: object) -> int:
    """Functions come first, then classes, errors, modules and constants."""
    if inspect.isclass(value):
        return 2 if issubclass(value, BaseException) else 1
    return 0 if inspect.isfunction(value) else 3 if isinstance(value, ModuleType) else 4


def summary(text: str | None) -> str:
    """The first sentence of a docstring."""
    paragraph = " ".join((text or "").strip().partition("\n\n")[0].split())
    return re.split(r"(?<!eq)(?<!e\.g)\. ", paragraph)[0].rstrip(".:")


def comment_of(name: str, value: object) -> str:
    """What the source says of a constant: the string below it or the ``#:`` comment above it."""
    for module in [loaded for key, loaded in sorted(sys.modules.items()) if key.startswith("fastnst")]:
        if getattr(module, name, None) is value and getattr(module, "__file__", None):
            documents = ModuleAnalyzer.for_module(module.__name__).find_attr_docs()
            if ("", name) in documents:
                return " ".join(" ".join(documents["", name]).split())
    return ""


class PublicApi(Directive):
    """``.. public-api:: fastnst.ops``, inside ``eval-rst``."""

    required_arguments = 1
    has_content = False

    def run(self) -> list[nodes.Node]:
        module = self.arguments[0]
        where = described()
        rows, full = [], []
        for name, value in sorted(exported(module).items(), key=lambda item: order(item[1])):
            path = where.get(id(value), f"{module}.{name}")
            if isinstance(value, ModuleType):
                page = PAGES.get(value.__name__)
                link = f":doc:`{value.__name__} </{page}>`" if page else f"``{value.__name__}``"
                rows += _row(link, summary(value.__doc__))
                continue
            if inspect.isclass(value) or inspect.isfunction(value):
                rows += _row(f":py:obj:`~{path}`", summary(inspect.getdoc(value)))
                full += _in_full(path, value) if path == f"{module}.{name}" else []
            else:
                said = comment_of(name, value)
                rows += _row(f":py:data:`~{path}`", summary(said))
                full += [f".. py:data:: {path}", "", f"   {said or f'A constant: ``{value!r}``'}", ""]
        if not rows:
            return []
        lines = [".. list-table::", "   :widths: 34 66", "", *rows, "", *full]
        parent = nodes.Element()
        self.state.nested_parse(StringList(lines, source=f"<public-api {module}>"), self.content_offset, parent)
        return parent.children


def _row(name: str, text: str) -> list[str]:
    return [f"   * - {name}", f"     - {text or '..'}"]


def _in_full(path: str, value: object) -> list[str]:
    if inspect.isfunction(value):
        return [f".. autofunction:: {path}", ""]
    assert isinstance(value, type)
    kind = "autoexception" if issubclass(value, BaseException) else "autoclass"
    bases = ["   :show-inheritance:"] if value.__bases__ != (object,) else []
    return [f".. {kind}:: {path}", "   :members:", *bases, ""]


def resolve(app: Sphinx, env: BuildEnvironment, node: addnodes.pending_xref, content: nodes.Node) -> nodes.Node | None:
    """Find what Sphinx did not: see the module's docstring."""
    if node.get("refdomain") != "py":
        return None
    found = _find(node["reftarget"], node.get("py:module"), node.get("py:class"))
    if found is None:
        return content if _is_prose(node) else None
    path = described().get(id(found[0]))
    if path is not None:
        domain = env.get_domain("py")
        target = domain.resolve_xref(env, node["refdoc"], app.builder, "obj", path, node, content)
        if target is not None:
            return target
    return content


def _find(target: str, module: str | None, klass: str | None) -> tuple[object] | None:
    """The object that a reference names, in a tuple; None where there is none."""
    prefixes = [f"{module}.{klass}.", f"{module}."] if klass else [f"{module}."]
    for name in (target, *(prefix + target for prefix in prefixes)):
        parts = name.split(".")
        for end in range(len(parts), 0, -1):
            try:
                value: Any = importlib.import_module(".".join(parts[:end]))
                for part in parts[end:]:
                    value = _attribute(value, part)
                return (value,)
            except (ImportError, AttributeError, ValueError):
                continue
    # A bare name in a signature: of the built-in ones, or imported where a public name is defined.
    for known in (builtins, *(value for key, value in sorted(sys.modules.items()) if key.startswith("fastnst"))):
        if target.isidentifier() and hasattr(known, target):
            return (getattr(known, target),)
    return None


def _is_prose(node: addnodes.pending_xref) -> bool:
    """Whether what stands before the colon of a ``Raises:`` or ``Args:`` entry is words and not the name of a type."""
    target = node["reftarget"]
    named = "." in target.rstrip(".") or re.fullmatch(r"[A-Z]\w*", target)
    return node["reftype"] in ("class", "exc") and not named


def _attribute(value: Any, name: str) -> Any:
    """An attribute, or a field of a dataclass that has no default."""
    if name in getattr(value, "__dataclass_fields__", ()):
        return value.__dataclass_fields__[name]
    return getattr(value, name)


def shorten(app: Sphinx, what: str, name: str, value: object, options: object, signature: str, returns: str) -> Any:
    """The settings fill a table of their own; a default made by a factory is no Python that Sphinx can read."""
    if what == "class" and name.endswith(".Settings"):
        return "(**settings)", returns
    if signature and "<factory>" in signature:
        return signature.replace("<factory>", "..."), returns
    return None


def keep_sentence(app: Sphinx, what: str, name: str, value: object, options: object, lines: list[str]) -> None:
    """napoleon takes what stands before a colon in the first line of an attribute's docstring for its type."""
    if what in ("attribute", "data", "property"):
        lines.insert(0, "")


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("public-api", PublicApi)
    app.connect("missing-reference", resolve)
    app.connect("autodoc-process-signature", shorten)
    app.connect("autodoc-process-docstring", keep_sentence, priority=400)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
